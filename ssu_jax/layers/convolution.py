"""Convolution parts shared by the encoders."""

import functools
from typing import Any

import einops
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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


def reduce_squares(x: Float[Array, "b y x c"], kernel: Float[Array, "s s c d"]) -> Float[Array, "b y2 x2 d"]:
    """A convolution whose stride is its kernel, no bias. Rows and columns that fill no square are left out.

    Each row of a square lies in one piece in memory: one matrix product for each, nothing is moved, and the gradient
    is as fast as they are.
    """
    side, width = kernel.shape[0], kernel.shape[3]
    rows, columns = (size // side for size in x.shape[1:3])
    x = fusion_border(x[:, : rows * side, : columns * side])
    pieces = x.reshape(len(x) * rows, side, columns, -1)
    products = [pieces[:, i] @ row.reshape(-1, width) for i, row in enumerate(kernel)]
    return functools.reduce(jnp.add, products).reshape(len(x), rows, columns, width)


def fusion_border(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x`, unchanged, where XLA's CPU compiler should not join what stands before with a matrix product behind.

    Rounding a number to the precision it has does nothing, but that compiler's fused matrix products and reductions
    stop there. Left alone they take in the whole way from a depthwise convolution to the next product and write out
    nine shifted copies of the map. (Its optimization barriers are taken away before it fuses.)
    """
    info = jnp.finfo(x.dtype)
    return jax.lax.reduce_precision(x, info.nexp, info.nmant)


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
        return _shifted_gradients(x, kernel, gradient, stride, dilation, padding)

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


def _padded(x, padding):
    return jax.lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), *((*each, 0) for each in padding), (0, 0, 0)))


def _shifted_products(x, kernel, stride, dilation, padding):
    """Rows stand in one line, so that what an element of the kernel meets is one run of it, without gaps.

    Behind each row of results stand some that mix two rows; they are cut off, and not computed either, since XLA
    computes what is asked of a sum. One more row of zeros below gives the last of them something to read.
    """
    (above, below), sideways = padding
    x = _padded(x, ((above, below + 1), sideways))
    width = x.shape[2]
    rows, columns = (n - (side - 1) * dilation for n, side in zip(x.shape[1:3], kernel.shape[:2], strict=True))
    line, length = x.reshape(len(x), -1, x.shape[3]), (rows - 1) * width
    total = 0.0
    for i, row in enumerate(kernel[:, :, 0].astype(jnp.float32)):
        for j, weight in enumerate(row):
            start = (i * width + j) * dilation
            total = total + line[:, start : start + length].astype(jnp.float32) * weight[None, None]
    return total.astype(x.dtype).reshape(len(x), rows - 1, width, -1)[:, ::stride, :columns:stride]


def _shifted_gradients(x, kernel, gradient, stride, dilation, padding):
    """By `x` and by `kernel`, one image at a time, so that it is still in the cache when the next tap meets it.

    A loop's results are written out. Without it the compiler repeats the shifted products for each reader.
    """

    def add(total, image):
        one, slope = (each[None] for each in image)
        by_one = _input_gradient(slope, kernel, x.shape[1:3], stride, dilation, padding)
        return total + _kernel_gradient(one, kernel, slope, stride, dilation, padding), by_one[0]

    by_kernel, by_x = jax.lax.scan(add, jnp.zeros(kernel.shape, jnp.float32), (x, gradient))
    return by_x, by_kernel.astype(kernel.dtype)


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
    """float32; all the sums in one pass."""
    rows, columns = ((size - 1) * stride + 1 for size in gradient.shape[1:3])
    x, gradient = _padded(x.astype(jnp.float32), padding), gradient.astype(jnp.float32)
    starts = [(i * dilation, j * dilation) for i, j in np.ndindex(*kernel.shape[:2])]
    products = tuple(x[:, i : i + rows : stride, j : j + columns : stride] * gradient for i, j in starts)

    def add(some, others):
        return tuple(map(jnp.add, some, others))

    sums = jax.lax.reduce(products, (jnp.float32(0.0),) * len(products), add, (0, 1, 2))
    return jnp.stack(sums).reshape(kernel.shape)
