"""Runs a model over a split and scores it: the paper's table, as a flat dictionary.

    describe(params, frames, log_mel, frame_valid) -> (mask probabilities [b, t, y, x], word ids [b, t, l])

Masks are compared at the size of the records' masks, sentences with the records' sentences: the references are
read from the records, not from the batches that the model sees.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ssu_jax.config import Config
from ssu_jax.data import pipeline, records, transforms
from ssu_jax.metrics import accumulate, baselines, published, segmentation
from ssu_jax.models import postprocess
from ssu_jax.types import MASK_THRESHOLD, Clip, UserError

PROTOCOLS = ("ssu", "avsbench")
Metrics = dict[str, float | int | str | None]


def evaluate(
    describe: Callable,
    params: Any,
    config: Config,
    tokenizer: Any,
    *,
    directory: str,
    split: str,
    batch_size: int,
    num_clips: int = 0,
    protocol: str = "ssu",
    details: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Metrics:
    """Scores of the first `num_clips` records (0: all) of a split; None where there is no ground truth.

    Of a clip longer than the model's, the first `data.num_frames` frames are scored.

    Flat: the names of accumulate.SCORES, num_clips, and facts of the run. `details` adds intervals (NAME_low,
    NAME_high), rows (class/CLASS/NAME, sources/NUMBER/NAME) and baselines (baseline/BASELINE/NAME); training does
    without. protocol "ssu" does not depend on `batch_size`; "avsbench" replaces miou and f_score by the published
    M_J and M_F, which do. For a model of masks only the text scores are None and silence is judged by the mask
    alone; likewise for words only. `seed` draws the bootstrap samples of the intervals.
    `tokenizer` needs `decode(ids) -> str`. `progress(clips done, clips in all)` is called after every batch.

    Raises UserError: no such split, classes that the config does not name, damaged records.
    """
    if protocol not in PROTOCOLS:
        raise UserError(f"unknown protocol {protocol!r}: wanted one of {', '.join(PROTOCOLS)}")
    source = pipeline.open_source(directory, split, config.data)
    total = min(num_clips or len(source), len(source))
    batches = pipeline.eval_batches(config, None, split, batch_size, num_clips, directory)
    read = _Reader(config, tokenizer, with_curves=protocol == "avsbench", with_grid=details)
    table, datasets = accumulate.FrameTable(), set()
    for batch, probabilities, ids in _described(describe, params, batches):
        for row, record in enumerate(np.asarray(batch.record)):
            if record >= 0:
                clip = records.decode_labels(source[int(record)], with_masks=True)
                table.add(int(record), read.columns(clip, probabilities[row], ids[row]))
                datasets.add(clip.dataset)
        if progress:
            progress(len(table), total)
    facts = {"split": split, "records_digest": source.digest, "protocol": protocol, "batch_size": batch_size,
             "dataset": published.dataset_name(datasets, source.manifest["classes"])}  # fmt: skip
    columns = table.columns()
    metrics = _overall(columns, facts)
    if details:
        metrics |= _details(columns, config.data.classes, facts, seed)
    return metrics


class _Reader:
    """What a clip's labels and a model's answer leave in the table."""

    def __init__(self, config: Config, tokenizer: Any, with_curves: bool, with_grid: bool):
        self._has_masks, self._has_words = not config.model.text_only, not config.model.seg_only
        self._classes = {name: label for label, name in enumerate(config.data.classes)}
        self._size = config.data.image_size
        self._decode = tokenizer.decode
        self._sentences: dict[bytes, str] = {}
        self._with_curves, self._with_grid = with_curves, with_grid

    def columns(self, clip: Clip, probabilities: np.ndarray, ids: np.ndarray) -> dict[str, np.ndarray]:
        t = min(len(clip.valid), len(ids))
        valid = np.flatnonzero(clip.valid[:t])
        references = clip.sounding_masks[valid]
        columns = {**self._labels(clip, valid, references), "frame": valid}
        if self._has_masks:
            columns |= self._masks(probabilities[valid], references)
        if self._with_grid:
            visible = [item.masks[valid] for item in clip.objects if item.on_screen and item.masks is not None]
            anything = np.any(visible, axis=0) if visible else np.zeros_like(references)
            columns["grid_mask"], columns["grid_visible"] = self._grid(references), self._grid(anything)
        if self._has_words:
            columns["hypothesis"] = np.array([self._sentence(row) for row in ids[valid]] + [None], object)[:-1]
        return columns

    def _labels(self, clip: Clip, valid: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
        sources, audible, visible = np.zeros((3, len(valid), len(self._classes)), bool)
        num_sources = np.zeros(len(valid), np.int64)
        is_known = clip.masks_known[valid]
        for item in clip.objects:
            label, sounding = self._classes[item.name], item.sounding[valid]
            audible[:, label] |= sounding
            if not item.on_screen:
                continue
            sources[:, label] |= sounding
            num_sources += sounding
            if item.masks is None:
                is_known = is_known & ~sounding
            else:
                visible[:, label] |= item.masks[valid].any((1, 2))
        return {
            "sources": sources,
            "audible": audible,
            "visible": visible,
            "num_sources": num_sources,
            "mask_known": is_known,
            "source_known": clip.sources_known[valid],
            "has_mask": is_known & references.any((1, 2)),
            "reference": np.array([*(clip.captions[i] for i in valid), None], object)[:-1],
        }

    def _masks(self, probabilities: np.ndarray, references: np.ndarray) -> dict[str, np.ndarray]:
        if probabilities.shape != references.shape:
            probabilities = postprocess.resize_probabilities(probabilities, *references.shape[1:])
        predicted = probabilities > MASK_THRESHOLD
        names = ("intersection", "predicted_area", "reference_area")
        columns = dict(zip(names, segmentation.overlap(predicted, references), strict=True))
        if self._with_curves:
            curves = [segmentation.avsbench_f_curve(*pair) for pair in zip(probabilities, references, strict=True)]
            columns["avsbench_iou"] = segmentation.avsbench_iou(predicted, references)
            columns["avsbench_f_curve"] = np.reshape(curves, (len(curves), len(segmentation.AVSBENCH_THRESHOLDS)))
        return columns

    def _grid(self, masks: np.ndarray) -> np.ndarray:
        """At the model's size: baselines need one size for all clips."""
        if masks.shape[1:] != (self._size, self._size):
            masks = transforms.resize_masks(masks, self._size, self._size)
        return baselines.pack(masks)

    def _sentence(self, ids: np.ndarray) -> str:
        key = ids.tobytes()
        if key not in self._sentences:
            self._sentences[key] = self._decode(ids.tolist())
        return self._sentences[key]


def _described(describe: Callable, params: Any, batches: Iterator) -> Iterator[tuple]:
    """Batches with the model's answers as NumPy arrays; a batch is scored while the device works on the next."""
    waiting = None
    for batch in batches:
        answer = describe(params, batch.frames, batch.log_mel, batch.frame_valid)
        if waiting:
            yield waiting[0], *map(np.asarray, waiting[1])
        waiting = batch, answer
    if waiting:
        yield waiting[0], *map(np.asarray, waiting[1])


def _overall(columns: dict[str, np.ndarray], facts: dict) -> Metrics:
    audible, num_sources = columns["audible"].any(1), columns["num_sources"]
    return {
        **_scores(columns, facts),
        "num_clips": len(np.unique(columns["record"])),
        "num_frames": len(audible),
        "num_sounding_frames": int((num_sources > 0).sum()),
        "num_silent_frames": int((~audible).sum()),
        "num_offscreen_frames": int((audible & (num_sources == 0)).sum()),
        **facts,
    }


def _details(columns: dict[str, np.ndarray], classes: tuple[str, ...], facts: dict, seed: int) -> Metrics:
    """Intervals, rows, baselines."""
    rows = _statistics(columns, facts["protocol"])
    bootstrap = accumulate.Bootstrap(columns["record"], seed)
    metrics = _intervals("", bootstrap.intervals(rows))
    for name, selected in accumulate.groups(columns, classes).items():
        chosen = rows * selected[:, None]
        metrics[f"{name}/num_frames"] = int(selected.sum())
        metrics |= {f"{name}/{score}": value for score, value in _finished(chosen).items()}
        metrics |= _intervals(f"{name}/", bootstrap.intervals(chosen))
    known = {name: values for name, values in columns.items() if name not in _ANSWERS}
    for name, answers in baselines.predictions(columns, with_curves=facts["protocol"] == "avsbench").items():
        scores = _scores({**known, **answers}, facts) if answers else dict.fromkeys(accumulate.SCORES)
        metrics |= {f"baseline/{name}/{score}": value for score, value in scores.items()}
    return metrics


def _scores(columns: dict[str, np.ndarray], facts: dict) -> Metrics:
    scores = _finished(_statistics(columns, facts["protocol"]))
    if facts["protocol"] == "avsbench":
        scores |= _avsbench(columns, facts["batch_size"])
    return scores


_ANSWERS = ("intersection", "predicted_area", "reference_area", "hypothesis", "avsbench_iou", "avsbench_f_curve")


def _statistics(columns: Mapping[str, np.ndarray], protocol: str) -> np.ndarray:
    rows = accumulate.statistics(columns)
    if protocol == "avsbench":
        # Its mask scores are no sums over frames; ours must not stand under the same name.
        rows[:, [accumulate.STATISTICS.index(name) for name in ("mask_frames", "iou", "f_score")]] = 0
    return rows


def _avsbench(columns: Mapping[str, np.ndarray], batch_size: int) -> Metrics:
    if "avsbench_iou" not in columns:
        return {"miou": None, "f_score": None}
    known = columns["mask_known"]
    batches = np.unique(columns["record"], return_inverse=True)[1] // batch_size
    values = segmentation.avsbench(columns["avsbench_iou"][known], columns["avsbench_f_curve"][known], batches[known])
    return dict(zip(("miou", "f_score"), map(_or_none, values), strict=True))


def _finished(rows: np.ndarray) -> Metrics:
    return {name: _or_none(float(value)) for name, value in accumulate.finish(rows.sum(axis=0)).items()}


def _intervals(prefix: str, intervals: dict[str, tuple[float, float]]) -> Metrics:
    bounds = {}
    for name, (low, high) in intervals.items():
        bounds[f"{prefix}{name}_low"], bounds[f"{prefix}{name}_high"] = _or_none(low), _or_none(high)
    return bounds


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else value
