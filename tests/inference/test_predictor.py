"""Prediction: windows of one shape, silence stays silent, masks and sentences at their second and at source size."""

import dataclasses
import itertools
import types
import weakref

import jax
import numpy as np
import pytest
from small_videos import grey_at, make_video, tone

from ssu_jax.config import sizes
from ssu_jax.data import survey
from ssu_jax.inference import loading
from ssu_jax.inference import predictor as predictor_module
from ssu_jax.inference.predictor import Predictor
from ssu_jax.models import postprocess


class Words:
    """Stands for the tokenizer: the id is what the stub saw."""

    def decode(self, ids):
        return f"grey {int(ids[0])}"


def stub(calls):
    """A `describe` that marks the left half of every frame and says the brightness of its last quarter."""

    def describe(params, frames, log_mel, frame_valid):
        calls.append((frames.shape, log_mel.shape, frame_valid.copy(), frames.copy()))
        masks = np.zeros(frames.shape[:4], np.float32)
        masks[..., : frames.shape[3] // 2] = 0.9
        ids = np.zeros((*frames.shape[:2], 4), np.int32)
        ids[..., 0] = np.round(frames[:, :, 20:28, 20:28].mean(axis=(2, 3, 4)))
        return masks, ids

    return describe


def predict(path, num_frames=4):
    config = sizes.tiny()
    config.data.num_frames = num_frames
    calls = []
    described = Predictor(config, None, Words(), stub(calls)).predict(path)
    return list(described.predictions), described, calls


@pytest.mark.parametrize(("seconds", "calls_wanted"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (10, 3)])
def test_every_second_is_described_once_by_windows_of_one_shape(tmp_path, seconds, calls_wanted):
    found, described, calls = predict(make_video(tmp_path / "a.mp4", seconds=seconds))
    assert [one.second for one in found] == list(range(seconds)) == list(range(described.info.num_seconds))
    assert [one.seconds for one in found] == [second + 0.5 for second in range(seconds)]
    for one in found:
        assert int(one.caption.split()[1]) == pytest.approx(grey_at(one.seconds), abs=2), "its own second's picture"
    assert len(calls) == calls_wanted
    assert {call[:2] for call in calls} == {((1, 4, 32, 32, 3), (1, 4, 96, 64))}
    assert all(call[2].all() for call in calls) or seconds < 4
    if seconds < 4:
        np.testing.assert_array_equal(calls[0][2], [[place < seconds for place in range(4)]])
        assert not calls[0][3][0, seconds:].any()


def test_masks_come_at_source_size(tmp_path):
    (one, *_), _, _ = predict(make_video(tmp_path / "a.mp4", seconds=1, size=(46, 130)))
    assert one.mask.shape == (46, 130)
    np.testing.assert_array_equal(one.mask[:, :65], True)
    np.testing.assert_array_equal(one.mask[:, 66:], False)
    assert one.area == one.mask.mean()
    assert one.score == pytest.approx(0.9, abs=0.02)


def test_rotated_videos_give_upright_masks(tmp_path):
    (one, *_), described, calls = predict(make_video(tmp_path / "a.mp4", seconds=1, rotation=90))
    assert one.mask.shape == (described.info.height, described.info.width) == (64, 48)
    # Turned counter-clockwise, green (top right in the file) stands top left.
    assert calls[0][3][0, 0, 4, 4].argmax() == 1


def test_silent_seconds_are_empty(tmp_path):
    """What the model says of a second without sound does not count."""
    sound = np.concatenate([tone(2), np.zeros(2 * 48000, np.int16), tone(2)])
    path = make_video(tmp_path / "a.mkv", seconds=6, sound=sound, codecs=("libx264", "pcm_s16le"))
    found, described, _ = predict(path)
    assert [bool(one.caption) for one in found] == [True, True, False, False, True, True]
    for one in found:
        assert (one.area > 0) == (one.score > 0) == bool(one.caption) == one.mask.any()
    assert described.notes == []


def test_a_video_without_sound_needs_no_model(tmp_path):
    silent = make_video(tmp_path / "silent.mp4", seconds=5, sound=np.zeros(5 * 48000, np.int16))
    absent = make_video(tmp_path / "absent.mp4", seconds=5, sound=None)
    for path, note in ((silent, "the sound is silent"), (absent, "no sound stream")):
        found, described, calls = predict(path)
        assert calls == []
        assert [(one.caption, one.area, one.score) for one in found] == [("", 0.0, 0.0)] * 5
        assert [text.split(":")[0] for text in described.notes] == [note]


def test_any_length_takes_the_same_memory(tmp_path, monkeypatch):
    """Two hours: at most three windows are read ahead of what is given, and none of their pictures is kept."""
    info = survey.survey(make_video(tmp_path / "a.mp4", seconds=1))
    long = dataclasses.replace(info, duration_seconds=7200.0, last_picture_seconds=7199.9)
    given = []

    def pictures(info, size, tally):
        for _ in range(7200):
            picture = np.zeros((size, size, 3), np.uint8)
            given.append(weakref.ref(picture))
            yield picture

    monkeypatch.setattr(predictor_module.video, "second_pictures", pictures)
    monkeypatch.setattr(predictor_module.video, "second_sounds", lambda *_: itertools.repeat(tone(1, 16000), 7200))
    predictor = Predictor(sizes.tiny(), None, Words(), stub([]))
    for one in itertools.islice(predictor.predict(long).predictions, 100):
        assert len(given) <= one.second + 4 * 4
        assert sum(picture() is not None for picture in given) <= 5


def test_the_model_is_compiled_once_whatever_the_video(tmp_path):
    """The real model at its smallest: two videos of other sizes, one program."""
    config = sizes.tiny()
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32), loading.parameter_shapes(config)
    )
    predictor = Predictor(config, params, types.SimpleNamespace(decode=lambda ids: " ".join(map(str, ids))))
    for number, size in enumerate([(48, 64), (30, 90)]):
        path = make_video(tmp_path / f"{number}.mp4", seconds=5 + number, size=size)
        found = list(predictor.predict(path).predictions)
        assert len(found) == 5 + number
        assert all(one.mask.shape == size for one in found)
    assert predictor._describe._cache_size() == 1


def test_bilinear_between_pixel_centres():
    """By hand: [0, 1] over four pixels has its centres at -1/4, 1/4, 3/4, 5/4."""
    row = np.array([[[0.0, 1.0]]], np.float32)
    np.testing.assert_allclose(postprocess.resize_probabilities(row, 1, 4)[0, 0], [0, 0.25, 0.75, 1], atol=1e-7)
    np.testing.assert_allclose(postprocess.resize_probabilities(row, 3, 1)[0], [[0.5]] * 3, atol=1e-7)
    rng = np.random.default_rng(0)
    probabilities = rng.random((2, 7, 5), np.float32)
    wanted = jax.image.resize(probabilities, (2, 23, 31), "bilinear", antialias=False)
    np.testing.assert_allclose(postprocess.resize_probabilities(probabilities, 23, 31), wanted, atol=1e-6)
    np.testing.assert_array_equal(postprocess.resize_probabilities(probabilities, 7, 5), probabilities)


def test_to_prediction():
    masks = np.array([[[0.2, 0.8]]], np.float32)
    prediction = postprocess.to_prediction(masks, np.array([[7, 0]], np.int32), Words(), 2, 4)
    assert prediction.captions == ("grey 7",)
    np.testing.assert_array_equal(prediction.masks[0], [[False, False, True, True]] * 2)
    assert postprocess.score_of(prediction.mask_probabilities[0], prediction.masks[0]) == pytest.approx(0.725)
    assert postprocess.score_of(prediction.mask_probabilities[0], np.zeros((2, 4), bool)) == 0.0
