"""ESResNeXt-fbsp: sound at 44.1 kHz -> features of its spectrum as of a picture (Guzhov et al. 2021, arXiv 2104.11587).

A ResNeXt-50 32x4d on a learned spectrum (fbsp.py). Each stage is scaled by a gate that looks at what came into it,
in turn along frequency and along time.

The range of the input: AudioCLIP's own loaders give 16-bit numbers (-32768 ... 32767), and that is what its weights
know. T-VSL's release gives [-1, 1], 90 dB less, of which rounding leaves little (see `fbsp.from_16_bits`). This file
takes what it is given: multiply sound in [-1, 1] by SOUND_SCALE.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssu_jax.config.encoders.esresnet import ESResNetConfig
from ssu_jax.encoders.fbsp import FBSP
from ssu_jax.layers.batch_norm import FixedBatchNorm
from ssu_jax.layers.bottleneck import EXPANSION, Bottleneck
from ssu_jax.layers.convolution import depthwise
from ssu_jax.layers.convolution_unit import ConvolutionUnit

SOUND_SCALE = 32768.0
GATES = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))  # (frequency, time) that they see; the last one is the pooling's


class ESResNeXt(nn.Module):
    """Sound [b, n] in the range of 16-bit numbers, one channel -> features.

    "spectrum" [b, f, t, 3]: float32 decibels of three bands, see FBSP.
    "stage_1" ... "stage_4" [b, f / s, t / s, c] at s = 4, 8, 16, 32, rounded up, each behind its gate.
    "embedding" [b, d]: the sound in the space shared with images and texts; not of unit length.
    "dense" [b, f / 32, t / 32, d]: each place of the last map through the same last layer, without the pooling's gate.

    At the published sizes 5 s give 11 x 13 places of 1024 numbers.
    """

    config: ESResNetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, sound: Float[Array, "b n"]) -> dict[str, Array]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        features = {"spectrum": FBSP(config, self.param_dtype, name="fbsp")(sound)}
        gate = functools.partial(Gate, norm_eps=config.norm_eps, **types)
        x = ConvolutionUnit(
            config.width, 7, 2, activation=nn.relu, norm_eps=config.norm_eps, padding="symmetric", name="stem", **types
        )(features["spectrum"])
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, depth in enumerate(config.depths, start=1):
            before, x = x, self._stage(x, stage, depth)
            x = x * gate(x.shape[-1], GATES[stage - 1], name=f"gate_{stage}")(adaptive_max(before, *x.shape[1:3]))
            features[f"stage_{stage}"] = x
        mean = jnp.mean(x.astype(jnp.float32), (1, 2)).astype(self.dtype)
        pooled = mean * gate(x.shape[-1], GATES[-1], name="gate_5")(adaptive_max(x, 1, 1))[:, 0, 0]
        head = nn.Dense(config.embedding_width, name="head", **types)
        return features | {"embedding": head(pooled), "dense": head(x)}

    def _stage(self, x: Float[Array, "b f t c"], stage: int, depth: int) -> Float[Array, "b f2 t2 d"]:
        config, block = self.config, nn.remat(Bottleneck) if self.remat else Bottleneck
        for number in range(depth):
            x = block(
                (config.groups * config.group_width) << (stage - 1),
                (config.width << (stage - 1)) * EXPANSION,
                stride=2 if stage > 1 and number == 0 else 1,
                groups=config.groups,
                norm_eps=config.norm_eps,
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=f"stage_{stage}_block_{number}",
            )(x)
        return x


class Gate(nn.Module):
    """Numbers between 0 and 1: a depthwise convolution, a 1 x 1 one, batch norm, sigmoid."""

    width: int
    sides: tuple[int, int]
    norm_eps: float
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b f t c"]) -> Float[Array, "b f t d"]:
        shape = (*self.sides, 1, x.shape[-1])
        kernel = self.param("depthwise_kernel", nn.initializers.lecun_normal(), shape, self.param_dtype)
        bias = self.param("depthwise_bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        padding = tuple((side // 2, side // 2) for side in self.sides)
        x = depthwise(x, kernel.astype(self.dtype), padding=padding) + bias.astype(self.dtype)[None, None, None]
        x = nn.Conv(self.width, (1, 1), dtype=self.dtype, param_dtype=self.param_dtype, name="point")(x)
        return nn.sigmoid(FixedBatchNorm(self.norm_eps, self.param_dtype, name="norm")(x))


def adaptive_max(x: Float[Array, "b y1 x1 c"], rows: int, columns: int) -> Float[Array, "b y x c"]:
    """The largest of each cell of a grid; where the grid does not divide the map, cells overlap (as torch's)."""
    for axis, cells in ((1, rows), (2, columns)):
        if x.shape[axis] != cells:
            x = jnp.max(jnp.take(x, _cells(x.shape[axis], cells), axis), axis + 1)
    return x


def _cells(size: int, count: int) -> np.ndarray:
    """[count, most]: the places of each cell, its last one repeated where others hold more."""
    starts = np.arange(count) * size // count
    ends = -(-(np.arange(count) + 1) * size // count)
    return np.minimum(starts[:, None] + np.arange((ends - starts).max())[None], ends[:, None] - 1)
