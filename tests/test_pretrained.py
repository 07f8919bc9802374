"""Reading a converted folder: what is not the one converted is refused before a model gets it."""

import json
import shutil

import numpy as np
import pytest

from ssu_jax.checkpoint import pretrained, read_pretrained
from ssu_jax.conversion import catalogue, converting
from ssu_jax.conversion.tensors import Source, Tensor
from ssu_jax.types import UserError

KIND = "shufflenet_v2"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A converted folder and the numbers in it."""
    from ssu_jax.conversion import rules

    entry, rng = catalogue.entry_of(KIND), np.random.default_rng(0)
    config = entry.config_type()
    matches, _ = rules.match_back(entry.table(config), entry.shapes(config))
    arrays = {}
    for name, path, transform in matches:
        shape = rules.shape_before(entry.shapes(config)[path], transform)
        arrays[name] = rng.normal(size=shape).astype(np.float32)
    tensors = {name: Tensor(array.shape, array.dtype, array.copy) for name, array in arrays.items()}
    folder = tmp_path_factory.mktemp("weights") / KIND
    converting.convert(Source(folder, "safetensors", tensors, {}, ()), folder, KIND)
    return folder, arrays


@pytest.fixture
def folder(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole[0], tmp_path / KIND)


def test_configuration_and_nested_float32_parameters(whole):
    folder, arrays = whole
    config, params = read_pretrained(folder, KIND)
    assert config == {"widths": [24, 48, 96, 192], "repeats": [4, 8, 4]}
    kernel = params["stage_2"]["block_1"]["main"]["expand"]["kernel"]
    assert kernel.dtype == np.float32
    assert np.array_equal(kernel[0, 0], arrays["stage2.1.branch_main.0.weight"][:, :, 0, 0].T)
    assert read_pretrained(folder)[0] == config
    assert pretrained.is_converted(folder)


def rewrite(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))


def _flip(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


SPOILT = {
    "a flipped bit": (_flip, "model.safetensors is damaged: its sha256 is not the one in manifest.json; convert"),
    "cut off": (lambda f: (f / "model.safetensors").write_bytes(b"x"), "model.safetensors is damaged"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing: convert the weights"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing or damaged"),
    "no manifest": (lambda f: (f / "manifest.json").unlink(), "manifest.json is missing: wanted a folder that"),
    "edited config": (
        lambda f: rewrite(f / "config.json", config={"widths": [1]}),
        "config.json is damaged: its sha256",
    ),
    "config of no fields": (lambda f: rewrite(f / "config.json", config=3), "config.json is missing or damaged"),
    "another format": (lambda f: rewrite(f / "manifest.json", format="ssu_jax model 1"), "manifest.json is damaged"),
    "files elsewhere": (lambda f: rewrite(f / "manifest.json", files={"../x": [1, "0"]}), "manifest.json is damaged"),
    "list of files": (lambda f: rewrite(f / "manifest.json", files={"config.json": 1}), "manifest.json is damaged"),
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "manifest.json is damaged"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_folder_is_refused(folder, name):
    spoil, said = SPOILT[name]
    spoil(folder)
    with pytest.raises(UserError, match=said) as error:
        read_pretrained(folder, KIND)
    assert "\n" not in str(error.value)


def test_weights_of_another_kind_are_refused(folder):
    with pytest.raises(UserError, match="holds weights of 'shufflenet_v2', wanted 'clip'"):
        read_pretrained(folder, "clip")


def test_a_folder_of_something_else(tmp_path):
    with pytest.raises(UserError, match="does not exist: name a folder that `ssu convert` wrote"):
        read_pretrained(tmp_path / "none", KIND)
    with pytest.raises(UserError, match="manifest.json is missing"):
        read_pretrained(tmp_path, KIND)
    assert not pretrained.is_converted(tmp_path)
