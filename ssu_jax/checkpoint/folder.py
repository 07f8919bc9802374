"""A model as a folder to hand on: plain files, readable without Orbax, checked before use.

    model.safetensors   the weights, named "text_decoder/block_0/kernel", bfloat16 or float32
    config.json         the whole configuration       tokenizer.json   the words
    manifest.json       size and sha256 of these three, and how the model was made

The numbers are float32 again after reading, whatever they were stored as.
"""

import json
import pathlib
from typing import Any, NamedTuple

import flax.traverse_util
import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from ssu_jax import files
from ssu_jax.config import Config
from ssu_jax.tokenizer import Tokenizer
from ssu_jax.types import UserError

WEIGHTS, CONFIG, TOKENIZER, MANIFEST = "model.safetensors", "config.json", "tokenizer.json", "manifest.json"
CLIP_TOKENIZER = "clip_tokenizer.json"  # of a working directory whose model has a text tower of CLIP
FORMAT = "ssu_jax model 1"
STORED_TYPES = {"bfloat16": ml_dtypes.bfloat16, "float32": np.float32}


class Model(NamedTuple):
    """What it takes to run a trained model. params: nested dict of float32 NumPy arrays."""

    config: Config
    tokenizer: Tokenizer
    params: dict


def write_folder(folder: pathlib.Path, model: Model, dtype: str, made_by: dict[str, Any]) -> None:
    """Writes the four files, the manifest last. Raises UserError if the place cannot be written."""
    flat = flax.traverse_util.flatten_dict(model.params, sep="/")
    stored = {name: np.asarray(leaf, STORED_TYPES[dtype], order="C") for name, leaf in sorted(flat.items())}
    contents = {
        WEIGHTS: safetensors.numpy.save(stored, metadata={"format": FORMAT}),
        CONFIG: json.dumps(model.config.to_dict(), indent=2, sort_keys=True) + "\n",
        TOKENIZER: model.tokenizer.to_json(),
    }
    for name, content in contents.items():
        files.atomic_write(folder / name, content)
    listed = {name: [(folder / name).stat().st_size, files.sha256_of(folder / name)] for name in contents}
    manifest = {"format": FORMAT, "dtype": dtype, "files": listed, "made_by": made_by}
    files.atomic_write(folder / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def is_folder(folder: pathlib.Path) -> bool:
    """Whether this is an exported model, be it damaged."""
    return (folder / WEIGHTS).exists() or (folder / MANIFEST).exists()


def read_manifest(folder: pathlib.Path) -> dict:
    """How the model was made and what its files are. Raises UserError if it is missing or not ours."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or set(manifest["files"]) != {WEIGHTS, CONFIG, TOKENIZER}:
            raise ValueError(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / MANIFEST} is missing or damaged: export the model again (`ssu export`)") from error
    return manifest


def read_shapes(folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the stored weights, from the header alone."""
    with _opened(folder) as weights:
        return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118


def check_files(folder: pathlib.Path) -> None:
    """Raises UserError naming the first file that is not the one exported."""
    check_listed(folder, read_manifest(folder)["files"], "export the model again (`ssu export`)")


def check_listed(folder: pathlib.Path, listed: dict[str, list], remedy: str) -> None:
    """Compares files with their (size, sha256). Raises UserError naming the first that differs, and the remedy."""
    for name, (size, digest) in listed.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing: {remedy}")
        if path.stat().st_size != size or files.sha256_of(path) != digest:
            raise UserError(f"{path} is damaged: its sha256 is not the one in {MANIFEST}; {remedy}")


def read_params(folder: pathlib.Path) -> dict:
    """The weights as a nested dict of float32 arrays."""
    with _opened(folder) as weights:
        flat = {name: weights.get_tensor(name).astype(np.float32) for name in weights.keys()}  # noqa: SIM118
    return flax.traverse_util.unflatten_dict(flat, sep="/")


def _opened(folder: pathlib.Path):
    path = folder / WEIGHTS
    try:
        return safetensors.safe_open(path, framework="numpy")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or 'missing'}") from error
    except safetensors.SafetensorError as error:
        raise UserError(f"{path} is damaged: {error}") from error
