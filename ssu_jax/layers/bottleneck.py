"""The bottleneck of residual networks, in the forms of CLIP and of ResNeXt."""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.layers.convolution_unit import ConvolutionUnit

EXPANSION = 4  # channels of a stage over its narrowest


class Bottleneck(nn.Module):
    """1 x 1 to `inner` channels, 3 x 3, 1 x 1 to `width`, added to the input, ReLU; batch norm behind each convolution.

    Where the shape changes the input goes through a 1 x 1 convolution of its own.

    pooled: how a stride is made: by an average over its squares before a convolution of stride 1, which keeps what
    aliases out (CLIP's), or by the 3 x 3 convolution itself (ResNet's and ResNeXt's).
    """

    inner: int
    width: int
    stride: int = 1
    groups: int = 1
    pooled: bool = False
    norm_eps: float = 1e-5
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        unit = functools.partial(
            ConvolutionUnit,
            activation=nn.relu,
            norm_eps=self.norm_eps,
            padding="symmetric",
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        stride = 1 if self.pooled else self.stride
        y = unit(self.inner, name="reduce")(x)
        y = unit(self.inner, 3, stride, groups=self.groups, name="spatial")(y)
        y = unit(self.width, activation=None, name="expand")(self._smaller(y))
        if self.stride > 1 or x.shape[-1] != self.width:
            x = unit(self.width, 1, stride, activation=None, name="shortcut")(self._smaller(x))
        return nn.relu(x + y)

    def _smaller(self, x):
        squares = (self.stride, self.stride)
        return nn.avg_pool(x, squares, squares) if self.pooled and self.stride > 1 else x
