"""Heat maps against true regions, one map for each sounding source: the scores of text-guided localization.

A heat map is any real array [y, x], larger where the source is; a region is boolean, or a share in [0, 1] where several
people drew it (VGG-SS has boxes, Flickr-SoundNet consensus). Two public code bases score the benchmarks of single and
several sources, and they disagree; both are here, named by what they do:

    CIoU@t   "mean":    mean cIoU of maps cut at heat t. That is what T-VSL's evaluator (EvaluatorNew) reports.
             "success": share of maps whose cIoU is above t, cut at their own median. That is what AVGN's evaluator, and
             the papers that compare with it, report.
    PIAP     "papers":  average precision of the true regions, in the best order of the predicted maps.
             "released": AVGN passes the cut map as truth and the region as score: kept to compare with its figures.

Every score is given in [0, 1]. Formulas, sources and traps stand at each function.
"""

from collections.abc import Sequence

import numpy as np
import scipy.optimize
from jaxtyping import Bool, Float, Shaped

SUCCESS_THRESHOLDS = np.linspace(0.0, 1.0, 21)  # of AUC
_SMOOTHING = 1e-4  # of `smoothed_iou`


def to_unit(heat: Float[np.ndarray, "*maps y x"]) -> Float[np.ndarray, "*maps y x"]:
    """(heat - min) / (max - min) of each map; a map that is the same everywhere becomes 0."""
    low, high = heat.min(axis=(-2, -1), keepdims=True), heat.max(axis=(-2, -1), keepdims=True)
    return np.where(high > low, (heat - low) / np.where(high > low, high - low, 1), 0.0)


def above(heat: Float[np.ndarray, "y x"], threshold: float) -> Bool[np.ndarray, "y x"]:
    """Pixels of a map in [0, 1] whose heat is above the threshold."""
    return heat > threshold


def above_median(heat: Float[np.ndarray, "y x"]) -> Bool[np.ndarray, "y x"]:
    """The upper half of the pixels: above the value that stands in their middle."""
    return heat > np.sort(heat, axis=None)[heat.size // 2]


def ciou(predicted: Bool[np.ndarray, "y x"], region: Shaped[np.ndarray, "y x"]) -> float:
    """Consensus IoU (arXiv 1803.03849): sum(region over P) / (sum(region) + |P outside of the region|).

    For a boolean region it is the plain IoU. 0 for an empty region with an empty prediction: there is nothing to find.
    """
    truth = region.astype(np.float64)
    whole = truth.sum() + np.count_nonzero(predicted & (truth == 0))
    return float(truth[predicted].sum() / whole) if whole else 0.0


def smoothed_iou(predicted: Bool[np.ndarray, "y x"], region: Bool[np.ndarray, "y x"]) -> float:
    """(|P G| + s) / (|P or G| + s), s = 1e-4: the IoU of T-VSL's evaluator; 1 where both are empty."""
    both, either = np.count_nonzero(predicted & region), np.count_nonzero(predicted | region)
    return (both + _SMOOTHING) / (either + _SMOOTHING)


def average_precision(heat: Float[np.ndarray, "y x"], region: Bool[np.ndarray, "y x"]) -> float:
    """AP of the pixels as scores of lying in the region: sum over n of (R_n - R_(n-1)) P_n.

    n runs over the different heats downwards, P_n and R_n are precision and recall of the pixels with at least that
    heat (scikit-learn's definition, which both code bases call). NaN for an empty region: recall is not defined.
    """
    order = np.argsort(-heat, axis=None, kind="stable")
    hits, scores = region.ravel()[order], heat.ravel()[order]
    if not hits.any():
        return float("nan")
    last_of_its_heat = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    true = np.cumsum(hits)[last_of_its_heat]
    return float(np.sum(np.diff(true, prepend=0) * true / (last_of_its_heat + 1)) / true[-1])


def success_rate(overlaps: Sequence[float] | np.ndarray, threshold: float) -> float:
    """Share of the maps whose overlap is above the threshold: IoU@t, and CIoU@t "success". NaN without maps."""
    return float(np.mean(np.asarray(overlaps) > threshold)) if len(overlaps) else float("nan")


def area_under_success(overlaps: Sequence[float] | np.ndarray) -> float:
    """AUC: area under `success_rate` over the thresholds 0, 0.05, ... 1 (trapezoids). NaN without maps."""
    return float(np.trapezoid([success_rate(overlaps, t) for t in SUCCESS_THRESHOLDS], SUCCESS_THRESHOLDS))


def class_aware_ap(heats: Float[np.ndarray, "k y x"], regions: Bool[np.ndarray, "k y x"]) -> float:
    """CAP: mean AP of each source's map against its own region; sources without a region do not count."""
    return known_mean([average_precision(heat, region) for heat, region in zip(heats, regions, strict=True)])


def permutation_invariant_ap(
    heats: Float[np.ndarray, "j y x"], regions: Bool[np.ndarray, "k y x"], variant: str = "papers"
) -> float:
    """PIAP: mean AP over the sources, each with a map of its own, in the order that makes it largest.

    There may be more maps than sources, not fewer. "released": cut at its median, the map is the truth, and the
    region the score.
    """
    if len(heats) < len(regions):
        raise ValueError(f"{len(heats)} maps for {len(regions)} sources: wanted at least as many maps")
    kept = [region for region in regions if region.any()]
    if not kept:
        return float("nan")
    score = average_precision if variant == "papers" else _swapped_ap
    table = np.array([[score(heat, region) for heat in heats] for region in kept])
    rows, columns = scipy.optimize.linear_sum_assignment(-np.nan_to_num(table))
    return known_mean(table[rows, columns].tolist())


def _swapped_ap(heat: Float[np.ndarray, "y x"], region: Bool[np.ndarray, "y x"]) -> float:
    return average_precision(region.astype(np.float64), above_median(heat))


def known_mean(values: Sequence[float] | np.ndarray) -> float:
    """Of all values but NaN; NaN without any."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
