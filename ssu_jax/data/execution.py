"""Carries out an order of batches: batch k holds the examples k * batch_size onwards.

Grain does it (threads, processes, prefetch); batches are made before Grain splits the work, since after it their
content would depend on the number of workers. Where Grain is not installed, threads of this process do the same.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib.util
import itertools
import multiprocessing
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import numpy as np

from ssu_jax.types import Batch, Mixtures, UserError

THREADS = 2  # a batch each; more only help where decoding waits for a slow disk
AHEAD = 2  # batches that wait ready, in each process
GRACE_SECONDS = 5  # for what a reader process that has ended left in its queue
STALL_SECONDS = 300
PEER_LOST, STALLED = 75, 76  # exit codes, DESIGN section 9
ENDLESS = 1 << 40  # steps: Grain's datasets have a length

Row = TypeVar("Row", Batch, Mixtures)  # one example, or a batch of them


@dataclasses.dataclass(frozen=True)
class Rows(Generic[Row]):
    """Number k * len(rows) + i -> the example of row rows[i] of batch k."""

    make: Callable[[int], Row]
    batch_size: int
    rows: tuple[int, ...]

    def __call__(self, number: int) -> Row:
        batch, place = divmod(number, len(self.rows))
        return self.make(batch * self.batch_size + self.rows[place])


def run_rows(
    make: Callable[[int], Row], batch_size: int, rows: Sequence[int] | None, start: int, num_workers: int
) -> Iterator[Row]:
    """Batches from `start` on without end, of each only these rows (None: all); make: position -> example."""
    wanted = Rows(make, batch_size, tuple(range(batch_size) if rows is None else rows))
    return run(wanted, len(wanted.rows), start, ENDLESS, num_workers)


def run(make: Callable[[int], Row], batch_size: int, start: int, stop: int, num_workers: int) -> Iterator[Row]:
    """Batches start to stop - 1, where batch k holds the examples k * batch_size onwards."""
    if importlib.util.find_spec("grain") is None:
        return run_in_threads(make, batch_size, start, stop)
    return run_in_grain(make, batch_size, start, stop, num_workers)


def run_in_grain(make, batch_size: int, start: int, stop: int, num_workers: int) -> Iterator[Row]:
    import grain
    from absl import flags

    batches = grain.MapDataset.range(stop * batch_size).map(make).batch(batch_size, batch_fn=_stack)[start:]
    dataset = batches.to_iter_dataset(grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS + AHEAD))
    if not num_workers:
        return _until_error(iter(dataset))
    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()  # Grain's workers read its flags, also where no absl program runs
    options = grain.MultiprocessingOptions(num_workers=num_workers, per_worker_buffer_size=AHEAD)
    return _supervised(
        iter(dataset.mp_prefetch(options, worker_init_fn=functools.partial(_end_with_parent, os.getpid())))
    )


def _until_error(iterator) -> Iterator[Row]:
    """Grain's iterator goes on after an error and has then lost batches; this one has ended."""
    try:
        yield from iterator
    finally:
        iterator.close()


def _supervised(iterator) -> Iterator[Row]:
    """Hands batches on, and ends with an error when a reader process has ended or hangs: Grain would wait for ever."""
    ready, closed = queue.Queue(maxsize=1), threading.Event()
    others = set(multiprocessing.active_children())

    def offer(item):
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.5)
                break
            except queue.Full:
                continue

    def feed():
        try:
            for batch in iterator:
                offer(type(batch)(*(np.array(values) for values in batch)))  # out of the memory shared with the reader
            offer(None)
        except BaseException as error:
            offer(error)

    def close():
        with contextlib.suppress(Exception):  # Grain's, when the other thread is still reading
            iterator.close()

    threading.Thread(target=feed, daemon=True).start()
    readers = set()
    try:
        while (batch := _next_batch(ready, readers, others)) is not None:
            yield batch
    finally:
        closed.set()
        # Aside, since Grain waits without limit for a reader that has ended with exit code 0.
        closing = threading.Thread(target=close, daemon=True)
        closing.start()
        closing.join(GRACE_SECONDS)
        for reader in readers:
            reader.kill()


def _next_batch(ready: queue.Queue, readers: set, others: set) -> Row | None:
    """The next batch, None after the last. `readers` gathers the processes that came after `others`."""
    started = time.monotonic()
    while True:
        with contextlib.suppress(queue.Empty):
            item = ready.get(timeout=0.5)
            break
        readers.update(child for child in multiprocessing.active_children() if child not in others)
        waited = time.monotonic() - started
        if waited > GRACE_SECONDS and not all(reader.is_alive() for reader in readers):
            item = RuntimeError("a reader process ended")
            break
        if waited > STALL_SECONDS:
            raise UserError(f"the reader processes gave no batch for {STALL_SECONDS} s: start again to resume", STALLED)
    if isinstance(item, RuntimeError):  # Grain's word for a reader that was killed
        codes = sorted({reader.exitcode for reader in readers} - {None})
        remedy = "start again to resume, with fewer config.data.num_workers if it recurs"
        raise UserError(
            f"a reader process ended (exit code {codes or 'unknown'}; -9 is often want of memory): {remedy}", PEER_LOST
        ) from item
    if isinstance(item, BaseException):
        raise item
    return item


def _end_with_parent(parent: int, worker: int, num_workers: int) -> None:
    """Ends this worker soon after its parent: killed parents (SIGKILL) cannot do it, and workers would stay."""
    del worker, num_workers
    # Ctrl-C reaches every process of the terminal; the parent saves first and then ends its readers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch():
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(PEER_LOST)

    threading.Thread(target=watch, daemon=True).start()


def run_in_threads(make, batch_size: int, start: int, stop: int) -> Iterator[Row]:
    def batch(number: int) -> Row:
        return _stack([make(number * batch_size + row) for row in range(batch_size)])

    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        numbers = iter(range(start, stop))
        waiting = deque(pool.submit(batch, number) for number in itertools.islice(numbers, THREADS + AHEAD))
        while waiting:
            ready = waiting.popleft().result()
            waiting.extend(pool.submit(batch, number) for number in itertools.islice(numbers, 1))
            yield ready


def _stack(examples: Sequence[Row]) -> Row:
    return type(examples[0])(*(np.stack(values) for values in zip(*examples, strict=True)))
