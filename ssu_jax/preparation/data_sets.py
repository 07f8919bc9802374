"""A published data set, or a folder of videos, as records: checked first, then made, nothing left out in silence."""

import concurrent.futures
import dataclasses
import importlib.metadata
import os
import sys
from collections.abc import Mapping, Sequence

import tqdm

import ssu_jax
from ssu_jax.data import records
from ssu_jax.data.datasets import Item, Layout
from ssu_jax.preparation import splits
from ssu_jax.preparation.splits import DATA_BUDGET
from ssu_jax.preparation.tasks import Execution
from ssu_jax.types import UserError

_PACKAGES = ("av", "numpy", "pillow")  # they decide the bytes of a record
_CHECKERS = 8  # threads: a check waits for the disk


@dataclasses.dataclass(frozen=True)
class _Make:
    """An item of a layout as a record; picklable."""

    layout: Layout

    def __call__(self, item: Item) -> bytes:
        return records.encode_clip(self.layout.load(item))


def listed(layout: Layout, split: str | None = None) -> dict[str, list[Item]]:
    """The items of a set by split, or of one split. Raises UserError: no such folder, no such split, nothing in it."""
    if not layout.source.exists():
        raise UserError(f"{layout.source}: no such folder: give the folder of {layout.name} with --source DIR")
    by_split: dict[str, list[Item]] = {}
    for item in layout.items():
        by_split.setdefault(item.split, []).append(item)
    if not by_split:
        raise UserError(f"{layout.source}: lists no clips of {layout.name}")
    if split is not None and split not in by_split:
        raise UserError(
            f"{layout.source}: {layout.name} has no split {split!r}: it holds {', '.join(sorted(by_split))}"
        )
    return {name: by_split[name] for name in ([split] if split else sorted(by_split))}


def faults(layout: Layout, items: Sequence[Item]) -> dict[str, list[str]]:
    """Of every item with a missing or unreadable file, by id, one line a file."""
    found = {}
    with concurrent.futures.ThreadPoolExecutor(_CHECKERS) as pool:
        told = pool.map(layout.faults, items)
        bar = tqdm.tqdm(told, desc="check", total=len(items), unit="clip", file=sys.stderr, disable=None)
        for item, lines in zip(items, bar, strict=True):
            if lines:
                found[item.id] = lines
    return found


def prepare(
    layout: Layout,
    directory: str | os.PathLike,
    split: str,
    items: Sequence[Item],
    found: Mapping[str, list[str]],
    *,
    execution: Execution,
    num_shards: int | None = None,
    file_format: str = "tfrecord",
    skip_bad: int = 0,
    overwrite: bool = False,
) -> dict:
    """Writes one split of a set and returns its manifest; `found` is what `faults` has found.

    Raises UserError as `splits.prepare_split`, and if no clip is left.
    """
    good = [item for item in items if item.id not in found]
    if not good:
        raise UserError(f"{layout.source}: none of the {len(items)} clips of {split!r} can be read", DATA_BUDGET)
    job = splits.Job(
        make=_Make(layout),
        items=good,
        names=[item.id for item in good],
        stamps=[(repr(item.facts), *map(_stamp, item.files)) for item in good],
        classes=layout.classes,
        source={
            "data_set": layout.name,
            "split": split,
            "frame_size": layout.reading.frame_size,
            "sample_rate": layout.reading.sample_rate,
            "versions": _versions(),
        },  # fmt: skip
        left_out=[(item.id, "; ".join(found[item.id])) for item in items if item.id in found],
    )
    return splits.prepare_split(
        directory, split, job, num_shards=num_shards or splits.default_num_shards(len(good)), execution=execution,
        file_format=file_format, skip_bad=skip_bad, overwrite=overwrite,
    )  # fmt: skip


def _stamp(path) -> tuple:
    """Changes when a file does, so that its shard is made anew."""
    try:
        found = os.stat(path)
    except OSError:
        return (str(path), None)
    return (str(path), found.st_size, found.st_mtime_ns)


def _versions() -> dict[str, str]:
    return {"ssu_jax": ssu_jax.__version__, **{name: importlib.metadata.version(name) for name in _PACKAGES}}
