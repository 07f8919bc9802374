"""Small tools of sound: noise in a band, strokes in time, levels, and the ambience of a clip.

All sound is float64 at 16 kHz until the clip is rounded once.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

SAMPLE_RATE = 16000
FADE_SECONDS = 0.02  # at the start and stop of an interval: no click gives them away
AMBIENCES = ("pink", "brown", "wind", "hum", "room")


def seconds(num_samples: int) -> Float[np.ndarray, "samples"]:
    """The time of every sample."""
    return np.arange(num_samples) / SAMPLE_RATE


def between(unit: float, low: float, high: float) -> float:
    """A timbre number 0 to 1 as a value between low and high, evenly in the ratio (as pitch is heard)."""
    return float(low * (high / low) ** unit)


def band_noise(
    rng: np.random.Generator, num_samples: int, low_hz: float, high_hz: float
) -> Float[np.ndarray, "samples"]:
    """Gaussian noise between two frequencies, soft at both ends."""
    return shaped_noise(rng, num_samples, lambda hz: 1 / (1 + (hz / high_hz) ** 8) / (1 + (low_hz / hz) ** 8))


def shaped_noise(rng: np.random.Generator, num_samples: int, gain: Callable) -> Float[np.ndarray, "samples"]:
    """Gaussian noise whose magnitude follows gain(hz)."""
    padded = -(-num_samples // 4000) * 4000  # a length that the Fourier transform likes
    spectrum = np.fft.rfft(rng.standard_normal(padded))
    hz = np.maximum(np.fft.rfftfreq(padded, 1 / SAMPLE_RATE), 1.0)
    return np.fft.irfft(spectrum * gain(hz), padded)[:num_samples]


def strokes(rng: np.random.Generator, num_samples: int, rate_hz: float, waves: Sequence[np.ndarray],
            jitter: float = 0.06) -> np.ndarray:  # fmt: skip
    """Events from the first sample to the last, `waves` in turn, each overlapping what still rings."""
    result = np.zeros(num_samples)
    at, number = 0.0, 0
    while at < num_samples:
        wave = waves[number % len(waves)]
        start = int(at)
        stop = min(start + len(wave), num_samples)
        result[start:stop] += rng.uniform(0.8, 1.0) * wave[: stop - start]
        at += SAMPLE_RATE / rate_hz * (1.0 + rng.uniform(-jitter, jitter))
        number += 1
    return result


def hann_edges(wave: Float[np.ndarray, "samples"], fade_seconds: float) -> Float[np.ndarray, "samples"]:
    """The wave with a raised-cosine start and end."""
    fade = min(int(fade_seconds * SAMPLE_RATE), len(wave) // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(fade) + 0.5) / max(fade, 1))
    result = wave.copy()
    result[:fade] *= ramp
    result[len(wave) - fade :] *= ramp[::-1]
    return result


def at_level(wave: Float[np.ndarray, "samples"], decibels: float) -> Float[np.ndarray, "samples"]:
    """The wave at this root mean square, decibels of full scale."""
    return wave * (10 ** (decibels / 20) / max(np.sqrt(np.mean(wave**2)), 1e-12))


def ambience(rng: np.random.Generator, num_samples: int) -> Float[np.ndarray, "samples"]:
    """One of five steady backgrounds, of any level."""
    kind = str(rng.choice(AMBIENCES))
    if kind == "pink":
        return shaped_noise(rng, num_samples, lambda hz: hz**-0.5)
    if kind == "brown":
        return shaped_noise(rng, num_samples, lambda hz: 1 / (hz + 60))
    if kind == "room":
        cutoff = rng.uniform(1500, 5000)
        return shaped_noise(rng, num_samples, lambda hz: 1 / (1 + (hz / cutoff) ** 2))
    time = seconds(num_samples)
    if kind == "wind":
        gust = 1 + 0.6 * np.sin(2 * np.pi * (time * rng.uniform(0.1, 0.35) + rng.random()))
        return gust * band_noise(rng, num_samples, 90, rng.uniform(350, 900))
    mains = rng.choice([50.0, 60.0])
    hum = sum(np.sin(2 * np.pi * (mains * k * time + rng.random())) / k for k in (1, 2, 3, 4, 6, 8))
    return hum + 0.4 * shaped_noise(rng, num_samples, lambda hz: 60 * hz**-0.5)
