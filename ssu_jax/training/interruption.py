"""SIGTERM and Ctrl-C ask the loop to save and stop; a second one ends the process at once.

Our own handlers rather than the preemption service of `jax.distributed`: with one process they need no
coordinator, port or barrier, work on a laptop without a network, and also hear Ctrl-C. Python runs handlers
between byte codes only, so not while XLA compiles for a minute; the C-level wake-up pipe is written at
once, and a thread that reads it counts the signals.

Of several processes each may hear of it alone and at another moment, and all must stop at the same step. They join
their answers in a small collective at every step, whose result is read at the next one: no device waits for it.
"""

import os
import signal
import sys
import threading

import jax

from ssu_jax import sharding

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """A context manager; `requested` is True from the first signal on."""

    def __init__(self):
        self._event = threading.Event()
        self._previous: dict[int, object] = {}
        self._joined = None  # whether any process was asked when `stops` was called last: a bool [] on the devices
        self._stops = False

    @property
    def requested(self) -> bool:
        """Whether this process was asked to save and stop."""
        return self._event.is_set()

    def stops(self) -> bool:
        """Whether to save and stop here: all processes call it at the same points and get the same answer.

        With several, a request is answered one call after it came.
        """
        if jax.process_count() == 1:
            return self.requested
        if not self._stops:
            before, self._joined = self._joined, sharding.any_of_all(self.requested)
            self._stops = before is not None and bool(before)
        return self._stops

    def wait(self, seconds: float) -> bool:
        """Waits for a request, at most so long; returns `requested`."""
        return self._event.wait(seconds)

    def __enter__(self) -> "Interruption":
        # Only the main thread may handle signals; elsewhere (a notebook's helper thread) they keep their meaning.
        if threading.current_thread() is threading.main_thread():
            self._reading, self._writing = os.pipe()
            os.set_blocking(self._writing, False)
            self._previous = {number: signal.signal(number, _do_nothing) for number in SIGNALS}
            self._previous_wakeup = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
            threading.Thread(target=self._listen, daemon=True).start()
        return self

    def __exit__(self, *_):
        if self._previous:
            signal.set_wakeup_fd(self._previous_wakeup)
            for number, handler in self._previous.items():
                signal.signal(number, handler)
            os.close(self._writing)  # ends the listening thread

    def _listen(self) -> None:
        with os.fdopen(self._reading, "rb", buffering=0) as pipe:
            while received := pipe.read(1):
                if received[0] not in SIGNALS:
                    continue
                if self._event.is_set():
                    os._exit(128 + received[0])
                self._event.set()
                print("\nstopping after this step: saving (a second signal ends at once)", file=sys.stderr, flush=True)


def _do_nothing(number, frame) -> None:
    """Handled by the listening thread."""
