"""Convolution, batch norm or bias, activation: the brick of MobileNets."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ssu_jax.layers.batch_norm import FixedBatchNorm
from ssu_jax.layers.convolution import depthwise


class ConvolutionUnit(nn.Module):
    """One convolution of a published network, full or depthwise.

    norm_eps:   epsilon of its batch norm; None where the norm was folded into kernel and bias.
    activation: after all; None for a linear unit.
    groups:     channels are convolved in so many groups, each by itself.
    padding:    "same" as TensorFlow means it, or "symmetric" as torch does: with stride 2 and an even size the first
                adds a row below and none above, the second one on each side.
    """

    width: int
    side: int = 1
    stride: int = 1
    dilation: int = 1
    depthwise: bool = False
    activation: Callable[[Array], Array] | None = nn.relu6
    norm_eps: float | None = None
    padding: str = "same"
    groups: int = 1
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        shape = (self.side, self.side, 1 if self.depthwise else x.shape[-1] // self.groups, self.width)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, self.param_dtype).astype(self.dtype)
        x = self._convolved(x.astype(self.dtype), kernel)
        if self.norm_eps is None:
            bias = self.param("bias", nn.initializers.zeros, (self.width,), self.param_dtype)
            x = x + bias.astype(self.dtype).reshape(1, 1, 1, -1)
        else:
            x = FixedBatchNorm(self.norm_eps, self.param_dtype, name="norm")(x)
        return x if self.activation is None else self.activation(x)

    def _convolved(self, x, kernel):
        reach = self.dilation * (self.side - 1) // 2
        padding = "SAME" if self.padding == "same" else ((reach, reach), (reach, reach))
        if self.depthwise:
            return depthwise(x, kernel, self.stride, self.dilation, padding)
        if self.side == self.stride == self.groups == 1:
            return x @ kernel[0, 0]  # one matrix product, the fastest form on a CPU
        return jax.lax.conv_general_dilated(
            x,
            kernel,
            (self.stride, self.stride),
            padding,
            rhs_dilation=(self.dilation, self.dilation),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=self.groups,
        )
