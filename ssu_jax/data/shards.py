"""A split on disk: shards, and a manifest that is written last.

    DIR/<split>-00000-of-00008.tfrecord   DIR/<split>-00000-of-00008.index   DIR/<split>.manifest.json
    DIR/<split>-00000-of-00008.array_record                                  likewise, without an index

Records are numbered row by row over the shards: the first of each, the second of each, and so on. With K shards
equally full, record i is row i // K of shard i % K. Splits share DIR. A split without its manifest is not there. The
manifest holds counts, sizes and sha256 of every file, schema version, class names, what made the records, and a
digest of itself; so the digest names the data set. DIR is a folder or a URL (storage.py).
"""

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ssu_jax import files
from ssu_jax.data import array_record, storage, tfrecord
from ssu_jax.types import UserError

FORMAT = "ssu_jax records"
FILE_FORMATS = {"tfrecord": tfrecord, "array_record": array_record}
DAMAGED = 78  # exit code: data budget or manifest
MAX_SHARDS = 99999
MAX_STREAMED = 512  # shards written at once: each is an open file
_SHARD = r"-\d{5}-of-\d{5}\.(?:tfrecord|index|array_record)"


class Numbering:
    """Record number <-> (shard, row), for shards of any fullness."""

    def __init__(self, counts: Sequence[int]):
        """counts: records of each shard."""
        self._counts = np.array(counts, np.int64)
        self._even = min(counts, default=0) * len(counts)  # records in rows that every shard has
        # Number of the first record of each row: the row before holds one record of every shard that is longer.
        shorter = np.sort(self._counts)
        longer = len(shorter) - np.searchsorted(shorter, np.arange(shorter[-1] if len(shorter) else 0), side="right")
        self._starts = np.concatenate([[0], np.cumsum(longer)])

    def place(self, number: int) -> tuple[int, int]:
        """(shard, row) of a record."""
        if number < self._even:  # nearly all of them, and a tenth of the time of reading a small record saved
            return number % len(self._counts), number // len(self._counts)
        row = int(np.searchsorted(self._starts, number, side="right")) - 1
        return int(np.flatnonzero(self._counts > row)[number - self._starts[row]]), row

    def number(self, shard: int, row: int) -> int:
        """The inverse of `place`."""
        return int(self._starts[row] + np.count_nonzero(self._counts[:shard] > row))


def write_shards(
    directory: str | os.PathLike,
    split: str,
    records: Iterable[bytes],
    num_shards: int,
    *,
    facts: dict,
    file_format: str = "tfrecord",
    overwrite: bool = False,
) -> dict:
    """Writes a split from a stream of records and returns its manifest; `facts` are further entries of it.

    Files grow in a hidden folder and take their names when all are whole, the manifest last, so an interrupted
    write leaves nothing under a final name. Raises UserError if the split exists and `overwrite` is not set.
    """
    if not 1 <= num_shards <= MAX_STREAMED:
        raise UserError(f"number of shards must be 1 to {MAX_STREAMED}, got {num_shards}")
    folder = begin(directory, split, overwrite)
    growing = growing_folder(folder, split)
    is_new = not storage.is_remote(directory) and not os.path.exists(directory)
    with files.writing(directory):
        growing.remove()  # what a killed writer left
        try:
            written = _write_all(growing, split, records, num_shards, file_format)
            return seal(folder, split, written, facts)
        finally:
            growing.remove()
            if is_new:
                files.remove_if_empty(directory)


def begin(directory: str | os.PathLike, split: str, overwrite: bool) -> storage.Folder:
    """The folder in which a split is to be written. Raises UserError if it is there and `overwrite` is not set."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", split):
        raise UserError(f"a split's name is letters, digits, - and _, got {ascii(split)[:80]}")
    folder = storage.folder(directory)
    old = _names_of(folder, split)
    if old and not overwrite:
        raise UserError(f"{directory} already holds the split {split!r} ({old[0]}): overwrite it or write elsewhere")
    return folder


def growing_folder(folder: storage.Folder, split: str) -> storage.Folder:
    """Where the files of a split wait until all are whole."""
    return folder.child(f".{split}.partial")


def write_shard(growing: storage.Folder, name: str, records: Iterable[bytes]) -> dict:
    """Writes one shard of that name into the growing folder; returns what the manifest is to say of it."""
    with growing.scratch() as place:
        writer = _format_of(name).Writer(place / name)
        try:
            for record in records:
                writer.write(record)
            paths, facts = writer.finish()
        finally:
            writer.close()
        for path in paths:
            growing.put(path)
    return facts


def seal(folder: storage.Folder, split: str, written: Sequence[dict], facts: dict) -> dict:
    """Moves the files of a growing split to their names, old ones of the split giving way, and writes the manifest.

    written: of every shard what `write_shard` returned, in order.
    """
    manifest = _sealed({"format": FORMAT, "split": split, "num_records": sum(s["num_records"] for s in written),
                        "shards": list(written), **facts})  # fmt: skip
    growing = growing_folder(folder, split)
    names = [name for shard in written for name in _files_of(shard)]
    # Without a manifest meanwhile, so that no one takes a mixture for a split.
    folder.delete(manifest_name(split))
    for name in _names_of(folder, split):
        folder.delete(name)
    moved = []
    try:
        for name in names:
            moved.append(name)
            folder.take(name, growing)
        folder.write(manifest_name(split), (json.dumps(manifest, indent=1, ensure_ascii=False) + "\n").encode())
    except BaseException:
        for name in moved:
            folder.delete(name)
        raise
    return manifest


def read_manifest(directory: str | os.PathLike, split: str) -> dict:
    """The manifest of a split. Raises UserError: 2 if it is not there, 78 if it is damaged."""
    folder, known = storage.folder(directory), splits_of(directory)
    if split not in known:
        found = f"it holds {', '.join(known)}" if known else "it holds no records"
        raise UserError(f"no split {split!r} in {directory}: {found}; make records with `ssu prepare`")
    try:
        manifest = json.loads(folder.read(manifest_name(split)))
        sound = manifest["format"] == FORMAT and _sealed(manifest)["digest"] == manifest["digest"]
        count = len(manifest["shards"])
        sound = sound and manifest["split"] == split and all(
            shard["name"] in {shard_name(split, number, count, kind) for kind in FILE_FORMATS}
            for number, shard in enumerate(manifest["shards"])
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, OSError):
        sound = False
    if not sound:
        raise damaged(folder.path(manifest_name(split)), "the manifest is not the one that was written")
    return manifest


def splits_of(directory: str | os.PathLike) -> list[str]:
    """Names of the splits in a directory. Raises UserError if there is no such directory."""
    names = (name for name in _names(directory) if name.endswith(manifest_name("")))
    return sorted(name.removesuffix(manifest_name("")) for name in names)


def faults_of(directory: str | os.PathLike, manifest: dict, fault_in: Callable[[bytes], str]) -> list[str]:
    """One line for each fault of a split: files, checksums, counts, and what `fault_in` says of a record."""
    folder, split = storage.folder(directory), manifest["split"]
    shards = manifest["shards"]
    wanted = {manifest_name(split)} | {name for shard in shards for name in _files_of(shard)}
    faults = [f"{folder.path(name)}: the manifest does not name it" for name in _names_of(folder, split)
              if name not in wanted]  # fmt: skip
    if manifest["num_records"] != sum(shard["num_records"] for shard in shards):
        faults.append(f"{folder.path(manifest_name(split))}: the counts of the shards do not add up")
    numbering = Numbering([shard["num_records"] for shard in shards])
    for number, shard in enumerate(shards):
        for row, record in _format_of(shard["name"]).faults_of(folder, shard):
            if row is None:
                faults.append(str(record))
                continue
            reason = told(record) if isinstance(record, tfrecord.Damage) else fault_in(record)
            if reason:
                known = f"record {numbering.number(number, row)} " if row < shard["num_records"] else ""
                faults.append(f"{folder.path(shard['name'])}: {known}(row {row}) {reason}")
    return faults


def strays_of(directory: str | os.PathLike) -> list[str]:
    """Paths of shards and indices whose split has no manifest: no one will read them."""
    known, folder = splits_of(directory), storage.folder(directory)
    named = ((name, re.fullmatch(rf"(.+){_SHARD}", name)) for name in _names(directory))
    return [folder.path(name) for name, match in named if match and match[1] not in known]


def open_shard(folder: storage.Folder, facts: dict):
    """A reader of one shard: `len`, `read(row)`. Raises Damage."""
    return _format_of(facts["name"]).Reader(folder, facts)


def shard_name(split: str, shard: int, num_shards: int, file_format: str = "tfrecord") -> str:
    """Name of a shard, as tf.data and Beam name theirs."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}{FILE_FORMATS[file_format].SUFFIX}"


def manifest_name(split: str) -> str:
    """Name of the manifest of a split."""
    return f"{split}.manifest.json"


def damaged(path: str, reason: str) -> UserError:
    """The error of a file that is not as it was written."""
    remedy = "restore the file or make the records anew (`ssu data verify` lists all faults)"
    return UserError(f"{path}: {reason}; {remedy}", exit_code=DAMAGED)


def told(damage: tfrecord.Damage) -> str:
    """Where in the file, and what."""
    return f"at byte {damage.byte}: {damage.reason}" if damage.byte is not None else damage.reason


def _write_all(
    growing: storage.Folder, split: str, records: Iterable[bytes], num_shards: int, file_format: str
) -> list[dict]:
    with growing.scratch() as place, contextlib.ExitStack() as stack:
        writers = [FILE_FORMATS[file_format].Writer(place / shard_name(split, shard, num_shards, file_format))
                   for shard in range(num_shards)]  # fmt: skip
        for writer in writers:
            stack.callback(writer.close)
        for number, record in enumerate(records):
            writers[number % num_shards].write(record)
        written = []
        for writer in writers:
            paths, facts = writer.finish()
            for path in paths:
                growing.put(path)
            written.append(facts)
    return written


def _format_of(name: str):
    return FILE_FORMATS["array_record" if name.endswith(array_record.SUFFIX) else "tfrecord"]


def _files_of(shard: dict) -> list[str]:
    """Names of a shard's files."""
    return [shard["name"], *([tfrecord.index_name(shard["name"])] if "index_sha256" in shard else [])]


def _names(directory: str | os.PathLike) -> list[str]:
    try:
        return storage.folder(directory).names()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no directory {directory}: make records with `ssu prepare`, or name another one") from None
    except OSError as error:
        reason = error.strerror or error
        raise UserError(f"cannot read {directory} ({reason}): check the path and its permissions") from error


def _names_of(folder: storage.Folder, split: str) -> list[str]:
    """Every file of a split that lies under a final name, the manifest first."""
    pattern = re.compile(rf"{re.escape(split)}(\.manifest\.json|{_SHARD})")
    try:
        names = [name for name in folder.names() if pattern.fullmatch(name)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(names, key=lambda name: (not name.endswith(".json"), name))


def _sealed(manifest: dict) -> dict:
    """The manifest with the digest of its other entries."""
    entries = {name: value for name, value in manifest.items() if name != "digest"}
    content = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**entries, "digest": hashlib.sha256(content.encode()).hexdigest()}
