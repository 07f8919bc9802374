"""How each class sounds, synthesized: far apart in pitch range, spectrum and rhythm (our design).

Each function takes the length in samples, the timbre (four numbers 0 to 1: pitch, tempo, brightness, character) and
a stream of random numbers, and returns float64 [samples] of any level. Every half second holds evidence.
"""

import numpy as np
from jaxtyping import Float

from ssu_jax.data.synthetic.signals import SAMPLE_RATE, at_level, band_noise, between, hann_edges, seconds, strokes

Rng = np.random.Generator
Timbre = Float[np.ndarray, "4"]
Sound = Float[np.ndarray, "samples"]


def banjo(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Plucked strings: quick broken chords, a sharp start, many harmonics that die away upward."""
    base = between(timbre[0], 196, 330)
    time = seconds(int(0.34 * SAMPLE_RATE))
    notes = []
    for ratio in rng.permutation([1.0, 1.25, 1.5, 2.0])[:3]:
        wave = np.zeros(len(time))
        for k in range(1, 15):
            pluck = np.sin(np.pi * k * between(timbre[3], 0.08, 0.16)) / k ** (1.25 - 0.4 * timbre[2])
            wave += pluck * np.exp(-time * (5 + 1.6 * k)) * np.sin(2 * np.pi * base * ratio * k * time)
        notes.append(wave)
    return strokes(rng, num, between(timbre[1], 5.0, 8.0), notes)


def bell(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Struck metal: partials in no simple ratio that ring on into one another."""
    base = between(timbre[0], 700, 1150)
    time = seconds(SAMPLE_RATE)
    ratios = np.array([0.5, 1.0, 1.19, 1.56, 2.0, 2.51, 2.66, 3.01, 4.1])
    weights = np.array([0.5, 1.0, 0.8, 0.5, 0.8, 0.5, 0.4, 0.4, 0.3]) ** (1.4 - 0.8 * timbre[2])
    wave = np.zeros(len(time))
    for ratio, weight in zip(ratios, weights, strict=True):
        decay = (2.0 + 2.0 * ratio) * between(timbre[3], 0.7, 1.5)
        wave += weight * np.exp(-time * decay) * np.sin(2 * np.pi * base * ratio * time)
    wave += 1.5 * np.exp(-time / 0.004) * rng.standard_normal(len(time))  # the clapper
    return strokes(rng, num, between(timbre[1], 2.6, 4.0), [hann_edges(wave, 0.003)], jitter=0.03)


def bird(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Chirps: short whistles that rise, fall or arch between 2.4 and 5.5 kHz."""
    centre = between(timbre[0], 3000, 4000)
    waves = []
    for shape in rng.permutation(4)[:3]:
        length = int(rng.uniform(0.08, 0.12) * SAMPLE_RATE)
        part = np.arange(length) / length
        contour = (part - 0.5, 0.5 - part, np.sin(np.pi * part) - 0.6, 0.5 - np.sin(np.pi * part))[shape]
        phase = 2 * np.pi * np.cumsum(centre * (1 + (0.4 + 0.3 * timbre[3]) * contour)) / SAMPLE_RATE
        waves.append(hann_edges(np.sin(phase) + 0.15 * timbre[2] * np.sin(2 * phase), 0.02))
    return strokes(rng, num, between(timbre[1], 6.0, 8.5), waves)


def clock(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Ticks: very short knocks of several high resonances, evenly spaced, tick and tock."""
    time = seconds(int(0.09 * SAMPLE_RATE))
    waves = []
    for pitch in (1.0, 0.86):
        base = between(timbre[0], 1500, 2100) * pitch
        wave = sum(
            weight * np.exp(-time / between(timbre[3], 0.010, 0.017)) * np.sin(2 * np.pi * base * ratio * time)
            for ratio, weight in ((1.0, 1.0), (1.62, 0.9), (2.44, 0.8), (3.2, 0.4 + 0.5 * timbre[2]))
        )
        waves.append(wave + 0.5 * np.exp(-time / 0.003) * rng.standard_normal(len(time)))
    return strokes(rng, num, between(timbre[1], 5.0, 8.0), waves, jitter=0.0)


def cricket(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Trills: one high tone in fast pulses, in groups with short rests."""
    carrier = between(timbre[0], 5000, 6200)
    pulse = int(SAMPLE_RATE / between(timbre[3], 26, 42))
    count = int(rng.integers(4, 7))
    envelope = np.tile(np.sin(np.pi * np.arange(pulse) / pulse) ** (1.0 + timbre[2]), count)
    time = seconds(len(envelope))
    group = envelope * np.sin(2 * np.pi * carrier * (1 + 0.01 * rng.uniform(-1, 1)) * time)
    rest = between(timbre[1], 0.09, 0.04)
    return strokes(rng, num, SAMPLE_RATE / (len(group) + rest * SAMPLE_RATE), [group], jitter=0.03)


def dog(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Barks: short rough bursts whose pitch jumps up and drops, loudest around two formants."""
    base = between(timbre[0], 330, 520)
    waves = []
    for _ in range(2):
        length = int(rng.uniform(0.13, 0.17) * SAMPLE_RATE)
        part = np.arange(length) / length
        pitch = base * (0.75 + 0.7 * np.sin(np.pi * part**0.6)) * rng.uniform(0.95, 1.05)
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        wave = np.zeros(length)
        for k in range(1, 11):
            hz = base * 1.2 * k
            weight = np.exp(-(((hz - 950) / 420) ** 2)) + 0.6 * np.exp(-(((hz - 2100) / 700) ** 2)) + 0.05
            wave += weight * np.sin(k * phase + rng.uniform(0, 2 * np.pi))
        rough = band_noise(rng, length, 500, between(timbre[2], 2200, 4200))
        wave = at_level(wave, -6) + at_level(rough, -12 + 6 * timbre[3])
        waves.append(wave * np.sin(np.pi * part**0.45) ** 1.5)
    return strokes(rng, num, between(timbre[1], 3.4, 4.6), waves, jitter=0.08)


def drum(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Beats: a low tone that drops in pitch with a dull burst of noise, in a steady rhythm."""
    base = between(timbre[0], 150, 230)
    time = seconds(int(0.2 * SAMPLE_RATE))
    phase = 2 * np.pi * (base * time + base * 0.03 * (1 - np.exp(-time / 0.03)))
    skin = np.exp(-time / between(timbre[3], 0.035, 0.06)) * np.sin(phase)
    burst = band_noise(rng, len(time), 200, between(timbre[2], 900, 1800)) * np.exp(-time / 0.02)
    hit = at_level(skin, -6) + at_level(burst, -11)
    return strokes(rng, num, between(timbre[1], 5.0, 7.5), [hit, 0.7 * hit, 0.85 * hit, 0.7 * hit], jitter=0.02)


def flute(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """A melody of long, almost pure notes that tremble slowly, with a little breath."""
    base = between(timbre[0], 480, 720)
    note = int(SAMPLE_RATE / between(timbre[1], 2.0, 3.4))
    steps = rng.choice([1.0, 1.125, 1.25, 1.5, 1.667], num // note + 2)
    pitch = np.repeat(base * steps, note)[:num]
    time = seconds(num)
    tremble = np.sin(2 * np.pi * between(timbre[3], 4.2, 6.4) * time)
    phase = 2 * np.pi * np.cumsum(pitch * (1 + 0.01 * tremble)) / SAMPLE_RATE
    breath = band_noise(rng, num, 600, 3000)
    tone = np.sin(phase) + (0.15 + 0.3 * timbre[2]) * np.sin(2 * phase) + 0.08 * np.sin(3 * phase)
    return (1 + 0.4 * tremble) * tone + at_level(breath, -30)


def frog(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Croaks: slow trains of damped knocks at two resonances, in two syllables."""
    low, high = between(timbre[0], 420, 620), between(timbre[2], 1250, 1600)
    time = seconds(int(0.05 * SAMPLE_RATE))
    knock = np.exp(-time / 0.009) * (np.sin(2 * np.pi * low * time) + 0.5 * np.sin(2 * np.pi * high * time))
    length = int(0.2 * SAMPLE_RATE)
    croak = np.zeros(length + len(time))
    at = 0.0
    while at < length:
        croak[int(at) : int(at) + len(time)] += knock
        rate = between(timbre[3], 34, 52) * (1.0 if at < 0.5 * length else 1.5)
        at += SAMPLE_RATE / rate * rng.uniform(0.96, 1.04)
    part = np.arange(len(croak)) / len(croak)
    croak *= 0.35 + 0.65 * np.abs(np.sin(2 * np.pi * part)) ** 0.7
    return strokes(rng, num, between(timbre[1], 3.2, 4.0), [croak], jitter=0.05)


def horn(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """Blasts of two brassy tones at once, a third apart, with harmonics up to 4 kHz."""
    base = between(timbre[0], 310, 430)
    blast = int(SAMPLE_RATE / between(timbre[1], 1.6, 2.8))
    time = seconds(blast)
    wave = np.zeros(blast)
    for tone in (base, base * between(timbre[3], 1.19, 1.34)):
        for k in range(1, int(4200 / tone) + 1):
            wave += np.sin(2 * np.pi * tone * k * time + 0.7 * k * k) / k ** (0.9 - 0.5 * timbre[2])
    sounding = int(0.85 * blast)
    wave = np.concatenate([hann_edges(wave[:sounding], 0.015), np.zeros(blast - sounding)])
    return strokes(rng, num, SAMPLE_RATE / blast, [wave], jitter=0.0)


def motor(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """An engine: a fast train of low damped pulses, every second one stronger, over a low rumble."""
    rate = between(timbre[0], 20, 32)
    time = seconds(int(0.06 * SAMPLE_RATE))
    body = between(timbre[2], 170, 260)
    pulse = np.exp(-time / between(timbre[3], 0.008, 0.014)) * (
        np.sin(2 * np.pi * body * time) + 0.5 * np.sin(2 * np.pi * 2.3 * body * time)
    )
    pulses = strokes(rng, num, rate * between(timbre[1], 0.9, 1.1), [pulse, 0.55 * pulse], jitter=0.03)
    return at_level(pulses, -6) + at_level(band_noise(rng, num, 120, 480), -13)


def radio(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """A voice through a small loudspeaker: changing vowels over a hiss."""
    length = int(SAMPLE_RATE / between(timbre[1], 5.5, 8.0))
    time = seconds(length)
    syllables = []
    for _ in range(4):
        first, second = rng.uniform(350, 850), rng.uniform(1100, 2500)
        pitch = between(timbre[0], 110, 200) * rng.uniform(0.88, 1.12) * (1 - 0.12 * time * SAMPLE_RATE / length)
        phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
        wave = np.zeros(length)
        for k in range(2, 24):
            hz = pitch[0] * k
            weight = np.exp(-(((hz - first) / 150) ** 2)) + 0.6 * np.exp(-(((hz - second) / 220) ** 2)) + 0.02
            wave += weight * np.sin(k * phase)
        syllables.append(at_level(hann_edges(wave, 0.03), -10))
    voice = strokes(rng, num, SAMPLE_RATE / length, syllables, jitter=0.05)
    hiss = band_noise(rng, num, 1200 + 800 * timbre[3], 6500)
    return at_level(voice, -8) + at_level(hiss, -17 + 4 * timbre[2])


def siren(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """A wail: a strong tone with overtones that sweeps up and down over more than an octave."""
    low, high = between(timbre[0], 520, 720), between(timbre[2], 1350, 1750)
    cycle = seconds(num) * between(timbre[1], 1.3, 2.6) + rng.random()
    pitch = low * (high / low) ** (0.5 - 0.5 * np.cos(2 * np.pi * cycle))
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    second = 0.3 + 0.4 * timbre[3]
    return np.sin(phase) + second * np.sin(2 * phase) + 0.3 * np.sin(3 * phase)


def whistle(num: int, timbre: Timbre, rng: Rng) -> Sound:
    """A referee's whistle: a shrill tone that a ball inside shakes 30 to 45 times a second."""
    shake = between(timbre[1], 28, 46)
    time = seconds(num)
    ball = np.sin(2 * np.pi * shake * time)
    pitch = between(timbre[0], 2000, 2600) * (1 + 0.035 * ball)
    phase = 2 * np.pi * np.cumsum(pitch) / SAMPLE_RATE
    air = band_noise(rng, num, 1800, 3600)
    depth = 0.3 + 0.25 * timbre[3]
    tone = (1 - depth + depth * ball) * (np.sin(phase) + 0.5 * timbre[2] * np.sin(2 * phase))
    return tone + at_level(air, -18)


SOUNDS = {sound.__name__: sound for sound in (banjo, bell, bird, clock, cricket, dog, drum, flute, frog, horn, motor,
                                              radio, siren, whistle)}  # fmt: skip
