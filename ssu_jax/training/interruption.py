"""SIGTERM and Ctrl-C ask the loop to save and stop; a second one ends the process at once.

Our own handlers rather than the preemption service of `jax.distributed`: with one process they need no
coordinator, port or barrier, work on a laptop without a network, and also hear Ctrl-C. Python runs handlers
between byte codes only, so not while XLA compiles for a minute; the C-level wake-up pipe is written at
once, and a thread that reads it counts the signals.
"""

import os
import signal
import sys
import threading

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """A context manager; `requested` is True from the first signal on."""

    def __init__(self):
        self._event = threading.Event()
        self._previous: dict[int, object] = {}

    @property
    def requested(self) -> bool:
        """Whether the loop shall save and stop."""
        return self._event.is_set()

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
