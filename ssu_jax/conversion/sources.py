"""Published weights on the disk as named tensors, whose shapes are known before one of them is read.

    a folder             config.json and one of: model.safetensors.index.json with its shards, one .safetensors,
                         one .npz, one .tflite, one file of PyTorch, one llama2.c .bin
    a file of weights    the config.json beside it is used where there is one

Files are taken for hostile: every number of a header is compared with the file before memory is taken, names that
come from a file pass the path resolver, and nothing is ever unpickled in this process (see pth.py).
"""

import dataclasses
import pathlib

from ssu_jax.conversion import llama2c, npz, pth, safetensors_files, tflite_files
from ssu_jax.conversion.tensors import Source, read_json
from ssu_jax.types import UserError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
TORCH_SUFFIXES = (".pth", ".pt", ".ckpt", ".bin")
SUFFIXES = (".safetensors", ".npz", tflite_files.SUFFIX, *TORCH_SUFFIXES)
_HUB_STEMS = ("model", "pytorch_model", "model.safetensors.index")
_TORCH_MAGIC = (b"PK\x03\x04", b"\x80\x02")  # a zip archive; the pickle of PyTorch before 1.6


def open_source(place: pathlib.Path, scratch: pathlib.Path, config_file: pathlib.Path | None = None) -> Source:
    """Opens what lies at `place`, a folder or a file.

    scratch: a folder for what a .pth file is unpacked into; the caller removes it after use.
    config_file: a config.json that lies elsewhere. Raises UserError: missing, ambiguous, damaged, truncated, holding
    code or anything else than tensors.
    """
    place = pathlib.Path(place)
    path = _weights_in(place) if place.is_dir() else place
    if not path.is_file():
        raise UserError(f"{place} does not exist: name a folder or a file of published weights")
    beside = config_file or path.parent / CONFIG
    config = read_json(beside) if config_file or beside.is_file() else {}
    if not isinstance(config, dict):
        raise UserError(f"{beside} holds no JSON object: restore it from its source")
    if path.stem in _HUB_STEMS and beside == path.parent / CONFIG and config:
        place = path.parent  # a file of the hub's layout means its folder
    source = _open_file(path, scratch)
    files = (*source.files, beside) if config else source.files
    return dataclasses.replace(source, place=place, config={**source.config, **config}, files=files)


def _open_file(path: pathlib.Path, scratch: pathlib.Path) -> Source:
    if path.name.endswith(".index.json"):
        return safetensors_files.open_index(path)
    if path.suffix == ".safetensors":
        return safetensors_files.open_file(path)
    if path.suffix == ".npz":
        return npz.open_file(path)
    if path.suffix == tflite_files.SUFFIX:
        return tflite_files.open_file(path)
    if path.suffix == ".bin" and not _starts_like_torch(path):
        return llama2c.open_file(path)
    if path.suffix in TORCH_SUFFIXES:
        return pth.open_file(path, scratch)
    raise UserError(f"{path}: no form of weights that is known here: wanted a folder or one of {', '.join(SUFFIXES)}")


def _starts_like_torch(path: pathlib.Path) -> bool:
    with open(path, "rb") as file:
        return file.read(4).startswith(_TORCH_MAGIC)


def _weights_in(folder: pathlib.Path) -> pathlib.Path:
    if (folder / INDEX).is_file():
        return folder / INDEX
    for suffixes in ((".safetensors",), (".npz",), (tflite_files.SUFFIX,), TORCH_SUFFIXES):
        found = sorted(path for path in folder.iterdir() if path.suffix in suffixes and path.is_file())
        named = [path for path in found if path.stem in _HUB_STEMS]
        if len(found) == 1 or len(named) == 1:
            return (named or found)[0]
        if found:
            names = ", ".join(path.name for path in found)
            raise UserError(f"{folder} holds several files of weights ({names}): name one of them, or add {INDEX}")
    raise UserError(f"{folder} holds no weights: wanted {INDEX} or a file {', '.join(SUFFIXES)}")
