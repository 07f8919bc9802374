"""A split made shard by shard: each shard is a task of its own, carried out anywhere, in any order, and never twice.

What a shard holds is fixed before any worker starts, so their number changes no byte. A task leaves its shard and a
marker in the growing folder of the split: a run that was stopped finds the finished ones there, and goes on.
"""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import importlib.util
import json
import logging
import multiprocessing
import os
import pathlib
import shlex
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import tqdm

from ssu_jax.data import shards, storage
from ssu_jax.types import UserError

# By the name of --runner: Apache Beam's own options.
BEAM_RUNNERS = {
    "direct": ("--runner=DirectRunner", "--direct_running_mode=multi_processing"),
    "flink": ("--runner=FlinkRunner",),
    "spark": ("--runner=SparkRunner",),
    "dataflow": ("--runner=DataflowRunner",),
}
RUNNERS = ("auto", "processes", *BEAM_RUNNERS)
MOST_WORKERS = 256
_POLL_SECONDS = 0.5
_CLIPS_PER_WORKER = 64  # at least, for starting one to pay
_TALLY = "SSU_TALLY"  # the environment variable that names the folder of tallies
_STOP = "stop"  # a file in it


@dataclasses.dataclass(frozen=True)
class Execution:
    """Where tasks are carried out.

    runner: one of RUNNERS; "auto" is Beam's local runner where Beam is installed, else processes of our own.
    num_workers: processes on this machine, 0 carries out all here; the other runners have options of their own.
    options: of Beam, as on its command line.
    """

    runner: str = "auto"
    num_workers: int = 0
    options: str = ""


@dataclasses.dataclass(frozen=True)
class Task:
    """One shard. make(item) is its record; UserError and ValueError say that the item cannot be made."""

    make: Callable[[Any], bytes]
    items: tuple
    names: tuple[str, ...]  # of the items, for messages
    directory: str
    split: str
    name: str
    digest: str  # of everything that decides the content

    @property
    def folder(self) -> storage.Folder:
        """Where the shard and its marker go."""
        return shards.growing_folder(storage.folder(self.directory), self.split)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """facts: what the manifest is to say of the shard. bad: (name, reason) of items that could not be made."""

    facts: dict
    bad: list[tuple[str, str]]


def default_workers(num_clips: int) -> int:
    """A process for each core this one may use, as long as each has work for some seconds; else none."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(cores, num_clips // _CLIPS_PER_WORKER)
    return workers if workers > 1 else 0


def carry_out(task: Task) -> None:
    """Makes the items, writes the shard, leaves a marker that tells of both."""
    bad = []
    facts = shards.write_shard(task.folder, task.name, _records(task, bad))
    marker = {"digest": task.digest, "facts": facts, "bad": bad}
    task.folder.write(_marker_name(task.name), json.dumps(marker).encode())


def outcomes(tasks: Sequence[Task]) -> list[Outcome | None]:
    """What is known of each task: None for one that is still to be done, or was done for another content."""
    return [_outcome(task, present) for present in [_names(tasks[0].folder)] for task in tasks] if tasks else []


def run(tasks: Sequence[Task], execution: Execution, label: str) -> list[Outcome]:
    """Carries out what is not done yet, with a progress bar on a terminal. Raises UserError: a worker was killed,
    Beam is not installed or fails.
    """
    known = outcomes(tasks)
    waiting = [task for task, outcome in zip(tasks, known, strict=True) if outcome is None]
    finished = sum(len(task.items) for task in tasks) - sum(len(task.items) for task in waiting)
    with _progress(label, finished, finished + sum(len(task.items) for task in waiting)):
        if waiting:
            _carry_out_all(waiting, execution)
    known = outcomes(tasks)
    if None in known:
        raise UserError(f"{tasks[known.index(None)].name}: its worker left nothing: start again, it goes on from there")
    return known


def _records(task: Task, bad: list) -> Iterator[bytes]:
    tally = os.environ.get(_TALLY)
    for item, name in zip(task.items, task.names, strict=True):
        if tally and os.path.exists(os.path.join(tally, _STOP)):
            raise InterruptedError(f"{task.name}: stopped")
        try:
            record = task.make(item)
        except (UserError, ValueError) as error:
            bad.append((name, str(error)))
        else:
            yield record
        if tally:
            with contextlib.suppress(FileNotFoundError), open(pathlib.Path(tally) / task.name, "ab") as file:
                file.write(b".")


def _carry_out_all(tasks: Sequence[Task], execution: Execution) -> None:
    runner = execution.runner
    if runner == "auto":
        runner = "direct" if importlib.util.find_spec("apache_beam") else "processes"
    if runner in BEAM_RUNNERS and (execution.num_workers or runner != "direct"):
        _by_beam(tasks, runner, execution)
    elif execution.num_workers:
        _by_processes(tasks, execution.num_workers)
    else:
        for task in tasks:
            carry_out(task)


def _by_processes(tasks: Sequence[Task], num_workers: int) -> None:
    # Spawned, not forked: a fork of a process with threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = concurrent.futures.ProcessPoolExecutor(
        min(num_workers, len(tasks)), mp_context=context, initializer=_ignore_interrupt
    )
    try:
        for done in concurrent.futures.as_completed([pool.submit(carry_out, task) for task in tasks]):
            done.result()
    except BrokenProcessPool:
        raise UserError(
            f"one of the {num_workers} processes that make the clips was killed, perhaps for lack of memory: "
            "start again with fewer --num-workers, it goes on from there"
        ) from None
    except BaseException:
        pathlib.Path(os.environ[_TALLY], _STOP).touch()  # the workers look for it before every clip
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _by_beam(tasks: Sequence[Task], runner: str, execution: Execution) -> None:
    if importlib.util.find_spec("apache_beam") is None:
        raise UserError(f"--runner {runner} wants Apache Beam: pip install 'ssu_jax[beam]', or take --runner processes")
    apache_beam, options_of = _quiet_beam()
    options = [*BEAM_RUNNERS[runner], "--default_sdk_harness_log_level=ERROR", *shlex.split(execution.options)]
    if runner == "direct":
        options += [f"--direct_num_workers={min(execution.num_workers, len(tasks))}"]
    try:
        with apache_beam.Pipeline(options=options_of(options)) as pipeline:
            # A task a bundle: else a worker takes its share of them before it begins.
            made = pipeline | apache_beam.Create(list(tasks)) | apache_beam.Reshuffle()
            _ = made | "make shard" >> apache_beam.Map(carry_out)
    except (RuntimeError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
        raise UserError(
            f"Apache Beam ({runner}) failed: {reason}: finished shards are kept, start again to go on, or take "
            "--runner processes"
        ) from error


def _quiet_beam():
    """Beam and its class of options. Its notes at every start say nothing to a user; errors are shown."""
    logging.disable(logging.WARNING)  # one is said while it is imported
    try:
        import apache_beam
        from apache_beam.options.pipeline_options import PipelineOptions
    finally:
        logging.disable(logging.NOTSET)
    logging.getLogger("apache_beam").setLevel(logging.ERROR)
    return apache_beam, PipelineOptions


def _outcome(task: Task, present: set[str]) -> Outcome | None:
    if not {_marker_name(task.name), task.name} <= present:
        return None
    try:
        marker = json.loads(task.folder.read(_marker_name(task.name)))
        if marker["digest"] != task.digest:
            return None
        return Outcome(marker["facts"], [tuple(pair) for pair in marker["bad"]])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names(folder: storage.Folder) -> set[str]:
    try:
        return set(folder.names())
    except OSError:
        return set()


def _marker_name(name: str) -> str:
    return f"{name}.done.json"


def digest_of(*parts: Any) -> str:
    """sha256 of what the parts print as."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@contextlib.contextmanager
def _progress(label: str, done: int, total: int) -> Iterator[None]:
    """Shows how many clips are made, counted in the tallies that the workers of this machine keep."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory() as place, tqdm.tqdm(
        desc=label, initial=done, total=total, unit="clip", disable=None, dynamic_ncols=True
    ) as bar:  # fmt: skip

        def show():
            bar.update(done + sum(entry.stat().st_size for entry in os.scandir(place)) - bar.n)

        def watch():
            while not ended.wait(_POLL_SECONDS):
                show()

        os.environ[_TALLY] = place
        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            ended.set()
            watcher.join()
            show()
            del os.environ[_TALLY]


def _ignore_interrupt() -> None:
    """Ctrl-C reaches every process of the terminal; the first one alone decides what ends when."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
