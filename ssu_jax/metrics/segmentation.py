"""Masks against reference masks: IoU and F of a frame, and the published AVSBench protocol.

Ours, for every frame whose reference has a sounding pixel, at threshold 0.5:

    IoU = |P and G| / |P or G|
    F   = (1 + b2) precision recall / (b2 precision + recall),  b2 = 0.3,  0 where nothing is predicted

and the mean over those frames, which depends on no batch. The AVSBench protocol (Zhou et al. 2022, as in
that project's released scoring code and its followers') does: see `avsbench`.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

BETA_SQUARED = 0.3
AVSBENCH_BATCH_SIZE = 4  # videos, in that project's test scripts

# AVSBench: IoU's denominator, the thresholds of the F curve, and the denominator of its precision and recall.
_IOU_EPSILON = 1e-7
AVSBENCH_THRESHOLDS = np.linspace(0.0, 1.0 - 1e-10, 255)
_RATIO_EPSILON = 1e-20


def overlap(
    predicted: Bool[np.ndarray, "*frames y x"], reference: Bool[np.ndarray, "*frames y x"]
) -> tuple[Int64[np.ndarray, "*frames"], Int64[np.ndarray, "*frames"], Int64[np.ndarray, "*frames"]]:
    """Pixels of the intersection, of the prediction and of the reference, frame by frame."""
    both = predicted & reference
    intersection, area, reference_area = (np.asarray(mask.sum((-2, -1))) for mask in (both, predicted, reference))
    return intersection, area, reference_area


def iou(intersection: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """IoU from pixel counts; NaN where prediction and reference are both empty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(intersection / (predicted + reference - intersection))


def f_score(intersection: np.ndarray, predicted: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """F from pixel counts; NaN where prediction and reference are both empty.

    With precision i / p and recall i / r the formula above is (1 + b2) i / (b2 r + p): no 0 / 0 for p = 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray((1 + BETA_SQUARED) * intersection / (BETA_SQUARED * reference + predicted))


def avsbench_iou(
    predicted: Bool[np.ndarray, "*frames y x"], reference: Bool[np.ndarray, "*frames y x"]
) -> Float64[np.ndarray, "*frames"]:
    """AVSBench's IoU of a frame; where the reference is empty, the share of pixels predicted empty."""
    intersection, area, reference_area = overlap(predicted, reference)
    pixels = predicted.shape[-2] * predicted.shape[-1]
    is_empty = reference_area == 0
    union = np.where(is_empty, pixels, area + reference_area - intersection)
    return np.asarray(np.where(is_empty, pixels - area, intersection) / (union + _IOU_EPSILON))


def avsbench_f_curve(
    probabilities: Float[np.ndarray, "y x"], reference: Bool[np.ndarray, "y x"]
) -> Float64[np.ndarray, "thresholds"]:
    """F at each of the 255 thresholds (a pixel counts from the threshold on); NaN if the reference is empty."""
    if not reference.any():
        return np.full(len(AVSBENCH_THRESHOLDS), np.nan)
    # How many thresholds a pixel reaches; its prediction is on at that many of them.
    reached = np.searchsorted(AVSBENCH_THRESHOLDS, probabilities.ravel().astype(np.float64), side="right")
    area = _pixels_reaching(reached)
    intersection = _pixels_reaching(reached[reference.ravel()])
    precision = intersection / (area + _RATIO_EPSILON)
    recall = intersection / (reference.sum() + _RATIO_EPSILON)
    with np.errstate(invalid="ignore"):
        curve = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return np.nan_to_num(curve, nan=0.0)


def avsbench(
    ious: Float64[np.ndarray, "frames"],
    f_curves: Float64[np.ndarray, "frames thresholds"],
    batches: Sequence[int] | np.ndarray,
) -> tuple[float, float]:
    """(M_J, M_F) of the frames, where `batches` numbers the batch of each.

    M_J is the mean over batches of the mean IoU of the batch's frames. M_F is the mean over batches of the
    *largest* value of the batch's mean F curve, frames with an empty reference left out of it (a batch of
    nothing else scores 0). So both depend on the batch size and on the order of the clips: state them.
    """
    numbers = np.asarray(batches)
    mean_ious, best_f = [], []
    for number in np.unique(numbers):
        mean_ious.append(ious[numbers == number].mean())
        curves = f_curves[numbers == number]
        curves = curves[~np.isnan(curves[:, 0])]
        best_f.append(curves.mean(axis=0).max() if len(curves) else 0.0)
    if not mean_ious:
        return float("nan"), float("nan")
    return float(np.mean(mean_ious)), float(np.mean(best_f))


def _pixels_reaching(reached: np.ndarray) -> np.ndarray:
    """Pixels on at every threshold, from the number of thresholds each pixel reaches."""
    histogram = np.bincount(reached, minlength=len(AVSBENCH_THRESHOLDS) + 1)
    return np.cumsum(histogram[::-1])[::-1][1:]
