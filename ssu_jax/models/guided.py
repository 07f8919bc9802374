"""SSUFormer guided by words: only what the words name keeps its mask, and the sentence tells of nothing else.

Our design, on what training has left behind:

* The mask is cut into parts by the model's own class of every pixel.
* A part is named by a text if the two lie closer in the space that regions and texts share (RCC) than the part and any
  rival of the text: the same text with another class, colour or place in it.
* The text decoder sees the kept mask alone (MCM). What lies outside reaches it through other tokens still, so in its
  sentence the classes of what was left out are no words, and it ends at once only where nothing was kept.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.layers import images
from ssu_jax.models import decoding
from ssu_jax.models.ssuformer.ssuformer import SSUFormer
from ssu_jax.models.ssuformer.text_decoder import Context
from ssu_jax.tokenizer import EOS
from ssu_jax.types import MASK_THRESHOLD

MOST_PARTS = 8  # classes of pixels in one frame, the largest first; the rest is left out


class Guide(NamedTuple):
    """Texts in the shared space: those that are asked for, their rivals, and the names of the u classes."""

    texts: Any  # float32 [n, k], unit length
    asked: Any  # int32 [a], rows of `texts`
    rivals: Any  # bool [a, n]
    names: Any  # int32 [u], rows of `texts`
    words: Any  # bool [u, v]: rows of the word table that write the name of a class


def make_describe(model: SSUFormer) -> Callable[..., tuple[Array, Array]]:
    """A jitted `describe(params, frames, log_mel, frame_valid, guide)`; else as decoding's."""

    def describe(params, frames, log_mel, frame_valid, guide):
        return model.apply({"params": params}, frames, log_mel, frame_valid, guide, method=_describe)

    return jax.jit(describe)


def make_embed(model: SSUFormer) -> Callable[..., Array]:
    """A jitted `embed(params, ids [n, l], clip_ids [n, 77] or None) -> [n, k]`."""

    def embed(params, ids, clip_ids):
        return model.apply({"params": params}, ids, clip_ids, method=SSUFormer.text_embedding)

    return jax.jit(embed)


def _describe(
    model: SSUFormer, frames: Array, log_mel: Float[Array, "b t m f"], frame_valid: Bool[Array, "b t"], guide: Guide
) -> tuple[Float[Array, "b t y x"], Int[Array, "b t l"]]:
    fused = model.fuse(frames, log_mel, frame_valid)
    parts = parts_of(model.masks(fused), model.semantic(fused))
    # One after the other: a CLIP encoder that looks at all at once would need their number times its memory.
    seen = jax.lax.map(lambda part: model.region_embedding(model.region(frames, fused, part)), parts)
    likeness = jnp.einsum("pfk,nk->pfn", seen, guide.texts)
    named = is_named(likeness, guide) & (parts > MASK_THRESHOLD).any(axis=(2, 3))
    kept = decoding.without_specks((parts * named[..., None, None]).sum(axis=0), model.config.smallest_mask)
    named &= (kept > MASK_THRESHOLD).any(axis=(1, 2))[None]
    classes = jnp.argmax(likeness[..., guide.names], axis=-1)[..., None] == jnp.arange(len(guide.names))[None, None]
    told = (classes & named[..., None]).any(axis=0)
    context = model.context(fused, model.region(frames, fused, kept), frame_valid)
    writer = _Telling(model, forbidden_words(told, guide.words), told.any(axis=1))
    ids = decoding.sentences(writer, context, model.config, model.max_text_tokens)
    return kept.reshape(frames.shape[:4]), ids.reshape(*frames.shape[:2], -1)


def parts_of(masks: Float[Array, "f y x"], semantic: Float[Array, "f y4 x4 u1"]) -> Float[Array, "p f y x"]:
    """The masks cut by the likeliest class of every pixel: background is none, for what is masked is an object.

    p: the MOST_PARTS classes of each frame that have the most of its mask.
    """
    logits = images.resized(semantic[..., 1:], *masks.shape[1:])
    classes, num_classes = jnp.argmax(logits, axis=-1), logits.shape[-1]
    rows = jnp.arange(len(masks))[:, None, None]
    areas = jnp.zeros((len(masks), num_classes)).at[rows, classes].add(masks)
    largest = jax.lax.top_k(areas, min(MOST_PARTS, num_classes))[1].T
    return jnp.where(classes[None] == largest[..., None, None], masks[None], 0.0)


def is_named(likeness: Float[Array, "p f n"], guide: Guide) -> Bool[Array, "p f"]:
    """Whether a text that is asked for is more like the part than all rivals of the text."""

    def is_named_by(asked: Int[Array, ""], rivals: Bool[Array, "n"]) -> Bool[Array, "p f"]:
        return likeness[..., asked] > jnp.where(rivals[None, None], likeness, -jnp.inf).max(axis=-1)

    return jax.vmap(is_named_by)(guide.asked, guide.rivals).any(axis=0)


def forbidden_words(told: Bool[Array, "f u"], words: Bool[Array, "u v"]) -> Bool[Array, "f v"]:
    """What a sentence about the classes that are told must not say: the names of all others.

    About nothing it says nothing: all words but [EOS] are forbidden.
    """
    own, others = ((each[..., None] & words[None]).any(axis=1) for each in (told, ~told))
    silent = ~told.any(axis=1, keepdims=True)
    return jnp.where(silent, jnp.arange(words.shape[1])[None] != EOS, others & ~own)


class _Telling:
    """A model that does not say some words, and does say something where it is to `speak`; see WritesWords."""

    def __init__(self, model: decoding.WritesWords, forbidden: Bool[Array, "f v"], speak: Bool[Array, "f"]):
        self._model, self._forbidden, self._speak = model, forbidden, speak

    def start_words(self, context: Context) -> Any:
        return self._model.start_words(context)

    def next_word(self, ids: Int[Array, "b 1"], context: Context, state: Any, position: Any) -> tuple[Any, Any]:
        logits, state = self._model.next_word(ids, context, state, position)
        is_end = jnp.arange(logits.shape[-1])[None] == EOS
        forbidden = self._forbidden | (self._speak[:, None] & is_end & (position == 0))
        sentences_a_frame = len(logits) // len(forbidden)
        forbidden = jnp.repeat(forbidden, sentences_a_frame, axis=0)[:, None]
        return jnp.where(forbidden, -jnp.inf, logits), state
