"""Clips -> one split of records: shared out over shards, made by tasks, sealed by its manifest."""

import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from ssu_jax import files
from ssu_jax.data import records, shards, storage, tfds
from ssu_jax.preparation import tasks
from ssu_jax.preparation.tasks import Execution, Task
from ssu_jax.types import UserError

CLIPS_PER_SHARD, LEAST_SHARDS = 128, 8
SAMPLES = 3  # clips that are made to learn how large a record is
ROOM = 1.1  # of the estimate must be free
_SHOWN = 5  # faults in an error; all stand in the report
DATA_BUDGET = 78  # exit code


@dataclasses.dataclass(frozen=True)
class Job:
    """A split to be made.

    make:    item -> record, picklable; raises UserError or ValueError for one that cannot be made.
    items:   in the order of the records; `names` of them for messages, `stamps` change when their content does.
    classes, source: of the manifest.
    left_out: (name, reason) of clips that the check before has found bad; they count as skipped.
    """

    make: Callable[[Any], bytes]
    items: Sequence[Any]
    names: Sequence[str]
    stamps: Sequence[Any]
    classes: Sequence[str]
    source: dict
    left_out: Sequence[tuple[str, str]] = ()


def default_num_shards(num_clips: int) -> int:
    """As many as hold CLIPS_PER_SHARD clips each, at least LEAST_SHARDS, never more than clips. Does not depend on the
    machine: the same input gives the same files everywhere.
    """
    return max(1, min(num_clips, max(LEAST_SHARDS, -(-num_clips // CLIPS_PER_SHARD))))


def prepare_split(
    directory: str | os.PathLike,
    split: str,
    job: Job,
    *,
    num_shards: int,
    execution: Execution,
    file_format: str = "tfrecord",
    skip_bad: int = 0,
    overwrite: bool = False,
) -> dict:
    """Writes a split and returns its manifest; a run that was stopped goes on with the shards that are not finished.

    skip_bad: clips at most that may be left out because they cannot be made; the manifest lists them.

    Raises UserError: an existing split without `overwrite`, counts out of range, not enough room, and (78) more clips
    that cannot be made than `skip_bad`. DIR/<split>.faults.json then lists them all, and shards without a fault are
    kept for the next try.
    """
    if not 1 <= num_shards <= min(len(job.items), shards.MAX_SHARDS):
        raise UserError(f"--num-shards must be 1 to the number of clips ({len(job.items)}), got {num_shards}")
    if not 0 <= execution.num_workers <= tasks.MOST_WORKERS:
        raise UserError(f"--num-workers must be 0 to {tasks.MOST_WORKERS}, got {execution.num_workers}")
    folder = shards.begin(directory, split, overwrite)
    work = _tasks(directory, split, job, num_shards, file_format)
    growing = shards.growing_folder(folder, split)
    with files.writing(directory):
        _check_room(directory, job, work)
        try:
            done = tasks.run(work, execution, split)
        except BaseException:
            if not any(tasks.outcomes(work)):
                _leave_nothing(directory, growing)
            raise
        bad = [*job.left_out, *(pair for outcome in done for pair in outcome.bad)]
        report = _report(folder, split, bad)
        if len(bad) > skip_bad:
            for task, outcome in zip(work, done, strict=True):
                if outcome.bad:
                    task.folder.delete(task.name)
            shown = "; ".join(f"{name}: {reason}" for name, reason in bad[:_SHOWN])
            remedy = "mend the files and start again (finished shards are kept), or allow it with --skip-bad N"
            total = len(job.items) + len(job.left_out)
            told = f"{len(bad)} of {total} clips cannot be made ({report} lists them): {shown}"
            raise UserError(f"{told}: {remedy}", DATA_BUDGET)
        source = job.source | ({"skipped": [list(pair) for pair in bad]} if bad else {})
        facts = records.facts_of(job.classes, source)
        manifest = shards.seal(folder, split, [outcome.facts for outcome in done], facts)
        growing.remove()
        tfds.describe_where_installed(directory, file_format)
    return manifest


def _tasks(directory: str | os.PathLike, split: str, job: Job, num_shards: int, file_format: str) -> list[Task]:
    """Clip i goes into shard i % K, so that record i is clip i."""
    source = json.dumps(job.source, sort_keys=True)
    work = []
    for shard in range(num_shards):
        mine = slice(shard, None, num_shards)
        name = shards.shard_name(split, shard, num_shards, file_format)
        digest = tasks.digest_of(records.SCHEMA_VERSION, source, name, list(job.names[mine]), list(job.stamps[mine]))
        names = tuple(job.names[mine])
        work.append(Task(job.make, tuple(job.items[mine]), names, str(directory), split, name, digest))
    return work


def _check_room(directory: str | os.PathLike, job: Job, work: Sequence[Task]) -> None:
    """Makes a few clips to estimate what all take. Raises UserError if the disk has less."""
    if storage.is_remote(directory):
        return
    waiting = sum(len(task.items) for task, known in zip(work, tasks.outcomes(work), strict=True) if known is None)
    if not waiting:
        return
    sizes = []
    for place in range(SAMPLES):
        try:
            sizes.append(len(job.make(job.items[place * (len(job.items) - 1) // (SAMPLES - 1)])))
        except (UserError, ValueError):
            continue  # told when its turn comes
    if not sizes:
        return
    needed = ROOM * waiting * sum(sizes) / len(sizes)
    free = shutil.disk_usage(files.existing_parent(directory)).free
    if needed > free:
        raise UserError(
            f"{directory}: about {needed / 1e9:.1f} GB are needed for {waiting} clips, {free / 1e9:.1f} GB are free: "
            "free space or write elsewhere"
        )


def _report(folder: storage.Folder, split: str, bad: Sequence[tuple[str, str]]) -> str:
    name = f"{split}.faults.json"
    folder.delete(name)
    if bad:
        lines = [{"clip": clip, "fault": reason} for clip, reason in bad]
        folder.write(name, (json.dumps(lines, indent=1, ensure_ascii=False) + "\n").encode())
    return folder.path(name)


def _leave_nothing(directory: str | os.PathLike, growing: storage.Folder) -> None:
    """No shard was finished: a new folder is taken away again."""
    growing.remove()
    if not storage.is_remote(directory):
        files.remove_if_empty(directory)
