"""PVT-v2, a pyramid vision transformer (Wang et al. 2022, arXiv 2106.13797); layout of the published weights."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssu_jax.config.encoders.pvt_v2 import PVTv2Config
from ssu_jax.layers.convolution import depthwise, fusion_border, reduce_squares
from ssu_jax.layers.repeated import in_turn, stacked
from ssu_jax.types import UserError

EMBEDDINGS = ((7, 4), (3, 2), (3, 2), (3, 2))  # side of the kernel and stride, of each stage
POOLED_SIDE = 7  # of the map that linear attention takes its keys from


@jax.checkpoint
def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, by the error function: faster on a CPU than by its complement, as JAX's own has it."""
    return 0.5 * x * (1.0 + jax.lax.erf(x * 0.5**0.5))


class PatchEmbedding(nn.Module):
    """Overlapping patches: a convolution with a stride, then a norm."""

    width: int
    side: int
    stride: int
    norm_epsilon: float
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        edge = (self.side // 2, self.side // 2)
        sides, strides = (self.side, self.side), (self.stride, self.stride)
        x = nn.Conv(self.width, sides, strides, (edge, edge), name="projection", **types)(x)
        return nn.LayerNorm(self.norm_epsilon, name="norm", **types)(x)


class Reduction(nn.Module):
    """A convolution whose stride is its kernel. Rows and columns that fill no square are left out."""

    side: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
        shape = (self.side, self.side, x.shape[-1], x.shape[-1])
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape, self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], self.param_dtype)
        return reduce_squares(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None, None]


class Attention(nn.Module):
    """Every position attends to a map that is smaller than its own; the softmax is in float32."""

    config: PVTv2Config
    num_heads: int
    reduction: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        width = x.shape[-1]
        query = self._project(x, width, "query") * (width // self.num_heads) ** -0.5
        context = self._context(x)
        if self.config.joint_key_value:
            # By an axis of its own: XLA's CPU compiler does not come back from a split of the last axis here.
            both = self._project(context, 2 * width, "key_value").reshape(*context.shape[:-1], 2, width)
            key, value = both[..., 0, :], both[..., 1, :]
        else:
            key, value = (self._project(context, width, name) for name in ("key", "value"))
        query, key, value = (self._heads(each) for each in (query, key, value))
        logits = jnp.einsum("bhlk,bhnk->bhln", query, key, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(logits, axis=-1).astype(self.dtype)
        mixed = jnp.einsum("bhln,bhnk->bhlk", weights, value)
        return self._project(mixed.swapaxes(1, 2).reshape(x.shape), width, "out")

    def _project(self, x: Float[Array, "b y x c"], width: int, name: str) -> Float[Array, "b y x d"]:
        return nn.Dense(width, dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

    def _heads(self, x: Float[Array, "b y x c"]) -> Float[Array, "b h n k"]:
        return x.reshape(len(x), -1, self.num_heads, x.shape[-1] // self.num_heads).swapaxes(1, 2)

    def _context(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 c"]:
        """What keys and values are made of."""
        linear, types = self.config.linear_attention, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if not linear and self.reduction == 1:
            return x
        x = adaptive_average(x, POOLED_SIDE) if linear else x
        x = Reduction(1 if linear else self.reduction, name="reduction", **types)(x)
        x = nn.LayerNorm(self.config.convolution_norm_epsilon, name="reduction_norm", **types)(x)
        return gelu(x) if linear else x


class FeedForward(nn.Module):
    """Dense, a depthwise convolution that tells positions apart, GELU, dense."""

    hidden: int
    relu: bool
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = nn.Dense(self.hidden, name="fc1", **types)(x)
        y = Depthwise(name="depthwise", **types)(nn.relu(y) if self.relu else y)
        return nn.Dense(x.shape[-1], name="fc2", **types)(fusion_border(gelu(y)))


class Depthwise(nn.Module):
    """3 x 3, each channel by itself."""

    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (3, 3, 1, x.shape[-1]), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        return depthwise(x, kernel.astype(self.dtype)) + bias.astype(self.dtype)[None, None, None]


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    config: PVTv2Config
    stage: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y x c"]:
        config, stage, types = self.config, self.stage, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = nn.LayerNorm(config.norm_epsilon, name="norm_1", **types)(x)
        heads, reduction = config.num_heads[stage], config.reductions[stage]
        x = x + Attention(config, heads, reduction, name="attention", **types)(y)
        y = nn.LayerNorm(config.norm_epsilon, name="norm_2", **types)(x)
        hidden = x.shape[-1] * config.mlp_ratios[stage]
        return x + FeedForward(hidden, config.linear_attention, name="mlp", **types)(y)


class Stage(nn.Module):
    """Patch embedding, blocks, norm. scan: the blocks are one loop, their parameters stacks below "blocks"."""

    config: PVTv2Config
    stage: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "b y x c"]) -> Float[Array, "b y2 x2 d"]:
        config, stage, types = self.config, self.stage, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width, epsilon = config.widths[stage], config.convolution_norm_epsilon
        x = PatchEmbedding(width, *EMBEDDINGS[stage], epsilon, name="embedding", **types)(x)
        block_type = nn.remat(Block) if self.remat else Block
        if self.scan:
            x = stacked(block_type(config, stage, name="blocks", **types), config.depths[stage], x)
        else:
            x = in_turn([block_type(config, stage, name=f"block_{i}", **types) for i in range(config.depths[stage])], x)
        return nn.LayerNorm(config.norm_epsilon, name="norm", **types)(x)


class PVTv2(nn.Module):
    """Images in ImageNet's colours -> four maps, "stage_1" ... "stage_4" [b, y / s, x / s, c], s = 4, 8, 16, 32.

    Sizes are rounded up where the stride does not divide them. Raises UserError for an image so small that a
    stage has no key.
    """

    config: PVTv2Config
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"]) -> dict[str, Array]:
        self._check(*images.shape[1:3])
        x, features = images.astype(self.dtype), {}
        for stage in range(len(self.config.widths)):
            settings = (self.config, stage, self.dtype, self.param_dtype, self.remat, self.scan)
            features[f"stage_{stage + 1}"] = x = Stage(*settings, name=f"stage_{stage + 1}")(x)
        return features

    def _check(self, rows: int, columns: int):
        if self.config.linear_attention:
            return
        side, stride = min(rows, columns), 1
        for (_, step), reduction in zip(EMBEDDINGS, self.config.reductions, strict=True):
            stride *= step
            if -(-side // stride) < reduction:
                raise UserError(
                    f"PVT-v2: images of at least {stride * (reduction - 1) + 1} pixels a side are wanted, "
                    f"got {rows} x {columns}; resize them"
                )


def adaptive_average(x: Float[Array, "b y x c"], side: int) -> Float[Array, "b i j c"]:
    """The mean of each cell of a side x side grid; where it does not divide the map, cells overlap (as torch's)."""
    down, across = (jnp.asarray(_cells(size, side), x.dtype) for size in x.shape[1:3])
    return jnp.einsum("iy,jx,byxc->bijc", down, across, x)


def _cells(size: int, side: int) -> Float[np.ndarray, "side size"]:
    """Each row holds the shares of the places in a cell; it sums to 1."""
    shares = np.zeros((side, size))
    for i in range(side):
        first, end = i * size // side, -(-(i + 1) * size // side)
        shares[i, first:end] = 1.0 / (end - first)
    return shares
