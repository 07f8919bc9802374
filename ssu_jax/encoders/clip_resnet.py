"""CLIP's image tower as a residual network (Radford et al. 2021): RN50 as published, whole images and every place.

What it changes in a ResNet: three convolutions and an average at the start, averages where there were strides, and
attention in place of the last mean. Colours are layers.images.CLIP's.
"""

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssu_jax.config.encoders.clip_resnet import STRIDE, CLIPResNetConfig
from ssu_jax.encoders.clip import resized_grid
from ssu_jax.layers.attention import attend
from ssu_jax.layers.bottleneck import EXPANSION, Bottleneck
from ssu_jax.layers.convolution_unit import ConvolutionUnit
from ssu_jax.types import UserError


class CLIPResNet(nn.Module):
    """Images in CLIP's colours -> features.

    "stage_1" ... "stage_4" [b, y / s, x / s, c] at s = 4, 8, 16, 32, rounded down.
    "embedding" [b, d]: the image in the space shared with texts; not of unit length.
    "dense" [b, y / 32, x / 32, d]: each place of the last map in that space; not of unit length. See `AttentionPool`.

    Any size from 32 pixels a side will do; the position table is resized to it. Raises UserError below that.
    """

    config: CLIPResNetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(self, images: Float[Array, "b y x 3"]) -> dict[str, Array]:
        if min(images.shape[1:3]) < STRIDE:
            sides = " x ".join(map(str, images.shape[1:3]))
            raise UserError(f"CLIP's ResNet: images of at least {STRIDE} pixels a side are wanted, got {sides}")
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        unit = functools.partial(
            ConvolutionUnit, activation=nn.relu, norm_eps=config.norm_eps, padding="symmetric", **types
        )
        x = unit(config.width // 2, 3, 2, name="stem_1")(images)
        x = unit(config.width // 2, 3, name="stem_2")(x)
        x = nn.avg_pool(unit(config.width, 3, name="stem_3")(x), (2, 2), (2, 2))
        features, block = {}, nn.remat(Bottleneck) if self.remat else Bottleneck
        for stage, depth in enumerate(config.depths):
            inner = config.width << stage
            for number in range(depth):
                x = block(
                    inner,
                    inner * EXPANSION,
                    stride=2 if stage and number == 0 else 1,
                    pooled=True,
                    norm_eps=config.norm_eps,
                    name=f"stage_{stage + 1}_block_{number}",
                    **types,
                )(x)
            features[f"stage_{stage + 1}"] = x
        embedding, dense = AttentionPool(config, name="pool", **types)(x)
        return features | {"embedding": embedding, "dense": dense}


class AttentionPool(nn.Module):
    """Attention among the places of a map and their mean -> (the mean token's output, every place's output).

    The first is CLIP's own. The second runs the same attention with every place as a query, by
    `config.dense_positions`:

    "grid": places see what CLIP's query sees: the mean token, and all places with their positions. Where the map is
    of another size than the table its rows but the first are resized as a grid (bicubic, as the field resizes them).

    "released", as in T-VSL's release: places see each other alone, without the mean token, and the whole table, the
    mean token's row first, is stretched to their number as one line (linear, half-pixel centres). So at the size of
    training too each place has a position between its own and the one before, and a wider map has rows that do not
    match the table's.
    """

    config: CLIPResNetConfig
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def setup(self):
        config, types = self.config, {"dtype": self.dtype, "param_dtype": self.param_dtype}
        width = config.width * 8 * EXPANSION
        shape = ((config.image_size // STRIDE) ** 2 + 1, width)
        self.positions = self.param("positions", nn.initializers.normal(width**-0.5), shape, self.param_dtype)
        self.query, self.key, self.value = (nn.Dense(width, **types) for _ in range(3))
        self.out = nn.Dense(config.embedding_width, **types)

    def __call__(self, x: Float[Array, "b y x c"]) -> tuple[Float[Array, "b d"], Float[Array, "b y x d"]]:
        rows, columns, width = x.shape[1:]
        places, side = x.reshape(len(x), -1, width), self.config.image_size // STRIDE
        mean = jnp.mean(places.astype(jnp.float32), 1, keepdims=True).astype(self.dtype)
        grid = resized_grid(self.positions[1:].reshape(side, side, width), rows, columns).reshape(-1, width)
        table = jnp.concatenate([self.positions[:1], grid.astype(self.positions.dtype)]).astype(self.dtype)
        whole = jnp.concatenate([mean, places], axis=1) + table[None]
        if self.config.dense_positions == "grid":
            out = self._attended(whole, whole)
            pooled, dense = out[:, 0], out[:, 1:]
        else:
            pooled = self._attended(whole[:, :1], whole)[:, 0]
            alone = places + stretched_line(self.positions, places.shape[1]).astype(self.dtype)[None]
            dense = self._attended(alone, alone)
        return pooled, dense.reshape(len(x), rows, columns, -1)

    def _attended(self, x: Float[Array, "b l c"], context: Float[Array, "b n c"]) -> Float[Array, "b l d"]:
        query, key, value = self.query(x), self.key(context), self.value(context)
        query, key, value = (each.reshape(*each.shape[:2], self.config.num_heads, -1) for each in (query, key, value))
        return self.out(attend(query, key, value)[0].reshape(*x.shape))


def stretched_line(table: Float[Array, "m d"], count: int) -> Float[Array, "n d"]:
    """`count` rows between those of a table: linear, half-pixel centres, the ends repeated; float32."""
    places = np.clip((np.arange(count) + 0.5) * len(table) / count - 0.5, 0.0, len(table) - 1.0)
    shares = np.maximum(0.0, 1.0 - np.abs(places[:, None] - np.arange(len(table))[None]))
    return jnp.asarray(shares, jnp.float32) @ table.astype(jnp.float32)
