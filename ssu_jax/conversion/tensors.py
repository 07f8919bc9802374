"""What all forms of published weights share: named tensors with known shapes, read one at a time."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ssu_jax.conversion.rules import Shape
from ssu_jax.types import UserError

_MAX_JSON_BYTES = 100_000_000


class Tensor(NamedTuple):
    """One published tensor. `read` takes memory for this one alone and raises UserError where the file is damaged."""

    shape: Shape
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Source:
    """Published weights that are open.

    place:   the folder or file that was named.
    form:    "safetensors", "npz", "tflite", "llama2.c" or "pth".
    tensors: name -> tensor.
    config:  what config.json says, {} where there is none.
    files:   every file that was used, for the manifest's digests.
    notes:   lines for the user.
    """

    place: pathlib.Path
    form: str
    tensors: Mapping[str, Tensor]
    config: Mapping[str, Any]
    files: tuple[pathlib.Path, ...]
    notes: tuple[str, ...] = ()

    @property
    def shapes(self) -> dict[str, Shape]:
        """Name -> shape of all tensors."""
        return {name: tensor.shape for name, tensor in self.tensors.items()}


def read_json(path: pathlib.Path) -> Any:
    """The content of a JSON file. Raises UserError if it is missing, too large, no JSON, or names a key twice."""
    try:
        if path.stat().st_size > _MAX_JSON_BYTES:
            raise UserError(f"{path} is refused: {path.stat().st_size} bytes are too many for a JSON file")
        return json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged: {error}") from error


def parse_json(content: bytes) -> Any:
    """JSON in which no object names a key twice. Raises ValueError."""
    return json.loads(content, object_pairs_hook=_unique)


def read_span(path: pathlib.Path, offset: int, shape: Shape, dtype: np.dtype) -> np.ndarray:
    """An array that lies in a file as it is. Raises UserError if the file ends before it."""
    num_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    content = np.fromfile(path, np.uint8, num_bytes, offset=offset)
    if content.size != num_bytes:
        raise UserError(f"{path} is cut off: {num_bytes} bytes wanted at {offset}, got {content.size}")
    return content.view(dtype).reshape(shape)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        twice = next(key for number, (key, _) in enumerate(pairs) if key in dict(pairs[:number]))
        raise ValueError(f"the key {twice!r} stands there twice")
    return tree
