"""One TFRecord shard and its index: framing, checksums, reading at a place.

A TFRecord file is a row of frames (tensorflow.org/tutorials/load_data/tfrecord):

    uint64 length | uint32 masked crc32c of the length | bytes | uint32 masked crc32c of the bytes

The index beside it (our format, all little-endian) says where each record lies:

    8 bytes b"SSUINDEX" | uint32 version 1 | uint32 0 | uint64 number of records
    per record: uint64 offset of its frame | uint64 length | uint32 crc32c of its bytes | uint32 0
    uint32 crc32c of all bytes before

It covers the shard without a gap: the first frame begins at 0, each next one where the last one ends. An index
that is lost can be made again from the shard.
"""

import logging
import pathlib
import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from ssu_jax import files
from ssu_jax.data.storage import Folder
from ssu_jax.files import crc32c_of

SUFFIX, INDEX_SUFFIX = ".tfrecord", ".index"
ENTRY = np.dtype([("offset", "<u8"), ("length", "<u8"), ("crc32c", "<u4"), ("zero", "<u4")])
HEADER = struct.Struct("<8sIIQ")
MAGIC, VERSION = b"SSUINDEX", 1
FRAME_BYTES = 16  # length, its checksum, the checksum of the data
_MASK = 0xA282EAD8


class Damage(Exception):
    """What is wrong with a shard: the row of the record (None: the file), the byte, the reason."""

    def __init__(self, reason: str, row: int | None = None, byte: int | None = None):
        super().__init__(reason)
        self.reason, self.row, self.byte = reason, row, byte

    def __str__(self) -> str:
        place = f" at byte {self.byte}" if self.byte is not None else ""
        return f"record {self.row}{place}: {self.reason}" if self.row is not None else self.reason


def masked(checksum: int) -> int:
    """TFRecord's masking: a checksum of data that hold checksums is weak, so it is rotated and shifted."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


class Writer:
    """Writes a shard and then its index: `write` each record, `finish` once."""

    def __init__(self, path: pathlib.Path):
        self.path, self._offset, self._entries = path, 0, []
        self._file = open(path, "wb")  # noqa: SIM115 (closed in close)

    def write(self, record: bytes) -> None:
        """Appends one frame."""
        length, checksum = struct.pack("<Q", len(record)), crc32c_of(record)
        self._file.write(length + struct.pack("<I", masked(crc32c_of(length))))
        self._file.write(record)
        self._file.write(struct.pack("<I", masked(checksum)))
        self._entries.append((self._offset, len(record), checksum, 0))
        self._offset += FRAME_BYTES + len(record)

    def finish(self) -> tuple[list[pathlib.Path], dict]:
        """The files written, and what the manifest says of them."""
        self.close()
        index = self.path.with_suffix(INDEX_SUFFIX)
        index.write_bytes(_packed_index(self._entries))
        facts = {"name": self.path.name, "num_records": len(self._entries), "num_bytes": self.path.stat().st_size,
                 "sha256": files.sha256_of(self.path), "index_sha256": files.sha256_of(index)}  # fmt: skip
        return [self.path, index], facts

    def close(self) -> None:
        """Closes the file, finished or not."""
        self._file.close()


class Reader:
    """The records of one shard by row, every checksum compared on every read; for many threads.

    Raises Damage if the files cannot be read or do not fit the manifest. An index that is missing is made again,
    with a notice.
    """

    def __init__(self, folder: Folder, facts: dict):
        """facts: what the manifest says of the shard."""
        name = facts["name"]
        self._parts = _opened(folder, name)
        self._entries = _index_of(folder, facts, self._parts)
        wanted, found = _shard_bytes(self._entries), self._parts.size()
        if found != wanted:
            raise Damage(f"it has {found} bytes, its index says {wanted}")

    def __len__(self) -> int:
        return len(self._entries)

    def read(self, row: int) -> bytes:
        """Raises Damage."""
        offset, length, checksum, _ = self._entries[row].item()
        try:
            frame = self._parts.read(offset, length + FRAME_BYTES)
        except OSError as error:
            raise Damage(f"cannot be read ({_told(error)})", row, offset) from None
        if len(frame) != length + FRAME_BYTES:
            raise Damage("the file ends inside the record", row, offset)
        stored_length, length_check = struct.unpack_from("<QI", frame)
        if masked(crc32c_of(bytes(frame[:8]))) != length_check:
            raise Damage("the checksum of the length is wrong", row, offset)
        if stored_length != length:
            raise Damage("its length is not the index's", row, offset)
        record = bytes(frame[12:-4])
        found = crc32c_of(record)
        if masked(found) != struct.unpack_from("<I", frame, 12 + length)[0]:
            raise Damage("the checksum of the data is wrong", row, offset)
        if found != checksum:
            raise Damage("it is not the record that the index names", row, offset)
        return record


def faults_of(folder: Folder, facts: dict) -> Iterator[tuple[int | None, bytes | Damage]]:
    """(row, record or what is wrong with it) for all of a shard; row None: what is wrong with its files.

    Compares every digest. Without a usable index the framing leads, up to the first fault.
    """
    name, index = facts["name"], index_name(facts["name"])
    present = set(folder.names())
    for file, digest in ((name, facts["sha256"]), (index, facts["index_sha256"])):
        if file not in present:
            yield None, Damage(f"{folder.path(file)}: missing")
        elif files.sha256_of_bytes(_opened(folder, file).read(0, 1 << 62)) != digest:
            yield None, Damage(f"{folder.path(file)}: its sha256 is not the manifest's")
    if name not in present:
        return
    try:
        entries = unpacked_index(folder.read(index))
        if len(entries) != facts["num_records"]:
            told = f"it lists {len(entries)} records, the manifest {facts['num_records']}"
            yield None, Damage(f"{folder.path(index)}: {told}")
    except OSError:
        entries = None
    except Damage as damage:
        yield None, Damage(f"{folder.path(index)}: {damage}")
        entries = None
    if entries is None:
        yield from _scanned(folder, name)
        return
    try:
        reader = Reader(folder, {**facts, "num_records": len(entries)})
    except Damage as damage:
        yield None, Damage(f"{folder.path(name)}: {damage}")
        yield from _scanned(folder, name)
        return
    yield from every_record(reader)


def every_record(reader: Any) -> Iterator[tuple[int, bytes | Damage]]:
    """(row, record or what is wrong with it) of an open shard of any format."""
    for row in range(len(reader)):
        try:
            yield row, reader.read(row)
        except Damage as damage:
            yield row, damage


def index_name(name: str) -> str:
    """Of the index beside a shard."""
    return name.removesuffix(SUFFIX) + INDEX_SUFFIX


def unpacked_index(content: bytes) -> np.ndarray:
    """The entries of an index, dtype ENTRY. Raises Damage."""
    if len(content) < HEADER.size + 4 or struct.unpack("<I", content[-4:])[0] != crc32c_of(content[:-4]):
        raise Damage("the index's checksum is wrong")
    magic, version, _, count = HEADER.unpack_from(content)
    if magic != MAGIC or version != VERSION or len(content) != HEADER.size + count * ENTRY.itemsize + 4:
        raise Damage("it is not an index of this version")
    entries = np.frombuffer(content, ENTRY, count, HEADER.size)
    ends = entries["offset"] + entries["length"] + np.uint64(FRAME_BYTES)
    if count and (entries["offset"][0] != 0 or (entries["offset"][1:] != ends[:-1]).any()):
        raise Damage("the index has a gap")
    return entries


def scan(content: bytes | memoryview) -> Iterator[bytes]:
    """The records of a shard from front to back, without an index. Raises Damage where the chain breaks."""
    content, row, offset = memoryview(content), 0, 0
    while offset < len(content):
        header = bytes(content[offset : offset + 12])
        if len(header) < 12:
            raise Damage("the file ends inside the record", row, offset)
        length, check = struct.unpack("<QI", header)
        if masked(crc32c_of(header[:8])) != check:
            raise Damage("the checksum of the length is wrong", row, offset)
        if offset + FRAME_BYTES + length > len(content):
            raise Damage("the file ends inside the record", row, offset)
        record = bytes(content[offset + 12 : offset + 12 + length])
        if struct.unpack_from("<I", content, offset + 12 + length)[0] != masked(crc32c_of(record)):
            raise Damage("the checksum of the data is wrong", row, offset)
        yield record
        row, offset = row + 1, offset + FRAME_BYTES + length


def _index_of(folder: Folder, facts: dict, parts) -> np.ndarray:
    name = index_name(facts["name"])
    try:
        entries = unpacked_index(folder.read(name))
    except FileNotFoundError:
        entries = _made_again(folder, facts, parts)
    except OSError as error:
        raise Damage(f"its index cannot be read ({_told(error)})") from None
    except Damage as damage:
        raise Damage(f"its index {name}: {damage}") from None
    if len(entries) != facts["num_records"]:
        raise Damage(f"its index {name}: it lists {len(entries)} records, the manifest {facts['num_records']}")
    return entries


def _made_again(folder: Folder, facts: dict, parts) -> np.ndarray:
    """The index from the shard alone; it must be the one that the manifest names. Kept where the folder allows."""
    name, entries, offset = index_name(facts["name"]), [], 0
    for record in scan(parts.read(0, 1 << 62)):
        entries.append((offset, len(record), crc32c_of(record), 0))
        offset += FRAME_BYTES + len(record)
    content = _packed_index(entries)
    if files.sha256_of_bytes(content) != facts["index_sha256"]:
        raise Damage(f"its index {name} is missing, and its records are not those of the manifest")
    try:
        folder.write(name, content)
        kept = "made again from the shard"
    except (OSError, files.UserError):
        kept = "made again from the shard for this run; it cannot be written there"
    logging.getLogger(__name__).warning("%s: missing, %s", folder.path(name), kept)
    return unpacked_index(content)


def _scanned(folder: Folder, name: str) -> Iterator[tuple[int | None, bytes | Damage]]:
    try:
        yield from enumerate(scan(_opened(folder, name).read(0, 1 << 62)))
    except Damage as damage:
        yield damage.row, damage


def _opened(folder: Folder, name: str):
    try:
        return folder.open(name)
    except OSError as error:
        raise Damage(f"cannot be read ({_told(error)})") from None


def _packed_index(entries: list[tuple]) -> bytes:
    content = HEADER.pack(MAGIC, VERSION, 0, len(entries)) + np.array(entries, ENTRY).tobytes()
    return content + struct.pack("<I", crc32c_of(content))


def _shard_bytes(entries: np.ndarray) -> int:
    """The size that the index gives the shard."""
    return int(entries[-1]["offset"] + entries[-1]["length"]) + FRAME_BYTES if len(entries) else 0


def _told(error: OSError) -> str:
    return error.strerror or type(error).__name__
