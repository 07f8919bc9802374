"""MobileNetV2: transformers' numbers at every stage, the published classifier's own answers, folded norms."""

import dataclasses
import runpy

import jax
import jax.numpy as jnp
import numpy as np
import published
import pytest

from ssu_jax.config.encoders.mobilenet_v2 import VARIANTS, MobileNetV2Config
from ssu_jax.conversion.tables.mobilenet_v2 import ENTRY
from ssu_jax.encoders.mobilenet_v2 import MobileNetV2, rounded_width, scaled_width
from ssu_jax.layers import images
from ssu_jax.types import UserError

COUNTERS = ("num_batches_tracked",)
STAGES = tuple(f"stage_{stage}" for stage in range(1, 6))


@pytest.fixture
def fixture(root):
    return root / "tests/fixtures/mobilenet_v2"


@pytest.fixture
def expected(fixture):
    with np.load(fixture / "expected.npz") as file:
        return dict(file)


def test_equals_transformers_on_the_fixture(fixture, expected):
    config, variables = published.load(ENTRY, *published.read(fixture))
    head = {"last_width": 78, "num_classes": 11}
    assert config == MobileNetV2Config(0.06, 2, 2, **head, batch_norm=True, layout="transformers")
    features = published.features_of(MobileNetV2(config), variables, expected.pop("images"))
    assert features.keys() == expected.keys() >= {*STAGES, "last", "pooled", "logits", "probabilities"}
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_remat_is_round_every_block(fixture, expected):
    config, variables = published.load(ENTRY, *published.read(fixture))
    equations = jax.make_jaxpr(MobileNetV2(config, remat=True).apply)(variables, jnp.asarray(expected["images"])).eqns
    assert sum(equation.primitive.name in ("remat", "remat2", "checkpoint") for equation in equations) == 17


def test_folded_norms_in_the_files_of_tflite_give_the_same_numbers(fixture, expected):
    """The norm's factor goes into the kernel and its shift becomes the bias: how the TFLite files were made."""
    _, tensors = published.read(fixture)
    folded = published.folded_backbone(tensors, "mobilenet_v2.")
    folded |= published.folded_unit(tensors, "mobilenet_v2.conv_1x1", "MobilenetV2/Conv_1")
    folded["Logits/Conv2d_1c_1x1/kernel"] = tensors["classifier.weight"].T[None, None]
    folded["Logits/Conv2d_1c_1x1/bias"] = tensors["classifier.bias"]
    published.assert_round_trip(ENTRY, {}, folded)
    config, variables = published.load(ENTRY, {}, folded)
    assert (config.batch_norm, config.layout, config.last_width, config.num_classes) == (False, "tflite", 78, 11)
    features = published.features_of(MobileNetV2(config, remat=True), variables, expected.pop("images"))
    for name, value in expected.items():
        np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=name)


def test_round_trip(fixture):
    published_config, tensors = published.read(fixture)
    published.assert_round_trip(ENTRY, published_config, tensors, COUNTERS)
    bare = {
        name.removeprefix("mobilenet_v2."): tensor
        for name, tensor in tensors.items()
        if not name.startswith("classifier")
    }
    published.assert_round_trip(ENTRY, published_config, bare, COUNTERS)


def test_published_weights_give_their_probabilities(shared):
    config, variables = published.load(
        ENTRY, *published.read(shared / "data/weights/npz/mobilenet_v2_1.0_224_imagenet.npz")
    )
    assert config == VARIANTS["1.0"]
    with np.load(shared / "data/weights/golden/mobilenet_v2_golden.npz", allow_pickle=False) as file:
        golden = dict(file)
    colours = images.standardized(jnp.asarray(golden["image_uint8"]), images.BYTES)
    features = published.features_of(MobileNetV2(config), variables, colours)
    np.testing.assert_allclose(features["probabilities"], golden["output_float"], atol=1e-4)
    np.testing.assert_allclose(features["probabilities"].sum(1), 1.0, atol=1e-5)
    assert [features[name].shape[1:3] for name in STAGES] == [(112, 112), (56, 56), (28, 28), (14, 14), (7, 7)]


def test_round_trip_of_the_published_weights(shared):
    published.assert_round_trip(ENTRY, *published.read(shared / "data/weights/npz/mobilenet_v2_1.0_224_imagenet.npz"))


def test_published_size_has_three_and_a_half_million_parameters():
    shapes = published.wanted_shapes(ENTRY, dataclasses.replace(VARIANTS["1.0"], num_classes=1000))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 3_487_816  # 3,504,872 with 2 numbers a norm


def test_widths_by_hand():
    # 0.35 x 32 = 11.2: the nearest multiple of 8 is 8, more than a tenth too few, so 16. 0.75 x 24 = 18: 16.
    assert scaled_width(32, MobileNetV2Config(width_multiplier=0.35)) == 16
    assert scaled_width(24, MobileNetV2Config(width_multiplier=0.75)) == 24
    assert rounded_width(19, MobileNetV2Config()) == 24
    assert rounded_width(17.5, MobileNetV2Config()) == 16
    assert rounded_width(1, MobileNetV2Config()) == 8
    assert scaled_width(24, MobileNetV2Config(width_multiplier=0.5, divisor=1, smallest_width=1)) == 12


@pytest.mark.parametrize(("output_stride", "sizes"), [(16, (33, 17, 9, 5, 5)), (8, (33, 17, 9, 9, 9))])
def test_output_stride_keeps_maps_large(output_stride, sizes):
    config = MobileNetV2Config(0.06, 2, 2, output_stride=output_stride, last_width=0, num_classes=0)
    image = jax.ShapeDtypeStruct((1, 65, 65, 3), jnp.float32)
    features = jax.eval_shape(lambda x: MobileNetV2(config).init_with_output(jax.random.key(0), x)[0], image)
    assert tuple(features) == STAGES
    assert tuple(features[name].shape[1] for name in STAGES) == sizes


def test_what_cannot_be_converted_is_told(fixture):
    published_config, tensors = published.read(fixture)
    with pytest.raises(UserError, match="hidden_act is 'swish'"):
        ENTRY.read_config(published_config | {"hidden_act": "swish"}, {})
    tensors["segmentation_head.classifier.convolution.bias"] = np.zeros(3, np.float32)
    del tensors["mobilenet_v2.layer.4.conv_3x3.normalization.running_var"]
    with pytest.raises(UserError, match=r"2 tensors do not fit: segmentation_head.*block_5/depthwise/norm/variance"):
        published.load(ENTRY, published_config, tensors)


@pytest.mark.full
@pytest.mark.parametrize(
    "options",
    [
        {"num_labels": 7},
        {"output_stride": 8, "depth_multiplier": 0.2, "finegrained_output": True},
        {"output_stride": 16, "tf_padding": False, "expand_ratio": 3.0, "layer_norm_eps": 1e-2},
    ],
    ids=["classifier", "stride 8", "symmetric padding"],
)
def test_equals_transformers_both_ways(root, tmp_path, options):
    transformers = pytest.importorskip("transformers")
    made = runpy.run_path(str(root / "tests/fixtures/make_mobilenet_v2.py"))
    config = transformers.MobileNetV2Config(**made["NARROW"] | options)
    kind = transformers.MobileNetV2ForImageClassification if "num_labels" in options else transformers.MobileNetV2Model
    made["randomize"](kind(config), 3).save_pretrained(tmp_path / "theirs")
    published_config, tensors = published.read(tmp_path / "theirs")
    ours, variables = published.load(ENTRY, published_config, tensors)
    arguments = ENTRY.example(ours, np.random.default_rng(1))
    features = published.features_of(MobileNetV2(ours), variables, *arguments)
    published.write_folder(tmp_path / "back", ENTRY, ours, variables)
    for folder in ("theirs", "back"):
        reference = ENTRY.reference(tmp_path / folder, arguments)
        assert reference.keys() == features.keys()
        for name, value in reference.items():
            np.testing.assert_allclose(features[name], value, atol=2e-5, err_msg=f"{folder} {name}")
