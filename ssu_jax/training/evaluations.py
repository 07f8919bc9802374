"""Evaluation in the course of training: scores on the validation split, pictures for TensorBoard."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ssu_jax import evaluation, localization, sharding
from ssu_jax.config import Config
from ssu_jax.data import mixtures, pipeline
from ssu_jax.models import decoding
from ssu_jax.models.pretraining import objective
from ssu_jax.models.tvsl import locating, trio_training
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


def make(model: Any, mesh: Any, config: Config, tokenizer: Tokenizer | None, host: tuple) -> "Evaluator":
    """The evaluator of the model's family.  host: log, interruption, watchdog of the run."""
    kind, make_answer = {
        "pretraining": (PretrainingEvaluator, objective.make_measure),
        "trio": (TrioEvaluator, trio_training.make_measure),
        "tvsl": (LocalizationEvaluator, locating.make_locate),
    }.get(config.family, (Evaluator, decoding.make_describe))
    return kind(config, tokenizer, sharding.spread(make_answer(model), mesh), *host)


class _Interrupted(Exception):
    """A stop was requested: the evaluation is given up, and done again when the run goes on."""


@dataclasses.dataclass
class Evaluator:
    """Scores and draws what the averaged weights say of the validation split."""

    config: Config
    tokenizer: Tokenizer | None
    answer: Callable  # of the model, compiled, over all devices
    log: MetricsLog | Silent
    interruption: Interruption
    watchdog: Watchdog

    def is_due(self, step: int) -> bool:
        """Every `eval.every_steps` steps, and after the last one."""
        every = self.config.eval.every_steps
        return every > 0 and (step % every == 0 or step == self.config.train.num_steps) and self._has_split

    def evaluate(self, state: TrainState, step: int) -> float | None:
        """The score that ranks the step, logged with all others; None if a stop was requested meanwhile."""
        self.watchdog.alive(may_take_long=True)
        try:
            scores, score = self._scores(averaged(state))
        except _Interrupted:
            return None
        self.log.evaluation(step, scores, score)
        return score

    def _scores(self, params: Any) -> tuple[evaluation.Metrics, float]:
        """All scores, and mIoU + METEOR."""
        data = self.config.data
        scores = evaluation.evaluate(
            self.answer,
            params,
            self.config,
            self.tokenizer,
            directory=data.dir,
            split=data.val_split,
            batch_size=self.config.eval.batch_size,
            num_clips=self.config.eval.num_clips,
            details=False,
            progress=self._give_way,
        )
        return scores, sum(scores[name] for name in SCORE_TERMS if scores[name] is not None)

    def draws_at(self, step: int) -> bool:
        """Every `train.picture_every_steps` steps."""
        every = self.config.train.picture_every_steps
        return every > 0 and step % every == 0 and self._has_split

    def draw(self, state: TrainState, step: int) -> None:
        """A contact sheet a clip: truth above, prediction below, with their sentences."""
        batch = self._pictured
        probabilities, ids = map(
            np.asarray, self.answer(averaged(state), batch.frames, batch.log_mel, batch.frame_valid)
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
        has_split = pipeline.has_split(data.dir, data.val_split)
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


class _ScoresAlone(Evaluator):
    """Of a model that describes nothing."""

    def draws_at(self, step: int) -> bool:
        """Never."""
        return False


class PretrainingEvaluator(_ScoresAlone):
    """The terms of pre-training on the validation split, and how often the right picture and sound find each other.

    How hard that is depends on the clips of a batch (`eval.batch_size`) and their seconds.
    """

    def _scores(self, params: Any) -> tuple[evaluation.Metrics, float]:
        """`pairs`, `pictures`, `sounds`, `recall` and their weighted `loss`; the smallest loss is the best."""
        size, num_clips, split = self.config.eval.batch_size, self.config.eval.num_clips, self.config.data.val_split
        sums: collections.defaultdict[str, Any] = collections.defaultdict(float)
        done = 0
        for batch in pipeline.eval_batches(self.config, None, split, size, num_clips):
            answer = self.answer(params, batch.frames, batch.log_mel, batch.frame_valid)
            for name, parts in answer.items():
                sums[name] += np.asarray(parts, np.float64).sum(axis=0)
            done += int((batch.record >= 0).sum())
            self._give_way(done, num_clips or done + 1)
        scores = {name: float(total / max(weight, 1.0)) for name, (total, weight) in sums.items()}
        loss = sum(getattr(self.config.pretraining, name) * scores[name] for name in objective.TERMS)
        return {"loss": loss, **scores, "num_clips": done, "split": split}, -loss


class TrioEvaluator(_ScoresAlone):
    """How well the small trio's similarities tell which words are seen and heard on the validation split."""

    def _scores(self, params: Any) -> tuple[evaluation.Metrics, float]:
        """The three terms, means over batches that count by their clips, and their sum; the smallest `loss` is best."""
        size, num_clips, split = self.config.eval.batch_size, self.config.eval.num_clips, self.config.data.val_split
        found, clips = [], []
        for batch in pipeline.eval_batches(self.config, None, split, size, num_clips):
            found.append(self.answer(params, batch))
            clips.append(int((batch.record >= 0).sum()))
            self._give_way(sum(clips), num_clips or sum(clips) + 1)
        scores = {
            name: float(np.average([each[name] for each in found], weights=clips)) for name in trio_training.TERMS
        }
        loss = sum(scores.values())
        return {"loss": loss, **scores, "num_clips": sum(clips), "split": split}, -loss


class LocalizationEvaluator(_ScoresAlone):
    """T-VSL on fixed mixtures of the validation split; AUC ranks the steps, which tells near ones apart."""

    def _scores(self, params: Any) -> tuple[evaluation.Metrics, float]:
        size, count, split = self.config.eval.batch_size, self.config.eval.num_clips, self.config.data.val_split
        batches = mixtures.eval_mixtures(self.config, split, size, count)
        scores = localization.evaluate(
            self.answer, params, self.config, batches, lambda done: self._give_way(done, done + 1)
        )
        return scores | {"split": split}, scores["auc"] or 0.0
