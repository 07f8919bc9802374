"""The built-in world as TFRecords, made by several processes, and a video of a few clips to look at."""

import collections
import concurrent.futures
import contextlib
import importlib.metadata
import itertools
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool

import tqdm

import ssu_jax
from ssu_jax.config.labels import SYNTHETIC_CLASSES
from ssu_jax.data import records, synthetic
from ssu_jax.types import UserError
from ssu_jax.visualization import writer

CLIPS_PER_TASK = 16
# Tasks under way for each process: enough that none waits, few enough that memory stays small.
TASKS_PER_WORKER = 3


def prepare(directory, split: str, *, num_clips: int, seed: int, num_shards: int, num_workers: int,
            overwrite: bool = False) -> dict:  # fmt: skip
    """Writes a split of the world and returns its manifest.

    num_workers: processes beside this one; 0 makes the clips here. The records are the same for any number.
    Raises UserError for counts out of range, an existing split without `overwrite`, a place that cannot be written.
    """
    _check(split, num_clips)
    if not 1 <= num_shards <= num_clips:
        raise UserError(f"--num-shards must be 1 to the number of clips ({num_clips}), got {num_shards}")
    if not 0 <= num_workers <= 256:
        raise UserError(f"--num-workers must be 0 to 256, got {num_workers}")
    made = _records_by_processes if num_workers else _records_here
    # Nothing is made, and no process started, before the writer has accepted the place and asks for a record.
    with contextlib.closing(made(seed, split, num_clips, num_workers)) as made_records:
        # A bar for a terminal only: a log file would fill with its repaints.
        progress = tqdm.tqdm(made_records, desc=split, total=num_clips, unit="clip", file=sys.stderr, disable=None)
        return records.write_split(
            directory, split, iter(progress), num_shards,
            classes=SYNTHETIC_CLASSES, source=_source(seed, split, num_clips), overwrite=overwrite,
        )  # fmt: skip


def preview(path, split: str, *, num_clips: int, seed: int, plain: bool = False) -> None:
    """Writes the first clips of a split as a video with sound, masks and sentences; `plain`: with sound alone.

    Raises UserError as `prepare`.
    """
    _check(split, num_clips)
    clips = (synthetic.make_clip(seed, split, index) for index in range(num_clips))
    progress = tqdm.tqdm(clips, desc="preview", total=num_clips, unit="clip", file=sys.stderr, disable=None)
    write = writer.write_plain if plain else writer.write_preview
    write(path, iter(progress))


def default_workers(num_clips: int) -> int:
    """A process for each core this one may use, as long as each has work for some seconds; else none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, num_clips // (4 * CLIPS_PER_TASK))
    return workers if workers > 1 else 0


def _check(split: str, num_clips: int) -> None:
    if split not in synthetic.SPLITS:
        raise UserError(f"the world has no split {split!r}: wanted one of {', '.join(synthetic.SPLITS)}")
    if num_clips < 1:
        raise UserError(f"--num-clips must be at least 1, got {num_clips}")


def _source(seed: int, split: str, num_clips: int) -> dict:
    """What made the records, for the manifest: the same source gives the same bytes."""
    versions = {name: importlib.metadata.version(name) for name in ("numpy", "pillow")}
    return {"world": synthetic.VERSION, "seed": seed, "split": split, "num_clips": num_clips,
            "versions": {"ssu_jax": ssu_jax.__version__, **versions}}  # fmt: skip


def _records_here(seed: int, split: str, num_clips: int, num_workers: int) -> Iterator[bytes]:
    for index in range(num_clips):
        yield records.encode_clip(synthetic.make_clip(seed, split, index))


def _records_by_processes(seed: int, split: str, num_clips: int, num_workers: int) -> Iterator[bytes]:
    """Records in order. Raises UserError if a process is killed, by lack of memory for example."""
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(num_workers, mp_context=context, initializer=_ignore_interrupt)
    tasks = (range(first, min(first + CLIPS_PER_TASK, num_clips)) for first in range(0, num_clips, CLIPS_PER_TASK))
    waiting = collections.deque()
    try:
        submitted = (pool.submit(_make_records, seed, split, indices) for indices in tasks)
        waiting.extend(itertools.islice(submitted, num_workers * TASKS_PER_WORKER))
        while waiting:
            yield from waiting.popleft().result()
            waiting.extend(itertools.islice(submitted, 1))
    except BrokenProcessPool:
        raise UserError(
            f"one of the {num_workers} processes that make the clips was killed, perhaps for lack of memory: "
            "use fewer with --num-workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _make_records(seed: int, split: str, indices: range) -> list[bytes]:
    return [records.encode_clip(synthetic.make_clip(seed, split, index)) for index in indices]


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; the first one alone decides what ends when."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
