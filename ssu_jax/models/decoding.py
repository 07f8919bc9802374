"""From frames and sound to mask probabilities and word ids: what evaluation and prediction run."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.models.ssuformer.ssuformer import SSUFormer
from ssu_jax.models.ssuformer.text_decoder import Context
from ssu_jax.tokenizer import BOS, EOS, PAD
from ssu_jax.types import MASK_THRESHOLD

Describe = Callable[..., tuple[Array, Array]]


def make_describe(model: SSUFormer) -> Describe:
    """A jitted `describe(params, frames, log_mel, frame_valid) -> (mask_probabilities, ids)`.

    frames uint8 [b, t, y, x, 3], log_mel float32 [b, t, m, f], frame_valid bool [b, t] ->
    mask probabilities float32 [b, t, y, x] (zeros for a text-only model) and word ids int32 [b, t, l] with
    [BOS] first (zeros for a masks-only model). A frame's answer does not depend on its batch.
    """

    def describe(params, frames, log_mel, frame_valid):
        return model.apply({"params": params}, frames, log_mel, frame_valid, method=_describe)

    return jax.jit(describe)


def _describe(
    model: SSUFormer, frames: Array, log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"]
) -> tuple[Float[Array, "b t y x"], Int[Array, "b t l"]]:
    b, t, size = *frames.shape[:2], frames.shape[2]
    fused = model.fuse(frames, log_mel, frame_valid)
    masks = jnp.zeros((b * t, size, size), jnp.float32)
    ids = jnp.zeros((b, t, model.max_text_tokens), jnp.int32)
    if not model.config.text_only:
        masks = model.masks(fused)
    if not model.config.seg_only:
        context = model.context(fused, model.region(frames, fused, masks), frame_valid)
        ids = greedy(model, context, model.max_text_tokens).reshape(b, t, -1)
    return without_specks(masks, model.config.smallest_mask).reshape(b, t, size, size), ids


def without_specks(probabilities: Float[Array, "b y x"], smallest: float) -> Float[Array, "b y x"]:
    """Frames whose mask covers less than `smallest` of the picture are left without a mask.

    A few stray pixels are no object; they are held down to the threshold, so that their order stays.
    """
    share = (probabilities > MASK_THRESHOLD).mean(axis=(1, 2), keepdims=True)
    return jnp.where(share < smallest, jnp.minimum(probabilities, MASK_THRESHOLD), probabilities)


def greedy(model: SSUFormer, context: Context, length: int) -> Int[Array, "b l"]:
    """The likeliest word at each place until every sentence has ended; [PAD] after [EOS]."""
    b = context.tokens.shape[0]
    ids = jnp.full((b, length), PAD, jnp.int32).at[:, 0].set(BOS)

    def unfinished(carry: tuple) -> Array:
        position, ids, _, ended = carry
        return (position < ids.shape[1] - 1) & ~ended.all()

    def write(carry: tuple) -> tuple:
        position, ids, state, ended = carry
        here = jax.lax.dynamic_slice_in_dim(ids, position, 1, axis=1)
        logits, state = model.next_word(here, context, state, position)
        word = jnp.where(ended, PAD, jnp.argmax(logits[:, 0], axis=-1).astype(jnp.int32))
        ids = jax.lax.dynamic_update_slice_in_dim(ids, word[:, None], position + 1, axis=1)
        return position + 1, ids, state, ended | (word == EOS)

    start: tuple[Any, ...] = (jnp.int32(0), ids, model.start_words(context), jnp.zeros(b, bool))
    return jax.lax.while_loop(unfinished, write, start)[1]
