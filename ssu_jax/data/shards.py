"""A split on disk: shards, an index beside each, and a manifest that is written last.

    DIR/<split>-00000-of-00008.tfrecord   DIR/<split>-00000-of-00008.index   DIR/<split>.manifest.json

Record i of a split is row i // K of shard i % K. Splits share DIR. A split without its manifest is not there.
The manifest holds counts, sizes and sha256 of every file, schema version, class names, what made the
records, and a digest of itself; so the digest names the data set.
"""

import contextlib
import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from ssu_jax import files
from ssu_jax.data import tfrecord
from ssu_jax.types import UserError

FORMAT = "ssu_jax records"
DAMAGED = 78  # exit code: data budget or manifest
MAX_SHARDS = 99999
_SHARD = r"-\d{5}-of-\d{5}\.(?:tfrecord|index)"


def write_shards(
    directory: str | os.PathLike,
    split: str,
    records: Iterable[bytes],
    num_shards: int,
    *,
    facts: dict,
    overwrite: bool = False,
) -> dict:
    """Writes a split and returns its manifest; `facts` are further entries of it.

    Files grow in a hidden folder and take their names when all are whole, the manifest last, so an interrupted
    write leaves nothing under a final name. Raises UserError if the split exists and `overwrite` is not set.
    """
    directory = pathlib.Path(directory)
    if not 1 <= num_shards <= MAX_SHARDS:
        raise UserError(f"number of shards must be 1 to {MAX_SHARDS}, got {num_shards}")
    _check_split_name(split)
    old = _files_of(directory, split)
    if old and not overwrite:
        raise UserError(
            f"{directory} already holds the split {split!r} ({old[0].name}): overwrite it or write elsewhere"
        )
    growing, is_new = directory / f".{split}.partial", not directory.exists()
    with files.writing(directory):
        shutil.rmtree(growing, ignore_errors=True)  # what a killed writer left
        growing.mkdir(parents=True)
        try:
            shards = _write_files(growing, split, records, num_shards)
            manifest = _sealed({"format": FORMAT, "split": split, "num_records": sum(s["num_records"] for s in shards),
                                "shards": shards, **facts})  # fmt: skip
            _replace(directory, split, old, sorted(growing.iterdir()))
        finally:
            shutil.rmtree(growing, ignore_errors=True)
            if is_new and not any(directory.iterdir()):
                directory.rmdir()
    files.atomic_write(_manifest_path(directory, split), json.dumps(manifest, indent=1, ensure_ascii=False) + "\n")
    return manifest


class RecordSource:
    """Random access to the records of a split: `len`, `[i] -> bytes`. Checksums are compared on every read.

    Files are opened when first read and by each process for itself, so the source can be pickled to reader
    processes. Raises UserError (exit code 2) if the split is not there, (78) if its files are damaged.
    """

    def __init__(self, directory: str | os.PathLike, split: str, verify_shards: bool = False):
        """`verify_shards` compares the sha256 of every file with the manifest at once."""
        self.directory, self.split = pathlib.Path(directory), split
        self.manifest = read_manifest(directory, split)
        self.digest: str = self.manifest["digest"]
        self._num_shards = len(self.manifest["shards"])
        self._begin()
        if verify_shards:
            for shard in self.manifest["shards"]:
                for name, digest in (
                    (shard["name"], shard["sha256"]),
                    (index_name(shard["name"]), shard["index_sha256"]),
                ):
                    path = self.directory / name
                    if not path.is_file() or files.sha256_of(path) != digest:
                        raise _damaged(path, "its sha256 is not the manifest's")

    def __len__(self) -> int:
        return self.manifest["num_records"]

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        row, shard = divmod(int(number), self._num_shards)
        descriptor, entries = self._shard(shard)
        try:
            return tfrecord.read_record(descriptor, entries, row)
        except tfrecord.Damage as damage:
            raise _damaged(
                self._path(shard), f"record {number} (row {row}) at byte {damage.byte}: {damage.reason}"
            ) from None

    def __repr__(self) -> str:
        return f"RecordSource({self.split}, {len(self)} records, {self.digest})"

    def __getstate__(self) -> dict:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open_shards", "_lock")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """No file is open yet in this process."""
        self._open_shards, self._lock = {}, threading.Lock()
        weakref.finalize(self, _close_all, self._open_shards)

    def _path(self, shard: int) -> pathlib.Path:
        return self.directory / self.manifest["shards"][shard]["name"]

    def _shard(self, shard: int) -> tuple[int, np.ndarray]:
        with self._lock:
            if shard not in self._open_shards:
                self._open_shards[shard] = self._open(shard)
            return self._open_shards[shard]

    def _open(self, shard: int) -> tuple[int, np.ndarray]:
        path, facts = self._path(shard), self.manifest["shards"][shard]
        try:
            entries = tfrecord.read_index(index_name(path))
        except tfrecord.Damage as damage:
            raise _damaged(index_name(path), str(damage)) from None
        if len(entries) != facts["num_records"]:
            raise _damaged(index_name(path), f"it lists {len(entries)} records, the manifest {facts['num_records']}")
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise _damaged(path, f"cannot be read ({error.strerror})") from None
        size = os.fstat(descriptor).st_size
        if size != tfrecord.shard_bytes(entries):
            os.close(descriptor)
            raise _damaged(path, f"it has {size} bytes, its index says {tfrecord.shard_bytes(entries)}")
        return descriptor, entries


def _close_all(open_shards: dict) -> None:
    for descriptor, _ in open_shards.values():
        os.close(descriptor)


def read_manifest(directory: str | os.PathLike, split: str) -> dict:
    """The manifest of a split. Raises UserError: 2 if it is not there, 78 if it is damaged."""
    path = _manifest_path(pathlib.Path(directory), split)
    known = splits_of(directory)
    if split not in known:
        found = f"it holds {', '.join(known)}" if known else "it holds no records"
        raise UserError(f"no split {split!r} in {directory}: {found}; make records with `ssu prepare`")
    try:
        manifest = json.loads(path.read_bytes())
        sound = manifest["format"] == FORMAT and _sealed(manifest)["digest"] == manifest["digest"]
        sound = sound and manifest["split"] == split and [s["name"] for s in manifest["shards"]] == [
            shard_name(split, i, len(manifest["shards"])) for i in range(len(manifest["shards"]))
        ]  # fmt: skip
    except (ValueError, KeyError, TypeError, OSError):
        sound = False
    if not sound:
        raise _damaged(path, "the manifest is not the one that was written")
    return manifest


def splits_of(directory: str | os.PathLike) -> list[str]:
    """Names of the splits in a directory. Raises UserError if there is no such directory."""
    directory = pathlib.Path(directory)
    if not directory.is_dir():
        raise UserError(f"no directory {directory}: make records with `ssu prepare`, or name another one")
    return sorted(path.name.removesuffix(".manifest.json") for path in directory.glob("[!.]*.manifest.json"))


def faults_of(directory: str | os.PathLike, manifest: dict, fault_in: Callable[[bytes], str]) -> list[str]:
    """One line for each fault of a split: files, checksums, counts, and what `fault_in` says of a record."""
    directory, split = pathlib.Path(directory), manifest["split"]
    shards = manifest["shards"]
    wanted = {name for shard in shards for name in (shard["name"], index_name(shard["name"]))}
    present = (path for path in _files_of(directory, split) if path.suffix != ".json")
    faults = [f"{path}: the manifest does not name it" for path in present if path.name not in wanted]
    if manifest["num_records"] != sum(shard["num_records"] for shard in shards):
        faults.append(f"{_manifest_path(directory, split)}: the counts of the shards do not add up")
    for number, shard in enumerate(shards):
        faults += _faults_of_shard(directory / shard["name"], shard, fault_in, number, len(shards))
    return faults


def strays_of(directory: str | os.PathLike) -> list[pathlib.Path]:
    """Shards and indices whose split has no manifest: no one will read them."""
    known = splits_of(directory)
    named = ((path, re.fullmatch(rf"(.+){_SHARD}", path.name)) for path in sorted(pathlib.Path(directory).iterdir()))
    return [path for path, match in named if match and match[1] not in known]


def shard_name(split: str, shard: int, num_shards: int) -> str:
    """Name of a shard, as tf.data and Beam name theirs."""
    return f"{split}-{shard:05d}-of-{num_shards:05d}.tfrecord"


def index_name(name):
    """Name or path of the index beside a shard."""
    return name.with_suffix(".index") if isinstance(name, pathlib.Path) else name.removesuffix(".tfrecord") + ".index"


def _faults_of_shard(
    path: pathlib.Path, facts: dict, fault_in: Callable[[bytes], str], shard: int, num_shards: int
) -> list[str]:
    index, faults = index_name(path), []
    for file, digest in ((path, facts["sha256"]), (index, facts["index_sha256"])):
        if not file.is_file():
            faults.append(f"{file}: missing")
        elif files.sha256_of(file) != digest:
            faults.append(f"{file}: its sha256 is not the manifest's")
    if not path.is_file():
        return faults
    try:
        entries = tfrecord.read_index(index)
        if len(entries) != facts["num_records"]:
            faults.append(f"{index}: it lists {len(entries)} records, the manifest {facts['num_records']}")
        if path.stat().st_size != tfrecord.shard_bytes(entries):
            faults.append(f"{path}: it has {path.stat().st_size} bytes, its index says {tfrecord.shard_bytes(entries)}")
    except tfrecord.Damage as damage:
        if index.is_file():
            faults.append(f"{index}: {damage}")
        entries = None
    for row, record in _records_or_damage(path, entries):
        reason = f"at byte {record.byte}: {record.reason}" if isinstance(record, tfrecord.Damage) else fault_in(record)
        if reason:
            faults.append(f"{path}: record {shard + row * num_shards} (row {row}) {reason}")
    return faults


def _records_or_damage(path: pathlib.Path, entries: np.ndarray | None) -> Iterator[tuple[int, bytes | tfrecord.Damage]]:
    """(row, record or what is wrong with it); without an index the framing leads, up to the first fault."""
    if entries is None:
        row = 0
        try:
            for row, record in enumerate(tfrecord.scan(path)):
                yield row, record
        except tfrecord.Damage as damage:
            yield damage.row, damage
        return
    with open(path, "rb") as file:
        for row in range(len(entries)):
            try:
                yield row, tfrecord.read_record(file.fileno(), entries, row)
            except tfrecord.Damage as damage:
                yield row, damage


def _write_files(folder: pathlib.Path, split: str, records: Iterable[bytes], num_shards: int) -> list[dict]:
    names = [shard_name(split, shard, num_shards) for shard in range(num_shards)]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open(folder / name, "wb")) for name in names]
        writers = [tfrecord.ShardWriter(file) for file in opened]
        for number, record in enumerate(records):
            writers[number % num_shards].write(record)
        for file in opened:
            file.flush()
            os.fsync(file.fileno())
    facts = []
    for name, writer in zip(names, writers, strict=True):
        files.atomic_write(folder / index_name(name), writer.index())
        facts.append({"name": name, "num_records": len(writer), "num_bytes": (folder / name).stat().st_size,
                      "sha256": files.sha256_of(folder / name),
                      "index_sha256": files.sha256_of(folder / index_name(name))})  # fmt: skip
    return facts


def _replace(directory: pathlib.Path, split: str, old: Sequence[pathlib.Path], new: Sequence[pathlib.Path]) -> None:
    """Moves new files to their names; without a manifest meanwhile, so that no one takes a mixture for a split."""
    _manifest_path(directory, split).unlink(missing_ok=True)
    for path in old:
        path.unlink(missing_ok=True)
    moved = []
    try:
        for path in new:
            moved.append(directory / path.name)
            os.replace(path, moved[-1])
    except BaseException:
        for path in moved:
            path.unlink(missing_ok=True)
        raise
    files.sync(directory)


def _files_of(directory: pathlib.Path, split: str) -> list[pathlib.Path]:
    """Every file of a split that lies under a final name, the manifest first."""
    if not directory.is_dir():
        return []
    pattern = re.compile(rf"{re.escape(split)}(\.manifest\.json|{_SHARD})")
    return sorted(
        (path for path in directory.iterdir() if pattern.fullmatch(path.name)), key=lambda p: (p.suffix != ".json", p)
    )


def _check_split_name(split: str) -> None:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", split):
        raise UserError(f"a split's name is letters, digits, - and _, got {ascii(split)[:80]}")


def _manifest_path(directory: pathlib.Path, split: str) -> pathlib.Path:
    return directory / f"{split}.manifest.json"


def _sealed(manifest: dict) -> dict:
    """The manifest with the digest of its other entries."""
    entries = {name: value for name, value in manifest.items() if name != "digest"}
    content = json.dumps(entries, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**entries, "digest": hashlib.sha256(content.encode()).hexdigest()}


def _damaged(path: pathlib.Path, reason: str) -> UserError:
    remedy = "restore the file or make the records anew (`ssu data verify` lists all faults)"
    return UserError(f"{path}: {reason}; {remedy}", exit_code=DAMAGED)
