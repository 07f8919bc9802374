"""From frames to figures: rows gathered in any order, sorted, turned into additive statistics, summed, finished.

Every metric is a function of sums over frames. So one matrix, a row a frame, gives the figures of all frames,
of the frames of a class, of a number of sources, and of every bootstrap sample, all by the same two steps:
sum rows, `finish`. Rows are keyed by (record, frame) and sorted before float64 sums: neither the batch size
nor the order of batches can change a figure.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64

from ssu_jax.metrics import captioning, segmentation

NUM_SAMPLES = 1000  # of the bootstrap
_COUNTED = ("mask_frames", "iou", "f_score", "silent_frames", "silent_right", "offscreen_frames", "offscreen_right")
STATISTICS = (*_COUNTED, *captioning.COLUMNS)
SCORES = ("miou", "f_score", *captioning.SCORES, "silent_accuracy", "offscreen_accuracy")


class FrameTable:
    """Columns over frames, filled clip by clip.

    What `columns` returns, f frames of all clips in the order of (record, frame), u classes:

        record, frame     int64 [f]
        num_sources       int64 [f], sounding objects in the picture
        sources, audible  bool [f, u], classes that sound in the picture, and off screen too
        source_known      bool [f]: False where the set does not say what sounds; such a frame is not called silent
        has_mask          bool [f]: a source's pixels are known and there are some
        reference         object [f], the sentence
        intersection, predicted_area, reference_area   int64 [f], pixels; absent for a model without masks
        hypothesis        object [f], the model's sentence; absent for a model without words

    Further columns pass through.
    """

    def __init__(self):
        self._clips: dict[int, Mapping[str, np.ndarray]] = {}

    def add(self, record: int, columns: Mapping[str, np.ndarray]) -> None:
        """Adds the valid frames of a clip; all columns but `record` have one length. A record is added once."""
        if record in self._clips:
            raise ValueError(f"record {record} has been added already: a clip counts once")
        self._clips[record] = columns

    def __len__(self) -> int:
        return len(self._clips)

    def columns(self) -> dict[str, np.ndarray]:
        """All rows. Raises ValueError if there are none."""
        if not self._clips:
            raise ValueError("no clips were added")
        clips = [(record, self._clips[record]) for record in sorted(self._clips)]
        joined = {name: np.concatenate([columns[name] for _, columns in clips]) for name in clips[0][1]}
        lengths = [len(columns["frame"]) for _, columns in clips]
        return {"record": np.repeat([record for record, _ in clips], lengths), **joined}


def statistics(columns: Mapping[str, np.ndarray]) -> Float64[np.ndarray, "frames statistics"]:
    """A row of `STATISTICS` for every frame of `FrameTable.columns`; what a frame does not take part in is 0."""
    audible, num_sources = columns["audible"].any(1), columns["num_sources"]
    says_nothing = np.ones(len(audible), bool)
    rows = dict.fromkeys(_COUNTED, np.zeros(len(audible)))
    if "predicted_area" in columns:
        counts = [columns[name] for name in ("intersection", "predicted_area", "reference_area")]
        is_scored = columns["has_mask"] & (columns["reference_area"] > 0)
        rows["mask_frames"] = is_scored
        rows["iou"] = np.where(is_scored, segmentation.iou(*counts), 0.0)
        rows["f_score"] = np.where(is_scored, segmentation.f_score(*counts), 0.0)
        says_nothing &= columns["predicted_area"] == 0
    text = np.zeros((len(audible), len(captioning.COLUMNS)))
    if "hypothesis" in columns:
        is_scored = np.flatnonzero((num_sources > 0) & [bool(captioning.tokenize(r)) for r in columns["reference"]])
        text[is_scored] = captioning.score_pairs(
            [(columns["hypothesis"][i], columns["reference"][i]) for i in is_scored]
        )
        says_nothing &= [not sentence.strip() for sentence in columns["hypothesis"]]
    rows["silent_frames"] = ~audible & columns["source_known"]
    rows["offscreen_frames"] = audible & (num_sources == 0) & columns["source_known"]
    rows["silent_right"] = rows["silent_frames"] & says_nothing
    rows["offscreen_right"] = rows["offscreen_frames"] & says_nothing
    return np.column_stack([*(rows[name] for name in _COUNTED), text]).astype(np.float64)


def finish(sums: Float64[np.ndarray, "... statistics"]) -> dict[str, np.ndarray]:
    """`SCORES`, each of the leading shape, from summed rows [..., statistics]; NaN where nothing was scored."""
    column = {name: sums[..., number] for number, name in enumerate(_COUNTED)}
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = {
            "miou": column["iou"] / column["mask_frames"],
            "f_score": column["f_score"] / column["mask_frames"],
            **captioning.finish(sums[..., len(_COUNTED) :]),
            "silent_accuracy": column["silent_right"] / column["silent_frames"],
            "offscreen_accuracy": column["offscreen_right"] / column["offscreen_frames"],
        }
    return {name: np.asarray(value) for name, value in scores.items()}


class Bootstrap:
    """Intervals over clips (frames of a clip are alike): clips are drawn with replacement, seeded."""

    def __init__(self, records: np.ndarray, seed: int = 0):
        """`records` int [f] names the clip of every frame, sorted."""
        self._starts = np.flatnonzero(np.diff(records, prepend=records[0] - 1))
        num_clips = len(self._starts)
        draws = np.random.default_rng(seed).integers(num_clips, size=(NUM_SAMPLES, num_clips))
        offsets = num_clips * np.arange(NUM_SAMPLES)[:, None]
        drawn = np.bincount((draws + offsets).ravel(), minlength=NUM_SAMPLES * num_clips)
        self._times_drawn = drawn.reshape(NUM_SAMPLES, num_clips).astype(np.float64)

    def intervals(self, rows: Float64[np.ndarray, "frames statistics"]) -> dict[str, tuple[float, float]]:
        """The central 95 % of each score over the samples; samples in which nothing was scored do not count."""
        clip_sums = np.add.reduceat(rows, self._starts, axis=0)
        scores = finish(self._times_drawn @ clip_sums)
        intervals = {}
        for name, values in scores.items():
            known = values[~np.isnan(values)]
            intervals[name] = tuple(np.quantile(known, (0.025, 0.975)).tolist()) if len(known) else (np.nan, np.nan)
        return intervals


def groups(columns: Mapping[str, np.ndarray], classes: Sequence[str]) -> dict[str, Bool[np.ndarray, "frames"]]:
    """The table's further rows: frames in which a class sounds, on screen or alone off it, and by number of sources."""
    is_offscreen = columns["audible"].any(1) & (columns["num_sources"] == 0)
    selected = {}
    for label, name in enumerate(classes):
        selected[f"class/{name}"] = columns["sources"][:, label] | (columns["audible"][:, label] & is_offscreen)
    for number in np.unique(columns["num_sources"][columns["num_sources"] > 0]):
        selected[f"sources/{number}"] = columns["num_sources"] == number
    return {name: frames for name, frames in selected.items() if frames.any()}
