import numpy as np
import pytest

from ssu_jax.metrics import accumulate

CLASSES = ("bell", "drum")


def _clip(kinds: str, hypotheses=None, **changes) -> dict[str, np.ndarray]:
    """Frames by letter: b bell or d drum sounds in the picture, 2 both, o drum off screen, s silence."""
    sources = np.array([[k in "b2", k in "d2"] for k in kinds])
    audible = sources | np.array([[False, k == "o"] for k in kinds])
    sentences = {"b": "The bell is ringing.", "d": "The drum is beating.", "2": "The bell and the drum are playing."}
    references = np.array([sentences.get(k, "") for k in kinds], object)
    area = np.array([8 if k in "bd2" else 0 for k in kinds])
    return {
        "frame": np.arange(len(kinds)),
        "sources": sources,
        "audible": audible,
        "num_sources": sources.sum(1),
        "source_known": np.ones(len(kinds), bool),
        "has_mask": area > 0,
        "reference": references,
        "intersection": area,
        "predicted_area": area,
        "reference_area": area,
        "hypothesis": references if hypotheses is None else np.array(hypotheses, object),
        **changes,
    }


def _scores(*clips) -> dict[str, float]:
    table = accumulate.FrameTable()
    for number, clip in enumerate(clips):
        table.add(number, clip)
    return accumulate.finish(accumulate.statistics(table.columns()).sum(0))


def test_the_truth_scores_one():
    scores = _scores(_clip("bd2so"), _clip("dssob"))
    assert set(scores) == set(accumulate.SCORES)
    for name, value in scores.items():
        assert value == pytest.approx(10 if name == "cider" else 1), name


def test_masks_and_words_are_judged_on_sounding_frames_only():
    # A pixel and a word in silent and off-screen frames cost their accuracies and nothing else.
    loud = _clip("bs", ["The bell is ringing.", "A dog."], predicted_area=np.array([8, 3]))
    scores = _scores(loud, _clip("dds"))
    assert scores["miou"] == 1
    assert scores["exact_match"] == 1
    assert scores["silent_accuracy"] == 0.5
    assert np.isnan(scores["offscreen_accuracy"])


@pytest.mark.parametrize(("area", "sentence", "right"), [(0, "", 1), (1, "", 0), (0, "Bell.", 0), (1, "Bell.", 0)])
def test_silence_wants_no_pixel_and_no_word(area, sentence, right):
    for kind, name in (("s", "silent_accuracy"), ("o", "offscreen_accuracy")):
        assert _scores(_clip(kind, [sentence], predicted_area=np.array([area])))[name] == right


def test_mean_over_frames_hand_worked():
    clip = _clip("bd", intersection=np.array([4, 0]), predicted_area=np.array([6, 5]))
    scores = _scores(clip)
    assert scores["miou"] == pytest.approx((4 / 10 + 0) / 2)
    assert scores["f_score"] == pytest.approx((1.3 * 4 / (0.3 * 8 + 6) + 0) / 2)


def test_frames_with_unknown_masks_or_no_sentence_do_not_count():
    clip = _clip("bd", has_mask=np.array([True, False]), intersection=np.array([8, 0]))
    assert _scores(clip)["miou"] == 1
    clip = _clip("bd", ["", ""], reference=np.array(["", ""], object))
    assert np.isnan(_scores(clip)["meteor"])


def test_a_model_without_words_is_judged_by_masks():
    clip = {name: values for name, values in _clip("bs").items() if name != "hypothesis"}
    scores = _scores(clip)
    assert scores["miou"] == 1
    assert scores["silent_accuracy"] == 1
    assert np.isnan(scores["meteor"])


def test_order_of_clips_changes_no_bit():
    rng = np.random.default_rng(0)
    clips = [
        _clip("bd2so", intersection=rng.integers(0, 8, 5), predicted_area=rng.integers(8, 20, 5)) for _ in range(9)
    ]
    one, other = accumulate.FrameTable(), accumulate.FrameTable()
    for number in range(9):
        one.add(number, clips[number])
    for number in rng.permutation(9):
        other.add(int(number), clips[number])
    assert (accumulate.statistics(one.columns()) == accumulate.statistics(other.columns())).all()
    assert one.columns()["record"].tolist() == np.repeat(np.arange(9), 5).tolist()


def test_a_record_counts_once_and_some_must_be_there():
    table = accumulate.FrameTable()
    with pytest.raises(ValueError, match="no clips"):
        table.columns()
    table.add(3, _clip("b"))
    with pytest.raises(ValueError, match="record 3"):
        table.add(3, _clip("b"))


def test_groups_by_class_and_number_of_sources():
    table = accumulate.FrameTable()
    table.add(0, _clip("bd2so"))
    found = {name: frames.tolist() for name, frames in accumulate.groups(table.columns(), CLASSES).items()}
    assert found == {
        "class/bell": [True, False, True, False, False],
        "class/drum": [False, True, True, False, True],  # off screen as well
        "sources/1": [True, True, False, False, False],
        "sources/2": [False, False, True, False, False],
    }


def test_intervals_hold_the_value_and_shrink_with_more_clips():
    rng = np.random.default_rng(1)
    widths = []
    for number in (20, 320):
        rows = np.zeros((number * 5, len(accumulate.STATISTICS)))
        rows[:, accumulate.STATISTICS.index("mask_frames")] = 1
        # Frames of a clip are alike: the interval must come from clips, not frames.
        rows[:, accumulate.STATISTICS.index("iou")] = np.repeat(rng.random(number), 5)
        records = np.repeat(np.arange(number), 5)
        low, high = accumulate.Bootstrap(records).intervals(rows)["miou"]
        mean = accumulate.finish(rows.sum(0))["miou"]
        assert low < mean < high
        standard_error = rows[::5, accumulate.STATISTICS.index("iou")].std() / np.sqrt(number)
        assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)
        widths.append(high - low)
        assert accumulate.Bootstrap(records).intervals(rows)["miou"] == (low, high)  # seeded
        assert np.isnan(accumulate.Bootstrap(records).intervals(rows)["meteor"]).all()
    assert widths[1] < widths[0] / 3


def test_intervals_of_clips_all_alike_are_points():
    table = accumulate.FrameTable()
    for number in range(6):
        table.add(number, _clip("bd"))
    rows = accumulate.statistics(table.columns())
    low, high = accumulate.Bootstrap(table.columns()["record"]).intervals(rows)["bleu_4"]
    assert low == pytest.approx(high)
    assert high == pytest.approx(1)
