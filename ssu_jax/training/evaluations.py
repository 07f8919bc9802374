"""Evaluation in the course of training: scores on the validation split, pictures for TensorBoard."""

import dataclasses
import functools
import pathlib

import numpy as np

from ssu_jax import evaluation
from ssu_jax.config import Config
from ssu_jax.data import pipeline
from ssu_jax.models.decoding import Describe
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.training.interruption import Interruption
from ssu_jax.training.logging import MetricsLog
from ssu_jax.training.processes import Silent
from ssu_jax.training.state import averaged
from ssu_jax.training.watchdog import Watchdog
from ssu_jax.types import Batch, TrainState
from ssu_jax.visualization import pictures

SCORE_TERMS = ("miou", "meteor")  # their sum ranks checkpoints; a model without one part has only the other
NUM_PICTURES = 4  # clips that are drawn, the same ones every time


class _Interrupted(Exception):
    """A stop was requested: the evaluation is given up, and done again when the run goes on."""


@dataclasses.dataclass
class Evaluator:
    """Scores and draws what the averaged weights say of the validation split."""

    config: Config
    tokenizer: Tokenizer
    describe: Describe
    log: MetricsLog | Silent
    interruption: Interruption
    watchdog: Watchdog

    def is_due(self, step: int) -> bool:
        """Every `eval.every_steps` steps, and after the last one."""
        every = self.config.eval.every_steps
        return every > 0 and (step % every == 0 or step == self.config.train.num_steps) and self._has_split

    def evaluate(self, state: TrainState, step: int) -> float | None:
        """mIoU + METEOR, logged; None if a stop was requested meanwhile."""
        data = self.config.data
        self.watchdog.alive(may_take_long=True)
        try:
            scores = evaluation.evaluate(
                self.describe,
                averaged(state),
                self.config,
                self.tokenizer,
                directory=data.dir,
                split=data.val_split,
                batch_size=self.config.eval.batch_size,
                num_clips=self.config.eval.num_clips,
                details=False,
                progress=self._give_way,
            )
        except _Interrupted:
            return None
        score = sum(scores[name] for name in SCORE_TERMS if scores[name] is not None)
        self.log.evaluation(step, scores, score)
        return score

    def draws_at(self, step: int) -> bool:
        """Every `train.picture_every_steps` steps."""
        every = self.config.train.picture_every_steps
        return every > 0 and step % every == 0 and self._has_split

    def draw(self, state: TrainState, step: int) -> None:
        """A contact sheet a clip: truth above, prediction below, with their sentences."""
        batch = self._pictured
        probabilities, ids = map(
            np.asarray, self.describe(averaged(state), batch.frames, batch.log_mel, batch.frame_valid)
        )
        for row in np.flatnonzero(batch.record >= 0)[:NUM_PICTURES]:
            true, said = (
                [self.tokenizer.decode(line) for line in lines.tolist()] for lines in (batch.text_ids[row], ids[row])
            )
            sheet = pictures.picture(batch.frames[row], batch.masks[row], probabilities[row] > 0.5, true, said)
            self.log.board.picture(step, f"validation/{batch.record[row]}", sheet)
            sentences = [
                f"{second} | {a or '-'} | {b or '-'}" for second, (a, b) in enumerate(zip(true, said, strict=True))
            ]
            table = "\n".join(["second | true | said", "--- | --- | ---", *sentences])
            self.log.board.text(step, f"validation/{batch.record[row]}", table)
        self.log.board.flush()

    def _give_way(self, done: int, total: int) -> None:
        self.watchdog.alive(may_take_long=True)
        if self.interruption.stops() and done < total:
            raise _Interrupted

    @functools.cached_property
    def _has_split(self) -> bool:
        data = self.config.data
        has_split = (pathlib.Path(data.dir) / f"{data.val_split}.manifest.json").exists()
        if not has_split:
            self.log.line(
                f"not evaluated: {data.dir} holds no split {data.val_split!r}; the newest step counts as best"
            )
        return has_split

    @functools.cached_property
    def _pictured(self) -> Batch:
        # The evaluation's batch size, so that nothing is compiled twice.
        size, split = self.config.eval.batch_size, self.config.data.val_split
        return next(pipeline.eval_batches(self.config, self.tokenizer, split, size, NUM_PICTURES))
