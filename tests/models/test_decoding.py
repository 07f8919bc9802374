"""Greedy and beam search: a toy that writes from a table, and the real text decoder."""

import itertools
from typing import Any, NamedTuple

import jax
import jax.extend as jex
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import ModelConfig, sizes
from ssu_jax.models import decoding
from ssu_jax.models.ssuformer.prompted_experts import Prompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import BOS, EOS, PAD

WORDS, WIDTH = 5, 6  # of the toy: [PAD], [BOS], [EOS] and two more


class ToyState(NamedTuple):
    hidden: Any  # [rows, WIDTH]: all words so far
    count: Any  # []: a scalar belongs to all sentences
    context_caches: Any  # [b, WIDTH]: a row a frame, whatever the number of sentences


class ToyModel:
    """The next word hangs on all words so far and on the frame."""

    def __init__(self, seed: int = 2, scale: float = 1.5):
        rng = np.random.default_rng(seed)
        shapes = (WORDS, WIDTH), (WIDTH, WIDTH), (WIDTH, WORDS)
        drawn = [(scale * rng.normal(size=shape)).astype(np.float32) for shape in shapes]
        self.words, self.mix, self.head = drawn[0], 0.3 * drawn[1], 0.5 * drawn[2]

    def start_words(self, context):
        b = context.tokens.shape[0]
        return ToyState(jnp.zeros((b, WIDTH)), jnp.int32(0), context.tokens[:, 0])

    def next_word(self, ids, context, state, position):
        frames = state.context_caches.shape[0]
        hidden = jnp.tanh(state.hidden @ self.mix + jnp.asarray(self.words)[ids[:, 0]])
        seen = hidden.reshape(frames, -1, WIDTH) + state.context_caches[:, None]
        logits = seen.reshape(-1, 1, WIDTH) @ self.head
        return logits, ToyState(hidden, state.count + 1, state.context_caches)

    def log_prob(self, words, frame) -> float:
        """Of a sentence, without any of the machinery above; `frame` is what its context holds."""
        hidden, total, before = np.zeros(WIDTH), 0.0, BOS
        for word in words:
            hidden = np.tanh(hidden @ self.mix + self.words[before])
            logits = (hidden + frame) @ self.head
            total, before = total + logits[word] - np.log(np.exp(logits).sum()), word
        return total


class TableModel:
    """p(word | how many words stand), one table a frame; counts its calls."""

    def __init__(self, *tables):
        self.logits = jnp.log(jnp.asarray(tables, jnp.float32))  # [b, l, v]
        self.calls = 0

    def start_words(self, context):
        return ToyState(jnp.zeros((context.tokens.shape[0], 1)), jnp.int32(0), ())

    def next_word(self, ids, context, state, position):
        jax.debug.callback(self._called)
        here = jax.lax.dynamic_index_in_dim(self.logits, position, axis=1)
        return jnp.repeat(here, ids.shape[0] // here.shape[0], axis=0), state

    def _called(self):
        self.calls += 1


def toy_context(frames: int, seed: int = 1) -> Context:
    tokens = jnp.asarray(np.random.default_rng(seed).normal(size=(frames, 1, WIDTH)), jnp.float32)
    return Context(tokens, jnp.zeros((frames, 1)), None)


def beams_of(model, context, length, num_beams, penalty=0.0):
    search = jax.jit(lambda c: decoding.beam_search(model, c, length, num_beams, penalty))
    return jax.tree.map(np.asarray, search(context))


def every_sentence(length):
    """All that a frame could be told in length - 1 words: those that end, and those cut at full length."""
    others = [word for word in range(WORDS) if word != EOS]
    for count in range(length):
        for words in itertools.product(others, repeat=count):
            yield words if count == length - 1 else (*words, EOS)


@pytest.fixture(scope="module")
def exhaustive():
    model, context = ToyModel(), toy_context(8)
    sentences = list(every_sentence(4))
    frames = np.asarray(context.tokens[:, 0])
    log_probs = np.array([[model.log_prob(words, frame) for words in sentences] for frame in frames])
    return model, context, sentences, log_probs


def test_the_sentences_compared_are_all_there_are(exhaustive):
    _, _, sentences, log_probs = exhaustive
    assert len(sentences) == 1 + 4 + 16 + 64
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 0.6, 2.0])
def test_enough_beams_find_the_best_sentence_of_all(exhaustive, penalty):
    model, context, sentences, log_probs = exhaustive
    divisors = ((5 + np.array([len(words) for words in sentences])) / 6) ** penalty
    best = (log_probs / divisors).argmax(axis=1)
    ids, found = beams_of(model, context, 4, 64, penalty)
    expected = [[BOS, *sentences[i], PAD, PAD, PAD][:4] for i in best]
    assert ids.tolist() == expected
    np.testing.assert_allclose(found, log_probs[np.arange(8), best], atol=1e-5)
    if penalty == 0.0:
        assert len({len(sentences[i]) for i in best}) > 1  # else the toy would be too plain to tell anything


def test_few_beams_find_no_worse_than_greedy_and_say_what_it_is_worth(exhaustive):
    model, context, sentences, log_probs = exhaustive
    by_words = {words: column for column, words in enumerate(sentences)}
    greedy = np.asarray(decoding.greedy(model, context, 4))

    def worth(ids):
        words = [tuple(row[1:][: list(row[1:]).index(EOS) + 1] if EOS in row[1:] else row[1:]) for row in ids.tolist()]
        return np.array([log_probs[frame, by_words[each]] for frame, each in enumerate(words)])

    ids, found = beams_of(model, context, 4, 2)
    np.testing.assert_allclose(found, worth(ids), atol=1e-5)
    assert (found >= worth(greedy) - 1e-5).all()
    assert (found > worth(greedy) + 0.01).any()


def test_a_frame_does_not_depend_on_its_batch():
    model, context = ToyModel(), toy_context(5)
    together, scores = beams_of(model, context, 8, 3, 0.6)
    for frame in range(5):
        alone = Context(context.tokens[frame : frame + 1], context.bias[:1], None)
        ids, score = beams_of(model, alone, 8, 3, 0.6)
        np.testing.assert_array_equal(ids[0], together[frame])
        np.testing.assert_allclose(score[0], scores[frame], atol=1e-5)
    assert len({tuple(row) for row in together.tolist()}) > 1


def table(first, *later):
    """Rows of p over [PAD], [BOS], [EOS], a, b."""
    return np.maximum(np.array([first, *later], np.float32), 1e-12)


A_LONG_SENTENCE = [[0, 0, 0, 1, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0]]  # after its first word: a a [EOS]


@pytest.mark.parametrize(
    ("silence", "penalty", "silent"),
    # Silence, one word, against a sentence of four: log s / 1 against log(1 - s) / (9 / 6)^penalty.
    # At penalty 1 they meet where s^1.5 = 1 - s: s = 0.5698.
    [(0.49, 0.0, False), (0.51, 0.0, True), (0.565, 1.0, False), (0.575, 1.0, True)],
)
def test_silence_competes_by_the_same_rule(silence, penalty, silent):
    model = TableModel(table([0, 0, silence, 1 - silence, 0], *A_LONG_SENTENCE))
    ids, log_prob = beams_of(model, toy_context(1), 5, 2, penalty)
    assert ids[0].tolist() == ([BOS, EOS, PAD, PAD, PAD] if silent else [BOS, 3, 3, 3, EOS])
    assert log_prob[0] == pytest.approx(np.log(silence if silent else 1 - silence), abs=1e-5)


def test_the_likeliest_sentence_may_be_another_than_that_of_the_likeliest_words():
    # "a ..." is likelier than silence, yet each of its two sentences is less likely.
    first, second = [0, 0, 0.4, 0.6, 0], [0, 0, 0, 0.5, 0.5]
    model = TableModel(table(first, second, [0, 0, 1, 0, 0]))
    context = toy_context(1)
    assert np.asarray(decoding.greedy(model, context, 4))[0, 1] == 3
    ids, log_prob = beams_of(model, context, 4, 3)
    assert ids[0].tolist() == [BOS, EOS, PAD, PAD]
    assert log_prob[0] == pytest.approx(np.log(0.4), abs=1e-5)


def test_a_sentence_without_an_end_is_cut_at_full_length():
    on = [0, 0, 0, 0.9, 0.1]
    ids, log_prob = beams_of(TableModel(table(on, on, on)), toy_context(1), 4, 2)
    assert ids[0].tolist() == [BOS, 3, 3, 3]
    assert log_prob[0] == pytest.approx(3 * np.log(0.9), abs=1e-5)


@pytest.mark.parametrize("penalty", [0.0, 1.0])
def test_the_search_ends_when_no_running_sentence_can_win(penalty):
    def steps(*tables):
        model = TableModel(*tables)
        ids, _ = beams_of(model, toy_context(len(tables)), 12, 2, penalty)
        jax.effects_barrier()
        return model.calls, ids[:, 1].tolist()

    rest = [[0, 0, 0, 0.5, 0.5]] * 9
    silent, loud = (
        table([0, 0, 0.99, 0.01, 0], rest[0], *rest),
        table([0, 0, 0.01, 0.99, 0], [0, 0, 0.99, 0.01, 0], *rest),
    )
    assert steps(silent) == (1, [EOS])
    assert steps(loud) == (2, [3])
    assert steps(silent, loud, silent) == (2, [EOS, 3, EOS])
    # Nothing has ended: all places are filled.
    assert steps(table(*[[0, 0, 0, 0.9, 0.1]] * 11))[0] == 11


def test_a_length_penalty_keeps_sentences_alive_that_may_still_win():
    # At once: log 0.55 = -0.60. The other ends with -0.80 / (8 / 6)^2 = -0.45: it must not be given up.
    tables = table([0, 0, 0.55, 0.45, 0], [0, 0, 0, 1, 0], [0, 0, 1, 0, 0])
    assert beams_of(TableModel(tables), toy_context(1), 4, 2, 2.0)[0][0].tolist() == [BOS, 3, 3, EOS]
    assert beams_of(TableModel(tables), toy_context(1), 4, 2, 0.0)[0][0].tolist() == [BOS, EOS, PAD, PAD]


def test_words_that_are_no_numbers_end_the_search():
    model = TableModel(table(*[[0, 0, 0, 0.9, 0.1]] * 3))
    model.logits = model.logits * jnp.nan
    ids, _ = beams_of(model, toy_context(1), 4, 2)
    assert ids[0].tolist() == [BOS, PAD, PAD, PAD]


class Bound:
    """A text decoder with its parameters, as `decoding` calls it."""

    def __init__(self, decoder, params):
        self.decoder, self.params = decoder, params

    def start_words(self, context):
        return self.decoder.apply(self.params, context, method="start")

    def next_word(self, ids, context, state, position):
        return self.decoder.apply(self.params, ids, context, state, position, method="step")


@pytest.fixture(scope="module")
def decoder():
    """The real text decoder with experts and language model, random weights, and four frames."""
    config = ModelConfig(width=16, num_heads=2, text_layers=1, vocab_size=12)
    config.moe.num_experts, config.moe.hidden, config.language_model.width = 2, 16, 8
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    context = Context(draw(4, 5, 16), jnp.zeros((4, 5)), Prompts(draw(4, 6, 16), draw(4, 3, 16), draw(2, 3)))
    module = TextDecoder(config, 7)
    ids = jnp.full((4, 6), BOS)
    init = jax.eval_shape(lambda: module.init(jax.random.key(0), ids, context, jnp.ones((4, 6), bool), False))
    params = jax.tree.map(lambda leaf: 0.7 * draw(*leaf.shape), init)  # drawn here: nothing to compile
    for head in (params["params"]["head"], params["params"]["lm"]["head"]):
        head["kernel"] *= 2.0  # else silence is likelier than any sentence
        # Padding is no word of the teacher-forced pass.
        head["bias"] = head["bias"].at[EOS].add(-4.0).at[PAD].set(-1e4)
    return module, params, context


def test_the_score_is_what_the_teacher_forced_pass_gives(decoder):
    module, params, context = decoder
    ids, log_probs = beams_of(Bound(module, params), context, 7, 3, 0.6)
    targets = ids[:, 1:]
    words = jax.jit(lambda p, i, mask: module.apply(p, i, context, mask, False))(params, ids[:, :-1], targets != PAD)
    each = np.take_along_axis(np.asarray(jax.nn.log_softmax(words.logits)), targets[..., None], axis=2)[..., 0]
    np.testing.assert_allclose(log_probs, (each * (targets != PAD)).sum(axis=1), atol=1e-4)
    assert len({tuple(row) for row in ids.tolist()}) > 1


def test_sentences_of_a_frame_share_its_context(decoder):
    """Three sentences of every frame at once, with the context once: each as if it stood alone."""
    module, params, context = decoder
    model = Bound(module, params)
    words = jnp.asarray(np.random.default_rng(2).integers(3, 12, (4, 3)))
    state = model.start_words(context)
    wide = decoding._of_sentences(state, lambda leaf: jnp.repeat(leaf, 3, axis=0))
    assert jax.tree.map(jnp.shape, wide.context_caches) == jax.tree.map(jnp.shape, state.context_caches)
    step = jax.jit(lambda ids, state: model.next_word(ids, context, state, 0)[0])
    together = step(words.reshape(12, 1), wide)
    for place in range(3):
        alone = step(words[:, place : place + 1], state)
        np.testing.assert_allclose(together.reshape(4, 3, -1)[:, place], alone[:, 0], atol=1e-5)


@pytest.mark.parametrize("beam_size", [1, 3])
def test_pictures_sound_and_regions_are_looked_at_once(beam_size):
    """Nothing but the text decoder stands inside the loop over words."""
    config = sizes.tiny()
    config.model.beam_size = beam_size
    model, batch = models.build(config), models.example_batch(config)
    params = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, batch)["params"])
    describe = decoding.make_describe(model)
    jaxpr = jax.make_jaxpr(describe)(params, batch.frames, batch.log_mel, batch.frame_valid)
    assert jaxpr.out_avals[1].shape == batch.text_ids.shape
    before, loops = scopes_of(jaxpr.jaxpr, False), scopes_of(jaxpr.jaxpr, True)
    assert {"mask_collaboration", "visual_encoder", "audio_encoder", "fusion", "mask_head"} <= before
    assert loops == {"text_decoder"}


PARTS = ("visual_encoder", "audio_encoder", "to_tokens", "query_tokens", "fusion", "pixel_decoder", "mask_head",
         "mask_collaboration", "prompts", "text_decoder")  # fmt: skip


def scopes_of(jaxpr, want_loops: bool, in_loop: bool = False) -> set[str]:
    """Parts of the model whose operations stand inside (or outside) while loops of the program."""
    found = set()
    for equation in jaxpr.eqns:
        scope = str(equation.source_info.name_stack)
        if in_loop == want_loops:
            found |= {part for part in PARTS if part in scope}
        inside = in_loop or equation.primitive.name == "while"
        for inner in jex.core.jaxprs_in_params(equation.params):
            found |= scopes_of(inner, want_loops, inside)
    return found
