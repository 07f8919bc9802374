"""llama2.c files, and how a folder or a file is taken for what it is."""

import pathlib
import struct

import numpy as np
import pytest
import safetensors.numpy
from files_of_weights import llama2c_bytes

from ssu_jax.types import UserError


@pytest.mark.parametrize("shared_classifier", [True, False])
def test_llama2c_tensors_bear_transformers_names(tmp_path, opened, shared_classifier):
    content, arrays = llama2c_bytes(shared=shared_classifier)
    path = tmp_path / "stories.bin"
    path.write_bytes(content)
    source = opened(path)
    assert source.form == "llama2.c"
    assert source.shapes == {name: array.shape for name, array in arrays.items()}
    assert all(source.tensors[name].read().tobytes() == array.tobytes() for name, array in arrays.items())
    expected = {"model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 11, "max_position_embeddings": 6,
                "rope_layout": "interleaved", "tie_word_embeddings": shared_classifier}  # fmt: skip
    assert expected.items() <= source.config.items()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda whole: whole[:20], "has only 20 bytes"),
        (lambda whole: whole[:28], "its header means .* bytes, it has 28"),
        (lambda whole: whole[:-1], "its header means"),
        (lambda whole: whole + b"\0", "its header means"),
        (lambda whole: struct.pack("<i", 1 << 30) + whole[4:], "no llama2.c file: its header reads"),
        (lambda whole: struct.pack("<i", -8) + whole[4:], "no llama2.c file: its header reads"),
        (lambda whole: whole[:12] + struct.pack("<i", 3) + whole[16:], "8 channels, 3 heads"),
        (lambda whole: struct.pack("<I", 0x616B3432) + whole[4:], "later version"),
        (lambda whole: b"", "has only 0 bytes"),
    ],
)
def test_llama2c_that_is_cut_or_something_else(tmp_path, opened, change, said):
    path = tmp_path / "stories.bin"
    path.write_bytes(change(llama2c_bytes()[0]))
    with pytest.raises(UserError, match=said):
        opened(path)


def test_stories260k(opened, shared):
    source = opened(shared / "data/weights/text/stories260K.bin")
    assert sum(int(np.prod(shape)) for shape in source.shapes.values()) == 260_032
    assert (source.config["hidden_size"], source.config["num_key_value_heads"]) == (64, 4)
    assert all(np.isfinite(tensor.read()).all() for tensor in source.tensors.values())


@pytest.fixture
def hub(tmp_path):
    """A folder in the hub's layout."""
    folder = tmp_path / "hub"
    folder.mkdir()
    safetensors.numpy.save_file({"a": np.zeros(2, np.float32)}, folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "gpt2"}')
    return folder


def test_a_folder_and_its_file_mean_the_same(hub, opened):
    for place in (hub, hub / "model.safetensors"):
        source = opened(place)
        assert source.place == hub
        assert source.config == {"model_type": "gpt2"}
        assert [path.name for path in source.files] == ["model.safetensors", "config.json"]


def test_safetensors_go_before_pickles_and_named_files_before_others(hub, opened):
    (hub / "pytorch_model.bin").write_bytes(b"PK\x03\x04")
    (hub / "extra.safetensors").write_bytes(b"")
    assert opened(hub).files[0].name == "model.safetensors"


def test_a_configuration_from_elsewhere(hub, opened, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"model_type": "llama"}')
    source = opened(hub / "model.safetensors", other)
    assert source.config == {"model_type": "llama"}
    assert source.files[-1] == other
    with pytest.raises(UserError, match=r"none.json cannot be read: No such file"):
        opened(hub, tmp_path / "none.json")


def _several(folder: pathlib.Path):
    (folder / "model.safetensors").rename(folder / "one.safetensors")
    (folder / "two.safetensors").write_bytes(b"")


def _nothing(folder: pathlib.Path):
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_several, r"several files of weights \(one.safetensors, two.safetensors\): name one"),
        (_nothing, "holds no weights: wanted"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[1]"), "holds no JSON object"),
        (lambda folder: (folder / "config.json").write_text('{"a": 1, "a": 2}'), "'a' stands there twice"),
        (lambda folder: (folder / "config.json").write_text("[" * 10**6), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff\xfe\x00"), "config.json is damaged"),
    ],
)
def test_a_folder_that_cannot_be_understood(hub, opened, change, said):
    change(hub)
    with pytest.raises(UserError, match=said) as error:
        opened(hub)
    assert "\n" not in str(error.value)


def test_a_place_that_is_nothing_known(tmp_path, opened):
    with pytest.raises(UserError, match="does not exist: name a folder or a file"):
        opened(tmp_path / "none")
    (tmp_path / "x.h5").write_bytes(b"x")
    with pytest.raises(UserError, match="no form of weights that is known here"):
        opened(tmp_path / "x.h5")


def test_json_that_is_too_long_is_not_read(tmp_path, opened, hub):
    with open(hub / "config.json", "wb") as file:
        file.truncate(200_000_000)
    with pytest.raises(UserError, match="200000000 bytes are too many"):
        opened(hub)
