import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from ssu_jax.metrics import localization


def _mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


TWO_AND_A_SPECK = _mask(
    "###.....",
    "#.#...##",
    "......##",
    "........",
    "#.......",
)  # parts of 5, 4 and 1 pixels


def test_a_part_gets_a_box_and_a_speck_does_not():
    assert localization.boxes_of(TWO_AND_A_SPECK).tolist() == [[0, 0, 2, 3], [1, 6, 3, 8]]


def test_a_part_of_a_quarter_is_kept():
    mask = _mask("####..#.")
    assert localization.boxes_of(mask).tolist() == [[0, 0, 1, 4], [0, 6, 1, 7]]
    assert localization.boxes_of(_mask("#####.#.")).tolist() == [[0, 0, 1, 5]]


def test_corners_join_parts_and_an_empty_mask_has_no_box():
    assert localization.boxes_of(_mask("#..", ".#.", "..#")).tolist() == [[0, 0, 3, 3]]
    assert localization.boxes_of(np.zeros((3, 3), bool)).shape == (0, 4)


def test_fractions_become_pixels_row_first():
    fractions = np.array([[0.25, 0.0, 0.5, 1.0], [-0.1, 0.5, 1.2, 0.75]])
    assert localization.boxes_in_pixels(fractions, height=4, width=8).tolist() == [[0, 2, 4, 4], [2, 0, 3, 8]]


def test_hand_worked_ious_with_one_box():
    true = np.array([[0, 0, 4, 4]])
    mask = np.zeros((6, 6), bool)
    mask[[0, 1, 2, 3], [0, 1, 2, 3]] = True  # a diagonal: its box is the true one, itself a quarter of it
    assert localization.box_iou(mask, true) == 1.0
    assert localization.mask_on_boxes(mask, true) == pytest.approx(4 / 16)
    shifted = np.roll(mask, 2, axis=1)  # box [0, 2, 4, 6], 8 of 24 pixels in common
    assert localization.box_iou(shifted, true) == pytest.approx(8 / 24)
    assert localization.mask_on_boxes(shifted, true) == pytest.approx(2 / 18)


def test_overlapping_true_boxes_count_their_pixels_once():
    true = np.array([[0, 0, 2, 4], [0, 2, 2, 6]])  # 12 pixels, 4 of them in both
    assert localization.union_of(true, 2, 8).sum() == 12
    mask = np.zeros((2, 8), bool)
    mask[:, :6] = True
    assert localization.box_iou(mask, true) == 1.0


def test_nothing_predicted_scores_zero_and_nothing_at_all_is_unknown():
    nothing = np.zeros((4, 4), bool)
    assert localization.box_iou(nothing, np.array([[0, 0, 2, 2]])) == 0.0
    assert np.isnan(localization.box_iou(nothing, np.zeros((0, 4), np.int64)))


@settings(max_examples=50, deadline=None)
@given(arrays.arrays(bool, (7, 9)))
def test_boxes_cover_the_parts_that_count(mask):
    boxes = localization.boxes_of(mask)
    covered = localization.union_of(boxes, *mask.shape)
    assert bool(len(boxes)) == mask.any()
    if len(boxes):
        assert localization.box_iou(mask, boxes) == 1.0
    # What is left outside is less than a quarter of the largest part, and that lies inside.
    outside, _ = scipy.ndimage.label(mask & ~covered, np.ones((3, 3)))
    assert np.bincount(outside.ravel())[1:].max(initial=0) <= 0.25 * (mask & covered).sum()


def test_success_counts_a_clip_that_just_reaches_the_threshold():
    assert localization.success_rate(np.array([0.5, 0.49, 1.0, 0.0])) == 0.5
    for wrong in (np.array([]), np.array([0.5, np.nan])):
        with pytest.raises(ValueError, match="success"):
            localization.success_rate(wrong)


def test_success_curve_of_known_areas_and_none_for_a_few_clips():
    rates, area = localization.success_curve(np.ones(50))
    assert area == pytest.approx(1.0)
    assert (rates == 1).all()
    # All at 0.5: everyone up to 0.5, nobody from 0.55 on; half of the step between counts.
    rates, area = localization.success_curve(np.full(50, 0.5))
    assert rates.tolist() == [1.0] * 11 + [0.0] * 10
    assert area == pytest.approx(0.525)
    with pytest.raises(ValueError, match="got 49"):
        localization.success_curve(np.ones(49))


def test_sounding_seconds_count_only_where_the_truth_is_known():
    masks = np.zeros((5, 2, 2), bool)
    masks[[0, 1, 4], 0, 1] = True
    # right, wrong (sounds not), unknown, wrong (sounds and is missed), unknown
    assert localization.sounding_accuracy(masks, np.array([1, 0, -1, 1, -1])) == (1, 3)
    assert localization.sounding_accuracy(~masks & False, np.zeros(5, int)) == (5, 5)
    assert localization.sounding_accuracy(masks, np.full(5, -1)) == (0, 0)
