"""Reads batches ahead in a thread and puts them on the devices, off the critical path of the step."""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator
from typing import Any

from ssu_jax.types import Batch

_POLL_SECONDS = 0.1
_CLOSE_SECONDS = 10.0


class Prefetcher:
    """Holds at most `depth` batches. Order is kept; the reader's error is raised where its batch is due."""

    def __init__(self, batches: Generator[Batch, None, None], place: Callable[[Any], Any], depth: int = 2):
        self._queue: queue.Queue = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._read, args=(batches, place), daemon=True)
        self._thread.start()

    def next(self, give_up: Callable[[], bool]) -> Batch | None:
        """The next batch, on the devices; None if `give_up()` turned True while waiting for it."""
        while not give_up():
            try:
                item = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            if isinstance(item, BaseException):
                raise item
            return item
        return None

    def close(self) -> None:
        """Ends the thread; waits for the batch it is reading."""
        self._closed.set()
        self._thread.join(_CLOSE_SECONDS)

    def _read(self, batches: Generator[Batch, None, None], place: Callable[[Any], Any]) -> None:
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
