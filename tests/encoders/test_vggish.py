"""VGGish: equal to the torch port's network, both published layouts, and AudioSet's post-processing."""

import dataclasses
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config.encoders.vggish import VARIANTS, VGGishConfig
from ssu_jax.conversion.tables.vggish import CONVOLUTIONS, DENSES, ENTRY
from ssu_jax.encoders import vggish
from ssu_jax.types import UserError


@pytest.fixture
def fixture(root):
    return root / "tests/fixtures/vggish"


def test_equals_the_port_on_the_fixture(fixture):
    with np.load(fixture / "expected.npz") as file:
        expected = dict(file)
    config, variables = published.load(ENTRY, *published.read(fixture))
    assert config == VGGishConfig(widths=(4, 6, 8, 10), hidden=16, embedding_width=8, final_relu=True)
    features = published.features_of(vggish.VGGish(config), variables, expected.pop("log_mel"))
    assert features.keys() == expected.keys() == {"map", "embedding"}
    assert expected["embedding"].min() == 0.0 < expected["embedding"].max()  # the last ReLU has work to do
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_without_the_last_relu_the_embedding_has_both_signs(fixture):
    config, variables = published.load(ENTRY, *published.read(fixture))
    patches = np.load(fixture / "expected.npz")["log_mel"]
    google = dataclasses.replace(config, final_relu=False)
    with_relu, without = (
        published.features_of(vggish.VGGish(each), variables, patches)["embedding"] for each in (config, google)
    )
    assert without.min() < -0.1
    np.testing.assert_array_equal(with_relu, np.maximum(without, 0.0))


def test_round_trip_of_both_layouts(fixture):
    published_config, tensors = published.read(fixture)
    published.assert_round_trip(ENTRY, published_config, tensors)
    published.assert_round_trip(ENTRY, {}, google_names(tensors))


def test_googles_names_give_the_same_numbers(fixture):
    _, tensors = published.read(fixture)
    _, variables = published.load(ENTRY, {}, tensors)
    config, other = published.load(ENTRY, {}, google_names(tensors))
    assert (config.layout, config.final_relu) == ("tensorflow", False)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, other))


def test_the_ports_pca_constants_are_known_and_left_out(fixture):
    _, tensors = published.read(fixture)
    extra = {"pproc.pca_matrix": np.eye(8), "pproc.pca_means": np.zeros((8, 1))}
    published.assert_round_trip(ENTRY, {}, tensors | extra, left_out=tuple(extra))


def test_everything_wrong_is_told_at_once(fixture):
    _, tensors = published.read(fixture)
    tensors["features.30.weight"] = tensors.pop("features.3.bias")
    tensors["features.0.bias"] = tensors["features.0.bias"][:3]
    with pytest.raises(UserError) as error:
        published.load(ENTRY, {}, tensors)
    for part in ("features.30.weight", "stage_2_conv_1/bias", "stage_1_conv_1/bias wants (4,)"):
        assert part in str(error.value)


def test_published_size_has_72_million_parameters():
    shapes = published.wanted_shapes(ENTRY, VARIANTS["torch"])
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 72_141_184
    assert shapes["hidden_1/kernel"] == (6 * 4 * 512, 4096)


def test_postprocess_by_hand():
    # Identity PCA, mean 1: 1 is the middle, 3.5 is clipped to the top, -9 to the bottom; half a step falls down.
    embedding = jnp.array([[1.0, 3.5, -9.0, 1.0 + 4.0 / 255.0 * 0.99]])
    quantized = vggish.postprocess(embedding, jnp.eye(4), jnp.ones(4))
    assert quantized.dtype == jnp.uint8
    np.testing.assert_array_equal(quantized, [[127, 255, 0, 128]])
    # An eigenvector is a row: the second output reads the first input.
    swapped = vggish.postprocess(jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0], [1.0, 0.0]]), jnp.zeros(2))
    np.testing.assert_array_equal(swapped, [[127, 255]])


def test_postprocess_with_the_published_constants(shared):
    with np.load(shared / "data/weights/vggish_pca_params.npz", allow_pickle=False) as file:
        matrix, means = (jnp.asarray(file[name], jnp.float32) for name in ("pca_eigen_vectors", "pca_means"))
    np.testing.assert_array_equal(vggish.postprocess(means[None], matrix, means), np.full((1, 128), 127))
    # Whitening: the rows are orthogonal, their lengths one over the deviations, so later ones are longer.
    unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
    np.testing.assert_allclose(unit @ unit.T, np.eye(128), atol=1e-4)


@pytest.mark.full
def test_equals_the_port_at_random(root):
    torch = pytest.importorskip("torch")
    model, patches = runpy.run_path(str(root / "tests/fixtures/make_vggish.py"))["reference"](
        3, (8, 16, 16, 32), 64, 128
    )
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    config, variables = published.load(ENTRY, {}, tensors)
    with torch.no_grad():
        expected = model(torch.from_numpy(patches))
    for name, value in published.features_of(vggish.VGGish(config), variables, patches).items():
        np.testing.assert_allclose(value, expected[name].numpy(), atol=2e-5, err_msg=name)


def test_computes_in_bfloat16_with_float32_parameters(fixture):
    config, variables = published.load(ENTRY, *published.read(fixture))
    with np.load(fixture / "expected.npz") as file:
        patches, expected = file["log_mel"], file["embedding"]
    embedding = published.features_of(vggish.VGGish(config, dtype=jnp.bfloat16), variables, patches)["embedding"]
    assert embedding.dtype == jnp.bfloat16
    np.testing.assert_allclose(embedding.astype(np.float32), expected, atol=0.05 * np.abs(expected).max())


def google_names(tensors):
    """The same weights as Google's checkpoint names and lays them out: channels last, dense in x out."""
    renamed = {}
    for layers, group, axes in ((CONVOLUTIONS, "features", (2, 3, 1, 0)), (DENSES, "embeddings", (1, 0))):
        for _, place, google in layers:
            renamed[f"vggish/{google}/weights"] = tensors[f"{group}.{place}.weight"].transpose(axes)
            renamed[f"vggish/{google}/biases"] = tensors[f"{group}.{place}.bias"]
    return renamed
