"""Published weights after conversion: a folder that `ssu convert` writes and the models read.

    model.safetensors   the weights under our names ("block_0/attention/query/kernel")
    config.json         {"format", "kind", "config": sizes of the encoder}
    tokenizer.json      where the weights come with a vocabulary
    manifest.json       size and sha256 of these files and of every file they were made from

The numbers are float32 after reading, whatever they were stored as.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from ssu_jax.checkpoint import folder as folders
from ssu_jax.checkpoint.folder import CONFIG, MANIFEST, TOKENIZER, WEIGHTS
from ssu_jax.config.encoders import audioclip
from ssu_jax.types import UserError

FORMAT = "ssu_jax encoder 1"
# Of what a run notes of its published weights: sha256 of AudioCLIP's file, or of what passes for it.
MADE_FROM = "trio, made from"
_REMEDY = "convert the weights again (`ssu convert`)"


def read_pretrained(folder: str | pathlib.Path, kind: str | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
    """(configuration as a dictionary, parameters as a nested dictionary of float32 NumPy arrays), verified.

    kind: what the weights must be, e.g. "pvt_v2"; None takes any. Raises UserError: no such folder, not converted,
    another kind, or a file that is not the one converted.
    """
    folder = pathlib.Path(folder)
    config = read_config(folder, kind)
    check_files(folder)
    return config, folders.read_params(folder)


def is_converted(folder: pathlib.Path) -> bool:
    """Whether `ssu convert` wrote this folder, be it damaged."""
    try:
        return json.loads((folder / MANIFEST).read_bytes())["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def read_manifest(folder: pathlib.Path) -> dict[str, Any]:
    """What the folder's files are and what they were made from. Raises UserError if it is missing or not ours."""
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
        names = {name for name, (_, _) in manifest["files"].items()}
        if manifest["format"] != FORMAT or names | {TOKENIZER} != {WEIGHTS, CONFIG, TOKENIZER}:
            raise ValueError(manifest["format"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        found = "is damaged" if path.is_file() else "is missing"
        raise UserError(f"{path} {found}: wanted a folder that `ssu convert` wrote") from error
    return manifest


def read_kind(folder: pathlib.Path) -> str:
    """Which published weights these are, e.g. "clip"."""
    return _read_config(folder)["kind"]


def read_config(folder: pathlib.Path, kind: str | None = None) -> dict[str, Any]:
    """The encoder's configuration as a dictionary, before any weight is read. Raises UserError for another kind."""
    tree = _read_config(folder)
    if kind is not None and tree["kind"] != kind:
        raise UserError(f"{folder} holds weights of {tree['kind']!r}, wanted {kind!r}: name another folder")
    return tree["config"]


def check_files(folder: pathlib.Path) -> None:
    """Raises UserError naming the first file that is not the one converted."""
    folders.check_listed(folder, read_manifest(folder)["files"], _REMEDY)


def unpublished(origins: Mapping[str, str]) -> str:
    """A line for people where AudioCLIP's weights were made from another file than a published one; else ""."""
    digest = origins.get(MADE_FROM, "")
    if not digest or digest in audioclip.PUBLISHED_DIGESTS:
        return ""
    return (f"the weights of AudioCLIP come from a file that is none of the published ones (sha256 {digest[:12]}): if "
            "they are random, maps and figures say nothing about quality")  # fmt: skip


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise UserError(f"{folder} does not exist: name a folder that `ssu convert` wrote")
    read_manifest(folder)
    try:
        tree = json.loads((folder / CONFIG).read_bytes())
        if tree["format"] != FORMAT or not isinstance(tree["config"], dict) or not isinstance(tree["kind"], str):
            raise ValueError(tree["format"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / CONFIG} is missing or damaged: {_REMEDY}") from error
    return tree
