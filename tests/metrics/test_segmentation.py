import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssu_jax.metrics import segmentation


def _mask(*rows: str) -> np.ndarray:
    return np.array([[letter == "#" for letter in row] for row in rows])


REFERENCE = _mask("####", "####", "....", "....")
PREDICTED = _mask("##..", "##..", "##..", "....")


def test_hand_worked_frame():
    counts = segmentation.overlap(PREDICTED, REFERENCE)
    assert [int(count) for count in counts] == [4, 6, 8]
    assert segmentation.iou(*counts) == pytest.approx(4 / 10)
    precision, recall = 4 / 6, 4 / 8
    assert segmentation.f_score(*counts) == pytest.approx(1.3 * precision * recall / (0.3 * precision + recall))


def test_nothing_predicted_scores_zero_and_perfect_scores_one():
    nothing = segmentation.overlap(np.zeros_like(REFERENCE), REFERENCE)
    assert segmentation.iou(*nothing) == 0
    assert segmentation.f_score(*nothing) == 0
    perfect = segmentation.overlap(REFERENCE, REFERENCE)
    assert segmentation.iou(*perfect) == 1
    assert segmentation.f_score(*perfect) == 1


def test_precision_weighs_more_than_recall():
    half = _mask("##..", "##..", "....", "....")  # precision 1, recall 1/2
    double = _mask("####", "####", "####", "####")  # precision 1/2, recall 1
    f = [float(segmentation.f_score(*segmentation.overlap(mask, REFERENCE))) for mask in (half, double)]
    assert f[0] > f[1]


def test_avsbench_iou_of_an_empty_reference_is_the_share_left_empty():
    empty = np.zeros_like(REFERENCE)
    assert segmentation.avsbench_iou(PREDICTED, empty) == pytest.approx(10 / 16, abs=1e-6)
    assert segmentation.avsbench_iou(empty, empty) == pytest.approx(1, abs=1e-6)
    assert segmentation.avsbench_iou(PREDICTED, REFERENCE) == pytest.approx(4 / 10, abs=1e-6)


def test_avsbench_f_curve_counts_a_pixel_from_its_threshold_on():
    probabilities = np.where(REFERENCE, 0.7, 0.3).astype(np.float32)
    curve = segmentation.avsbench_f_curve(probabilities, REFERENCE)
    thresholds = segmentation.AVSBENCH_THRESHOLDS
    everything = 1.3 * 0.5 / (0.3 * 0.5 + 1)  # precision 1/2, recall 1
    assert curve[thresholds <= 0.3] == pytest.approx(everything)
    assert curve[(thresholds > 0.3001) & (thresholds <= 0.7)] == pytest.approx(1)
    assert curve[thresholds > 0.7001] == pytest.approx(0)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_avsbench_f_curve_equals_its_definition(seed):
    rng = np.random.default_rng(seed)
    probabilities, reference = rng.random((5, 6)), rng.random((5, 6)) < 0.4
    reference[0, 0] = True
    expected = []
    for threshold in segmentation.AVSBENCH_THRESHOLDS:
        predicted = probabilities >= threshold
        hits = (predicted & reference).sum()
        precision, recall = hits / (predicted.sum() + 1e-20), hits / (reference.sum() + 1e-20)
        expected.append(1.3 * precision * recall / (0.3 * precision + recall) if hits else 0.0)
    assert segmentation.avsbench_f_curve(probabilities, reference) == pytest.approx(np.array(expected))


def test_avsbench_takes_the_best_threshold_of_each_batch():
    first, second = np.zeros(255), np.zeros(255)
    first[10], second[200] = 1.0, 0.6  # the two frames want different thresholds
    curves, ious = np.stack([first, second]), np.array([0.8, 0.2])
    assert segmentation.avsbench(ious, curves, [0, 1]) == pytest.approx((0.5, 0.8))
    assert segmentation.avsbench(ious, curves, [0, 0]) == pytest.approx((0.5, 0.5))


def test_avsbench_mean_over_batches_and_empty_references():
    empty = np.full(255, np.nan)
    curves = np.stack([np.full(255, 0.5), empty, empty])
    ious = np.array([0.4, 1.0, 0.1])
    # Batch 0: mean IoU (0.4 + 1) / 2, its F ignores the empty frame; batch 1 is all empty and scores 0 in F.
    assert segmentation.avsbench(ious, curves, [0, 0, 1]) == pytest.approx(((0.7 + 0.1) / 2, 0.25))
