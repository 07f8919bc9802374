"""What a sentence says of a source, from its pixels: where it is, in how many parts, and its colour (our design)."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

PLACES = ("left", "middle", "right")
COLOURS = ("black", "grey", "white", "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown")
_MIDDLE = (0.38, 0.62)  # of the width: a centre of mass between them is in the middle
_LEAST_PART = 0.25  # of the largest part: what is smaller is a speck
# Hues in sixths of the circle: the first colour whose end lies above.
_HUES = ((0.25, "red"), (0.58, "orange"), (1.17, "yellow"), (2.83, "green"), (4.25, "blue"), (5.0, "purple"),
         (5.6, "pink"), (6.0, "red"))  # fmt: skip


def place_of(mask: Bool[Array, "t y x"]) -> Int[Array, "t"]:
    """Number in PLACES of the centre of mass; the middle for an empty mask."""
    columns = mask.sum(1).astype(jnp.float32)
    centres = (jnp.arange(mask.shape[2]) + 0.5) / mask.shape[2]
    centre = jnp.where(mask.any((1, 2)), columns @ centres / jnp.maximum(columns.sum(1), 1.0), 0.5)
    return (centre >= _MIDDLE[0]).astype(jnp.int32) + (centre > _MIDDLE[1]).astype(jnp.int32)


def colour_of(frames: Float[Array, "t y x 3"], mask: Bool[Array, "t y x"], share: float) -> Int[Array, "t"]:
    """1 + number in COLOURS of the colour that more than `share` of the mask has, 0 where none has.

    frames: RGB of 0 to 1.
    """
    names = _colour_names(frames)
    votes = (names[..., None] == jnp.arange(len(COLOURS))[None, None, None]) & mask[..., None]
    votes = votes.sum((1, 2)).astype(jnp.float32)
    best = jnp.argmax(votes, -1).astype(jnp.int32)
    wins = votes.max(-1) > share * jnp.maximum(mask.sum((1, 2)), 1)
    return jnp.where(wins, 1 + best, 0)


def parts_of(mask: Bool[Array, "t y x"]) -> tuple[Bool[Array, "t y x"], Int[Array, "t"], Int[Array, "t"]]:
    """Cells joined by sides or corners are a part; parts far smaller than the largest are specks.

    Returns the mask without its specks, how many parts are left, and the cells of the largest. Every cell takes the
    largest number among its neighbours until nothing changes: meant for coarse maps.
    """
    cells = mask.shape[1] * mask.shape[2]
    start = jnp.where(mask, jnp.arange(1, cells + 1).reshape(1, *mask.shape[1:]), 0)

    def spread(carry: Any) -> Any:
        labels, _ = carry
        spread = jax.lax.reduce_window(labels, 0, jax.lax.max, (1, 3, 3), (1, 1, 1), "SAME")
        spread = jnp.where(mask, spread, 0)
        return spread, jnp.any(spread != labels)

    labels, _ = jax.lax.while_loop(lambda carry: carry[1], spread, (start, jnp.bool_(True)))
    sizes = jax.vmap(lambda each: jnp.bincount(each.ravel(), length=cells + 1))(labels).at[:, 0].set(0)
    largest = sizes.max(1)
    whole = (sizes >= _LEAST_PART * largest[:, None]) & (sizes > 0)
    kept = jax.vmap(lambda is_whole, each: is_whole[each])(whole, labels)
    return kept, whole.sum(1).astype(jnp.int32), largest.astype(jnp.int32)


def _colour_names(frames: Float[Array, "t y x 3"]) -> Int[Array, "t y x"]:
    """Number in COLOURS of every pixel, by its hue, saturation and value."""
    high, low = frames.max(-1), frames.min(-1)
    spread = high - low
    red, green, blue = (frames[..., channel] for channel in range(3))
    safe = jnp.maximum(spread, 1e-6)
    others = jnp.where(high == green, (blue - red) / safe + 2.0, (red - green) / safe + 4.0)
    hue = jnp.where(high == red, (green - blue) / safe % 6.0, others)
    saturation = spread / jnp.maximum(high, 1e-6)
    number = {name: place for place, name in enumerate(COLOURS)}
    ends = jnp.asarray([end for end, _ in _HUES], jnp.float32)
    by_hue = jnp.asarray([number[name] for _, name in _HUES], jnp.int32)
    names = by_hue[jnp.minimum(jnp.searchsorted(ends, hue, side="right"), len(_HUES) - 1)]
    warm = (hue < 0.58) | (hue > 5.6)
    names = jnp.where(warm & ((high < 0.6) | (saturation < 0.45)), number["brown"], names)
    names = jnp.where(saturation < 0.2, number["grey"], names)
    names = jnp.where((saturation < 0.35) & (high > 0.72), number["white"], names)
    return jnp.where(high < 0.22, number["black"], names)
