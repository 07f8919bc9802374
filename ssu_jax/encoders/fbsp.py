"""A learned spectrum: filters that are frequency B-spline wavelets (Guzhov et al. 2021, arXiv 2104.11587).

Filter k has a centre frequency fc, a bandwidth fb and an order m. At time t, from -pi to pi over its span,

    sqrt(fb) * sinc(fb t / m) ^ m * exp(-i fc t),    sinc(z) = sin(z) / z

With m = 0, fb = 1 and fc = 0, 1, 2 ..., where training began, these are the waves of a Fourier transform. As
published everything is computed in float32, and the learned numbers know its rounding; so it is here.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssu_jax.config.encoders.esresnet import BANDS, ESResNetConfig

_EPS = 1e-8
_SILENCE = 1e-18  # power in place of zero: -180 dB
_BLACKMAN_HARRIS = (0.35875, -0.48829, 0.14128, -0.01168)


class FBSP(nn.Module):
    """Sound in the range of 16-bit numbers, at 44.1 kHz -> decibels of its power, [b, f, t, 3].

    The filters from the lowest to the highest make three bands of f each, which lie one behind the other as the
    colours of a picture do; up to two filters at the top are left out. t is `num_frames`. The published numbers are
    341 and, for 5 s, 392. What the filters do not reach (no power at all) is -180 dB.

    Computed in float32 throughout. The window is a weight without a gradient.
    """

    config: ESResNetConfig
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, sound: Float[Array, "b n"]) -> Float[Array, "b f t 3"]:
        config, count = self.config, self.config.fft_size // 2 + 1

        def own(name, initial):
            return self.param(name, lambda _: jnp.asarray(initial, self.param_dtype)).astype(jnp.float32)

        order, bandwidth = own("m", np.zeros(count)), own("fb", np.ones(count))
        window = jax.lax.stop_gradient(own("window", blackman_harris(config.window)))
        waves = filters(order, bandwidth, own("fc", np.arange(count)), config.fft_size)
        kept = count // BANDS * BANDS
        before = max(0, config.fft_size - config.window) // 2
        waves = waves[:, :kept, before : before + config.window]
        frames = framed(from_16_bits(sound.astype(jnp.float32)), config.window, config.hop) * window[None, None]
        # Decibels of a quiet filter beside a loud one: fewer digits would fill it with what the loud one rounds off.
        parts = jnp.einsum("btn,pkn->pbkt", frames, waves, precision=jax.lax.Precision.HIGHEST)
        power = parts[0] ** 2 + parts[1] ** 2
        decibels = 10.0 * jnp.log10(jnp.where(power > 0.0, power, _SILENCE))
        return decibels.reshape(len(sound), BANDS, kept // BANDS, -1).transpose(0, 2, 3, 1)


def from_16_bits(sound: Float[Array, "b n"]) -> Float[Array, "b n"]:
    """-32768 ... 32767 -> -1 ... 1, in the published order of steps.

    That order adds 32768 first: in float32 it leaves steps of 1 / 256 of a 16-bit number. They are far below such a
    sound, but of a sound that was given in [-1, 1] they leave 9 bits, beside a constant half as large as its peak.
    Two programs then agree on what is loud alone: the steps that follow are rounded apart, or together.
    """
    return (sound + 32768.0) * 2.0 / 65535.0 - 1.0


def num_frames(samples: int, window: int, hop: int) -> int:
    """Frames that cover a sound, the last one with zeros where it ends: at least one."""
    return 1 + max(0, -(-(samples - window) // hop))


def framed(sound: Float[Array, "b n"], window: int, hop: int) -> Float[Array, "b t w"]:
    """Frames every `hop` samples; the zeros that the last one lacks are shared between start and end."""
    samples = sound.shape[1]
    count = num_frames(samples, window, hop)
    missing = (count - 1) * hop + window - samples
    sound = jnp.pad(sound, ((0, 0), (missing // 2, missing - missing // 2)))
    return sound[:, np.arange(count)[:, None] * hop + np.arange(window)[None]]


def filters(
    order: Float[Array, " k"], bandwidth: Float[Array, " k"], centre: Float[Array, " k"], length: int
) -> Float[Array, "2 k n"]:
    """Real and imaginary parts, over the square root of their length."""
    time = jnp.asarray(_times(length))[None]
    order, bandwidth, centre = (each[:, None] for each in (order, bandwidth, centre))
    angle = bandwidth * time / (order + _EPS)
    spline = jnp.where(angle == 0.0, 1.0, jnp.sin(angle) / jnp.where(angle == 0.0, 1.0, angle))
    # A power of what may be negative: its phase, 0 or pi, is multiplied by the exponent.
    phase = order * jnp.where(spline < 0.0, jnp.pi, 0.0)
    size = jnp.sqrt(bandwidth) * (spline**2) ** (0.5 * order) * length**-0.5
    real, imaginary = size * jnp.cos(phase), size * jnp.sin(phase)
    wave = (jnp.cos(centre * time), -jnp.sin(centre * time))
    return jnp.stack([real * wave[0] - imaginary * wave[1], real * wave[1] + imaginary * wave[0]])


def blackman_harris(length: int) -> Float[np.ndarray, " n"]:
    """Of four terms, periodic."""
    angle = 2.0 * np.pi * np.arange(length) / length
    return sum(share * np.cos(term * angle) for term, share in enumerate(_BLACKMAN_HARRIS))


def _times(length: int) -> Float[np.ndarray, " n"]:
    """-pi ... pi, rounded as published: the highest filters multiply what is rounded off by a thousand.

    That is torch's line: a step rounded to float32, from both ends to the middle, each place rounded once.
    """
    first = -1.0 + float(np.float32(2.0) / np.float32(length - 1)) * np.arange(length)
    line = np.where(np.arange(length) < length // 2, first, -first[::-1]).astype(np.float32)
    return np.float32(np.pi) * line + np.float32(_EPS)
