"""From frames and sound to mask probabilities and word ids: what evaluation and prediction run.

The sentences of all frames of all clips are one batch, written word by word inside one compiled loop that ends
when no frame can gain by another word. What MCM sees and the keys and values of the context are computed once,
before the loop.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ssu_jax.config.model import ModelConfig
from ssu_jax.models.late_fusion.late_fusion import LateFusion
from ssu_jax.models.ssuformer.ssuformer import SSUFormer
from ssu_jax.models.ssuformer.text_decoder import Context
from ssu_jax.tokenizer import BOS, EOS, PAD
from ssu_jax.types import MASK_THRESHOLD

Describe = Callable[..., tuple[Array, Array]]


@runtime_checkable
class WritesWords(Protocol):
    """What decoding asks of a model.

    A state is a named tuple with a field `context_caches`, which the sentences of a frame share; its other arrays
    have a row a sentence, its scalars belong to all. Sentences of one frame stand side by side.
    """

    def start_words(self, context: Context) -> Any:
        """The state before the first word, of one sentence a frame."""

    def next_word(self, ids: Int[Array, "b 1"], context: Context, state: Any, position: Any) -> tuple[Any, Any]:
        """Logits [b, 1, v] of the word after `position`, and the new state; b sentences, a multiple of the frames."""


def make_describe(model: SSUFormer | LateFusion) -> Describe:
    """A jitted `describe(params, frames, log_mel, frame_valid) -> (mask_probabilities, ids)`.

    frames uint8 [b, t, y, x, 3], log_mel float32 [b, t, m, f], frame_valid bool [b, t] ->
    mask probabilities float32 [b, t, y, x] (zeros for a text-only model) and word ids int32 [b, t, l] with
    [BOS] first (zeros for a masks-only model). A frame's answer does not depend on its batch. Sentences are found
    greedily, or by beam search where `model.beam_size` is above 1. Late fusion gives facts for ids (see its
    sentences.py).
    """
    method = LateFusion.describe if isinstance(model, LateFusion) else _describe

    def describe(params, frames, log_mel, frame_valid):
        return model.apply({"params": params}, frames, log_mel, frame_valid, method=method)

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
        ids = sentences(model, context, model.config, model.max_text_tokens).reshape(b, t, -1)
    return without_specks(masks, model.config.smallest_mask).reshape(b, t, size, size), ids


def without_specks(probabilities: Float[Array, "b y x"], smallest: float) -> Float[Array, "b y x"]:
    """Frames whose mask covers less than `smallest` of the picture are left without a mask.

    A few stray pixels are no object; they are held down to the threshold, so that their order stays.
    """
    share = (probabilities > MASK_THRESHOLD).mean(axis=(1, 2), keepdims=True)
    return jnp.where(share < smallest, jnp.minimum(probabilities, MASK_THRESHOLD), probabilities)


def sentences(model: WritesWords, context: Context, config: ModelConfig, length: int) -> Int[Array, "b l"]:
    """One sentence a frame, found as the configuration says."""
    if config.beam_size == 1:
        return greedy(model, context, length)
    return beam_search(model, context, length, config.beam_size, config.length_penalty)[0]


def greedy(model: WritesWords, context: Context, length: int) -> Int[Array, "b l"]:
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


class _Beams(NamedTuple):
    """Of each frame: k sentences that go on, best first, and the best one that has ended."""

    position: Any  # int32 []: the last word written
    ids: Any  # int32 [b, k, l]
    log_probs: Any  # float32 [b, k]; -inf where there are fewer than k
    ended_ids: Any  # int32 [b, l]
    ended_log_probs: Any  # float32 [b]
    ended_score: Any  # float32 [b]
    state: Any  # of b * k sentences, those of one frame side by side


def beam_search(
    model: WritesWords, context: Context, length: int, num_beams: int, length_penalty: float
) -> tuple[Int[Array, "b l"], Float[Array, "b"]]:
    """The sentence of the best score among those that `num_beams` beams reach, and its log-probability.

    Score of a sentence of n words, [EOS] counted: log p / ((5 + n) / 6)^length_penalty (arXiv 1609.08144,
    section 7, without coverage). Silence, [EOS] at once, is a sentence of one word: its divisor is 1. A sentence
    that fills all `length` places is cut there and stands for every way it could go on, so that the sentences
    compared are disjoint events that add up to 1. With enough beams the search is exhaustive.
    """
    most_words = _length_divisor(length - 1, length_penalty)

    def can_win(beams: _Beams) -> Bool[Array, "b k"]:
        # A log-probability only falls, and no divisor is larger than the last.
        return beams.log_probs / most_words > beams.ended_score[:, None]

    def unfinished(beams: _Beams) -> Array:
        return (beams.position < length - 1) & can_win(beams).any()

    def write(beams: _Beams) -> _Beams:
        b, k, _ = beams.ids.shape
        here = jax.lax.dynamic_slice_in_dim(beams.ids, beams.position, 1, axis=2)
        # Like sentences that have ended, those that cannot win read [PAD]: no language model is asked for them.
        here = jnp.where(can_win(beams)[..., None], here, PAD).reshape(b * k, 1)
        logits, state = model.next_word(here, context, beams.state, beams.position)
        words = jax.nn.log_softmax(logits[:, 0].astype(jnp.float32)).reshape(b, k, -1)
        log_probs = beams.log_probs[..., None] + words
        beams = _with_ended(beams, log_probs[..., EOS], _length_divisor(beams.position + 1, length_penalty))
        on = log_probs.at[..., EOS].set(-jnp.inf).reshape(b, -1)
        log_probs, place = jax.lax.top_k(on, k)
        source, word = jnp.divmod(place.astype(jnp.int32), words.shape[2])
        ids = jnp.take_along_axis(beams.ids, source[..., None], axis=1)
        ids = jax.lax.dynamic_update_slice_in_dim(ids, word[..., None], beams.position + 1, axis=2)
        rows = (jnp.arange(b)[:, None] * k + source).reshape(-1)
        state = _of_sentences(state, lambda leaf: jnp.take(leaf, rows, axis=0, mode="clip"))
        return beams._replace(position=beams.position + 1, ids=ids, log_probs=log_probs, state=state)

    start = _first_beams(model.start_words(context), context.tokens.shape[0], num_beams, length)
    beams = jax.lax.while_loop(unfinished, write, start)
    # Where the loop has ended early no running sentence is above: only those cut at full length can win here.
    cut = can_win(beams)[:, 0]
    ids = jnp.where(cut[:, None], beams.ids[:, 0], beams.ended_ids)
    return ids, jnp.where(cut, beams.log_probs[:, 0], beams.ended_log_probs)


def _first_beams(state: Any, b: int, k: int, length: int) -> _Beams:
    """One beam a frame is alive: k equal ones would find the same k sentences."""
    ids = jnp.full((b, length), PAD, jnp.int32).at[:, 0].set(BOS)
    never = jnp.full((b,), -jnp.inf)
    alive = jnp.full((b, k), -jnp.inf).at[:, 0].set(0.0)
    state = _of_sentences(state, lambda leaf: jnp.repeat(leaf, k, axis=0))
    return _Beams(jnp.int32(0), jnp.repeat(ids[:, None], k, axis=1), alive, ids, never, never, state)


def _with_ended(beams: _Beams, log_probs: Float[Array, "b k"], divisor: Float[Array, ""]) -> _Beams:
    """Every beam ends here: the best of them takes the place of the best so far where it is above."""
    which = log_probs.argmax(axis=1)[:, None]
    log_prob = jnp.take_along_axis(log_probs, which, axis=1)[:, 0]
    ids = jnp.take_along_axis(beams.ids, which[..., None], axis=1)[:, 0]
    end = jnp.full((len(ids), 1), EOS, jnp.int32)
    ids = jax.lax.dynamic_update_slice_in_dim(ids, end, beams.position + 1, axis=1)
    better = log_prob / divisor > beams.ended_score
    return beams._replace(
        ended_ids=jnp.where(better[:, None], ids, beams.ended_ids),
        ended_log_probs=jnp.where(better, log_prob, beams.ended_log_probs),
        ended_score=jnp.where(better, log_prob / divisor, beams.ended_score),
    )


def _of_sentences(state: Any, change: Callable[[Array], Array]) -> Any:
    """`change` on what single sentences carry; the context's keys and values, and scalars, stay as they are."""
    own = jax.tree.map(lambda leaf: change(leaf) if leaf.ndim else leaf, state._replace(context_caches=()))
    return own._replace(context_caches=state.context_caches)


def _length_divisor(words: Any, length_penalty: float) -> Float[Array, ""]:
    return ((5.0 + jnp.asarray(words, jnp.float32)) / 6.0) ** length_penalty
