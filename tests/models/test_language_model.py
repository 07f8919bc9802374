"""The language-model expert: published ids behind ours, and an LM that is left out where its gate is low."""

import dataclasses
import functools

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax import models
from ssu_jax.config import sizes
from ssu_jax.config.encoders import causal_lm
from ssu_jax.config.model import ModelConfig
from ssu_jax.encoders.causal_lm import CausalLM
from ssu_jax.models.ssuformer import language_model
from ssu_jax.models.ssuformer.prompted_experts import Prompts
from ssu_jax.models.ssuformer.text_decoder import Context, TextDecoder
from ssu_jax.tokenizer import BOS, EOS, PAD, SPECIAL, UNK, published
from ssu_jax.types import UserError

LENGTH, ROWS = 7, 3
TINY = causal_lm.CausalLMConfig(
    vocab_size=20, depth=1, width=8, num_heads=2, num_kv_heads=2, hidden=16, positions=8, start_id=5, end_id=17
)
VARIANTS = {
    "gpt2": TINY,
    "llama": dataclasses.replace(TINY, layout="llama", activation="silu", num_kv_heads=1, tied_head=False),
}
KINDS = ("own", *VARIANTS)


READS = []  # grows by one whenever the LM really reads a position


@pytest.fixture(scope="module", autouse=True)
def tiny_variants_and_counted_reads():
    def counting(advance):
        def counted(self, ids, caches, position):
            jax.debug.callback(lambda: READS.append(1))
            return advance(self, ids, caches, position)

        return counted

    with pytest.MonkeyPatch.context() as patch:
        for kind, sizes_of_kind in VARIANTS.items():
            patch.setitem(causal_lm.VARIANTS, f"tiny_{kind}", sizes_of_kind)
        for module in (language_model.OwnLanguageModel, language_model.PublishedLanguageModel):
            patch.setattr(module, "advance", counting(module.advance))
        yield


def config_of(kind: str) -> ModelConfig:
    config = ModelConfig(width=16, num_heads=2, text_layers=1, vocab_size=27)
    config.moe.num_experts, config.moe.hidden = 2, 16
    lm = config.language_model
    lm.kind, lm.variant, lm.width, lm.gate_threshold = kind, f"tiny_{kind}", 8, 0.5
    return config


def context() -> Context:
    rng = np.random.default_rng(0)
    draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)  # noqa: E731
    prompts = Prompts(draw(ROWS, 6, 16), draw(ROWS, 3, 16), draw(1, 3))
    return Context(draw(ROWS, 5, 16), jnp.zeros((ROWS, 5)), prompts)


def sentences() -> np.ndarray:
    ids = np.random.default_rng(1).integers(4, 24, (ROWS, LENGTH)).astype(np.int32)
    ids[:, 0] = BOS
    return ids


class Compiled:
    """The text decoder with an LM of some kind, and random parameters with gates that hang on the words."""

    def __init__(self, kind: str):
        module, mask = TextDecoder(config_of(kind), LENGTH), jnp.ones((ROWS, LENGTH), bool)
        self.module = module
        init = jax.jit(lambda key: module.init(key, jnp.asarray(sentences()), context(), mask, False))
        self.params = jax.tree.map(lambda x: 2.0 * np.asarray(x), init(jax.random.key(0))["params"])
        self.params["lm"] = jax.tree.map(lambda x: 3.0 * x, self.params["lm"])
        self.params["gate"]["bias"] = np.zeros(1, np.float32)
        self._whole = jax.jit(
            lambda p, ids: module.apply({"params": p}, ids, context(), mask, False, mutable=["intermediates"])
        )
        self._start = jax.jit(lambda p: module.apply({"params": p}, context(), method="start"))
        self._step = jax.jit(lambda p, ids, *state: module.apply({"params": p}, ids, context(), *state, method="step"))

    def with_gate(self, logit: float) -> dict:
        """Parameters with one gate for all."""
        kernel = np.zeros_like(self.params["gate"]["kernel"])
        return {**self.params, "gate": {"kernel": kernel, "bias": np.full(1, logit, np.float32)}}

    def whole(self, params: dict, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Teacher-forced: (log-probabilities of every position, gates)."""
        words, seen = self._whole(params, ids)
        return np.asarray(words.logits), np.asarray(seen["intermediates"]["language_model_share"][0])[..., 0]

    def start(self):
        return self._start(self.params)

    def stepped(self, params: dict, ids: np.ndarray, state, first: int = 0) -> tuple[np.ndarray, list[int], object]:
        """Position by position: (the same log-probabilities, how far the LM had read after each, last state)."""
        READS.clear()
        rows, seen = [], []
        for at in range(first, first + ids.shape[1]):
            logits, state = self._step(params, ids[:, at - first, None], state, at)
            rows.append(np.asarray(logits[:, 0]))
            seen.append(int(state.language_model.seen))
        jax.effects_barrier()
        return np.stack(rows, axis=1), seen, state


compiled = functools.cache(Compiled)


@pytest.mark.parametrize("kind", KINDS)
def test_left_out_and_caught_up_is_the_same_as_always_there(kind):
    model, ids = compiled(kind), sentences()
    _, gates = model.whole(model.params, ids)
    highest = np.log(gates / (1 - gates)).max(axis=0)
    # Three positions with a sentence that needs the LM (a gate above 0.5, a logit above 0), and four without.
    params = {**model.params, "gate": {**model.params["gate"], "bias": -np.sort(highest)[None, 3:5].mean(axis=1)}}
    needed = highest > np.sort(highest)[3]
    expected, _ = model.whole(params, ids)
    found, seen, _ = model.stepped(params, ids, model.start())
    np.testing.assert_allclose(found, expected, atol=2e-5)
    read = np.maximum.accumulate(np.where(needed, np.arange(LENGTH) + 1, 0))
    assert seen == read.tolist()
    assert len(READS) == read[-1]  # once each, and nothing after the last that was needed
    # It does matter: without the LM those positions would be others.
    alone, _ = model.whole(model.with_gate(-9.0), ids)
    assert (np.abs(alone - expected).max(axis=(0, 2)) > 1e-3).tolist() == needed.tolist()
    np.testing.assert_allclose(np.exp(expected).sum(axis=-1), 1.0, atol=1e-5)


def test_low_gates_cost_nothing_and_high_ones_read_every_word():
    model = compiled("gpt2")
    for logit, count in ((-9.0, 0), (9.0, LENGTH)):
        _, seen, _ = model.stepped(model.with_gate(logit), sentences(), model.start())
        assert len(READS) == seen[-1] == count


def test_sentences_that_have_ended_do_not_wake_it():
    model = compiled("gpt2")
    ids = sentences()
    ids[:, 2], ids[:, 3:] = EOS, PAD
    _, seen, _ = model.stepped(model.with_gate(9.0), ids, model.start())
    assert seen == [1, 2, 2, 2, 2, 2, 2]
    assert len(READS) == 2
    ids[1] = sentences()[1]  # one goes on
    _, seen, _ = model.stepped(model.with_gate(9.0), ids, model.start())
    assert seen[-1] == LENGTH


@pytest.mark.parametrize("logit", [-9.0, 9.0])
def test_rows_of_the_state_may_change_places(logit):
    """As beam search does: every array with the rows of the sentences, scalars as they are, words included."""
    model, ids, order = compiled("llama"), sentences(), np.asarray([2, 2, 0])
    _, seen, state = model.stepped(model.with_gate(logit), ids[:, :4], model.start())
    assert seen[-1] == (4 if logit > 0 else 0)
    lm = jax.tree.map(lambda leaf: leaf[order] if jnp.ndim(leaf) else leaf, state.language_model)
    high = model.with_gate(99.0)  # what the LM says alone, so that nothing hangs on the frames
    found, _, _ = model.stepped(high, ids[order, 4:5], state._replace(language_model=lm), first=4)
    expected, _ = model.whole(high, ids)
    np.testing.assert_allclose(np.exp(found[:, 0]), np.exp(expected[order, 4]), atol=1e-5)


def test_its_words_are_the_published_ones_moved():
    config, params = config_of("gpt2"), compiled("gpt2").params["lm"]
    lm = language_model.expert(config, LENGTH, jnp.float32)
    ids = jnp.asarray([[BOS, 4, 23, 12, EOS, UNK, PAD]])
    theirs = jnp.asarray([[TINY.start_id, 0, 19, 8, TINY.end_id, TINY.end_id, TINY.end_id]])
    found = np.asarray(jax.jit(lm.apply)({"params": params}, ids))
    logits = np.asarray(jax.jit(CausalLM(TINY).apply)({"params": params["model"]}, theirs)["logits"])
    assert found.shape == (1, LENGTH, config.vocab_size)
    ordinary = np.arange(TINY.vocab_size) != TINY.end_id
    np.testing.assert_allclose(found[..., 4:24][..., ordinary], logits[..., ordinary], atol=1e-6)
    np.testing.assert_allclose(found[..., EOS], logits[..., TINY.end_id], atol=1e-6)
    never = [PAD, BOS, UNK, TINY.end_id + published.OFFSET, 24, 25, 26]
    np.testing.assert_array_equal(found[..., never], language_model.NEVER)
    np.testing.assert_allclose(
        np.exp(jax.nn.log_softmax(found))[..., EOS], jax.nn.softmax(logits)[..., TINY.end_id], atol=1e-6
    )


def test_what_learns_from_what():
    """The words teach the gate and not the LM; the LM learns from its own words."""
    module, params, ids = compiled("gpt2").module, compiled("gpt2").params, sentences()
    mask = jnp.ones((ROWS, LENGTH), bool)

    def last_words(params):
        words = module.apply({"params": params}, jnp.asarray(ids), context(), mask, True)
        return jnp.stack([logits[:, -1, 9].sum() for logits in (words.logits, words.lm_logits)])

    both = jax.jit(jax.jacrev(last_words))(params)
    of_words, of_lm = (jax.tree.map(lambda leaf, n=number: float(jnp.abs(leaf[n]).max()), both) for number in (0, 1))
    assert max(jax.tree.leaves(of_words["lm"])) == 0.0
    assert of_words["gate"]["kernel"] > 0.0
    assert min(jax.tree.leaves(of_lm["lm"]["model"]["block_0"]["attention"]["out"])) > 0.0
    assert max(jax.tree.leaves({name: tree for name, tree in of_lm.items() if name != "lm"})) == 0.0


def test_a_converted_folder_drops_in():
    """The subtree is CausalLM's own; the small LM of our own keeps its names, or the shipped weights would not load."""
    config = sizes.tiny()
    lm = config.model.language_model
    lm.kind, lm.variant, config.model.vocab_size = "gpt2", "tiny_gpt2", 24

    def shapes():
        model, batch = models.build(config), models.example_batch(config)
        tree = jax.eval_shape(lambda: model.init({"params": jax.random.key(0)}, batch)["params"])
        return tree["text_decoder"]["lm"]

    own = jax.eval_shape(CausalLM(TINY).init, jax.random.key(0), jnp.zeros((1, 3), jnp.int32))["params"]
    tree = shapes()
    assert tree.keys() == {"model"}
    assert jax.tree.map(jnp.shape, tree["model"]) == jax.tree.map(jnp.shape, own)
    lm.kind = "own"
    names = set(flax.traverse_util.flatten_dict(shapes(), sep="/"))
    assert {"embed/embedding", "position", "norm/scale", "head/kernel", "attention_0/attention/query/kernel",
            "attention_0/norm/scale", "feed_0/FeedForward_0/Dense_0/kernel"} <= names  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"variant": "tiny_llama"}, "variant must be one of .*tiny_gpt2 for kind gpt2, got 'tiny_llama'"),
        ({"variant": "gpt5"}, "got 'gpt5'"),
        ({"vocab_size": 23}, r"model.vocab_size \(23\) must be at least 24: the 20 ids of tiny_gpt2 and our 4"),
        ({"max_text_tokens": 9}, r"data.max_text_tokens \(9\) must be at most 8"),
    ],
)
def test_options_that_do_not_go_together(changes, message):
    config = sizes.nano()
    config.model.vocab_size, config.data.max_text_tokens = 24, 8
    config.model.language_model.kind, config.model.language_model.variant = "gpt2", "tiny_gpt2"
    config.validate()
    places = {"variant": config.model.language_model, "vocab_size": config.model, "max_text_tokens": config.data}
    for name, value in changes.items():
        setattr(places[name], name, value)
    with pytest.raises(UserError, match=message):
        config.validate()
    config.model.mohe = False  # then there is no language model to fit
    config.validate()


def test_the_number_of_special_ids_is_the_tokenizers():
    from ssu_jax import config

    assert len(SPECIAL) == published.OFFSET == config.NUM_SPECIAL_IDS
