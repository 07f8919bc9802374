"""NumPy's .npz: a zip archive with one array a member, read and written a member at a time, never unpickled."""

import contextlib
import functools
import math
import pathlib
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.lib import format as npy

from ssu_jax.conversion.tensors import Source, Tensor
from ssu_jax.types import UserError

_SUFFIX = ".npy"
_DAMAGES = (zipfile.BadZipFile, zlib.error, struct.error, ValueError, TypeError, OverflowError, EOFError, KeyError,
            NotImplementedError, RuntimeError, MemoryError)  # fmt: skip
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def open_file(path: pathlib.Path) -> Source:
    """Raises UserError if it is no zip archive, cut, holds pickled objects or a name twice, or a size is wrong."""
    with _problems(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len({member.filename for member in members}) < len(members):
            raise UserError(f"{path} is damaged: it holds a name twice")
        tensors = {member.filename.removesuffix(_SUFFIX): _tensor(path, archive, member) for member in members}
    return Source(path, "npz", tensors, {}, (path,))


def write(path: pathlib.Path, names: Iterable[str], arrays: Callable[[str], np.ndarray]) -> None:
    """Writes an archive, stored without compression; `arrays` is asked for one after the other."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in names:
            # A ZipInfo of its own: the default time is fixed, so equal weights give equal files.
            with archive.open(zipfile.ZipInfo(name + _SUFFIX), "w", force_zip64=True) as member:
                npy.write_array(member, np.ascontiguousarray(arrays(name)), allow_pickle=False)


def _tensor(path: pathlib.Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> Tensor:
    with archive.open(member) as content:
        version = npy.read_magic(content)
        if version not in _HEADERS:
            raise UserError(f"{path}: {member.filename} is of version {version} of NumPy's format: wanted 1 or 2")
        shape, _, dtype = _HEADERS[version](content)
        if dtype.hasobject or dtype.kind not in "fiub":
            what = "pickled objects" if dtype.hasobject else f"the type {dtype}"
            raise UserError(f"{path} is refused: {member.filename} holds {what}, wanted are plain numbers")
        wanted = content.tell() + math.prod(shape) * dtype.itemsize
        if member.file_size != wanted:
            raise UserError(f"{path}: {member.filename} is damaged: {wanted} bytes wanted, got {member.file_size}")
    return Tensor(shape, dtype.newbyteorder("="), functools.partial(_read, path, member.filename))


def _read(path: pathlib.Path, member: str) -> np.ndarray:
    with _problems(path), zipfile.ZipFile(path) as archive, archive.open(member) as content:
        array = npy.read_array(content, allow_pickle=False)
        content.read()  # to the end: the checksum is compared there
        return np.asarray(array, array.dtype.newbyteorder("="), order="C")


@contextlib.contextmanager
def _problems(path: pathlib.Path) -> Iterator[None]:
    """Turns what NumPy and zipfile raise at a damaged archive into a UserError."""
    try:
        yield
    except (*_DAMAGES, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(f"{path} is damaged or no .npz archive: {error}") from error
