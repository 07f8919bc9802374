"""PVT-v2: equal to transformers at every stage, three published layouts, and what the encoder promises."""

import dataclasses
import re
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config import stored
from ssu_jax.config.encoders.pvt_v2 import VARIANTS, PVTv2Config
from ssu_jax.conversion.tables.pvt_v2 import ENTRY
from ssu_jax.encoders.pvt_v2 import PVTv2, Stage, adaptive_average
from ssu_jax.types import UserError

STAGES = ("stage_1", "stage_2", "stage_3", "stage_4")
HEAD = ("classifier.weight", "classifier.bias")
TINY = PVTv2Config(widths=(4, 8, 10, 16), depths=(1, 1, 1, 1), mlp_ratios=(2, 2, 2, 2))


@pytest.fixture
def fixture(root):
    return root / "tests/fixtures/pvt_v2"


def expected_of(folder) -> dict[str, np.ndarray]:
    with np.load(folder / "expected.npz") as file:
        return dict(file)


def bare(tensors):
    """As PvtV2Model and PvtV2Backbone are saved: no prefix, no classifier."""
    return {name.removeprefix("pvt_v2."): value for name, value in tensors.items() if name not in HEAD}


def authors(tensors):
    """The authors' names for transformers' tensors, keys and values in one matrix."""
    renamed = {}
    for name, value in bare(tensors).items():
        stage = int(re.match(r"encoder\.layers\.(\d)\.", name)[1]) + 1
        name = re.sub(r"encoder\.layers\.\d\.", "", name)
        name = re.sub(r"^patch_embedding\.layer_norm", f"patch_embed{stage}.norm", name)
        name = re.sub(r"^patch_embedding", f"patch_embed{stage}", name)
        name = re.sub(r"^layer_norm", f"norm{stage}", name)
        name = re.sub(r"^blocks", f"block{stage}", name)
        for old, new in (("attention.", "attn."), ("query", "q"), ("spatial_reduction", "sr"), ("layer_norm_", "norm"),
                         ("layer_norm", "norm"), ("dense", "fc")):  # fmt: skip
            name = name.replace(old, new)
        renamed[name] = value
    for name in [name for name in renamed if ".attn.key." in name]:
        both = renamed.pop(name), renamed.pop(name.replace("key", "value"))
        renamed[name.replace("key", "kv")] = np.concatenate(both)
    return renamed


def timm(tensors):
    """timm's names for the authors'."""
    places = (
        (r"^patch_embed1", "patch_embed"),
        (r"^patch_embed(\d)", lambda found: f"stages.{int(found[1]) - 1}.downsample"),
        (r"^block(\d)\.(\d+)", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}"),
        (r"^norm(\d)", lambda found: f"stages.{int(found[1]) - 1}.norm"),
        (r"dwconv\.dwconv", "dwconv"),
    )
    renamed = {}
    for name, value in tensors.items():
        for old, new in places:
            name = re.sub(old, new, name)
        renamed[name] = value
    return renamed


@pytest.mark.parametrize("form", ["plain", "linear"])
def test_equals_transformers_on_the_fixture(fixture, form):
    expected = expected_of(fixture / form)
    config, variables = published.load(ENTRY, *published.read(fixture / form))
    features = published.features_of(PVTv2(config), variables, expected["images"])
    assert tuple(features) == STAGES
    for name in STAGES:
        np.testing.assert_allclose(features[name], expected[name], atol=2e-5, err_msg=name)


def test_the_authors_weights_with_the_authors_epsilons(fixture):
    expected = expected_of(fixture / "plain")
    _, tensors = published.read(fixture / "plain")
    config, variables = published.load(ENTRY, {}, authors(tensors))
    assert (config.joint_key_value, config.convolution_norm_epsilon, config.norm_epsilon) == (True, 1e-5, 1e-6)
    features = published.features_of(PVTv2(config), variables, expected["images"])
    for name in STAGES:
        wanted = expected[f"authors_{name}"]
        np.testing.assert_allclose(features[name], wanted, atol=2e-5, err_msg=name)
        assert np.abs(wanted - expected[name]).max() > 1e-4  # so that the epsilons are told apart


def test_round_trip_of_every_layout(fixture):
    for form in ("plain", "linear"):
        stated, tensors = published.read(fixture / form)
        published.assert_round_trip(ENTRY, stated, bare(tensors))
        published.assert_round_trip(ENTRY, {}, bare(tensors))
        published.assert_round_trip(ENTRY, {}, authors(tensors))
        head = {"head.weight": tensors[HEAD[0]], "head.bias": tensors[HEAD[1]]}
        published.assert_round_trip(ENTRY, {}, authors(tensors) | head, left_out=("head.weight", "head.bias"))


def test_names_that_mean_the_same_weights(fixture):
    stated, tensors = published.read(fixture / "plain")
    config, plain = published.load(ENTRY, stated, bare(tensors))
    for other in ((stated, tensors), ({}, bare(tensors)), ({}, tensors)):
        found, variables = published.load(ENTRY, *other)
        assert found == config
        assert jax.tree.all(jax.tree.map(np.array_equal, variables, plain))
    config, joint = published.load(ENTRY, {}, authors(tensors))
    found, variables = published.load(ENTRY, {"architecture": "pvt_v2_b5"}, timm(authors(tensors)))
    assert found == config
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, joint))
    block, joint_block = (tree["params"]["stage_2"]["block_1"]["attention"] for tree in (plain, joint))
    both = [block[part]["kernel"] for part in ("key", "value")]
    np.testing.assert_array_equal(joint_block["key_value"]["kernel"], np.concatenate(both, axis=1))


def test_everything_wrong_is_told_at_once(fixture):
    stated, tensors = published.read(fixture / "plain")
    first = "pvt_v2.encoder.layers.0."
    tensors[f"{first}blocks.7.extra"] = tensors.pop(f"{first}blocks.0.mlp.dense1.bias")
    tensors[f"{first}layer_norm.bias"] = tensors[f"{first}layer_norm.bias"][:3]
    with pytest.raises(UserError) as error:
        published.load(ENTRY, stated, tensors)
    for part in ("blocks.7.extra", "stage_1/block_0/mlp/fc1/bias", "stage_1/norm/bias wants (4,)"):
        assert part in str(error.value)


@pytest.mark.parametrize(("name", "value"), [("hidden_act", "relu"), ("strides", [2, 2, 2, 2]), ("num_channels", 1)])
def test_networks_that_nobody_published_are_refused(fixture, name, value):
    stated, tensors = published.read(fixture / "plain")
    with pytest.raises(UserError, match=f"{name} is {re.escape(repr(value))}"):
        ENTRY.read_config(stated | {name: value}, published.shapes_of(tensors))


def test_foreign_names_are_refused():
    with pytest.raises(UserError, match="no tensor has a name of"):
        ENTRY.read_config({}, {"conv1.weight": (64, 3, 7, 7)})


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_config_survives_both_files(variant):
    config = VARIANTS[variant]
    assert stored.from_dict(PVTv2Config, dataclasses.asdict(config), "config.json") == config
    if not config.joint_key_value:
        assert ENTRY.read_config(ENTRY.write_config(config), {"encoder.layers.0.layer_norm.bias": ()}) == config


def test_parameters_and_maps_of_the_largest():
    images = jax.ShapeDtypeStruct((10, 224, 224, 3), jnp.float32)
    features, variables = jax.eval_shape(PVTv2(VARIANTS["b5"]).init_with_output, jax.random.key(0), images)
    # 82.0 M as published, with a classifier of 1000 classes: 513,000.
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == 81_443_008
    assert [features[name].shape for name in STAGES] == [
        (10, 56, 56, 64), (10, 28, 28, 128), (10, 14, 14, 320), (10, 7, 7, 512)
    ]  # fmt: skip


def test_one_matrix_for_keys_and_values_is_as_large_as_two():
    sizes = [
        sum(map(np.prod, published.wanted_shapes(ENTRY, VARIANTS[name]).values())) for name in ("b0", "b0_authors")
    ]
    assert sizes == [3_409_760] * 2


def test_images_too_small_for_a_key_are_refused():
    model = PVTv2(TINY)
    tree = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 29, 64, 3)))  # 8 rows at stride 4: one square
    with pytest.raises(UserError, match="at least 29 pixels a side are wanted, got 28 x 64"):
        jax.eval_shape(model.apply, tree, jnp.zeros((1, 28, 64, 3)))


def test_half_precision_is_near(fixture):
    expected = expected_of(fixture / "plain")
    config, variables = published.load(ENTRY, *published.read(fixture / "plain"))
    features = published.features_of(PVTv2(config, jnp.bfloat16), variables, expected["images"])
    for name in STAGES:
        assert features[name].dtype == jnp.bfloat16
        error = np.abs(np.asarray(features[name], np.float32) - expected[name]).mean()
        assert error < 0.05 * np.abs(expected[name]).mean(), name


@pytest.mark.full  # two gradients take minutes to compile
def test_remat_changes_memory_alone():
    # A single key would take every weight, and queries would have no slope: here there are 4 x 4.
    config = dataclasses.replace(TINY, depths=(2, 1, 1, 1), reductions=(2, 1, 1, 1))
    images = jnp.asarray(np.random.default_rng(0).standard_normal((1, 32, 36, 3)), jnp.float32)
    plain, remat = (Stage(config, 0, remat=remat) for remat in (False, True))
    variables = jax.jit(plain.init)(jax.random.key(0), images)
    assert jax.tree.structure(variables) == jax.tree.structure(jax.eval_shape(remat.init, jax.random.key(0), images))

    def loss(model):
        return lambda variables: jnp.sum(jnp.sin(model.apply(variables, images)))

    (value, slopes), (other, others) = (jax.jit(jax.value_and_grad(loss(model)))(variables) for model in (plain, remat))
    np.testing.assert_allclose(value, other, rtol=1e-6)
    assert all(jnp.any(leaf != 0) for leaf in jax.tree.leaves(slopes))
    jax.tree.map(lambda one, two: np.testing.assert_allclose(one, two, rtol=1e-4, atol=1e-5), slopes, others)

    def num_kept(model):  # for the backward pass, parameters among them
        back = jax.eval_shape(lambda variables: jax.vjp(loss(model), variables)[1], variables)
        return sum(leaf.size for leaf in jax.tree.leaves(back))

    assert num_kept(remat) < 0.6 * num_kept(plain)


def test_average_over_cells_by_hand():
    x = jnp.arange(1.0, 6.0).reshape(1, 5, 1, 1)  # five rows into two cells: the middle row counts in both
    np.testing.assert_allclose(adaptive_average(x, 2)[0, :, :, 0], [[2.0, 2.0], [4.0, 4.0]], rtol=1e-6)
    whole = jnp.arange(49.0).reshape(1, 7, 7, 1)
    np.testing.assert_allclose(adaptive_average(whole, 7), whole, rtol=1e-6)


@pytest.fixture(scope="module")
def makes(request):
    return runpy.run_path(str(request.config.rootpath / "tests/fixtures/make_pvt_v2.py"))


@pytest.mark.full
@pytest.mark.parametrize(("linear", "rows", "columns"), [(False, 96, 64), (False, 100, 100), (True, 65, 90)])
def test_equals_transformers_at_any_size(makes, tmp_path, linear, rows, columns):
    import transformers

    options = {"hidden_sizes": [8, 12, 20, 32], "depths": [2, 1, 2, 1], "mlp_ratios": [4, 2, 3, 2]}
    stated = transformers.PvtV2Config(**options, linear_attention=linear, layer_norm_eps=1e-5)
    model = makes["randomized"](transformers.PvtV2Model(stated), 1)
    model.save_pretrained(tmp_path)
    images = np.random.default_rng(1).standard_normal((2, rows, columns, 3)).astype(np.float32)
    config, variables = published.load(ENTRY, *published.read(tmp_path))
    features = published.features_of(PVTv2(config), variables, images)
    for name, wanted in makes["features"](model, images).items():
        np.testing.assert_allclose(features[name], wanted, atol=2e-5, err_msg=name)


@pytest.mark.full
@pytest.mark.slow
def test_equals_transformers_at_full_size(makes):
    import transformers

    stated = ENTRY.write_config(VARIANTS["b5"])
    model = makes["randomized"](transformers.PvtV2Backbone(transformers.PvtV2Config(**stated)), 2)
    tensors = {name: value.numpy() for name, value in model.state_dict().items()}
    images = np.random.default_rng(2).standard_normal((1, 224, 224, 3)).astype(np.float32)
    config, variables = published.load(ENTRY, stated, tensors)
    assert config == VARIANTS["b5"]
    features = published.features_of(PVTv2(config), variables, images)
    encoder = transformers.PvtV2Model(model.config).eval()
    encoder.load_state_dict(model.state_dict())
    for name, wanted in makes["features"](encoder, images).items():
        np.testing.assert_allclose(features[name], wanted, atol=2e-5, err_msg=name)


@pytest.mark.full
def test_the_check_reads_all_layouts(fixture, tmp_path):
    import safetensors.numpy

    _, tensors = published.read(fixture / "plain")
    expected = expected_of(fixture / "plain")
    safetensors.numpy.save_file(authors(tensors), tmp_path / "pvt.safetensors")
    for place, prefix in ((fixture / "plain", ""), (tmp_path / "pvt.safetensors", "authors_")):
        found = ENTRY.reference(place, (expected["images"],))
        for name in STAGES:
            np.testing.assert_allclose(found[name], expected[prefix + name], atol=2e-6, err_msg=name)


@pytest.mark.full
@pytest.mark.parametrize("variant", [name for name, sizes in VARIANTS.items() if not sizes.joint_key_value])
def test_parameters_are_those_of_transformers(variant):
    import torch
    import transformers

    with torch.device("meta"):
        model = transformers.PvtV2Model(transformers.PvtV2Config(**ENTRY.write_config(VARIANTS[variant])))
    theirs = sum(parameter.numel() for parameter in model.parameters())
    assert sum(np.prod(shape) for shape in published.wanted_shapes(ENTRY, VARIANTS[variant]).values()) == theirs
