"""Reads batches ahead in a thread and puts them on the devices, off the critical path of the step."""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Generator
from typing import Any

from ssu_jax.types import Batch, Mixtures

_POLL_SECONDS = 0.1
_GLANCE_SECONDS = 0.002  # between looks at whether the step under way has ended
_CLOSE_SECONDS = 10.0


class Prefetcher:
    """Holds at most `depth` batches. Order is kept; the reader's error is raised where its batch is due.

    waited_seconds: how long the last call of `next` kept idle devices waiting; 0 for the first batch, for which the
    reader starts up. clock: seconds.
    """

    def __init__(
        self,
        batches: Generator[Batch | Mixtures, None, None],
        place: Callable[[Any], Any],
        depth: int = 2,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.waited_seconds, self._clock, self._is_started = 0.0, clock, False
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(batches, place), daemon=True)
        self._thread.start()

    def next(self, give_up: Callable[[], bool], is_busy: Callable[[], bool] = lambda: False) -> Batch | Mixtures | None:
        """The next batch, on the devices; None if `give_up()` turned True while waiting for it.

        is_busy: whether the devices still compute the step before; a batch that comes meanwhile was not waited for.
        """
        idle_since, self.waited_seconds = None, 0.0
        while not give_up():
            if idle_since is None and self._queue.empty() and not is_busy():
                idle_since = self._clock()
            try:
                item = self._queue.get(timeout=_GLANCE_SECONDS if idle_since is None else _POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            if idle_since is not None and self._is_started:
                self.waited_seconds = self._clock() - idle_since
            self._is_started = True
            return item
        return None

    def close(self) -> None:
        """Ends the thread; waits for the batch it is reading."""
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def _read(self, batches: Generator[Batch | Mixtures, None, None], place: Callable[[Any], Any]) -> None:
        try:
            with contextlib.closing(batches):  # ends reader processes
                for batch in batches:
                    if not self._offer(place(batch)):
                        return
            self._offer(RuntimeError("the training batches ended: they must go on without end"))
        except BaseException as error:  # raised by `next` in the training thread
            self._offer(error)

    def _offer(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
            return True
        return False
