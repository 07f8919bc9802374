"""When the world's sources sound, how loud, and that they are told apart by ear."""

import numpy as np
import pytest

from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data import audio
from ssu_jax.data.synthetic import make_clip, mixing, plan, signals, sounds

LENGTH = 32000


@pytest.fixture(scope="module")
def casts():
    return [plan.cast(plan.Streams(1, "train", index)) for index in range(400)]


def test_a_second_sounds_when_half_of_it_does():
    """Hand-worked: 1.4 to 3.5 leaves 0.6 of second 1, all of 2, half of 3."""
    share = plan.sounding_share(((1.4, 3.5),))
    np.testing.assert_allclose(share, [0, 0.6, 1, 0.5, 0, 0, 0, 0, 0, 0], atol=1e-12)
    thing = plan.Thing("bell", "red", True, np.zeros(4), 0.0, intervals=((1.4, 3.5),))
    assert thing.sounding.tolist() == [False, True, True, True] + [False] * 6


def test_shares_of_two_intervals_add():
    share = plan.sounding_share(((0.75, 1.25), (1.5, 2.25)))
    np.testing.assert_allclose(share, [0.25, 0.75, 0.25, 0, 0, 0, 0, 0, 0, 0], atol=1e-12)


def test_sources_start_and_stop_inside_the_clip_and_off_the_grid(casts):
    for thing in (thing for things in casts for thing in things if thing.intervals):
        for start, stop in thing.intervals:
            assert start > 0
            assert stop < plan.NUM_FRAMES
            assert stop - start >= 1.2
            for edge in (start, stop):
                assert 0.05 < edge % 1 < 0.95
        assert 2.0 <= sum(stop - start for start, stop in thing.intervals) <= 5.0


def test_no_second_is_near_the_half_that_decides(casts):
    for thing in (thing for things in casts for thing in things):
        share = plan.sounding_share(thing.intervals)
        assert not ((share > 0.35) & (share < 0.65)).any()


def test_at_most_three_sound_at_once_and_some_together(casts):
    at_once = [np.sum([thing.sounding for thing in things], axis=0).max() for things in casts]
    assert max(at_once) == 3
    several = [[thing for thing in things if thing.on_screen and thing.intervals] for things in casts]
    for seen in (seen for seen in several if len(seen) > 1):
        assert np.all([thing.sounding for thing in seen], axis=0).any()


def test_shuffled_sound_is_worth_little(casts):
    """A perfect listener that hears another second of the same clip must score low, though much is heard."""
    rng = np.random.default_rng(0)
    overlaps, heard = [], []
    for things in casts:
        active = np.array([thing.sounding for thing in things if thing.on_screen])
        heard.append(active.any(0).mean())
        order = _derangement(rng)
        for t in np.flatnonzero(active.any(0)):
            true, believed = active[:, t], active[:, order[t]]
            overlaps.append((true & believed).sum() / (true | believed).sum())
    assert np.mean(overlaps) <= 0.28
    assert 0.35 <= np.mean(heard) <= 0.50


def test_gains_lie_within_eight_decibels(casts):
    for things in casts:
        levels = [thing.gain_db for thing in things if thing.intervals]
        assert max(levels, default=0) - min(levels, default=0) <= 8
    things = next(things for things in casts if sum(bool(thing.intervals) for thing in things) > 1)
    for thing in (thing for thing in things if thing.intervals):
        wave = mixing.play(thing, np.random.default_rng(0), 160000)
        active = [wave[round(start * 16000) : round(stop * 16000)] for start, stop in thing.intervals]
        level = 10 * np.log10(np.mean(np.concatenate(active) ** 2))
        assert level == pytest.approx(mixing.LEVEL_DB + thing.gain_db, abs=1.0)  # the fades take a little
        assert np.sum(wave**2) == pytest.approx(sum(np.sum(part**2) for part in active))


def test_ambience_lies_five_to_twenty_five_decibels_below():
    """Measured before any source sounds, against the level that the sources were given."""
    margins = []
    for index in range(60):
        streams = plan.Streams(8, "train", index)
        sources = [thing for thing in plan.cast(streams) if thing.intervals]
        if not sources:
            continue
        mix = mixing.mix(sources, streams) / 32768
        alone = sum(mixing.play(thing, streams("sound", thing.name), 160000) for thing in sources)
        scale = np.sum(mix * alone) / np.sum(alone**2)  # the mix is turned down where it would clip
        rest = 10 * np.log10(np.mean((mix / scale - alone) ** 2))
        margins += [mixing.LEVEL_DB + thing.gain_db - rest for thing in sources]
    assert min(margins) >= 4.5
    assert max(margins) <= 25.5


def test_a_few_silent_clips_are_digital_silence_and_nothing_clips():
    silent = [make_clip(8, "train", index) for index in range(400) if not _has_source(index)]
    zeros = [not clip.sound.any() for clip in silent]
    assert 0 < sum(zeros) < 0.5 * len(zeros)
    assert max(np.abs(clip.sound.astype(int)).max() for clip in silent) < 32767


@pytest.mark.parametrize("name", SYNTHETIC_CLASSES)
def test_sounds_are_whole_and_never_rest(name):
    """Every 0.4 s holds sound, whatever timbre and length, and most of it where the model listens."""
    for unit in (0.0, 0.5, 1.0):
        for length in (19200, 50001):
            wave = sounds.SOUNDS[name](length, np.full(4, unit), np.random.default_rng(1))
            assert wave.shape == (length,)
            assert np.isfinite(wave).all()
            windows = wave[: length // 6400 * 6400].reshape(-1, 6400)
            assert np.sqrt(np.mean(windows**2, 1)).min() > 0.3 * np.sqrt(np.mean(wave**2))
    power = np.abs(np.fft.rfft(wave)) ** 2
    hz = np.fft.rfftfreq(len(wave), 1 / 16000)
    assert power[(hz > 125) & (hz < 7500)].sum() > 0.85 * power.sum()


def test_classes_are_told_apart_by_ear():
    """A linear reader of the means and spreads of log-mel bands names nearly every sound that it has not heard."""
    rng = np.random.default_rng(5)
    features = np.array([[_summary(name, rng) for _ in range(24)] for name in SYNTHETIC_CLASSES])
    features = (features - features.mean((0, 1))) / (features.std((0, 1)) + 1e-6)
    known, asked = features[:, :16].reshape(-1, features.shape[-1]), features[:, 16:]
    wanted = np.repeat(np.eye(len(SYNTHETIC_CLASSES)), 16, 0)
    weights = known.T @ np.linalg.solve(known @ known.T + 10 * np.eye(len(known)), wanted)  # ridge regression
    right = (asked @ weights).argmax(-1) == np.arange(len(SYNTHETIC_CLASSES))[:, None]
    assert right.mean() > 0.95


def test_strokes_follow_their_rate():
    wave = signals.strokes(np.random.default_rng(0), 16000, 4.0, [np.ones(1)], jitter=0.0)
    np.testing.assert_array_equal(np.flatnonzero(wave), [0, 4000, 8000, 12000])


def test_levels_and_edges():
    wave = signals.at_level(np.random.default_rng(0).normal(size=1000), -20.0)
    assert np.sqrt(np.mean(wave**2)) == pytest.approx(0.1)
    faded = signals.hann_edges(np.ones(1000), 0.01)
    assert faded[0] < 0.001
    assert faded[-1] < 0.001
    assert (faded[160:-160] == 1).all()


def _summary(name: str, rng: np.random.Generator) -> np.ndarray:
    wave = sounds.SOUNDS[name](16000, 0.2 + 0.6 * rng.random(4), rng)
    wave = signals.at_level(wave, -20.0 + rng.uniform(-4, 4)) + signals.at_level(signals.ambience(rng, 16000), -35.0)
    bands = audio.log_mel(wave, 16000, 0.01)
    return np.concatenate([bands.mean(0), bands.std(0), np.abs(np.diff(bands, axis=0)).mean(0)])


def _has_source(index: int) -> bool:
    return any(thing.intervals for thing in plan.cast(plan.Streams(8, "train", index)))


def _derangement(rng: np.random.Generator) -> np.ndarray:
    while True:
        order = rng.permutation(plan.NUM_FRAMES)
        if (order != np.arange(plan.NUM_FRAMES)).all():
            return order
