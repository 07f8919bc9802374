"""The sound of a clip: the sources in their intervals over an ambience that lies below each of them."""

import numpy as np
from jaxtyping import Float, Int16

from ssu_jax.data.synthetic import signals, sounds
from ssu_jax.data.synthetic.plan import GAIN_DB, NUM_FRAMES, SAMPLE_RATE, Streams, Thing

LEVEL_DB = -20.0  # common level of the sources, decibels of full scale (root mean square while they sound)
PEAK = 0.95  # the mix is turned down to this where it would clip
AMBIENCE_DB = (5.0, 25.0)  # below every source of the clip
DIGITAL_SILENCE = 0.15  # share of the silent clips that hold zeros


def mix(things: list[Thing], streams: Streams) -> Int16[np.ndarray, "samples"]:
    """All of a clip that is heard, rounded once."""
    num_samples = NUM_FRAMES * SAMPLE_RATE
    sources = [thing for thing in things if thing.intervals]
    gains = [thing.gain_db for thing in sources]
    rng = streams("ambience")
    is_digital_silence = rng.random() < DIGITAL_SILENCE and not sources
    low, high = AMBIENCE_DB
    below = rng.uniform(low, high - (max(gains) - min(gains) if gains else 0.0))
    gain = rng.uniform(-GAIN_DB, GAIN_DB)  # as if of a source, where there is none
    total = np.zeros(num_samples)
    if not is_digital_silence:
        total += signals.at_level(signals.ambience(rng, num_samples), LEVEL_DB + min(gains, default=gain) - below)
    for thing in sources:
        total += play(thing, streams("sound", thing.name), num_samples)
    peak = np.abs(total).max()
    return np.rint(total * (32767 * min(1.0, PEAK / max(peak, 1e-12)))).astype(np.int16)


def play(thing: Thing, rng: np.random.Generator, num_samples: int) -> Float[np.ndarray, "samples"]:
    """The thing's sound at its level inside its intervals, zero elsewhere."""
    result = np.zeros(num_samples)
    bounds = [(round(start * SAMPLE_RATE), round(stop * SAMPLE_RATE)) for start, stop in thing.intervals]
    waves = [sounds.SOUNDS[thing.name](stop - start, thing.timbre, rng) for start, stop in bounds]
    loud = np.sqrt(sum((wave**2).sum() for wave in waves) / sum(len(wave) for wave in waves))
    for (start, stop), wave in zip(bounds, waves, strict=True):
        level = 10 ** ((LEVEL_DB + thing.gain_db) / 20) / loud
        result[start:stop] = signals.hann_edges(level * wave, signals.FADE_SECONDS)
    return result
