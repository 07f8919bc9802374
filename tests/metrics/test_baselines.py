import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssu_jax.metrics import accumulate, baselines

SIZE = 8
LEFT = np.zeros((SIZE, SIZE), bool)
LEFT[2:6, :4] = True
RIGHT = LEFT[:, ::-1]


def _clip(sounding: str, number: int) -> dict[str, np.ndarray]:
    """A bell stands left and a drum right, always in view; letters say which sounds: b, d, or s for silence."""
    sources = np.array([[letter == "b", letter == "d"] for letter in sounding])
    masks = np.array([{"b": LEFT, "d": RIGHT, "s": LEFT & RIGHT}[letter] for letter in sounding])
    sentences = {"b": "The bell is ringing.", "d": "The drum is beating.", "s": ""}
    area = masks.sum((1, 2))
    return {
        "frame": np.arange(len(sounding)),
        "sources": sources,
        "audible": sources,
        "visible": np.ones((len(sounding), 2), bool),
        "num_sources": sources.sum(1),
        "mask_known": np.ones(len(sounding), bool),
        "source_known": np.ones(len(sounding), bool),
        "has_mask": area > 0,
        "reference": np.array([sentences[letter] for letter in sounding], object),
        "grid_mask": baselines.pack(masks),
        "grid_visible": baselines.pack(np.broadcast_to(LEFT | RIGHT, masks.shape)),
        "intersection": area,
        "predicted_area": area,
        "reference_area": area,
        "hypothesis": np.array([""] * len(sounding), object),
    }


def _baselines(*clips: str) -> dict[str, dict[str, float]]:
    table = accumulate.FrameTable()
    for number, sounding in enumerate(clips):
        table.add(number, _clip(sounding, number))
    columns = table.columns()
    scores = {}
    for name, replaced in baselines.predictions(columns).items():
        kept = {key: columns[key] for key in columns if key not in ("predicted_area", "hypothesis")}
        scores[name] = accumulate.finish(accumulate.statistics({**kept, **replaced}).sum(0))
    return scores


def test_one_sense_each_hand_worked():
    scores = _baselines(*["bbbdss"] * 10)
    # Places follow from the class here, so ears alone know everything.
    assert scores["sound_only"]["miou"] == 1
    assert scores["sound_only"]["exact_match"] == 1
    assert scores["sound_only"]["silent_accuracy"] == 1
    # Both objects are marked, one sounds: intersection 16, union 32.
    assert scores["picture_only"]["miou"] == pytest.approx(0.5)
    assert scores["picture_only"]["exact_match"] == pytest.approx(3 / 4)  # the bell's sentence is commonest
    assert scores["picture_only"]["silent_accuracy"] == 0
    assert np.isnan(scores["commonest"]["miou"])
    assert scores["commonest"]["exact_match"] == pytest.approx(3 / 4)


def test_a_clip_is_not_counted_for_itself():
    # The drum sounds in one clip alone: from the others nothing is known of it but the bell's place and words.
    scores = _baselines("dddd", *["bbbb"] * 4)
    assert scores["sound_only"]["miou"] == pytest.approx(4 / 5)
    assert scores["sound_only"]["exact_match"] == pytest.approx(4 / 5)


def test_ties_do_not_depend_on_the_order():
    one, other = _baselines(*["bd"] * 5, *["db"] * 5), _baselines(*["db"] * 5, *["bd"] * 5)
    assert one["commonest"]["exact_match"] == other["commonest"]["exact_match"] == 0.5
    assert one["commonest"]["meteor"] == other["commonest"]["meteor"]


def test_one_fold_alone_gives_no_baseline():
    assert baselines.predictions({"record": np.zeros(4, int)}) == {name: {} for name in baselines.NAMES}


def test_packing_round_trip():
    masks = np.random.default_rng(0).random((3, 8, 16)) < 0.5
    assert (baselines.unpack(baselines.pack(masks)) == masks).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_best_constant_mask_beats_every_other(values):
    mean = np.array(values).reshape(2, 3)
    if not mean.any():
        assert not baselines.best_constant_mask(mean).any()
        return

    def expected_iou(mask):
        intersection = mean[mask].sum()
        return intersection / (mean.sum() + mask.sum() - intersection)

    every = [np.array([number >> bit & 1 for bit in range(6)], bool).reshape(2, 3) for number in range(1, 64)]
    best = expected_iou(baselines.best_constant_mask(mean))
    assert best == pytest.approx(max(map(expected_iou, every)))
