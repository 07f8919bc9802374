"""MobileNetV2: inverted residual blocks on depthwise convolutions (Sandler et al. 2018), an ImageNet classifier.

The quantised TFLite files take colours as layers.images.BYTES gives them, transformers' checkpoints as CENTRED does.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.config.encoders.mobilenet_v2 import MobileNetV2Config
from ssu_jax.layers.convolution_unit import ConvolutionUnit

STEM_WIDTH = 32
# The five stages, at strides 2, 4, 8, 16 and 32: (width, blocks) of their parts. A stage's first block has the
# stride; the first stage's is the stem's.
STAGES = (((16, 1),), ((24, 2),), ((32, 3),), ((64, 4), (96, 3)), ((160, 3), (320, 1)))


def rounded_width(width: float, config: MobileNetV2Config) -> int:
    """To the nearest multiple of the divisor, but not by more than a tenth downwards."""
    divisor = config.divisor
    rounded = max(config.smallest_width, int(width + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * width else rounded


def scaled_width(width: int, config: MobileNetV2Config) -> int:
    """A width of the paper under the config's multiplier."""
    return rounded_width(round(width * config.width_multiplier), config)


def units(config: MobileNetV2Config, dtype: Any, param_dtype: Any) -> functools.partial:
    """The constructor of this config's convolutions."""
    norm_eps = config.norm_eps if config.batch_norm else None
    return functools.partial(
        ConvolutionUnit, norm_eps=norm_eps, padding=config.padding, dtype=dtype, param_dtype=param_dtype
    )


class InvertedResidual(nn.Module):
    """1 x 1 to a wide inside, 3 x 3 depthwise, 1 x 1 back without activation; added to its input where shapes agree."""

    config: MobileNetV2Config
    width: int
    stride: int = 1
    dilation: int = 1
    expand: bool = True
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        config, unit = self.config, units(self.config, self.dtype, self.param_dtype)
        inner, skip = x.shape[-1], x
        if self.expand:
            inner = rounded_width(round(inner * config.expand_ratio), config)
            x = unit(inner, name="expand")(x)
        x = unit(inner, 3, self.stride, self.dilation, depthwise=True, name="depthwise")(x)
        x = unit(self.width, activation=None, name="project")(x)
        # In a narrow network the first block's widths may agree too; it has no skip all the same.
        return skip + x if self.expand and self.stride == 1 and skip.shape[-1] == self.width else x


class MobileNetV2(nn.Module):
    """Images [b, y, x, 3] -> features of every stage, and class scores.

    Returns "stage_1" ... "stage_5" [b, y / s, x / s, c] at s = 2, 4, 8, 16, 32 (no more than `output_stride`, beyond
    which kernels are dilated); with `last_width` also "last" [b, y / s, x / s, last_width] and its mean "pooled"
    [b, last_width]; with `num_classes` "logits" and "probabilities" [b, num_classes]. Sizes are rounded up.
    """

    config: MobileNetV2Config
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"]) -> dict[str, Array]:
        config, unit = self.config, units(self.config, self.dtype, self.param_dtype)
        x = unit(scaled_width(STEM_WIDTH, config), 3, 2, name="stem")(images)
        features = self._stages(x)
        if not config.last_width:
            return features
        last = unit(config.last_width, name="last")(features["stage_5"])
        pooled = jnp.mean(last.astype(jnp.float32), (1, 2)).astype(self.dtype)
        features |= {"last": last, "pooled": pooled}
        if not config.num_classes:
            return features
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        logits = nn.Dense(config.num_classes, name="classifier", **types)(pooled)
        return features | {"logits": logits, "probabilities": jax.nn.softmax(logits.astype(jnp.float32))}

    def _stages(self, x):
        config, features = self.config, {}
        block = nn.remat(InvertedResidual) if self.remat else InvertedResidual
        reached, dilation, number = 2, 1, 0
        for stage, parts in enumerate(STAGES, start=1):
            for index, width in enumerate(width for width, blocks in parts for _ in range(blocks)):
                wanted_stride = 2 if stage > 1 and index == 0 else 1
                stride = wanted_stride if reached < config.output_stride else 1
                reached *= stride
                x = block(
                    config,
                    scaled_width(width, config),
                    stride,
                    dilation,
                    expand=number > 0,
                    dtype=self.dtype,
                    param_dtype=self.param_dtype,
                    name=f"block_{number}",
                )(x)
                # A stride left out: this block still reads its neighbours, the next ones every second cell.
                dilation *= wanted_stride // stride
                number += 1
            features[f"stage_{stage}"] = x
        return features
