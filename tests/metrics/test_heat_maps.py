"""Heat maps against regions: cases worked by hand, scikit-learn as the judge of average precision, and invariances."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from ssu_jax.metrics import heat_maps


def grid(text: str) -> np.ndarray:
    """Rows separated by spaces; # is the region."""
    return np.array([[letter == "#" for letter in row] for row in text.split()])


LEFT, RIGHT = grid("##.. ##.. ##.. ##.."), grid("..## ..## ..## ..##")


def test_maps_are_stretched_to_the_unit():
    heat = np.array([[[-2.0, 0.0], [1.0, 2.0]], [[5.0, 5.0], [5.0, 5.0]]])
    np.testing.assert_allclose(heat_maps.to_unit(heat), [[[0, 0.5], [0.75, 1]], [[0, 0], [0, 0]]])


def test_cuts():
    heat = np.array([[0.1, 0.3], [0.31, 0.9]])
    assert heat_maps.above(heat, 0.3).tolist() == [[False, False], [True, True]]
    assert heat_maps.above_median(heat).tolist() == [[False, False], [False, True]]
    assert heat_maps.above_median(np.arange(16.0).reshape(4, 4)).sum() == 7
    assert not heat_maps.above_median(np.ones((4, 4))).any()


@pytest.mark.parametrize(
    ("predicted", "region", "wanted"),
    [
        (LEFT, LEFT, 1.0), (LEFT, RIGHT, 0.0), (LEFT | RIGHT, LEFT, 0.5),
        (grid("#... .... .... ...."), LEFT, 1 / 8), (~(LEFT | RIGHT), LEFT, 0.0), (~(LEFT | RIGHT), LEFT & RIGHT, 0.0),
    ],
)  # fmt: skip
def test_ciou_of_whole_regions_is_the_iou(predicted, region, wanted):
    assert heat_maps.ciou(predicted, region) == pytest.approx(wanted)


def test_ciou_weighs_by_consensus():
    # Half of those asked drew the upper two of the left pixels, all the lower two: 1 + 2 in all; one pixel is wrong.
    region = np.array([[0.5, 0], [0.5, 0], [1, 0], [1, 0]])
    predicted = np.array([[1, 0], [0, 1], [1, 0], [0, 0]], bool)
    assert heat_maps.ciou(predicted, region) == pytest.approx(1.5 / (3 + 1))


def test_smoothed_iou_by_hand():
    assert heat_maps.smoothed_iou(LEFT | RIGHT, LEFT) == pytest.approx((8 + 1e-4) / (16 + 1e-4))
    assert heat_maps.smoothed_iou(LEFT & RIGHT, LEFT & RIGHT) == 1.0


def test_average_precision_by_hand():
    # Downwards: hit, miss, hit, miss: precision 1 at recall 1/2, then 2/3 at recall 1.
    heat, region = np.array([[0.9, 0.8], [0.7, 0.6]]), np.array([[True, False], [True, False]])
    assert heat_maps.average_precision(heat, region) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    # All alike: one threshold, at which all pixels are taken.
    assert heat_maps.average_precision(np.zeros((2, 2)), region) == pytest.approx(0.5)
    assert np.isnan(heat_maps.average_precision(heat, np.zeros((2, 2), bool)))


def test_average_precision_is_scikit_learns():
    rng = np.random.default_rng(0)
    for levels in (3, 10, 1000):
        heat = rng.integers(levels, size=(20, 20)) / levels  # few levels: many ties
        region = rng.random((20, 20)) < rng.uniform(0.05, 0.9)
        wanted = average_precision_score(region.ravel(), heat.ravel())
        assert heat_maps.average_precision(heat, region) == pytest.approx(wanted, rel=1e-12)


def test_success_and_its_area_by_hand():
    overlaps = [0.0, 0.3, 0.31, 1.0]
    assert heat_maps.success_rate(overlaps, 0.3) == 0.5  # above, not at
    assert heat_maps.area_under_success([1.0, 1.0]) == pytest.approx(1 - 0.5 * 0.05)  # none is above 1
    assert heat_maps.area_under_success([0.0]) == 0.0
    # 0.5 is above the ten thresholds 0 to 0.45.
    assert heat_maps.area_under_success([0.5]) == pytest.approx(0.45 + 0.5 * 0.05)
    assert np.isnan(heat_maps.success_rate([], 0.3))


def test_mean_and_success_are_different_scores():
    """The same maps: CIoU@0.3 is 0.45 by the mean and 0.5 by success."""
    overlaps = [0.8, 0.1]
    assert np.mean(overlaps) == pytest.approx(0.45)
    assert heat_maps.success_rate(overlaps, 0.3) == 0.5


def test_class_aware_and_permutation_invariant_precision():
    heats = np.stack([RIGHT, LEFT]).astype(float)  # the two maps stand in the wrong order
    regions = np.stack([LEFT, RIGHT])
    assert heat_maps.class_aware_ap(heats, regions) == pytest.approx(0.5)
    assert heat_maps.permutation_invariant_ap(heats, regions) == 1.0
    assert heat_maps.class_aware_ap(heats[::-1], regions) == 1.0
    nothing = np.zeros_like(LEFT)
    assert heat_maps.class_aware_ap(heats, np.stack([nothing, RIGHT])) == pytest.approx(0.5)
    assert np.isnan(heat_maps.class_aware_ap(heats, np.stack([nothing, nothing])))
    assert np.isnan(heat_maps.permutation_invariant_ap(heats, np.stack([nothing, nothing])))
    with pytest.raises(ValueError, match="1 maps for 2 sources"):
        heat_maps.permutation_invariant_ap(heats[:1], regions)


def test_the_best_permutation_is_the_best_of_all():
    rng = np.random.default_rng(1)
    heats, regions = rng.random((4, 8, 8)), rng.random((3, 8, 8)) < 0.3
    best = max(
        np.mean([heat_maps.average_precision(heats[j], regions[k]) for k, j in enumerate(order)])
        for order in itertools.permutations(range(4), 3)
    )
    assert heat_maps.permutation_invariant_ap(heats, regions) == pytest.approx(best)
    shuffled = heat_maps.permutation_invariant_ap(heats[[2, 0, 3, 1]], regions[[1, 2, 0]])
    assert shuffled == pytest.approx(best)


def test_the_released_variant_swaps_truth_and_score():
    # The map's upper half is the row above; of the region's two pixels one lies in it.
    heat = np.array([[4.0, 3.0], [2.0, 1.0], [0.5, 0.4]])
    region = np.array([[True, False], [True, False], [False, False]])
    # Truth: heats 4 and 3. Scores: 1 for two pixels (one hit), then 0 for the rest: 1/2 * 1/2 + 1/2 * 2/6.
    assert heat_maps.permutation_invariant_ap(heat[None], region[None], "released") == pytest.approx(0.25 + 1 / 6)
    assert heat_maps.permutation_invariant_ap(heat[None], region[None]) == pytest.approx(0.5 + 0.5 * 2 / 3)
