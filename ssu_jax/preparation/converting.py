"""Splits copied into another file format or number of shards; every record is checked on the way, none is changed."""

import os
import sys
from collections.abc import Sequence

import tqdm

from ssu_jax import files
from ssu_jax.data import shards, tfds
from ssu_jax.data.source import RecordSource
from ssu_jax.types import UserError


def convert(
    directory: str | os.PathLike,
    out: str | os.PathLike,
    file_format: str,
    *,
    splits: Sequence[str] = (),
    num_shards: int | None = None,
    overwrite: bool = False,
) -> list[dict]:
    """Copies splits (default: all) and returns their manifests; record i stays record i.

    num_shards: default as many as there are. ArrayRecord splits are described for TensorFlow Datasets where it is
    installed. Raises UserError: no such split, damaged records (78), an existing split without `overwrite`.
    """
    if os.path.abspath(directory) == os.path.abspath(out):
        raise UserError(f"{out}: the copy wants a folder of its own: give another --out")
    sources = [RecordSource(directory, split) for split in splits or shards.splits_of(directory)]
    if not sources:
        raise UserError(f"{directory} holds no records: make some with `ssu prepare`, or name another directory")
    made = [_copied(source, out, file_format, num_shards, overwrite) for source in sources]
    tfds.describe_where_installed(out, file_format)
    return made


def _copied(source: RecordSource, out, file_format: str, num_shards: int | None, overwrite: bool) -> dict:
    counts = [shard["num_records"] for shard in source.manifest["shards"]]
    total = num_shards or len(counts)
    if not 1 <= total <= max(1, min(len(source), shards.MAX_SHARDS)):
        raise UserError(f"--num-shards must be 1 to the number of clips ({len(source)}), got {total}")
    if num_shards in (None, len(counts)):
        numbering = shards.Numbering(counts)
        numbers = [[numbering.number(shard, row) for row in range(count)] for shard, count in enumerate(counts)]
    else:
        numbers = [range(shard, len(source), total) for shard in range(total)]
    folder = shards.begin(out, source.split, overwrite)
    growing = shards.growing_folder(folder, source.split)
    facts = {name: source.manifest[name] for name in ("schema_version", "classes", "source")}
    with files.writing(out), tqdm.tqdm(
        desc=source.split, total=len(source), unit="clip", file=sys.stderr, disable=None
    ) as bar:  # fmt: skip
        growing.remove()
        try:
            written = []
            for shard, mine in enumerate(numbers):
                name = shards.shard_name(source.split, shard, total, file_format)
                written.append(shards.write_shard(growing, name, (source[number] for number in mine)))
                bar.update(len(mine))
            return shards.seal(folder, source.split, written, facts)
        finally:
            growing.remove()
            files.remove_if_empty(out)
