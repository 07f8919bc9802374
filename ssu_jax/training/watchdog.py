"""Ends a run that stands still: where every thread stands goes to standard error, the exit code is 76.

A process that lives but does not go on keeps all others waiting in a collective, and no heartbeat notices.
"""

import faulthandler
import sys
import threading
import time

from ssu_jax.training.processes import hard_exit

STALLED = 76  # exit code: start again to resume
_TICK_SECONDS = 0.5


class Watchdog:
    """A context manager with a thread; `alive` is to be called at every sign of progress."""

    def __init__(self, limit_seconds: int, long_limit_seconds: int):
        """limit_seconds: between two signs; 0 waits for ever. The long limit holds at first, and where asked for."""
        self._limits = {False: limit_seconds, True: long_limit_seconds}
        self._ended = threading.Event()
        self.alive(may_take_long=True)

    def __enter__(self) -> "Watchdog":
        if self._limits[False]:
            threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._ended.set()

    def alive(self, may_take_long: bool = False) -> None:
        """A sign of progress. may_take_long: something may be compiled or written before the next one."""
        self._limit, self._idle = self._limits[may_take_long], 0.0

    def _watch(self) -> None:
        before = time.monotonic()
        while not self._ended.wait(_TICK_SECONDS):
            now = time.monotonic()
            # Time in which this process was suspended as a whole (Ctrl-Z) does not count.
            self._idle += min(now - before, 2 * _TICK_SECONDS)
            before = now
            if self._idle > self._limit:
                print(f"ssu: error: no step was finished for {self._limit} s: where each thread stands follows; "
                      "start again to resume", file=sys.stderr, flush=True)  # fmt: skip
                faulthandler.dump_traceback(all_threads=True)
                hard_exit(STALLED)
