"""Evaluation in the course of training: scores on the validation split, pictures for TensorBoard."""

import dataclasses
import pathlib
from typing import Any

from ssu_jax.config import Config
from ssu_jax.models.decoding import Describe
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.training.interruption import Interruption
from ssu_jax.training.logging import MetricsLog
from ssu_jax.types import TrainState

SCORE_TERMS = ("miou", "meteor")  # their sum ranks checkpoints; a model without one part has only the other


class _Interrupted(Exception):
    """A stop was requested: the evaluation is given up, and done again when the run goes on."""


@dataclasses.dataclass
class Evaluator:
    """Scores the averaged weights."""

    config: Config
    tokenizer: Tokenizer
    describe: Describe
    log: MetricsLog
    interruption: Interruption
    has_warned: bool = False

    def is_due(self, step: int) -> bool:
        """Every `eval.every_steps` steps, and after the last one."""
        every = self.config.eval.every_steps
        return every > 0 and (step % every == 0 or step == self.config.train.num_steps)

    def evaluate(self, state: TrainState, step: int) -> float | None:
        """mIoU + METEOR of the averaged weights, logged; None without a validation split or when stopped."""
        data = self.config.data
        if not (pathlib.Path(data.dir) / f"{data.val_split}.manifest.json").exists():
            if not self.has_warned:
                self.log.line(f"not evaluated: {data.dir} holds no split {data.val_split!r}; the newest step counts")
            self.has_warned = True
            return None
        from ssu_jax import evaluation

        try:
            scores = evaluation.evaluate(
                self._describe,
                state.ema_params,
                self.config,
                self.tokenizer,
                directory=data.dir,
                split=data.val_split,
                batch_size=self.config.eval.batch_size,
                num_clips=self.config.eval.num_clips,
            )
        except _Interrupted:
            return None
        score = sum(scores[name] for name in SCORE_TERMS if scores.get(name) is not None)
        self.log.evaluation(step, scores, score)
        return score

    def _describe(self, *arguments: Any) -> tuple:
        if self.interruption.requested:
            raise _Interrupted
        return self.describe(*arguments)
