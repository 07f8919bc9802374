"""CLIP's image and text towers (Radford et al. 2021), vision transformers; layout of the published weights."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ssu_jax.config.encoders.clip import LEGACY_END_ID, CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from ssu_jax.layers.attention import causal_bias
from ssu_jax.layers.convolution import merge_patches
from ssu_jax.layers.repeated import in_turn

LOGIT_SCALE = 2.6592  # log(1 / 0.07), where training began


def quick_gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x sigmoid(1.702 x), openai's stand-in for GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """The exact GELU, by the error function."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


class Attention(nn.Module):
    """Self-attention; the softmax is in float32.

    Two things are for speed on CPU, where XLA makes one kernel of it all: heads stand before positions, which halves
    the time, and the softmax divides by its sum only after the values are mixed, which takes a third off the rest.

    joint: queries, keys and values in one projection.
    """

    num_heads: int
    joint: bool = False
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def _project(self, x: Float[Array, "b l d"], name: str, times: int = 1) -> Float[Array, "b l d2"]:
        return nn.Dense(times * x.shape[-1], dtype=self.dtype, param_dtype=self.param_dtype, name=name)(x)

    def _projected(self, x: Float[Array, "b l d"], names: tuple[str, ...]) -> tuple[Float[Array, "b l d"], ...]:
        if not self.joint:
            return tuple(self._project(x, name) for name in names)
        all_names = ("query", "key", "value")
        each = self._project(x, "_".join(all_names), 3).reshape(*x.shape[:2], 3, -1)
        return tuple(each[:, :, all_names.index(name)] for name in names)

    @nn.compact
    def __call__(
        self, x: Float[Array, "b l d"], bias: Float[Array, "1 1 l l"] | None = None, values_only: bool = False
    ) -> Float[Array, "b l d"]:
        """values_only: every position attends to itself alone, so that queries and keys are not needed."""
        if values_only:
            return self._project(*self._projected(x, ("value",)), "out")
        width = x.shape[-1] // self.num_heads
        query, key, value = (
            each.reshape(*x.shape[:2], self.num_heads, width).swapaxes(1, 2)
            for each in self._projected(x, ("query", "key", "value"))
        )
        query = query * width**-0.5
        logits = jnp.einsum("bhlk,bhnk->bhln", query, key, preferred_element_type=jnp.float32)
        if bias is not None:
            logits = logits + bias
        weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
        mixed = jnp.einsum("bhln,bhnk->bhlk", weights.astype(self.dtype), value, preferred_element_type=jnp.float32)
        mixed = (mixed / weights.sum(axis=-1, keepdims=True)).astype(self.dtype)
        return self._project(mixed.swapaxes(1, 2).reshape(x.shape), "out")


class FeedForward(nn.Module):
    """Dense, activation, dense."""

    hidden: int
    activation: str
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        types = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        y = ACTIVATIONS[self.activation](nn.Dense(self.hidden, name="fc1", **types)(x))
        return nn.Dense(x.shape[-1], name="fc2", **types)(y)


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    config: CLIPVisionConfig | CLIPTextConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.norm_1 = nn.LayerNorm(config.norm_epsilon, **types)
        self.attention = Attention(config.num_heads, config.joint_projections, **types)
        self.norm_2 = nn.LayerNorm(config.norm_epsilon, **types)
        self.mlp = FeedForward(config.hidden, config.activation, **types)

    def __call__(self, x: Float[Array, "b l d"], bias: Float[Array, "1 1 l l"] | None = None) -> Float[Array, "b l d"]:
        x = x + self.attention(self.norm_1(x), bias)
        return x + self.mlp(self.norm_2(x))

    def values(self, x: Float[Array, "b l d"]) -> Float[Array, "b l d"]:
        """out(value(norm(x))): what a position would add to itself if it attended to itself alone."""
        return self.attention(self.norm_1(x), values_only=True)


class PatchEmbedding(nn.Module):
    """A convolution whose stride is its kernel, without bias, as one matrix product.

    Rows and columns of pixels that fill no patch are left out, as the published convolution does.
    """

    width: int
    patch_size: int
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"]) -> Float[Array, "b y2 x2 d"]:
        p = self.patch_size
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (p, p, 3, self.width), self.param_dtype)
        rows, columns = images.shape[1] // p, images.shape[2] // p
        patches = merge_patches(images[:, : rows * p, : columns * p].astype(self.dtype), p)
        return patches @ kernel.reshape(-1, self.width).astype(self.dtype)


class CLIPVision(nn.Module):
    """Images in CLIP's colours -> features.

    "tokens" [b, n + 1, d]: the last block's output, class token first, before the norm behind it.
    "block_{i}" [b, n + 1, d]: the output of block i (from 0), for each i in `levels`.
    "pooled" [b, d]: the class token, normed.
    "embedding" [b, c]: that, projected into the space shared with texts; not of unit length.
    "dense" [b, n, c]: each patch in that space, in row order; not of unit length.

    Patches are in row order. An image of another size than the config's finds the position table resized (bicubic).

    "dense" is after MaskCLIP (Zhou et al., ECCV 2022, arXiv 2112.01071): the queries and keys of the last block are
    dropped, and its value and output projections are applied to each patch by itself, then norm and projection.
    The block's residual connection and feed-forward part are left out too. The paper does not speak of them; its
    code for vision transformers keeps both, and later work (FeatUp's form, ClearCLIP, arXiv 2407.12442) found patches
    to agree better with texts without them.
    """

    config: CLIPVisionConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"], levels: tuple[int, ...] = ()) -> dict[str, Array]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = PatchEmbedding(config.width, config.patch_size, name="patch", **types)(images)
        x = self._with_positions(x)
        x = nn.LayerNorm(config.norm_epsilon, name="pre_norm", **types)(x)
        block_type = nn.remat(Block) if self.remat else Block
        blocks = [block_type(config, name=f"block_{i}", **types) for i in range(config.depth)]
        before, features = _through(blocks[:-1], x, levels, self.scan)
        x = blocks[-1](before)
        if config.depth - 1 in levels:
            features[f"block_{config.depth - 1}"] = x
        norm = nn.LayerNorm(config.norm_epsilon, name="post_norm", **types)
        project = nn.Dense(config.embedding_width, use_bias=False, name="projection", **types)
        pooled = norm(x[:, 0])
        dense = project(norm(blocks[-1].values(before[:, 1:])))
        return features | {"tokens": x, "pooled": pooled, "embedding": project(pooled), "dense": dense}

    def _with_positions(self, x: Float[Array, "b y x d"]) -> Float[Array, "b n d"]:
        """The class token before the patches, and each one's position added."""
        config = self.config
        side, (rows, columns, width) = config.image_size // config.patch_size, x.shape[1:]
        token = self.param("class_token", nn.initializers.normal(width**-0.5), (width,), self.param_dtype)
        table = self.param("positions", nn.initializers.normal(0.02), (side**2 + 1, width), self.param_dtype)
        grid = resized_grid(table[1:].reshape(side, side, width), rows, columns).reshape(-1, width)
        first = jnp.broadcast_to((token + table[0]).astype(self.dtype), (len(x), 1, width))
        patches = x.reshape(len(x), -1, width) + grid.astype(self.dtype)[None]
        return jnp.concatenate([first, patches], axis=1)


class CLIPText(nn.Module):
    """Ids of CLIP's tokenizer -> features.

    "tokens" [b, l, d]: the last block's output, normed.
    "block_{i}" [b, l, d]: the output of block i (from 0), for each i in `levels`.
    "pooled" [b, d]: the token at the first end id; where the row has none, the first token.
    "embedding" [b, c]: that, projected into the space shared with images; not of unit length.

    What stands behind the end id does not matter: zeros (openai's padding) and end ids (transformers') are one.
    Rows may be shorter than the config's length. Ids must be below `vocab_size`.
    """

    config: CLIPTextConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False
    scan: bool = False

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], levels: tuple[int, ...] = ()) -> dict[str, Array]:
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.Embed(config.vocab_size, config.width, name="token", **types)(ids)
        shape = (config.length, config.width)
        positions = self.param("positions", nn.initializers.normal(0.01), shape, self.param_dtype)
        x = x + positions[None, : ids.shape[1]].astype(self.dtype)
        block_type = nn.remat(Block) if self.remat else Block
        blocks = [block_type(config, name=f"block_{i}", **types) for i in range(config.depth)]
        x, features = _through(blocks, x, levels, self.scan, causal_bias(ids.shape[1]))
        x = nn.LayerNorm(config.norm_epsilon, name="final_norm", **types)(x)
        end = ids if config.end_id == LEGACY_END_ID else ids == config.end_id
        pooled = jnp.take_along_axis(x, jnp.argmax(end, axis=1)[:, None, None], axis=1)[:, 0]
        embedding = nn.Dense(config.embedding_width, use_bias=False, name="projection", **types)(pooled)
        return features | {"tokens": x, "pooled": pooled, "embedding": embedding}


class CLIP(nn.Module):
    """Both towers, as they are published: parameters {"vision": ..., "text": ..., "logit_scale"}.

    Features of the towers have their names behind "vision_" and "text_"; "logits" [images, texts] are cosines
    times exp(logit_scale). Where the config has one tower, its features alone. `every_block`: with the states after
    every block.
    """

    config: CLIPConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self, images: Float[Array, "b1 y x 3"], ids: Int[Array, "b2 l"], every_block: bool = True
    ) -> dict[str, Array]:
        config, settings = self.config, (self.dtype, self.param_dtype, self.remat)
        features = {}
        for name, tower, its, inputs in (
            ("vision", CLIPVision, config.vision, images),
            ("text", CLIPText, config.text, ids),
        ):
            if config.towers in ("both", name):
                found = tower(its, *settings, name=name)(inputs, tuple(range(its.depth)) if every_block else ())
                features |= {f"{name}_{key}": value for key, value in found.items()}
        if config.towers == "both":
            scale = self.param("logit_scale", nn.initializers.constant(LOGIT_SCALE), (), self.param_dtype)
            image, text = (_unit(features[f"{name}_embedding"].astype(jnp.float32)) for name in ("vision", "text"))
            features["logits"] = jnp.exp(scale.astype(jnp.float32)) * (image @ text.T)
        return features


def _through(
    blocks: Sequence[nn.Module], x: Float[Array, "b l d"], levels: Sequence[int], scan: bool, *args: Any
) -> tuple[Float[Array, "b l d"], dict[str, Array]]:
    """What comes out of the last block, and of those in `levels`: those end a loop over blocks."""
    features, done = {}, 0
    for level in sorted(level for level in levels if level < len(blocks)):
        x = features[f"block_{level}"] = in_turn(blocks[done : level + 1], x, *args, scan=scan)
        done = level + 1
    return in_turn(blocks[done:], x, *args, scan=scan), features


def _unit(x: Float[Array, "b c"]) -> Float[Array, "b c"]:
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def resized_grid(grid: Float[Array, "y1 x1 d"], rows: int, columns: int) -> Float[Array, "y x d"]:
    """A table of positions at another size; float32, the same size comes back unchanged.

    Bicubic as the field resizes these tables (torch's: kernel of a = -0.75, half-pixel centres, edges repeated, no
    antialiasing). JAX's own cubic has a = -0.5 and would give other numbers.
    """
    if grid.shape[:2] == (rows, columns):
        return grid
    down, across = _bicubic(grid.shape[0], rows), _bicubic(grid.shape[1], columns)
    return jnp.einsum("jy,ix,yxd->jid", down, across, grid.astype(jnp.float32))


def _bicubic(before: int, after: int) -> Float[np.ndarray, "after before"]:
    """Each row holds the shares of the old places in a new one; it sums to 1."""
    centre = (np.arange(after) + 0.5) * before / after - 0.5
    near = np.floor(centre).astype(int)
    shares, a = np.zeros((after, before)), -0.75
    for step in range(-1, 3):
        t = np.abs(centre - (near + step))
        inner = (a + 2) * t**3 - (a + 3) * t**2 + 1
        outer = a * (t**3 - 5 * t**2 + 8 * t - 4)
        np.add.at(shares, (np.arange(after), np.clip(near + step, 0, before - 1)), np.where(t <= 1, inner, outer))
    return shares.astype(np.float32)
