"""DeepLabV3: the published network's own answers, transformers' head, and the resize by hand."""

import runpy

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config.encoders.deeplab_v3 import VARIANTS
from ssu_jax.config.published_classes import VOC
from ssu_jax.conversion.tables.deeplab_v3 import ENTRY
from ssu_jax.encoders.deeplab_v3 import DeepLabV3, resized_corners
from ssu_jax.layers import images
from ssu_jax.types import UserError

COUNTERS = ("num_batches_tracked",)
WEIGHTS = {
    "1.0": "data/weights/npz/deeplabv3_mnv2_pascal.npz",
    "0.5": "data/weights/npz/deeplabv3_mnv2_dm05_pascal.npz",
}


@pytest.fixture
def fixture(root):
    return root / "tests/fixtures/deeplab_v3"


@pytest.fixture(scope="module")
def golden(shared):
    with np.load(shared / "data/weights/golden/deeplabv3_golden.npz", allow_pickle=False) as file:
        return dict(file)


def pictures(golden):
    return images.standardized(jnp.asarray(golden["image_uint8"]), images.BYTES)


def test_published_weights_give_their_logits(shared, golden):
    config, variables = published.load(ENTRY, *published.read(shared / WEIGHTS["1.0"]))
    assert config == VARIANTS["1.0"]
    features = published.features_of(DeepLabV3(config), variables, pictures(golden))
    np.testing.assert_allclose(features["coarse_logits"], golden["logits_float_33x33"], atol=1e-4)
    # 513 = 16 x 32 + 1: with aligned corners every sixteenth pixel is a cell itself.
    np.testing.assert_allclose(features["logits"][:, ::16, ::16], golden["logits_float_33x33"], atol=1e-4)
    assert features["classes"].dtype == np.int32
    # The eight-bit network decides otherwise at edges only.
    assert (features["classes"] == golden["labels_uint8_tflite"]).mean() > 0.99


def test_half_width_sees_the_same_things(shared, golden):
    config, variables = published.load(ENTRY, *published.read(shared / WEIGHTS["0.5"]))
    assert config == VARIANTS["0.5"]
    shapes = published.wanted_shapes(ENTRY, config)
    assert 0.6e6 < sum(int(np.prod(shape)) for shape in shapes.values()) < 0.8e6
    classes = jax.jit(lambda *given: DeepLabV3(config).apply(*given)["classes"])(variables, pictures(golden))
    for ours, theirs in zip(np.asarray(classes), golden["labels_uint8_tflite"], strict=True):
        assert (ours == theirs).mean() > 0.94
        largest = np.bincount(theirs[theirs > 0]).argmax()
        assert np.bincount(ours[ours > 0]).argmax() == largest, VOC[largest]


@pytest.mark.parametrize("width", WEIGHTS)
def test_round_trip_of_the_published_weights(shared, width):
    published.assert_round_trip(ENTRY, *published.read(shared / WEIGHTS[width]))


def test_equals_transformers_on_the_fixture(fixture):
    with np.load(fixture / "expected.npz") as file:
        expected = dict(file)
    config, variables = published.load(ENTRY, *published.read(fixture))
    assert (config.head_width, config.num_classes, config.backbone.output_stride) == (12, 5, 16)
    image = expected.pop("images")
    features = published.features_of(DeepLabV3(config), variables, image)
    assert features.keys() == expected.keys() | {"logits", "classes"}
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)
    assert features["logits"].shape == (*image.shape[:3], 5)
    np.testing.assert_array_equal(features["classes"], features["logits"].argmax(-1))


def test_folded_norms_in_the_files_of_tflite_give_the_same_numbers(fixture):
    with np.load(fixture / "expected.npz") as file:
        expected = dict(file)
    _, tensors = published.read(fixture)
    folded = published.folded_backbone(tensors, "mobilenet_v2.")
    heads = {"conv_pool": "image_pooling", "conv_aspp": "aspp0", "conv_projection": "concat_projection"}
    for theirs, name in heads.items():
        folded |= published.folded_unit(tensors, f"segmentation_head.{theirs}", name, eps=1e-5)
    folded["logits/semantic/kernel"] = tensors["segmentation_head.classifier.convolution.weight"].transpose(2, 3, 1, 0)
    folded["logits/semantic/bias"] = tensors["segmentation_head.classifier.convolution.bias"]
    published.assert_round_trip(ENTRY, {}, folded)
    config, variables = published.load(ENTRY, {}, folded)
    assert (config.backbone.batch_norm, config.backbone.layout, config.backbone.last_width) == (False, "tflite", 0)
    features = published.features_of(DeepLabV3(config), variables, expected.pop("images"))
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_round_trip(fixture):
    published.assert_round_trip(ENTRY, *published.read(fixture), COUNTERS)


def test_resized_corners_by_hand():
    maps = jnp.array([[0.0, 4.0], [8.0, 12.0]]).reshape(1, 2, 2, 1)
    by_hand = [[0, 1, 2, 3, 4], [4, 5, 6, 7, 8], [8, 9, 10, 11, 12]]
    np.testing.assert_allclose(resized_corners(maps, 3, 5)[0, :, :, 0], by_hand, atol=1e-6)
    row = jnp.array([0.0, 10.0, 0.0]).reshape(1, 1, 3, 1)  # a single row stays what it is, however many are wanted
    np.testing.assert_allclose(resized_corners(row, 2, 4)[0, :, :, 0], 2 * [[0, 20 / 3, 20 / 3, 0]], atol=1e-5)
    np.testing.assert_array_equal(resized_corners(maps, 2, 2), maps)


def test_tflite_names_have_no_implementation_to_check_against(tmp_path):
    with pytest.raises(UserError, match="no published implementation"):
        ENTRY.reference(tmp_path / "weights.npz", ())


@pytest.mark.full
def test_resized_corners_equals_torch():
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(2, 5, 7, 3)).astype(np.float32)
    theirs = torch.nn.functional.interpolate(
        torch.from_numpy(maps).permute(0, 3, 1, 2), (23, 40), mode="bilinear", align_corners=True
    )
    np.testing.assert_allclose(resized_corners(jnp.asarray(maps), 23, 40), theirs.permute(0, 2, 3, 1), atol=2e-5)


@pytest.mark.full
def test_equals_transformers_both_ways(root, tmp_path):
    transformers = pytest.importorskip("transformers")
    made = runpy.run_path(str(root / "tests/fixtures/make_mobilenet_v2.py"))
    options = {"output_stride": 16, "num_labels": 9, "depth_multiplier": 0.2}
    config = transformers.MobileNetV2Config(**made["NARROW"] | options)
    made["randomize"](transformers.MobileNetV2ForSemanticSegmentation(config), 4).save_pretrained(tmp_path / "theirs")
    published_config, tensors = published.read(tmp_path / "theirs")
    ours, variables = published.load(ENTRY, published_config, tensors)
    assert (ours.head_width, ours.num_classes) == (256, 9)
    arguments = ENTRY.example(ours, np.random.default_rng(1))
    features = published.features_of(DeepLabV3(ours), variables, *arguments)
    published.write_folder(tmp_path / "back", ENTRY, ours, variables)
    for folder in ("theirs", "back"):
        reference = ENTRY.reference(tmp_path / folder, arguments)
        assert reference.keys() == features.keys() - {"classes"}
        for name, value in reference.items():
            np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=f"{folder} {name}")
