"""Log-mel equals a direct reading of VGGish's definition, and the transform equals librosa's."""

import functools
import math

import numpy as np
import pytest

from ssu_jax.data import audio

RATE = 16000


def reference(sound, log_offset):
    """The definition read aloud, in float64: a sum over samples for each bin, a sum over bins for each band."""
    window = [0.5 - 0.5 * math.cos(2 * math.pi * n / 400) for n in range(400)]
    waves = np.exp(-2j * np.pi * np.outer(np.arange(257), np.arange(400)) / 512)
    starts = range(0, len(sound) - 400 + 1, 160)
    magnitudes = [np.abs((waves * sound[start : start + 400] * window).sum(1)) for start in starts]
    return np.array([[math.log((row * band).sum() + log_offset) for band in triangles()] for row in magnitudes])


@functools.cache
def triangles():
    edges = np.linspace(mel(125.0), mel(7500.0), 66)
    bands = np.zeros((64, 257))
    for band, (low, centre, high) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for k in range(1, 257):
            at = mel(k * RATE / 512)
            bands[band, k] = max(0.0, min((at - low) / (centre - low), (high - at) / (high - centre)))
    return bands


def mel(hz):
    return 1127.0 * math.log(1 + hz / 700.0)


def noise(seconds, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, round(seconds * RATE))


def sounds():
    time = np.arange(RATE // 4) / RATE
    loud = np.sin(2 * np.pi * 440 * time)
    return {
        "noise": noise(0.25),
        "quiet": 1e-4 * noise(0.25, 1),
        "tone": loud,
        "click": np.eye(1, RATE // 4, 2000)[0],
        "silence": np.zeros(RATE // 4),
        "tone over nothing": np.where(time < 0.1, loud, 0),
        "chirp": np.sin(2 * np.pi * (100 + 15000 * time) * time),
    }


@pytest.mark.parametrize("log_offset", [0.01, 0.001])
@pytest.mark.parametrize("name", sounds())
def test_equals_the_direct_reference(name, log_offset):
    sound = sounds()[name]
    ours = audio.log_mel(sound, RATE, log_offset)
    assert ours.dtype == np.float32
    assert ours.shape == (1 + (len(sound) - 400) // 160, 64)
    np.testing.assert_allclose(ours, reference(sound, log_offset), atol=1e-5, rtol=0)


@pytest.mark.full  # librosa compiles for a quarter of a minute
def test_transform_equals_librosa():
    librosa = pytest.importorskip("librosa")
    sound = noise(2.0).astype(np.float32)
    # librosa puts the 400-sample window in the middle of its 512; ours begins with the frame: 56 samples apart.
    padded = np.concatenate([np.zeros(56, np.float32), sound, np.zeros(512, np.float32)])
    theirs = np.abs(librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, window="hann", center=False)).T
    ours = audio.stft_magnitude(sound, RATE)
    assert ours.max() > 10
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-4, rtol=0)


def test_mel_axis_equals_librosa():
    librosa = pytest.importorskip("librosa")
    edges = librosa.mel_frequencies(n_mels=66, fmin=125, fmax=7500, htk=True)
    for band in (0, 20, 63):
        tone = np.sin(2 * np.pi * edges[band + 1] * np.arange(RATE) / RATE)
        assert audio.log_mel(tone, RATE, 0.01)[50].argmax() == band


def test_silence_is_the_offset():
    np.testing.assert_allclose(audio.log_mel(np.zeros(RATE), RATE, 0.01), math.log(0.01), rtol=1e-6)


@pytest.mark.parametrize("length", [0, 1, 399, 400, 559, 560])
def test_only_whole_frames(length):
    assert len(audio.log_mel(np.ones(length), RATE, 0.01)) == max(0, 1 + (length - 400) // 160)


def test_patch_t_begins_with_second_t():
    sound = noise(3.0)
    patches = audio.second_patches(sound, RATE, 3, 0.01)
    assert patches.shape == (3, 96, 64)
    assert patches.flags.c_contiguous
    for t in range(3):
        alone = audio.log_mel(sound[t * RATE :], RATE, 0.01)[:96]
        np.testing.assert_allclose(patches[t], alone, atol=1e-6)


def test_a_click_is_heard_in_its_own_second_only():
    for at in (RATE, RATE + 5, 2 * RATE - 401):
        sound = np.zeros(3 * RATE)
        sound[at] = 1.0
        changed = (audio.second_patches(sound, RATE, 3, 0.01) != np.float32(math.log(0.01))).any((1, 2))
        # The window is 0 at its first sample, so a click at the very start of a second stays unheard.
        assert changed.tolist() == [False, at != RATE, False]


def test_short_sound_is_padded_and_long_sound_cut():
    sound = noise(1.5)
    patches = audio.second_patches(sound, RATE, 4, 0.01)
    np.testing.assert_allclose(patches[2:], math.log(0.01), rtol=1e-6)
    np.testing.assert_array_equal(patches[:1], audio.second_patches(sound, RATE, 1, 0.01))


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_other_rates_give_the_same_shape_and_seconds(rate):
    def tone(at):
        time = np.arange(3 * at) / at
        return np.where(time >= 1, np.sin(2 * np.pi * 1000 * time), 0.0)

    patches = audio.second_patches(tone(rate), rate, 3, 0.01)
    assert patches.shape == (3, 96, 64)
    assert patches[0].max() < -4
    loudest = [audio.second_patches(tone(at), at, 3, 0.01)[2, 50].argmax() for at in (rate, RATE)]
    assert abs(int(loudest[0]) - int(loudest[1])) <= 1


def test_int16_becomes_float_and_is_resampled():
    tone = np.rint(20000 * np.sin(2 * np.pi * 300 * np.arange(8000) / 8000)).astype(np.int16)
    same = audio.to_float(tone, 8000, 8000)
    np.testing.assert_array_equal(same * 32768, tone)
    doubled = audio.to_float(tone, 8000, 16000)
    assert doubled.shape == (16000,)
    wanted = 20000 / 32768 * np.sin(2 * np.pi * 300 * np.arange(16000) / 16000)
    np.testing.assert_allclose(doubled[200:-200], wanted[200:-200], atol=2e-3)
