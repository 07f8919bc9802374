"""Convolution parts shared by the encoders."""

import functools
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


class ResidualBlock(nn.Module):
    """x + conv(relu(norm(x))), 3 x 3; the norm is over channels, so nothing is averaged over the batch."""

    width: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        y = nn.relu(nn.LayerNorm(dtype=self.dtype)(x))
        return x + nn.Conv(self.width, (3, 3), dtype=self.dtype)(y)


def merge_patches(x: Float[Array, "b y x c"], side: int) -> Float[Array, "b y2 x2 c2"]:
    """Each side x side patch becomes one position with side^2 c channels.

    With a dense layer behind it this is a convolution whose kernel equals its stride; as a matrix product its
    gradient is several times faster on a CPU than that of a strided convolution.
    """
    return einops.rearrange(x, "b (y i) (x j) c -> b y x (i j c)", i=side, j=side)


Padding = str | tuple[tuple[int, int], tuple[int, int]]


def depthwise(
    x: Float[Array, "b y x c"],
    kernel: Float[Array, "i j 1 c"],
    stride: int = 1,
    dilation: int = 1,
    padding: Padding = "SAME",
) -> Float[Array, "b y2 x2 c"]:
    """Each channel is convolved with its own kernel: `kernel[i, j, 0, c]`, no bias.

    `padding` is "SAME", "VALID" (both as XLA and TensorFlow mean them) or ((above, below), (left, right)).

    On a CPU this is a sum of shifted products, one for each element of the kernel, since XLA's depthwise convolution
    is some ten times slower there, and its gradient more than that; elsewhere it is XLA's convolution. Which one is
    decided when the program is lowered for a platform, so an exported program holds what fits each of its platforms.
    """
    span = tuple((side - 1) * dilation + 1 for side in kernel.shape[:2])
    if isinstance(padding, str):
        padding = tuple(jax.lax.padtype_to_pads(x.shape[1:3], span, (stride, stride), padding))
    return _depthwise(x, kernel, stride, dilation, tuple(map(tuple, padding)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _depthwise(x, kernel, stride, dilation, padding):
    def shifted(x, kernel):
        return _shifted_products(x, kernel, stride, dilation, padding)

    def convolved(x, kernel):
        return _convolved(x, kernel, stride, dilation, padding)

    return jax.lax.platform_dependent(x, kernel, cpu=shifted, default=convolved)


def _depthwise_forward(x, kernel, stride, dilation, padding):
    return _depthwise(x, kernel, stride, dilation, padding), (x, kernel)


def _depthwise_backward(stride, dilation, padding, kept, gradient):
    def shifted(x, kernel, gradient):
        by_x = _input_gradient(gradient, kernel, x.shape[1:3], stride, dilation, padding)
        return by_x, _kernel_gradient(x, kernel, gradient, stride, dilation, padding)

    def convolved(x, kernel, gradient):
        return jax.vjp(lambda x, kernel: _convolved(x, kernel, stride, dilation, padding), x, kernel)[1](gradient)

    return jax.lax.platform_dependent(*kept, gradient, cpu=shifted, default=convolved)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _convolved(x, kernel, stride, dilation, padding):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        padding,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=x.shape[-1],
    )


def _windows(x, sides, stride, dilation, padding):
    """For each element (i, j) of a kernel, in order, the part of padded `x` that it meets: [b, y2, x2, c]."""
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*each, 0) for each in padding), (0, 0, 0)))
    ends = [n - (side - 1) * dilation for n, side in zip(x.shape[1:3], sides, strict=True)]
    return [
        x[:, i * dilation : i * dilation + ends[0] : stride, j * dilation : j * dilation + ends[1] : stride]
        for i in range(sides[0])
        for j in range(sides[1])
    ]


def _shifted_products(x, kernel, stride, dilation, padding):
    weights = kernel.reshape(-1, 1, 1, 1, kernel.shape[-1]).astype(jnp.float32)
    windows = _windows(x, kernel.shape[:2], stride, dilation, padding)
    products = [window.astype(jnp.float32) * weight for window, weight in zip(windows, weights, strict=True)]
    return functools.reduce(jnp.add, products).astype(x.dtype)


def _input_gradient(gradient, kernel, size, stride, dilation, padding):
    """The transposed convolution: the gradient spread by the stride, against the kernel turned round."""
    spread = jax.lax.pad(
        gradient, jnp.zeros((), gradient.dtype), ((0, 0, 0), (0, 0, stride - 1), (0, 0, stride - 1), (0, 0, 0))
    )
    edges = []
    for axis in (0, 1):
        before = (kernel.shape[axis] - 1) * dilation - padding[axis][0]
        edges.append((before, size[axis] - spread.shape[1 + axis] + padding[axis][0]))
    return _shifted_products(spread, kernel[::-1, ::-1], 1, dilation, tuple(edges))


def _kernel_gradient(x, kernel, gradient, stride, dilation, padding):
    """One image at a time, so that its windows are still in the cache when the next one is read."""

    def add(total, image):
        one, slope = (each[None] for each in image)
        windows = _windows(one, kernel.shape[:2], stride, dilation, padding)
        sums = [jnp.sum((window * slope).astype(jnp.float32), (0, 1, 2)) for window in windows]
        return total + jnp.stack(sums), None

    total = jnp.zeros((kernel.shape[0] * kernel.shape[1], kernel.shape[-1]), jnp.float32)
    return jax.lax.scan(add, total, (x, gradient))[0].reshape(kernel.shape).astype(kernel.dtype)
