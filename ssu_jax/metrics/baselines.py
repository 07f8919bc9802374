"""What can be had without looking, without listening, or without either: the floor a model must leave behind.

Our design. Each baseline is given perfect knowledge of one sense and none of the other:

    sound_only    knows which classes are audible in the second, on screen or off. Marks the constant mask that
                  suits those classes best; says the sentence that is commonest with them; nothing in silence.
    picture_only  knows class and pixels of every visible object. Marks them all, all the time; says the
                  sentence that is commonest with those visible classes.
    commonest     says the commonest sentence of all, always; marks nothing and has no figures for masks.

Constant masks and commonest sentences come from the evaluated records by five-fold cross-fitting: those for a
clip are counted on the clips of the other folds (fold = record number modulo 5), never on the clip itself.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from ssu_jax.metrics import segmentation

NAMES = ("sound_only", "picture_only", "commonest")
FOLDS = 5
_FRAMES_AT_ONCE = 256  # unpacked masks in memory


def predictions(columns: Mapping[str, np.ndarray], with_curves: bool = False) -> dict[str, dict[str, np.ndarray]]:
    """Baseline -> the columns (see accumulate.FrameTable) that take the place of a model's.

    Needs the columns `grid_mask` and `grid_visible`, bool [f, y, x] packed by `pack`: what sounds and what is
    visible, and `visible`, bool [f, u], the classes of the latter. Text columns are left out where no record
    has a sentence, masks where none is known, everything where one fold alone has clips.
    `with_curves` adds the columns of the AVSBench protocol.
    """
    folds = columns["record"] % FOLDS
    found: dict[str, dict[str, np.ndarray]] = {name: {} for name in NAMES}
    if len(np.unique(folds)) < 2:
        return found
    if columns["has_mask"].any():
        best = _BestMasks(columns, folds)
        found["sound_only"] = _compare(columns, best.masks, with_curves)
        found["picture_only"] = _compare(columns, lambda part: unpack(columns["grid_visible"][part]), with_curves)
    is_said = (columns["num_sources"] > 0) & (columns["reference"] != "")
    if is_said.any():
        heard, seen = _sets(columns["audible"]), _sets(columns["visible"])
        said = (columns["reference"], is_said, folds)
        sentences = _commonest(heard, *said)
        found["sound_only"]["hypothesis"] = np.where(columns["audible"].any(1), sentences, "").astype(object)
        found["picture_only"]["hypothesis"] = _commonest(seen, *said)
        found["commonest"]["hypothesis"] = _commonest([()] * len(folds), *said)
    return found


def pack(masks: Bool[np.ndarray, "f y x"]) -> UInt8[np.ndarray, "f y xb"]:
    """Eight pixels a byte; the number of columns must be a multiple of 8."""
    return np.packbits(masks, axis=-1)


def unpack(packed: UInt8[np.ndarray, "f y xb"]) -> Bool[np.ndarray, "f y x"]:
    """The inverse of `pack`."""
    return np.unpackbits(packed, axis=-1).astype(bool)


def best_constant_mask(mean_mask: Float64[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """The mask with the largest expected intersection over expected union with masks of this mean.

    For any size the best pixels are those of highest mean; so sorting them and one cumulative sum finds it.
    """
    order = np.argsort(-mean_mask, axis=None, kind="stable")
    intersection = np.cumsum(mean_mask.ravel()[order])
    union = mean_mask.sum() + np.arange(1, mean_mask.size + 1) - intersection
    size = int(np.argmax(intersection / union)) + 1 if mean_mask.any() else 0
    chosen = np.zeros(mean_mask.size, bool)
    chosen[order[:size]] = True
    return chosen.reshape(mean_mask.shape)


class _BestMasks:
    """The constant mask for every set of audible classes, counted on the other folds."""

    def __init__(self, columns: Mapping[str, np.ndarray], folds: np.ndarray):
        self._folds, self._heard = folds.tolist(), _sets(columns["audible"])
        shape = unpack(columns["grid_mask"][:1]).shape[1:]
        num_classes = columns["audible"].shape[1]
        # One further row for sounds never met in the other folds: the mean over all frames.
        sums, counts = np.zeros((FOLDS, num_classes + 1, *shape)), np.zeros((FOLDS, num_classes + 1))
        for part in _parts(len(folds)):
            for fold in range(FOLDS):
                is_counted = columns["has_mask"][part] & (folds[part] == fold)
                audible = columns["audible"][part][is_counted].astype(np.float32)
                audible = np.column_stack([audible, np.ones(len(audible), np.float32)])
                masks = unpack(columns["grid_mask"][part][is_counted]).astype(np.float32)
                sums[fold] += np.einsum("fu,fyx->uyx", audible, masks, optimize=True)
                counts[fold] += audible.sum(0)
        self._sums, self._counts = sums.sum(0) - sums, counts.sum(0) - counts
        self._cache: dict[tuple, np.ndarray] = {}

    def masks(self, part: slice) -> Bool[np.ndarray, "f y x"]:
        return np.stack(
            [self._mask(fold, heard) for fold, heard in zip(self._folds[part], self._heard[part], strict=True)]
        )

    def _mask(self, fold: int, heard: tuple[int, ...]) -> np.ndarray:
        key = (fold, heard)
        if key not in self._cache:
            known = [label for label in heard if self._counts[fold, label]] or [-1]
            counts = np.maximum(self._counts[fold, known], 1)[:, None, None]
            mean = (self._sums[fold, known] / counts).mean(0)
            self._cache[key] = best_constant_mask(mean if heard else np.zeros_like(mean))
        return self._cache[key]


def _compare(columns: Mapping[str, np.ndarray], masks_of, with_curves: bool) -> dict[str, np.ndarray]:
    pieces = defaultdict(list)
    for part in _parts(len(columns["record"])):
        masks, reference = masks_of(part), unpack(columns["grid_mask"][part])
        names = ("intersection", "predicted_area", "reference_area")
        for name, values in zip(names, segmentation.overlap(masks, reference), strict=True):
            pieces[name].append(values)
        if with_curves:
            pieces["avsbench_iou"].append(segmentation.avsbench_iou(masks, reference))
            curves = [segmentation.avsbench_f_curve(*pair) for pair in zip(masks * 1.0, reference, strict=True)]
            pieces["avsbench_f_curve"].append(np.stack(curves))
    return {name: np.concatenate(values) for name, values in pieces.items()}


def _commonest(keys: Sequence[tuple], sentences: np.ndarray, is_said: np.ndarray, folds: np.ndarray) -> np.ndarray:
    """For every frame the sentence commonest, in other folds, with its set of classes; if that set does not occur
    there, with as many classes; else of all. Ties go to the first in the alphabet.
    """
    chosen = np.empty(len(keys), object)
    for fold in range(FOLDS):
        counts: dict[Hashable, Counter] = defaultdict(Counter)
        for i in np.flatnonzero(is_said & (folds != fold)):
            for key in (keys[i], len(keys[i]), None):
                counts[key][sentences[i]] += 1
        best = {key: min(counter, key=lambda s, c=counter: (-c[s], s)) for key, counter in counts.items()}
        for i in np.flatnonzero(folds == fold):
            chosen[i] = next((best[key] for key in (keys[i], len(keys[i]), None) if key in best), "")
    return chosen


def _sets(flags: Bool[np.ndarray, "f u"]) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in flags]


def _parts(length: int) -> Iterator[slice]:
    for start in range(0, length, _FRAMES_AT_ONCE):
        yield slice(start, start + _FRAMES_AT_ONCE)
