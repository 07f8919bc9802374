"""Masks against boxes, and seconds against the truth of what sounds: scores of clips that have no pixel masks.

A box is [top, left, bottom, right] in pixels, bottom and right exclusive. With P the union of the boxes round a
predicted mask and G the union of the true boxes, both as sets of pixels:

    box IoU  = |P and G| / |P or G|
    success  = share of clips with IoU >= 0.5
    AUC      = area under the success rate at IoU thresholds 0, 0.05, ..., 1 (trapezoids)

VGG-SS (Chen et al. 2021) lays the mask itself, without a box, on the union of the true boxes (its "cIoU" of a binary
map). That is `mask_on_boxes`; it is lower, since a well-cut object does not fill its box. A curve over a few clips is
a list of those clips and no curve: it is refused below 50.
"""

import numpy as np
import scipy.ndimage
from jaxtyping import Bool, Float, Float64, Int, Int64

from ssu_jax.metrics import segmentation

SUCCESS = 0.5
LEAST_PART = 0.25  # of the largest part: a smaller one is a speck and gets no box
LEAST_CLIPS = 50  # of a curve
THRESHOLDS = np.linspace(0.0, 1.0, 21)

_WITH_CORNERS = np.ones((3, 3), bool)


def boxes_of(mask: Bool[np.ndarray, "y x"]) -> Int64[np.ndarray, "boxes 4"]:
    """A box round every part, joined by sides or corners, of at least a quarter of the largest part's pixels.

    One box round the whole mask would let a speck in a corner decide; the largest part alone would lose the second
    of two sources. No boxes for an empty mask.
    """
    labels, _ = scipy.ndimage.label(mask, _WITH_CORNERS)
    areas = np.bincount(labels.ravel())[1:]
    boxes = [
        (rows.start, columns.start, rows.stop, columns.stop)
        for (rows, columns), area in zip(scipy.ndimage.find_objects(labels), areas, strict=True)
        if area >= LEAST_PART * areas.max()
    ]
    return np.array(boxes, np.int64).reshape(-1, 4)


def boxes_in_pixels(fractions: Float[np.ndarray, "boxes 4"], height: int, width: int) -> Int64[np.ndarray, "boxes 4"]:
    """Boxes of a frame from VGG-SS's (x1, y1, x2, y2) in fractions of its width and height, cut at its edges."""
    x1, y1, x2, y2 = np.clip(fractions, 0.0, 1.0).T
    edges = np.stack([y1 * height, x1 * width, y2 * height, x2 * width], 1)
    return np.rint(edges).astype(np.int64)


def union_of(boxes: Int[np.ndarray, "boxes 4"], height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels that lie in any of the boxes."""
    union = np.zeros((height, width), bool)
    for top, left, bottom, right in boxes:
        union[top:bottom, left:right] = True
    return union


def box_iou(mask: Bool[np.ndarray, "y x"], true_boxes: Int[np.ndarray, "boxes 4"]) -> float:
    """IoU of the boxes round a mask with the true boxes; 0 for an empty mask, NaN where there is no true box either."""
    boxes = boxes_of(mask)
    return _iou(union_of(boxes, *mask.shape), union_of(true_boxes, *mask.shape))


def mask_on_boxes(mask: Bool[np.ndarray, "y x"], true_boxes: Int[np.ndarray, "boxes 4"]) -> float:
    """IoU of the mask itself with the true boxes, VGG-SS's way; 0 and NaN as `box_iou`."""
    return _iou(mask, union_of(true_boxes, *mask.shape))


def success_rate(ious: Float[np.ndarray, "clips"], threshold: float = SUCCESS) -> float:
    """Share of clips whose IoU reaches the threshold. Raises ValueError without a clip or with a NaN."""
    if not len(ious) or np.isnan(ious).any():
        raise ValueError(f"success of {len(ious)} clips: wanted at least one, and an IoU of each")
    return float(np.mean(ious >= threshold))


def success_curve(ious: Float[np.ndarray, "clips"]) -> tuple[Float64[np.ndarray, "thresholds"], float]:
    """(success rate at each of THRESHOLDS, area under it). Raises ValueError for fewer than 50 clips, or a NaN."""
    if len(ious) < LEAST_CLIPS:
        raise ValueError(f"a success curve wants {LEAST_CLIPS} clips at least, got {len(ious)}")
    rates = np.array([success_rate(ious, threshold) for threshold in THRESHOLDS])
    return rates, float(np.trapezoid(rates, THRESHOLDS))


def sounding_accuracy(masks: Bool[np.ndarray, "t y x"], truth: Int[np.ndarray, "t"]) -> tuple[int, int]:
    """(seconds that are right, seconds whose truth is known).

    truth: 1 where something sounds whose source is in the picture, 0 where nothing sounds or its source is not in
    the picture, -1 where it is not known. A second is right when its mask has a pixel exactly where the truth is 1;
    whether the pixel lies on the source is for the other scores.
    """
    known = truth >= 0
    right = (masks.any((1, 2)) == (truth == 1)) & known
    return int(right.sum()), int(known.sum())


def _iou(predicted: Bool[np.ndarray, "y x"], reference: Bool[np.ndarray, "y x"]) -> float:
    return float(segmentation.iou(*segmentation.overlap(predicted, reference)))
