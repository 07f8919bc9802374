"""Random access to the records of a split, or of several sets one after another: `len`, `[i] -> bytes`."""

import bisect
import hashlib
import itertools
import os
from collections.abc import Sequence

from ssu_jax import files
from ssu_jax.data import shards, storage, tfrecord


class RecordSource:
    """The records of one split. Checksums are compared on every read.

    Files are opened when first read and by each process for itself, so the source can be pickled to reader
    processes. Raises UserError (exit code 2) if the split is not there, (78) if its files are damaged.
    """

    def __init__(self, directory: str | os.PathLike, split: str, verify_shards: bool = False):
        """`verify_shards` compares the sha256 of every file with the manifest at once."""
        self.directory, self.split = str(directory), split
        self.manifest = shards.read_manifest(directory, split)
        self.digest: str = self.manifest["digest"]
        self._begin()
        if verify_shards:
            for number, shard in enumerate(self.manifest["shards"]):
                self._open(number)  # makes an index again that is missing
                self._verify(shard)

    @property
    def lengths(self) -> list[int]:
        """Records of each set that it is made of: one."""
        return [len(self)]

    def __len__(self) -> int:
        return self.manifest["num_records"]

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        shard, row = self._numbering.place(number)
        try:
            return self._shards[shard].read(row)
        except tfrecord.Damage as damage:
            raise shards.damaged(self._path(shard), f"record {number} (row {row}) {shards.told(damage)}") from None

    def __repr__(self) -> str:
        return f"RecordSource({self.split}, {len(self)} records, {self.digest})"

    def __getstate__(self) -> dict:
        return {name: self.__dict__[name] for name in ("directory", "split", "manifest", "digest")}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._begin()

    def _begin(self) -> None:
        """No file is open yet in this process."""
        self._folder = storage.folder(self.directory)
        self._numbering = shards.Numbering([shard["num_records"] for shard in self.manifest["shards"]])
        self._shards = storage.OpenFiles(self._open, self._folder.max_open)

    def _path(self, shard: int) -> str:
        return self._folder.path(self.manifest["shards"][shard]["name"])

    def _open(self, shard: int):
        try:
            return shards.open_shard(self._folder, self.manifest["shards"][shard])
        except tfrecord.Damage as damage:
            raise shards.damaged(self._path(shard), str(damage)) from None

    def _verify(self, shard: dict) -> None:
        wanted = {shard["name"]: shard["sha256"]}
        if "index_sha256" in shard:
            wanted[tfrecord.index_name(shard["name"])] = shard["index_sha256"]
        for name, digest in wanted.items():
            try:
                found = files.sha256_of_bytes(self._folder.open(name).read(0, 1 << 62))
            except OSError:
                found = ""
            if found != digest:
                raise shards.damaged(self._folder.path(name), "its sha256 is not the manifest's")


class JoinedSource:
    """The records of the same split of several directories, one after another; picklable.

    manifest: the entries that a run keeps of its data: classes (all, in the order of the sets), source, digest.
    """

    def __init__(self, sources: Sequence[RecordSource]):
        self.sources, self.split = list(sources), sources[0].split
        self.directory = ",".join(source.directory for source in sources)
        self.lengths = [len(source) for source in sources]
        self._ends = list(itertools.accumulate(self.lengths))
        digests = ",".join(source.digest for source in sources)
        self.digest = hashlib.sha256(digests.encode()).hexdigest()
        manifests = [source.manifest for source in sources]
        self.manifest = {
            "num_records": len(self),
            "classes": list(dict.fromkeys(name for manifest in manifests for name in manifest["classes"])),
            "source": [manifest["source"] for manifest in manifests],
            "digest": self.digest,
        }

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, number: int) -> bytes:
        if not 0 <= number < len(self):
            raise IndexError(f"record {number} of {len(self)}")
        place = bisect.bisect_right(self._ends, number)
        return self.sources[place][number - self._ends[place] + self.lengths[place]]

    def __repr__(self) -> str:
        return f"JoinedSource({self.split}, {len(self)} records, {self.digest})"
