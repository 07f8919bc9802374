"""TFLite files: every number as the format means it, the published networks' own answers, hostile files refused."""

import pathlib
import runpy
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ssu_jax.checkpoint import read_pretrained
from ssu_jax.cli import main
from ssu_jax.config import stored
from ssu_jax.conversion import catalogue, converting, sources, tflite_files
from ssu_jax.data import audio
from ssu_jax.layers import images
from ssu_jax.types import UserError

pytest.importorskip("tflite")
FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
MADE = runpy.run_path(str(FIXTURES / "make_tflite.py"))
Constant, model_bytes = MADE["Constant"], MADE["model_bytes"]
PUBLISHED = {  # .tflite -> (.npz that was made of it, kind)
    "yamnet_spectra_in": ("yamnet_521", "yamnet"),
    "deeplabv3_mnv2_pascal_quant": ("deeplabv3_mnv2_pascal", "deeplab_v3"),
    "deeplabv3_mnv2_dm05_pascal_quant": ("deeplabv3_mnv2_dm05_pascal", "deeplab_v3"),
    "mobilenet_v2_1.0_224_quant": ("mobilenet_v2_1.0_224_imagenet", "mobilenet_v2"),
}


@pytest.fixture
def refused(tmp_path, opened):
    """Asserts that a file of these bytes ends in a UserError of one line that names it, when opened or when read."""

    def check(content: bytes, said: str):
        path = tmp_path / "network.tflite"
        path.write_bytes(content)
        with pytest.raises(UserError, match=said) as error:
            [tensor.read() for tensor in opened(path).tensors.values()]
        assert str(error.value).count("\n") == 0
        assert path.name in str(error.value)

    return check


def dense(kernel: Constant, *others: Constant, kind: str = "FULLY_CONNECTED") -> bytes:
    return model_bytes([(kind, [None, kernel, *others])])


def read_all(content: bytes, tmp_path, opened) -> dict[str, np.ndarray]:
    path = tmp_path / "network.tflite"
    path.write_bytes(content)
    return {name: tensor.read() for name, tensor in opened(path).tensors.items()}


# The numbers


def test_eight_bits_become_the_numbers_they_stand_for(tmp_path, opened):
    kernel = Constant("net/fc/MatMul", np.array([[128, 130, 127], [0, 255, 128]], np.uint8), [0.5], [128])
    bias = Constant("net/fc/bias", np.array([3, -2], np.int32), [0.25], [0])
    found = read_all(dense(kernel, bias), tmp_path, opened)
    assert found["net/fc/kernel"].tolist() == [[0, -64], [1, 63.5], [-0.5, 0]]  # [in, out]
    assert found["net/fc/bias"].tolist() == [0.75, -0.5]
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("kind", "shape", "axis", "wanted"),
    [
        ("CONV_2D", (2, 1, 3, 4), 0, (1, 3, 4, 2)),
        ("DEPTHWISE_CONV_2D", (1, 3, 2, 4), 3, (3, 2, 1, 4)),
        ("FULLY_CONNECTED", (2, 5), 0, (5, 2)),
    ],
)
def test_every_channel_has_its_scale_and_every_layout_is_ours(tmp_path, opened, kind, shape, axis, wanted):
    numbers = np.arange(np.prod(shape), dtype=np.int8).reshape(shape)
    scales = 2.0 ** -np.arange(shape[axis])
    name = "a/depthwise/depthwise_Fold;more" if kind.startswith("D") else "a/depthwise/Conv2D_Fold;more"
    content = dense(Constant(name, numbers, scales, [0] * len(scales), axis), kind=kind)
    ((name, array),) = read_all(content, tmp_path, opened).items()
    assert (name, array.shape) == ("a/depthwise/kernel", wanted)
    along = [-1 if place == axis else 1 for place in range(len(shape))]
    expected = numbers.astype(np.float64) * scales.reshape(along)
    order = {"CONV_2D": (1, 2, 3, 0), "DEPTHWISE_CONV_2D": (1, 2, 0, 3), "FULLY_CONNECTED": (1, 0)}[kind]
    np.testing.assert_array_equal(array, expected.transpose(order))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_floats_stay_what_they_are(tmp_path, opened, dtype):
    array = np.array([[1.5, -2.25, 1e-3]], dtype)
    found = read_all(dense(Constant("fc/MatMul", array)), tmp_path, opened)
    np.testing.assert_array_equal(found["fc/kernel"], array.T.astype(np.float32))


def test_the_fixture_is_the_network_beside_it_within_half_a_step(opened, tmp_path):
    source = opened(FIXTURES / "yamnet/weights.tflite")
    with np.load(FIXTURES / "yamnet/weights.npz") as file:
        exact = dict(file)
    assert source.tensors.keys() == exact.keys()
    for name, tensor in source.tensors.items():
        array = tensor.read()
        assert array.shape == tensor.shape == exact[name].shape
        step = np.abs(exact[name]).max() / 127
        assert np.abs(array - exact[name]).max() <= 0.51 * step, name
    # The committed bytes are those that the script makes.
    again = model_bytes(MADE["yamnet_operators"](exact))
    (tmp_path / "again.tflite").write_bytes(again)
    for name, tensor in opened(tmp_path / "again.tflite").tensors.items():
        np.testing.assert_array_equal(tensor.read(), source.tensors[name].read())


def test_there_and_back_from_the_command_line(tmp_path, monkeypatch, capsys, opened):
    monkeypatch.chdir(tmp_path)
    shutil.copy(FIXTURES / "yamnet/weights.tflite", "small.tflite")
    assert main.main(["convert", "--no-compile-cache", "small.tflite", "--out", "ours"]) == 0  # the kind is told
    assert capsys.readouterr().out.startswith("yamnet: 56 tensors")
    assert main.main(["convert", "--no-compile-cache", "ours", "--back", "--out", "back"]) == 0
    source = opened(tmp_path / "small.tflite")
    with np.load("back/model.npz") as back:
        assert back.keys() == source.tensors.keys()
        assert all(np.array_equal(back[name], tensor.read()) for name, tensor in source.tensors.items())
    assert converting.kind_of(opened(tmp_path / "back/model.npz")) == "yamnet"  # an .npz tells it too
    code = main.main(["convert", "--no-compile-cache", "small.tflite", "--check"])
    assert (code, "no published implementation to check yamnet" in capsys.readouterr().err) == (2, True)


def test_names_that_tell_of_no_kind_need_one(tmp_path, opened):
    (tmp_path / "x.tflite").write_bytes(dense(Constant("fc/MatMul", np.ones((1, 2), np.float32))))
    with pytest.raises(UserError, match="it has no config.json: say --kind"):
        converting.kind_of(opened(tmp_path / "x.tflite"))


# The published networks


@pytest.fixture(scope="module")
def converted(shared, tmp_path_factory):
    """Gives (module, variables) of a published .tflite file, converted and read back from the folder."""
    place = tmp_path_factory.mktemp("converted")

    def convert(name: str):
        source = sources.open_source(shared / f"data/weights/tflite/{name}.tflite", place / "scratch")
        kind = converting.kind_of(source)
        converting.convert(source, place / name, kind)
        entry, (tree, params) = catalogue.entry_of(kind), read_pretrained(place / name, kind)
        return entry.build(stored.from_dict(entry.config_type, tree, place)), {"params": params}

    return convert


def golden(shared, name: str) -> dict[str, np.ndarray]:
    with np.load(shared / f"data/weights/golden/{name}_golden.npz", allow_pickle=False) as file:
        return dict(file)


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_files_give_the_float_weights_bit_for_bit(shared, opened, name):
    npz, kind = PUBLISHED[name]
    source = opened(shared / f"data/weights/tflite/{name}.tflite")
    assert (converting.kind_of(source), source.form) == (kind, "tflite")
    with np.load(shared / f"data/weights/npz/{npz}.npz", allow_pickle=False) as file:
        assert source.shapes == {key: file[key].shape for key in file}
        for key, tensor in source.tensors.items():
            array = tensor.read()
            assert (array.dtype, array.tobytes()) == (file[key].dtype, file[key].tobytes()), key


def test_yamnet_from_the_raw_sound(shared, converted):
    module, variables = converted("yamnet_spectra_in")
    wanted = golden(shared, "yamnet")
    patches = np.stack([audio.log_mel(sound, 16000, log_offset=0.001) for sound in wanted["waveform_16k"]])
    features = jax.device_get(jax.jit(module.apply)(variables, patches))
    np.testing.assert_allclose(features["scores"], wanted["scores_float"], atol=1e-4)
    np.testing.assert_allclose(features["embedding"], wanted["embedding_float"], atol=1e-4)
    assert (features["scores"].argmax(1) == wanted["scores_int8_tflite"].argmax(1)).mean() >= 5 / 6


def test_mobilenet(shared, converted):
    module, variables = converted("mobilenet_v2_1.0_224_quant")
    wanted = golden(shared, "mobilenet_v2")
    pictures = images.standardized(jnp.asarray(wanted["image_uint8"]), images.BYTES)
    features = jax.device_get(jax.jit(module.apply)(variables, pictures))
    np.testing.assert_allclose(features["probabilities"], wanted["output_float"], atol=1e-4)
    assert (features["probabilities"].argmax(1) == wanted["output_uint8_tflite"].argmax(1)).mean() >= 2 / 3


def test_deeplab(shared, converted):
    module, variables = converted("deeplabv3_mnv2_pascal_quant")
    wanted = golden(shared, "deeplabv3")
    pictures = images.standardized(jnp.asarray(wanted["image_uint8"]), images.BYTES)
    features = jax.device_get(jax.jit(module.apply)(variables, pictures))
    np.testing.assert_allclose(features["coarse_logits"], wanted["logits_float_33x33"], atol=1e-4)
    assert (features["classes"] == wanted["labels_uint8_tflite"]).mean() > 0.99


# Hostile files

FLOATS = Constant("fc/MatMul", np.ones((2, 3), np.float32))
EIGHT = np.ones((2, 3), np.int8)
REFUSED = {
    "empty": (b"", "does not begin like one"),
    "another format": (b"PK\x03\x04" + bytes(40), "does not begin like one"),
    "the beginning alone": (b"\x10\x00\x00\x00TFL3", "is damaged"),
    "zeros": (b"\x00\x00\x00\x00TFL3" + bytes(4000), "is damaged|holds 0 graphs"),
    "two graphs": (model_bytes([("FULLY_CONNECTED", [None, FLOATS])], num_graphs=2), "holds 2 graphs"),
    "batch norm beside the layer": (
        model_bytes(
            [("FULLY_CONNECTED", [None, FLOATS]), ("MUL", [None, Constant("norm/scale", np.ones(2, np.float32))])]
        ),
        "MUL has numbers of its own .norm/scale., a batch norm that is not folded",
    ),
    "eight-bit batch norm": (
        model_bytes([("ADD", [None, Constant("norm/mean", np.ones(2, np.int8), [0.1], [0])])]),
        "ADD has numbers of its own",
    ),
    "a layer twice": (model_bytes(2 * [("FULLY_CONNECTED", [None, FLOATS])]), "two layers are called fc"),
    "weights from elsewhere": (model_bytes([("FULLY_CONNECTED", [None, None])]), "computed, not stored"),
    "no inputs": (model_bytes([("FULLY_CONNECTED", [])]), "is damaged: IndexError"),
    "a hostile name": (dense(FLOATS._replace(name="a\x1b[31m/MatMul")), r"a layer is called a\\x1b\[31m"),
    "other axes": (dense(FLOATS, kind="CONV_2D"), "is damaged: ValueError: fc: CONV_2D with weights"),
    "a bias of two axes": (dense(FLOATS, FLOATS), "is damaged"),
    "more numbers than bytes": (dense(FLOATS._replace(shape=(2, 4))), "24 bytes for FLOAT32 .2, 4."),
    "a shape beyond memory": (dense(FLOATS._replace(shape=(1 << 30, 1 << 30))), "24 bytes for FLOAT32"),
    "a negative shape": (dense(FLOATS._replace(shape=(-2, -3))), "is damaged"),
    "nothing": (dense(Constant("fc/MatMul", np.ones((1, 1), np.float32), shape=(0, 3))), "is damaged"),
    "another type": (dense(Constant("fc/MatMul", np.ones((2, 3), np.int64), [1.0], [0])), "of type INT64"),
    "no scale": (dense(Constant("fc/MatMul", EIGHT)), "whole numbers without a scale"),
    "too few scales": (dense(Constant("fc/MatMul", np.ones((3, 3), np.int8), [1, 1], [0, 0])), "2 scales and 2 zero"),
    "too many zero points": (dense(Constant("fc/MatMul", EIGHT, [1.0], [0, 0, 0])), "1 scales and 3 zero points"),
    "channels on no axis": (dense(Constant("fc/MatMul", EIGHT, [1, 1], [0, 0], 7)), "is damaged: IndexError"),
    "channels on a negative axis": (dense(Constant("fc/MatMul", EIGHT, [1, 1], [0, 0], -2)), "is damaged: IndexError"),
    "scale nan": (dense(Constant("fc/MatMul", EIGHT, [np.nan], [0])), "makes no sense"),
    "scale 0": (dense(Constant("fc/MatMul", EIGHT, [0.0], [0])), "makes no sense"),
    "zero point beyond": (dense(Constant("fc/MatMul", EIGHT, [1.0], [1 << 62])), "makes no sense"),
    "scale beyond": (dense(Constant("fc/MatMul", 100 * EIGHT, [3e38], [0])), "holds numbers beyond float32"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_converted_is_refused_with_a_reason(refused, name):
    refused(*REFUSED[name])


def test_a_file_cut_anywhere_or_with_a_wrong_byte_never_ends_in_a_traceback(tmp_path, opened):
    whole = model_bytes(MADE["yamnet_operators"](_two_layers()))
    path, rng = tmp_path / "network.tflite", np.random.default_rng(0)
    path.write_bytes(whole)
    wanted = opened(path).shapes
    cut = [whole[:length] for length in range(0, len(whole) - 1, max(1, len(whole) // 120))]
    flipped = []
    for place in rng.integers(0, len(whole), 500):
        byte = bytes([whole[place] ^ int(rng.choice([1, 0x15, 0x80, 0xFF]))])
        flipped.append(whole[:place] + byte + whole[place + 1 :])
    outcomes = {"refused": 0, "read": 0}
    for content in cut + flipped:
        path.write_bytes(content)
        try:
            found = opened(path).tensors
            for tensor in found.values():
                array = tensor.read()
                assert array.shape == tensor.shape
                assert array.nbytes <= 8 * len(whole)
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert wanted.keys() == _two_layers().keys()
    assert min(outcomes.values()) > 50  # a wrong byte among the numbers cannot be seen, one in a place can


def test_a_file_too_large_is_not_even_opened(refused, monkeypatch):
    monkeypatch.setattr(tflite_files, "_MOST_BYTES", 100)
    refused(dense(FLOATS), "at most 100 are read")


def test_counts_without_end_are_refused_before_they_are_walked(refused, monkeypatch):
    monkeypatch.setattr(tflite_files, "_MOST_PARTS", 3)
    refused(
        model_bytes([("FULLY_CONNECTED", [None, FLOATS._replace(name=f"{i}/MatMul")]) for i in range(4)]), "5 parts"
    )
    monkeypatch.setattr(tflite_files, "_MOST_PARTS", 1000)
    monkeypatch.setattr(tflite_files, "_MOST_INPUTS", 3)
    refused(model_bytes([("CONCATENATION", [None] * 4)]), "4 inputs of one operator")


def _two_layers() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "layer1/conv/kernel": rng.normal(size=(3, 3, 1, 4)), "layer1/conv/bias": rng.normal(size=4),
        "fc/kernel": rng.normal(size=(4, 5)), "fc/bias": rng.normal(size=5),
    }  # fmt: skip
