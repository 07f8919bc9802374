"""safetensors: one file, or shards named by an index; read and written a tensor at a time.

A file is eight bytes (the header's length), the header (JSON: name -> dtype, shape, place) and the numbers. The
library checks the header (sizes, places without gaps or overlaps, nothing behind the end); it maps the whole file
though, and lets a name stand twice, so tensors are read from their places here and the names are counted.
"""

import functools
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors

from ssu_jax import files
from ssu_jax.conversion.rules import Shape
from ssu_jax.conversion.tensors import Source, Tensor, parse_json, read_json, read_span
from ssu_jax.types import UserError

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64), "F32": np.dtype(np.float32), "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16), "I64": np.dtype(np.int64), "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16), "I8": np.dtype(np.int8), "U64": np.dtype(np.uint64), "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16), "U8": np.dtype(np.uint8), "BOOL": np.dtype(np.bool_),
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DTYPES.items()}
_METADATA = "__metadata__"


def open_file(path: pathlib.Path) -> Source:
    """A single file. Raises UserError if any number of its header is wrong or a name stands twice."""
    tensors, _ = read_header(path)
    return Source(path, "safetensors", tensors, {}, (path,))


def open_index(path: pathlib.Path) -> Source:
    """An index (name -> shard) and its shards.

    Raises UserError for a shard that is missing, lies elsewhere, or does not hold just the tensors that the index says.
    """
    index = read_json(path)
    shard_of = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shard_of, dict) or not all(isinstance(shard, str) for shard in shard_of.values()):
        raise UserError(f"{path} is damaged: it has no weight_map from names to files")
    shards = {name: _shard(path, name) for name in sorted(set(shard_of.values()))}
    tensors: dict[str, Tensor] = {}
    for name, shard in shards.items():
        found, _ = read_header(shard)
        wanted = {tensor for tensor, where in shard_of.items() if where == name}
        if differing := sorted(wanted ^ found.keys()):
            raise UserError(f"{shard} does not hold what {path.name} says: {differing[0]} ({len(differing)} differ)")
        tensors |= found
    return Source(path, "safetensors", tensors, {}, (path, *shards.values()))


def read_header(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """(name -> tensor, metadata) of a file; no number of it is read yet."""
    try:
        with safetensors.safe_open(path, framework="numpy"):
            pass  # every size and place is checked on opening
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = parse_json(file.read(length))
    except (safetensors.SafetensorError, ValueError) as error:
        raise UserError(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}") from error
    metadata = header.pop(_METADATA, {})
    return {name: _tensor(path, 8 + length, name, entry) for name, entry in header.items()}, metadata


def write(
    path: pathlib.Path,
    layout: Mapping[str, tuple[Shape, np.dtype]],
    arrays: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Writes a file; `arrays` is asked for one tensor after the other, and only one is held at a time."""
    with open(path, "wb") as file:
        write_stream(file, layout, lambda name: memoryview(_bytes_of(arrays(name), *layout[name], name)), metadata)


def write_stream(
    stream: BinaryIO,
    layout: Mapping[str, tuple[Shape, np.dtype]],
    content: Callable[[str], memoryview],
    metadata: Mapping[str, str],
) -> None:
    """Writes the header for these shapes and types, then the bytes of each tensor in the header's order."""
    # The widest numbers first, so that each begins at a multiple of its own width, as readers wish.
    names = sorted(layout, key=lambda name: (-layout[name][1].itemsize, name))
    header: dict[str, Any] = {_METADATA: dict(metadata)} if metadata else {}
    end = 0
    for name in names:
        (shape, dtype), start = layout[name], end
        end += num_bytes([layout[name]])
        header[name] = {"dtype": NAMES[dtype], "shape": list(shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    stream.write(len(encoded).to_bytes(8, "little") + encoded)
    for name in names:
        stream.write(content(name))


def num_bytes(layout: Iterable[tuple[Shape, np.dtype]]) -> int:
    """Bytes of the numbers of these shapes and types."""
    return sum(int(np.prod(shape, dtype=np.int64)) * dtype.itemsize for shape, dtype in layout)


def _bytes_of(array: np.ndarray, shape: Shape, dtype: np.dtype, name: str) -> np.ndarray:
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise ValueError(f"{name}: the header says {dtype}{list(shape)}, got {array.dtype}{list(array.shape)}")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8)


def _tensor(path: pathlib.Path, start: int, name: str, entry: Mapping[str, Any]) -> Tensor:
    if entry["dtype"] not in DTYPES:
        raise UserError(f"{path}: {name} is of type {entry['dtype']}: wanted one of {', '.join(DTYPES)}")
    shape, dtype = tuple(entry["shape"]), DTYPES[entry["dtype"]]
    read = functools.partial(read_span, path, start + entry["data_offsets"][0], shape, dtype)
    return Tensor(shape, dtype, read)


def _shard(index: pathlib.Path, name: str) -> pathlib.Path:
    """The shard that the index names: a file in its folder.

    The hub's cache holds models--org--name/snapshots/REVISION/ with links to models--org--name/blobs/, so there the
    links may lead as far as the model's own folder.
    """
    folder = index.absolute().parent
    if folder.parent.name == "snapshots" and (folder.parent.parent / "blobs").is_dir():
        files.resolve_inside(folder.parent.parent, f"snapshots/{folder.name}/{name}")
    else:
        files.resolve_inside(folder, name)
    if not (folder / name).is_file():
        raise UserError(f"{index} names {name}, which is missing: get all files of the weights")
    return folder / name
