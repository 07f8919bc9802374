"""GPT-2 and Llama: equal to transformers in full and step by step, and to llama2.c on its published weights."""

import dataclasses
import json
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest
import safetensors.numpy

from ssu_jax import checkpoint
from ssu_jax.config import stored
from ssu_jax.config.encoders.causal_lm import VARIANTS, CausalLMConfig
from ssu_jax.config.options import problems_of
from ssu_jax.conversion import converting, llama2c, sources
from ssu_jax.conversion.tables.causal_lm import ENTRY
from ssu_jax.encoders.causal_lm import CausalLM
from ssu_jax.layers import embeddings
from ssu_jax.types import UserError

LAYOUTS = ("gpt2", "llama")


@pytest.fixture(params=LAYOUTS)
def fixture(request, root):
    return root / "tests/fixtures/causal_lm" / request.param


def logits_of(config, variables, ids):
    return published.features_of(CausalLM(config), variables, ids)


def stepwise(config, variables, ids):
    """Logits of every position, each from a call of its own."""
    model = CausalLM(config)

    @jax.jit
    def step(here, caches, position):
        return model.apply(variables, here, caches, position, method="step")

    caches, rows = model.empty_caches(*ids.shape), []
    for position in range(ids.shape[1]):
        logits, caches = step(ids[:, position : position + 1], caches, position)
        rows.append(logits)
    return np.concatenate(rows, axis=1)


def test_equals_transformers_on_the_fixture(fixture):
    with np.load(fixture / "expected.npz") as file:
        expected = dict(file)
    config, variables = published.load(ENTRY, *published.read(fixture))
    ids = expected.pop("ids")
    features = published.features_of(ENTRY.build(config), variables, ids)
    assert features.keys() == expected.keys() == {"embedding", "block_0", "block_1", "hidden", "logits"}
    assert np.std(expected["logits"]) > 0.1
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)
    assert logits_of(config, variables, ids).keys() == {"hidden", "logits"}
    np.testing.assert_allclose(stepwise(config, variables, ids), expected["logits"], atol=2e-5)


def test_round_trip(fixture):
    published.assert_round_trip(ENTRY, *published.read(fixture))


def test_gpt2_files_of_the_hub_are_older(root):
    """No prefix, the causal mask stored as weights, the tied head stored a second time."""
    said, tensors = published.read(root / "tests/fixtures/causal_lm/gpt2")
    _, variables = published.load(ENTRY, said, tensors)
    old = {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}
    for layer in range(2):
        old[f"h.{layer}.attn.bias"] = np.tril(np.ones((1, 1, 20, 20), np.float32))
        old[f"h.{layer}.attn.masked_bias"] = np.float32(-1e4)
    old["lm_head.weight"] = old["wte.weight"]
    _, again = published.load(ENTRY, said, old)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))


def test_tied_llama_needs_no_head(root):
    said, tensors = published.read(root / "tests/fixtures/causal_lm/llama")
    with pytest.raises(UserError, match="head/kernel"):
        published.load(ENTRY, said, {name: tensor for name, tensor in tensors.items() if name != "lm_head.weight"})
    table = tensors["model.embed_tokens.weight"]
    config, tied = published.load(ENTRY, said | {"tie_word_embeddings": True}, tensors)
    _, untied = published.load(ENTRY, said, tensors | {"lm_head.weight": table})
    assert config.tied_head
    assert "head" not in tied["params"]
    ids = np.arange(8, dtype=np.int32)[None]
    one, other = logits_of(config, tied, ids), logits_of(dataclasses.replace(config, tied_head=False), untied, ids)
    np.testing.assert_allclose(one["logits"], other["logits"], atol=1e-5)


def test_the_future_and_masked_positions_change_nothing(fixture):
    config, variables = published.load(ENTRY, *published.read(fixture))
    apply = jax.jit(lambda ids, mask: CausalLM(config).apply(variables, ids, mask)["logits"])
    ids = np.random.default_rng(1).integers(0, config.vocab_size, (2, 10)).astype(np.int32)
    every = np.ones(ids.shape, bool)
    changed = ids.copy()
    changed[:, 6] = (ids[:, 6] + 1) % config.vocab_size
    before, after = apply(ids, every), apply(changed, every)
    np.testing.assert_array_equal(before[:, :6], after[:, :6])
    assert np.abs(before[:, 7:] - after[:, 7:]).min(axis=-1).max() > 1e-4
    hidden = every.copy()
    hidden[:, 6] = False
    np.testing.assert_allclose(apply(ids, hidden)[:, 7:], apply(changed, hidden)[:, 7:], atol=1e-6)
    np.testing.assert_array_equal(apply(ids, every), logits_of(config, variables, ids)["logits"])


def test_remat_and_types(root):
    config, variables = published.load(ENTRY, *published.read(root / "tests/fixtures/causal_lm/llama"))
    ids = jnp.arange(10, dtype=jnp.int32)[None]

    def gradient(remat):
        model = CausalLM(config, remat=remat)
        return jax.jit(jax.grad(lambda params: jnp.square(model.apply(params, ids)["logits"]).mean()))(variables)

    plain, again = gradient(False), gradient(True)
    assert jax.tree.all(jax.tree.map(lambda a, b: np.allclose(a, b, atol=1e-6), plain, again))
    full = logits_of(config, variables, ids)
    features = jax.jit(CausalLM(config, dtype=jnp.bfloat16).apply)(variables, ids)
    assert (features["hidden"].dtype, features["logits"].dtype) == (jnp.bfloat16, jnp.float32)
    assert 0 < np.abs(features["logits"] - full["logits"]).mean() < 0.05 * np.abs(full["logits"]).mean()
    stored = jax.eval_shape(CausalLM(config, param_dtype=jnp.bfloat16).init, jax.random.key(0), ids)
    assert {leaf.dtype for leaf in jax.tree.leaves(stored)} == {jnp.dtype(jnp.bfloat16)}


def test_rotary_positions():
    """A turn of pairs: lengths stay, only distances count, and position 0 is no turn; both layouts are one turn."""
    rng = np.random.default_rng(0)
    query, key = (jnp.asarray(rng.normal(size=(1, 1, 1, 8)), jnp.float32) for _ in range(2))

    def at(x, position, layout="halves"):
        return embeddings.rotated(x, jnp.asarray([position]), 100.0, layout)[0, 0, 0]

    np.testing.assert_allclose(at(query, 0), query[0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(jnp.linalg.norm(at(query, 7)), jnp.linalg.norm(query), rtol=1e-6)
    np.testing.assert_allclose(at(query, 3) @ at(key, 5), at(query, 13) @ at(key, 15), rtol=1e-4)
    # By hand: pair 1 of four turns by 100 ** (-1 / 4) a position.
    angle, (first, second) = 2 * 100.0**-0.25, np.asarray(query[0, 0, 0, [2, 3]])
    expected = [first * np.cos(angle) - second * np.sin(angle), second * np.cos(angle) + first * np.sin(angle)]
    np.testing.assert_allclose(at(query, 2, "interleaved")[2:4], expected, atol=1e-6)
    apart = np.asarray([0, 2, 4, 6, 1, 3, 5, 7])
    np.testing.assert_allclose(at(query, 2, "interleaved")[apart], at(query[..., apart], 2, "halves"), atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "'gpt2' or 'llama'"),
        ({"hidden_act": "relu6"}, "relu6"),
        ({"attention_bias": True}, "attention_bias"),
        ({"head_dim": 8}, "heads of 8"),
        ({"num_key_value_heads": 3}, "multiple"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "yarn"),
        ({"hidden_size": None}, "hidden_size"),
    ],
)
def test_models_that_are_not_computed_are_refused(root, changes, message):
    said, tensors = published.read(root / "tests/fixtures/causal_lm/llama")
    said = {name: value for name, value in (said | changes).items() if value is not None}
    with pytest.raises(UserError, match=message):
        ENTRY.read_config(said, published.shapes_of(tensors))


def test_variants_are_in_range():
    def size(name, depth):
        config = dataclasses.replace(VARIANTS[name], depth=depth)
        return sum(map(np.prod, published.wanted_shapes(ENTRY, config).values()))

    names = ("gpt2", "distilgpt2", "gpt2_medium", "smollm2_135m")  # blocks are alike
    sizes = {name: size(name, 1) + (VARIANTS[name].depth - 1) * (size(name, 2) - size(name, 1)) for name in names}
    assert not [problem for config in VARIANTS.values() for problem in problems_of(config)]
    # As published: 124 M (with positions), 82 M, 355 M, 134.5 M.
    assert sizes["gpt2"] == 124439808
    assert sizes["distilgpt2"] == 81912576
    assert sizes["gpt2_medium"] == 354823168
    assert sizes["smollm2_135m"] == 134515008


def test_stories_are_told_as_by_llama2c(shared, tmp_path):
    """From the converted folder; after the way back and forth again, it is the same file."""
    golden = json.loads((shared / "data/weights/golden/stories260K_golden.json").read_text())
    source = llama2c.open_file(shared / "data/weights/text/stories260K.bin")
    made = converting.convert(source, tmp_path / "ours", "causal_lm")
    converting.convert_back(tmp_path / "ours", tmp_path / "back")
    back = sources.open_source(tmp_path / "back", tmp_path / "scratch")
    assert converting.convert(back, tmp_path / "again", "causal_lm").sha256 == made.sha256
    tree, params = checkpoint.read_pretrained(tmp_path / "ours", "causal_lm")
    config, variables = stored.from_dict(CausalLMConfig, tree), {"params": params}
    assert config == VARIANTS["stories260k"]
    ids, logits = greedy(config, variables, len(golden["greedy_ids"]))
    assert ids == golden["greedy_ids"]
    np.testing.assert_allclose(logits[: len(golden["first_logits"])], golden["first_logits"], atol=1e-4)
    whole = logits_of(config, variables, np.asarray([[config.start_id, *ids[:-1]]], np.int32))["logits"]
    np.testing.assert_allclose(logits, whole[0], atol=1e-4)


def greedy(config, variables, count):
    """(ids after the start token, the logits that each came from)."""
    model = CausalLM(config)
    step = jax.jit(lambda here, caches, position: model.apply(variables, here, caches, position, method="step"))
    caches, here, rows = model.empty_caches(1, count), config.start_id, []
    for position in range(count):
        logits, caches = step(np.asarray([[here]], np.int32), caches, position)
        rows.append(np.asarray(logits[0, 0]))
        here = int(rows[-1].argmax())
    return [int(row.argmax()) for row in rows], np.stack(rows)


@pytest.mark.full
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("changes", [{}, {"tie_word_embeddings": True, "vocab_size": 300}, {"activation": "gelu"}])
def test_equals_transformers(root, tmp_path, layout, changes):
    script = runpy.run_path(str(root / "tests/fixtures/make_causal_lm.py"))
    changes = dict(changes)
    if activation := changes.pop("activation", ""):
        changes |= {"activation_function" if layout == "gpt2" else "hidden_act": activation}
    if layout == "llama":
        changes |= {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
    script["save"](tmp_path, layout, 7, **changes)
    said, tensors = published.read(tmp_path)
    config, variables = published.load(ENTRY, said, tensors)
    arguments = ENTRY.example(config, np.random.default_rng(3))
    expected = ENTRY.reference(tmp_path, arguments)
    features = published.features_of(ENTRY.build(config), variables, *arguments)
    assert features.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)
    np.testing.assert_allclose(stepwise(config, variables, *arguments), expected["logits"], atol=2e-5)
    published.assert_round_trip(ENTRY, said, tensors)


@pytest.mark.full
def test_stories_equal_transformers_llama(shared):
    """llama2.c's weights in the package's own model, the pairs of its rotary positions put in the order it wants."""
    path = shared / "data/weights/text/stories260K.bin"
    source = llama2c.open_file(path)
    tensors = {name: tensor.read() for name, tensor in source.tensors.items()}
    config, variables = published.load(ENTRY, source.config, tensors)
    arguments = ENTRY.example(config, np.random.default_rng(0))
    expected = ENTRY.reference(path, arguments)
    features = published.features_of(ENTRY.build(config), variables, *arguments)
    assert features.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=5e-5, err_msg=name)


@pytest.mark.full
def test_transformers_reads_what_is_written_back(fixture, tmp_path):
    config, variables = published.load(ENTRY, *published.read(fixture))
    tensors = published.write_back(ENTRY, config, variables)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(ENTRY.write_config(config)))
    with np.load(fixture / "expected.npz") as file:
        np.testing.assert_allclose(ENTRY.reference(tmp_path, (file["ids"],))["logits"], file["logits"], atol=1e-5)
