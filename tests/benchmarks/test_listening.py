"""The listening benchmark passes a listener that hears, and misses one that only looks."""

import importlib.util
import pathlib

import numpy as np
import pytest

from ssu_jax.data.synthetic import make_clip

PATH = pathlib.Path(__file__).parents[2] / "benchmarks" / "listening.py"
NUM_CLIPS = 8


@pytest.fixture(scope="module")
def listening():
    spec = importlib.util.spec_from_file_location("listening", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def hears(clips):
    """Knows the truth wherever a second of sound is the one that the labels were made for."""
    masks, sentences = [], []
    for clip in clips:
        own = _loudness(clip) == _LOUDNESS.setdefault(clip.id, _loudness(clip))
        masks.append(clip.sounding_masks & own[:, None, None])
        sentences.append([caption if at else "" for caption, at in zip(clip.captions, own, strict=True)])
    return np.array(masks), sentences


def looks_only(clips):
    """Paints and names whatever is in view."""
    masks = [np.any([item.masks for item in clip.objects if item.on_screen], axis=0) for clip in clips]
    return np.array(masks), [["The red bell on the left is ringing."] * len(clip.frames) for clip in clips]


_LOUDNESS: dict[str, np.ndarray] = {}


def _loudness(clip) -> np.ndarray:
    return np.square(clip.sound.astype(np.int64).reshape(10, -1)).sum(1)


@pytest.fixture(scope="module", autouse=True)
def truth(listening):
    """What each clip truly sounds like."""
    _LOUDNESS.clear()
    _LOUDNESS.update({clip.id: _loudness(clip) for clip in (make_clip(1, "test", i) for i in range(NUM_CLIPS))})


def test_a_listener_passes(listening):
    figures = listening.measure(hears, 1, NUM_CLIPS)
    for name, (low, high) in listening.TARGETS.items():
        assert low <= figures[name] <= high, name
    assert figures["shuffled/iou_with_its_own_sound"] == 1.0
    assert figures["counterfactual/iou_with_the_object_that_sounded_before"] == 0.0
    assert figures["silence/num_frames"] == 10 * NUM_CLIPS


def test_a_deaf_model_misses(listening):
    figures = listening.measure(looks_only, 1, NUM_CLIPS)
    assert figures["silence/mean_area"] > 0.002
    assert figures["silence/empty_sentences"] == 0.0
    assert figures["shuffled/iou"] == figures["shuffled/iou_with_its_own_sound"] > 0.3
    assert figures["counterfactual/moved"] < 0.85
    # It may cover the right object before or after, by its size, never both.
    assert figures["counterfactual/right_before_and_after"] == 0.0


def test_iou(listening):
    """Hand-worked: two shared pixels of three and four; both empty counts as nothing."""
    one = np.array([[[1, 1, 1, 0, 0]], [[0, 0, 0, 0, 0]]], bool)
    other = np.array([[[0, 1, 1, 1, 1]], [[0, 0, 0, 0, 0]]], bool)
    np.testing.assert_allclose(listening.iou(one, other), [0.4, 0.0])


def test_no_second_keeps_its_place(listening):
    clip = make_clip(1, "test", 0)
    shuffled = listening.shuffle_seconds(clip, np.random.default_rng(0)).reshape(10, -1)
    seconds = clip.sound.reshape(10, -1)
    assert not any(np.array_equal(a, b) for a, b in zip(shuffled, seconds, strict=True) if b.any())
    assert {row.tobytes() for row in shuffled} == {row.tobytes() for row in seconds}
