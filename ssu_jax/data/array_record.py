"""One ArrayRecord shard: the format of Grain and of TensorFlow Datasets, read at a place, checked by its own hashes.

Chunks of one record, not compressed: pictures are compressed already, and one read takes one record. Riegeli, the
container beneath, compares the hash of every chunk that it reads. Remote paths are read by the library itself (gs://).
"""

import os
import pathlib
from collections.abc import Iterator

from ssu_jax import files
from ssu_jax.data.storage import Folder, is_remote
from ssu_jax.data.tfrecord import Damage, every_record

SUFFIX = ".array_record"
OPTIONS = "group_size:1,uncompressed"


class Writer:
    """Writes a shard: `write` each record, `finish` once."""

    def __init__(self, path: pathlib.Path):
        from array_record.python import array_record_module

        self.path, self._count = path, 0
        self._file = array_record_module.ArrayRecordWriter(str(path), OPTIONS)

    def write(self, record: bytes) -> None:
        """Appends one record."""
        self._file.write(record)
        self._count += 1

    def finish(self) -> tuple[list[pathlib.Path], dict]:
        """The files written, and what the manifest says of them."""
        self.close()
        facts = {"name": self.path.name, "num_records": self._count, "num_bytes": self.path.stat().st_size,
                 "sha256": files.sha256_of(self.path)}  # fmt: skip
        return [self.path], facts

    def close(self) -> None:
        """Closes the file, finished or not."""
        if self._file.is_open():
            self._file.close()


class Reader:
    """The records of one shard by row; for many threads. Raises Damage if the file does not fit the manifest."""

    def __init__(self, folder: Folder, facts: dict):
        """facts: what the manifest says of the shard."""
        from array_record.python import array_record_module

        path = folder.path(facts["name"])
        try:
            size = None if is_remote(path) else os.path.getsize(path)
            if size not in (None, facts["num_bytes"]):
                raise Damage(f"it has {size} bytes, the manifest says {facts['num_bytes']}")
            self._file = array_record_module.ArrayRecordReader(path)
            count = self._file.num_records()
        except (OSError, RuntimeError, ValueError) as error:
            raise Damage(f"cannot be read ({_told(error)})") from None
        if count != facts["num_records"]:
            raise Damage(f"it holds {count} records, the manifest says {facts['num_records']}")

    def __len__(self) -> int:
        return self._file.num_records()

    def read(self, row: int) -> bytes:
        """Raises Damage."""
        try:
            return self._file.read([row])[0]
        except (IndexError, OSError, RuntimeError, ValueError) as error:
            raise Damage(f"cannot be read ({_told(error)})", row) from None


def faults_of(folder: Folder, facts: dict) -> Iterator[tuple[int | None, bytes | Damage]]:
    """(row, record or what is wrong with it) for all of a shard; row None: what is wrong with its file."""
    name = facts["name"]
    if name not in folder.names():
        yield None, Damage(f"{folder.path(name)}: missing")
        return
    if files.sha256_of_bytes(folder.open(name).read(0, 1 << 62)) != facts["sha256"]:
        yield None, Damage(f"{folder.path(name)}: its sha256 is not the manifest's")
    try:
        reader = Reader(folder, facts)
    except Damage as damage:
        yield None, Damage(f"{folder.path(name)}: {damage}")
        return
    yield from every_record(reader)


def _told(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error).split("\n")[0])[:120]
