"""Folders on this machine or in a bucket (gs://..., s3://..., whatever fsspec opens); files read whole or in parts.

Local files are mapped into memory: a part is a view, without copy or system call. Of a remote file a part is one
range request.
"""

import collections
import contextlib
import logging
import mmap
import os
import pathlib
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

from ssu_jax import files
from ssu_jax.types import UserError


@runtime_checkable
class Parts(Protocol):
    """An open file, read in parts from many threads."""

    def size(self) -> int:
        """Bytes of the file as it is now."""

    def read(self, offset: int, length: int) -> memoryview:
        """Fewer bytes than `length` where the file ends."""


@runtime_checkable
class Folder(Protocol):
    """A folder, local or remote. Every method raises OSError where the file or the folder cannot be read or written.

    max_open: files that one reader may hold open.
    """

    max_open: int

    def __str__(self) -> str:
        """As the user named it."""

    def path(self, name: str) -> str:
        """Of a file, for messages."""

    def names(self) -> list[str]:
        """Of the files in it, sorted; hidden ones are left out."""

    def read(self, name: str) -> bytes:
        """A whole file."""

    def open(self, name: str) -> Parts:
        """A file to read parts of."""

    def write(self, name: str, content: bytes) -> None:
        """A file that is seen whole or not at all."""

    def child(self, name: str) -> "Folder":
        """A folder in it, which need not exist."""

    def scratch(self) -> contextlib.AbstractContextManager[pathlib.Path]:
        """A local folder to write files in before `put` takes them."""

    def put(self, path: pathlib.Path) -> None:
        """Takes a file of `scratch` under its name: seen whole or not at all."""

    def take(self, name: str, other: "Folder") -> None:
        """Moves a file of another folder of the same kind here, under its name."""

    def delete(self, name: str) -> None:
        """A file, if it is there."""

    def remove(self) -> None:
        """The folder with all that is in it, if it is there."""


def folder(directory: str | os.PathLike) -> Folder:
    """The folder at a path or URL; it need not exist. Raises UserError where its kind cannot be read here."""
    return _RemoteFolder(str(directory)) if is_remote(directory) else _LocalFolder(pathlib.Path(directory))


def is_remote(directory: str | os.PathLike) -> bool:
    """Whether it is a URL."""
    return "://" in str(directory)


class OpenFiles:
    """Files opened when first asked for, the least recently used ones dropped beyond `limit`; for many threads."""

    def __init__(self, open_one: Callable[[int], Any], limit: int):
        self._open_one, self._limit = open_one, limit
        self._lock, self._opened = threading.Lock(), collections.OrderedDict()

    def __getitem__(self, number: int) -> Any:
        with self._lock:
            if number not in self._opened:
                self._opened[number] = self._open_one(number)
                if len(self._opened) > self._limit:
                    self._opened.popitem(last=False)  # closed with its last reader
            self._opened.move_to_end(number)
            return self._opened[number]


class _LocalFolder:
    max_open = 256  # far below the common limit of 1,024 descriptors

    def __init__(self, directory: pathlib.Path):
        self._directory = directory

    def __str__(self) -> str:
        return str(self._directory)

    def path(self, name: str) -> str:
        return str(self._directory / name)

    def names(self) -> list[str]:
        return sorted(name for name in os.listdir(self._directory) if not name.startswith("."))

    def read(self, name: str) -> bytes:
        return (self._directory / name).read_bytes()

    def open(self, name: str) -> Parts:
        return _Mapped(self._directory / name)

    def write(self, name: str, content: bytes) -> None:
        files.atomic_write(self._directory / name, content)

    def child(self, name: str) -> "_LocalFolder":
        return _LocalFolder(self._directory / name)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[pathlib.Path]:
        self._directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".scratch-", dir=self._directory) as place:
            yield pathlib.Path(place)

    def put(self, path: pathlib.Path) -> None:
        files.sync(path)
        os.replace(path, self._directory / path.name)

    def take(self, name: str, other: "_LocalFolder") -> None:
        os.replace(other._directory / name, self._directory / name)

    def delete(self, name: str) -> None:
        (self._directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)


class _Mapped:
    def __init__(self, path: pathlib.Path):
        with open(path, "rb") as file:
            # An empty file cannot be mapped.
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.path.getsize(path) else None

    def size(self) -> int:
        return self._map.size() if self._map else 0

    def read(self, offset: int, length: int) -> memoryview:
        # Asked each time: a page beyond the end of a file cut meanwhile would end the process (SIGBUS).
        stop = min(offset + length, self.size())
        return memoryview(self._map)[offset:stop] if offset < stop else memoryview(b"")


class _RemoteFolder:
    max_open = 1 << 14  # no descriptors, only what is known of the file: to learn it again is a request

    def __init__(self, url: str):
        import fsspec.core

        logging.getLogger("gcsfs").setLevel(logging.CRITICAL)  # it prints what it raises; whoever asked tells it
        self._url = url.rstrip("/")
        try:
            self._system, self._root = fsspec.core.url_to_fs(self._url)
        except ImportError as error:
            extra = "pip install 'ssu_jax[gcs]'" if url.startswith("gs://") else str(error)
            raise UserError(f"{url}: files of this kind cannot be read yet: {extra}") from error
        except ValueError as error:
            remedy = "give a folder or a URL such as gs://bucket/folder"
            raise UserError(f"{url}: no such kind of storage ({error}): {remedy}") from error

    def __str__(self) -> str:
        return self._url

    def path(self, name: str) -> str:
        return f"{self._url}/{name}"

    def names(self) -> list[str]:
        self._system.invalidate_cache(self._root)
        entries = self._system.ls(self._root, detail=False)
        names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
        return sorted(name for name in names if not name.startswith("."))

    def read(self, name: str) -> bytes:
        return self._system.cat_file(f"{self._root}/{name}")

    def open(self, name: str) -> Parts:
        return _Ranges(self._system, f"{self._root}/{name}")

    def write(self, name: str, content: bytes) -> None:
        self._system.pipe_file(f"{self._root}/{name}", content)  # objects of a bucket appear whole

    def child(self, name: str) -> "_RemoteFolder":
        return _RemoteFolder(f"{self._url}/{name}")

    @contextlib.contextmanager
    def scratch(self) -> Iterator[pathlib.Path]:
        with tempfile.TemporaryDirectory() as place:
            yield pathlib.Path(place)

    def put(self, path: pathlib.Path) -> None:
        self._system.put_file(str(path), f"{self._root}/{path.name}")

    def take(self, name: str, other: "_RemoteFolder") -> None:
        self._system.mv(f"{other._root}/{name}", f"{self._root}/{name}")

    def delete(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(f"{self._root}/{name}")

    def remove(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._root, recursive=True)


class _Ranges:
    def __init__(self, system: Any, path: str):
        self._system, self._path = system, path
        self._size = system.size(path)

    def size(self) -> int:
        return self._size

    def read(self, offset: int, length: int) -> memoryview:
        stop = min(offset + length, self._size)
        return memoryview(self._system.cat_file(self._path, start=offset, end=stop) if offset < stop else b"")
