"""CLIP's towers against what transformers computes with the same weights, and by hand where it computes nothing."""

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config.encoders.clip import VARIANTS, CLIPConfig
from ssu_jax.conversion import rules
from ssu_jax.conversion.tables.clip import ENTRY
from ssu_jax.encoders import clip
from ssu_jax.tokenizer.clip_bpe import CLIPTokenizer
from ssu_jax.types import UserError

ATOL = 2e-5
END = 30  # of the fixture, whose largest id is 32


def load(folder: pathlib.Path, keep: str = ""):
    """The config, parameters and tensors of a folder that transformers wrote; of those with `keep` in their names."""
    config, tensors = published.read(folder)
    tensors = {name: x for name, x in tensors.items() if keep in name}
    config, variables = published.load(ENTRY, config, tensors, folder)
    return config, jax.tree.map(jnp.asarray, variables["params"]), tensors


@pytest.fixture(scope="module")
def folder(root) -> pathlib.Path:
    return root / "tests" / "fixtures" / "clip"


@pytest.fixture(scope="module")
def small(folder):
    return load(folder)[:2]


@pytest.fixture(scope="module")
def expected(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def features(small, expected) -> dict[str, jax.Array]:
    config, params = small
    return jax.jit(clip.CLIP(config).apply)({"params": params}, expected["images"], expected["ids"])


def test_every_feature_equals_transformers(features, expected):
    inputs = {"images", "ids", "wide", "wide_tokens"}
    assert features.keys() == expected.keys() - inputs
    for name in expected.keys() - inputs:
        assert features[name].shape == expected[name].shape, name
        np.testing.assert_allclose(features[name], expected[name], atol=ATOL, rtol=0, err_msg=name)
    assert len({name for name in features if "_block_" in name}) == 4


def test_another_size_resizes_the_positions_as_transformers_does(small, expected):
    config, params = small
    tower = clip.CLIPVision(config.vision)
    found = jax.jit(tower.apply)({"params": params["vision"]}, expected["wide"])
    assert found["tokens"].shape == (2, 1 + 3 * 6, 20)
    np.testing.assert_allclose(found["tokens"], expected["wide_tokens"], atol=ATOL, rtol=0)
    assert found.keys() == {"tokens", "pooled", "embedding", "dense"}
    without_rest = jax.jit(tower.apply)({"params": params["vision"]}, expected["wide"][:, :12])
    np.testing.assert_allclose(found["tokens"], without_rest["tokens"], atol=1e-5)


def test_resized_grid_by_hand():
    grid = jnp.asarray(np.random.default_rng(0).normal(size=(4, 5, 3)), jnp.float32)
    assert clip.resized_grid(grid, 4, 5) is grid
    constant = clip.resized_grid(jnp.full((3, 3, 2), 1.5), 7, 2)
    np.testing.assert_allclose(constant, np.full((7, 2, 2), 1.5), rtol=1e-6)
    # Twice as many places: the first new one lies a quarter before the first old one, whose row repeats beyond it.
    weights = {t: (1.25 * t**3 - 2.25 * t**2 + 1 if t <= 1 else -0.75 * (t**3 - 5 * t**2 + 8 * t - 4))
               for t in (1.75, 0.75, 0.25, 1.25)}  # fmt: skip
    first = (weights[1.75] + weights[0.75] + weights[0.25]) * grid[0, 0] + weights[1.25] * grid[1, 0]
    np.testing.assert_allclose(clip.resized_grid(grid[:, :1], 8, 1)[0, 0], first, atol=1e-6)


def test_dense_features_by_hand(small, expected, features):
    """NumPy, from the last block's input: out(value(norm(x))), norm, projection; no residual, no feed-forward."""
    _, params = small
    vision = jax.tree.map(np.asarray, params["vision"])

    def norm(x, name, block=vision):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
        return x * block[name]["scale"] + block[name]["bias"]

    last = vision["block_1"]
    x = norm(expected["vision_block_0"].astype(np.float64), "norm_1", last)
    for name in ("value", "out"):
        x = x @ last["attention"][name]["kernel"] + last["attention"][name]["bias"]
    dense = (norm(x, "post_norm") @ vision["projection"]["kernel"])[:, 1:]
    assert features["vision_dense"].shape == (2, 9, 12)
    np.testing.assert_allclose(features["vision_dense"], dense, atol=ATOL)


def test_attention_and_its_gradient_equal_the_plain_formula():
    layer = clip.Attention(num_heads=2)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)) * 3, jnp.float32)
    params = layer.init(jax.random.key(0), x)["params"]
    bias = jnp.where(jnp.arange(5) < 4, 0.0, -1e9)[None, None, None] * jnp.ones((1, 1, 5, 1))

    def plain(params, x):
        def dense(x, name):
            return x @ params[name]["kernel"] + params[name]["bias"][None, None]

        query, key, value = (dense(x, name).reshape(2, 5, 2, 4) for name in ("query", "key", "value"))
        weights = jax.nn.softmax(jnp.einsum("blhk,bnhk->bhln", query, key) / 2.0 + bias)
        return dense(jnp.einsum("bhln,bnhk->blhk", weights, value).reshape(2, 5, 8), "out")

    def ours(params, x):
        return layer.apply({"params": params}, x, bias)

    def gradients(run):
        return jax.jit(jax.grad(lambda params, x: (run(params, x) ** 2).sum(), (0, 1)))(params, x)

    np.testing.assert_allclose(jax.jit(ours)(params, x), jax.jit(plain)(params, x), atol=1e-5)
    pairs = zip(jax.tree.leaves(gradients(ours)), jax.tree.leaves(gradients(plain)), strict=True)
    for a, b in pairs:
        np.testing.assert_allclose(a, b, atol=1e-3, rtol=1e-3)
    assert jnp.isfinite(jax.jit(ours)(params, x * 1e4)).all()  # logits up to 1e8


def test_joint_projections_are_the_separate_ones_side_by_side():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 5, 8)), jnp.float32)
    apart = clip.Attention(num_heads=2)
    params = apart.init(jax.random.key(0), x)["params"]
    parts = [params.pop(name) for name in ("query", "key", "value")]
    joint = {"query_key_value": jax.tree.map(lambda *each: jnp.concatenate(each, -1), *parts), "out": params["out"]}
    separate = dict(zip(("query", "key", "value"), parts, strict=True)) | params
    for values_only in (False, True):
        runs = (jax.jit(module.apply, static_argnums=(2, 3)) for module in (clip.Attention(2, joint=True), apart))
        found, wanted = (run({"params": each}, x, None, values_only)
                         for run, each in zip(runs, (joint, separate), strict=True))  # fmt: skip
        np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_pooled_is_the_first_end_whatever_stands_behind(small):
    config, params = small
    text = {"params": params["text"]}
    rows = {
        "zeros": [29, 5, 6, END, 0, 0, 0, 0, 0],
        "ends": [29, 5, 6, END, END, END, END, END, END],
        "anything": [29, 5, 6, END, 32, 31, 2, 9, END],
    }
    ids = jnp.asarray(list(rows.values()))
    run = jax.jit(clip.CLIPText(config.text).apply)
    found = run(text, ids)
    for row in range(3):
        np.testing.assert_allclose(found["pooled"][row], found["tokens"][0, 3], atol=1e-6)
    short = run(text, ids[:1, :4])
    np.testing.assert_allclose(short["embedding"][0], found["embedding"][0], atol=1e-6)
    # openai's rule, and that of published configs with end id 2: the first place of the largest id.
    largest = jax.jit(clip.CLIPText(dataclasses.replace(config.text, end_id=2)).apply)(text, ids)
    np.testing.assert_array_equal(largest["pooled"][2], found["tokens"][2, 4])
    np.testing.assert_array_equal(largest["pooled"][:2], found["pooled"][:2])


def test_text_looks_only_backwards(small):
    config, params = small
    run = jax.jit(clip.CLIPText(config.text).apply, static_argnums=2)
    ids = jnp.asarray([[29, 1, 2, 3, 4, 5, 6, 7, END], [29, 1, 2, 3, 9, 8, 7, 6, END]])
    found = run({"params": params["text"]}, ids, (0, 1))
    for name in ("tokens", "block_0", "block_1"):
        np.testing.assert_allclose(found[name][0, :4], found[name][1, :4], atol=1e-6)
        assert float(jnp.abs(found[name][0, 4:8] - found[name][1, 4:8]).max(axis=-1).min()) > 1e-3


def test_remat_changes_memory_not_numbers(small, expected):
    config, params = small

    def loss(params, remat):
        tower = clip.CLIPVision(config.vision, remat=remat)
        found = tower.apply({"params": params["vision"]}, jnp.asarray(expected["images"]), (0,))
        return sum((x**2).sum() for x in found.values())

    plain, again = (jax.jit(jax.value_and_grad(loss), static_argnums=1)(params, remat) for remat in (False, True))
    np.testing.assert_allclose(plain[0], again[0], rtol=1e-6)
    for a, b in zip(jax.tree.leaves(plain[1]["vision"]), jax.tree.leaves(again[1]["vision"]), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-3)
    assert "remat" in str(jax.make_jaxpr(lambda p: loss(p, True))(params))


def test_bfloat16_computes_small_and_keeps_parameters(small, expected, features):
    config, params = small
    module = clip.CLIP(config, dtype=jnp.bfloat16)
    found = jax.jit(module.apply)({"params": params}, expected["images"], expected["ids"])
    assert {x.dtype for name, x in found.items() if name != "logits"} == {jnp.dtype(jnp.bfloat16)}
    for name in ("vision_embedding", "text_embedding", "vision_dense"):
        error = np.abs(np.asarray(found[name], np.float32) - features[name]).max()
        assert error < 0.05 * np.abs(features[name]).max(), name
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.asarray(expected["images"]), jnp.asarray([[1]]))
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.float32)}
    stored = clip.CLIPVision(config.vision, param_dtype=jnp.bfloat16)
    shapes = jax.eval_shape(stored.init, jax.random.key(0), jnp.asarray(expected["images"]))
    assert {x.dtype for x in jax.tree.leaves(shapes)} == {jnp.dtype(jnp.bfloat16)}


def test_published_sizes_have_the_published_numbers_of_parameters():
    """Counted on towers of one block, and each further block as large as the first."""
    counts = {}
    for name, config in VARIANTS.items():
        one = {tower: dataclasses.replace(getattr(config, tower), depth=1) for tower in ("vision", "text")}
        parts = {"vision": 0, "text": 0, "logit_scale": 0}
        for path, shape in published.wanted_shapes(ENTRY, dataclasses.replace(config, **one)).items():
            part = path.split("/")[0]
            times = getattr(config, part).depth if "/block_0/" in path else 1
            parts[part] += times * int(np.prod(shape))
        counts[name] = sum(parts.values())
        if name == "vit_b_16":
            assert parts == {"vision": 85_799_424 + 768 * 512, "text": 63_428_096, "logit_scale": 1}
    assert counts == {
        "vit_b_32": 151_277_313, "vit_b_16": 149_620_737, "vit_l_14": 427_616_513, "vit_l_14_336": 427_944_193
    }  # fmt: skip


def test_round_trip_is_exact(folder):
    config, params, tensors = load(folder)
    back = published.write_back(ENTRY, config, {"params": params})
    assert back.keys() == tensors.keys()
    for name, x in tensors.items():
        assert back[name].dtype == x.dtype
        np.testing.assert_array_equal(back[name], x, err_msg=name)


@pytest.mark.parametrize(("tower", "keep"), [("vision", "vis"), ("text", "text")])
def test_one_tower_alone(folder, features, expected, tower, keep):
    config, params, tensors = load(folder, keep)
    assert config.towers == tower
    assert params.keys() == {tower}
    found = jax.jit(ENTRY.build(config).apply)({"params": params}, expected["images"], expected["ids"])
    assert found.keys() == {name for name in features if name.startswith(f"{tower}_")}
    np.testing.assert_allclose(found[f"{tower}_embedding"], expected[f"{tower}_embedding"], atol=ATOL)
    shapes = published.shapes_of(tensors)
    assert getattr(ENTRY.read_config(ENTRY.write_config(config), shapes), tower) == getattr(config, tower)


def test_config_is_read_from_what_is_there(folder):
    config, _, tensors = load(folder)
    shapes = published.shapes_of(tensors)
    assert ENTRY.read_config(ENTRY.write_config(config), shapes) == config
    said, _ = published.read(folder)
    # As older published folders have it: what is called dict speaks, nulls and what is left out do not.
    old = {**said, "text_config": {"hidden_size": 99}, "text_config_dict": said["text_config"]}
    assert ENTRY.read_config(old, shapes) == config
    ours = published.wanted_shapes(ENTRY, VARIANTS["vit_b_16"])
    matches, _ = rules.match_back(ENTRY.table(config), ours)
    empty = {path: np.broadcast_to(np.float32(0), shape) for path, shape in ours.items()}
    full = {name: rules.TRANSFORMS[transform].backward(empty[path]).shape for name, path, transform in matches}
    position_ids = {"text_model.embeddings.position_ids": (1, 77), "vision_model.embeddings.position_ids": (1, 197)}
    assert ENTRY.read_config({}, full | position_ids) == VARIANTS["vit_b_16"]
    assert len(rules.plan(ENTRY.table(config), full | position_ids, ours, "here")) == len(ours)


@pytest.mark.parametrize(
    ("change", "said", "message"),
    [
        (lambda s: {"visual.conv1.weight": (768, 3, 16, 16)}, {}, "openai's own names"),
        (lambda s: {"embeddings.class_embedding": (768,)}, {}, "CLIPVisionModelWithProjection"),
        (lambda s: {k: v for k, v in s.items() if k != "visual_projection.weight"}, {}, "save it with its projection"),
        (lambda s: s, {"vision_config": {"hidden_act": "relu"}}, "'relu': wanted quick_gelu, gelu"),
        (lambda s: s, {"vision_config": {"image_size": [12, 16]}}, "square"),
    ],
)
def test_what_cannot_be_converted_is_said(folder, change, said, message):
    shapes = published.shapes_of(published.read(folder)[1])
    with pytest.raises(UserError, match=message):
        ENTRY.read_config(said, change(shapes))


def test_the_tokenizer_goes_along_where_there_is_one(folder, tmp_path):
    assert ENTRY.tokenizer(folder) == ""
    vocabulary = {"a": 0, "b</w>": 1, "ab</w>": 2, "<|startoftext|>": 3, "<|endoftext|>": 4}
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (tmp_path / "of").mkdir()
    (tmp_path / "of" / "tokenizer.json").write_text(ENTRY.tokenizer(tmp_path))
    assert CLIPTokenizer.load(tmp_path / "of").encode("AB ab", 5).tolist() == [[3, 2, 2, 4, 0]]


@pytest.mark.full
@pytest.mark.parametrize("seed", [0, 1])
def test_other_random_models_equal_transformers(tmp_path, seed):
    """Other sizes, activations swapped, the end rule of older configs; widths of heads that differ."""
    text = {"vocab_size": 41, "max_position_embeddings": 11, "hidden_size": 24, "num_attention_heads": 2 + seed}
    vision = {"image_size": 32, "patch_size": 8, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 50}
    acts = ("gelu", "quick_gelu")
    _compare_with_transformers(
        tmp_path,
        {**text, "num_hidden_layers": 3, "hidden_act": acts[seed], "eos_token_id": (2, 40)[seed], "bos_token_id": 39},
        {**vision, "num_hidden_layers": 4, "hidden_act": acts[1 - seed]},
        seed,
    )


@pytest.mark.full
@pytest.mark.slow
def test_full_size_equals_transformers(tmp_path):
    b_16 = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = _compare_with_transformers(tmp_path, {}, {**b_16, "patch_size": 16}, seed=0)
    assert config == VARIANTS["vit_b_16"]


def _compare_with_transformers(tmp_path, text: dict, vision: dict, seed: int) -> CLIPConfig:
    """Every tensor random, by 2 / sqrt(width) where it is a matrix, so that states keep the size of trained ones."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=vision))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(noise * (0.1 if parameter.ndim < 2 else 0.2 * parameter.shape[-1] ** -0.5))
    model.save_pretrained(tmp_path)
    config, params, _ = load(tmp_path)
    inputs = ENTRY.example(config, np.random.default_rng(seed))
    ours = jax.jit(ENTRY.build(config).apply)({"params": params}, *inputs)
    theirs = ENTRY.reference(tmp_path, inputs)
    assert ours.keys() == theirs.keys()
    for name, x in theirs.items():
        np.testing.assert_allclose(ours[name], x, atol=ATOL, rtol=0, err_msg=name)
    (tmp_path / "config.json").write_text(json.dumps(ENTRY.write_config(config)))
    for name, x in ENTRY.reference(tmp_path, inputs).items():
        np.testing.assert_array_equal(x, theirs[name], err_msg=name)  # transformers reads our config.json as its own
    return config
