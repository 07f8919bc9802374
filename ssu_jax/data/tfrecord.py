"""One TFRecord shard and its index: framing, checksums, reading at a place.

A TFRecord file is a row of frames (tensorflow.org/tutorials/load_data/tfrecord):

    uint64 length | uint32 masked crc32c of the length | bytes | uint32 masked crc32c of the bytes

The index beside it (our format, all little-endian) says where each record lies:

    8 bytes b"SSUINDEX" | uint32 version 1 | uint32 0 | uint64 number of records
    per record: uint64 offset of its frame | uint64 length | uint32 crc32c of its bytes | uint32 0
    uint32 crc32c of all bytes before

It covers the shard without a gap: the first frame begins at 0, each next one where the last one ends.
"""

import os
import pathlib
import struct
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from ssu_jax.files import crc32c_of

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
        where = f"record {self.row} at byte {self.byte}: " if self.row is not None else ""
        return where + self.reason


def masked(checksum: int) -> int:
    """TFRecord's masking: a checksum of data that hold checksums is weak, so it is rotated and shifted."""
    return (((checksum >> 15) | (checksum << 17)) + _MASK) & 0xFFFFFFFF


class ShardWriter:
    """Writes frames to an open file and remembers where they lie."""

    def __init__(self, file: BinaryIO):
        self._file, self._offset, self._entries = file, 0, []

    def write(self, record: bytes) -> None:
        """Appends one frame."""
        length, checksum = struct.pack("<Q", len(record)), crc32c_of(record)
        self._file.write(length + struct.pack("<I", masked(crc32c_of(length))))
        self._file.write(record)
        self._file.write(struct.pack("<I", masked(checksum)))
        self._entries.append((self._offset, len(record), checksum, 0))
        self._offset += FRAME_BYTES + len(record)

    def __len__(self) -> int:
        return len(self._entries)

    def index(self) -> bytes:
        """The content of the index file."""
        entries = np.array(self._entries, ENTRY)
        content = HEADER.pack(MAGIC, VERSION, 0, len(entries)) + entries.tobytes()
        return content + struct.pack("<I", crc32c_of(content))


def read_index(path: str | os.PathLike) -> np.ndarray:
    """The entries of an index, dtype ENTRY. Raises Damage."""
    try:
        content = pathlib.Path(path).read_bytes()
    except OSError as error:
        raise Damage(f"cannot be read ({error.strerror})") from error
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


def scan(path: str | os.PathLike) -> Iterator[bytes]:
    """The records of a shard from front to back, without an index. Raises Damage where the chain breaks."""
    with open(path, "rb") as file:
        row, offset = 0, 0
        while header := file.read(12):
            if len(header) < 12:
                raise Damage("the file ends inside the record", row, offset)
            length, check = struct.unpack("<QI", header)
            if masked(crc32c_of(header[:8])) != check:
                raise Damage("the checksum of the length is wrong", row, offset)
            if offset + FRAME_BYTES + length > os.fstat(file.fileno()).st_size:
                raise Damage("the file ends inside the record", row, offset)
            record = file.read(length)
            if file.read(4) != struct.pack("<I", masked(crc32c_of(record))):
                raise Damage("the checksum of the data is wrong", row, offset)
            yield record
            row, offset = row + 1, offset + FRAME_BYTES + length


def shard_bytes(entries: np.ndarray) -> int:
    """The size that the index gives the shard."""
    return int(entries[-1]["offset"] + entries[-1]["length"]) + FRAME_BYTES if len(entries) else 0


def read_record(descriptor: int, entries: np.ndarray, row: int) -> bytes:
    """One record at its place, all three checksums compared. Safe from many threads. Raises Damage."""
    offset, length, checksum, _ = entries[row].item()
    frame = os.pread(descriptor, length + FRAME_BYTES, offset)
    if len(frame) != length + FRAME_BYTES:
        raise Damage("the file ends inside the record", row, offset)
    stored_length, length_check = struct.unpack_from("<QI", frame)
    if masked(crc32c_of(frame[:8])) != length_check:
        raise Damage("the checksum of the length is wrong", row, offset)
    if stored_length != length:
        raise Damage("its length is not the index's", row, offset)
    record = frame[12:-4]
    found = crc32c_of(record)
    if masked(found) != struct.unpack_from("<I", frame, 12 + length)[0]:
        raise Damage("the checksum of the data is wrong", row, offset)
    if found != checksum:
        raise Damage("it is not the record that the index names", row, offset)
    return record
