"""The wait for data: what the devices lose counts, what their work covers does not. All clocks are made."""

import threading

import pytest

from ssu_jax.training.prefetch import Prefetcher
from ssu_jax.types import Batch


class SlowReader:
    """Every batch takes three seconds, and begins when the made clock is next read or `may_read` is released."""

    def __init__(self):
        self.now, self.is_armed, self.may_read = 0.0, False, threading.Semaphore(0)

    def clock(self) -> float:
        now = self.now
        if self.is_armed:
            self.is_armed = False
            self.may_read.release()
        return now

    def batches(self):
        for number in range(5):
            self.may_read.acquire()
            self.now += 3.0
            yield numbered(number)

    def next_of(self, prefetcher: Prefetcher, busy_seconds: int) -> int:
        """The next batch; the devices are seen busy for so many seconds until the reader begins."""
        left = [busy_seconds]

        def is_busy() -> bool:
            self.is_armed = left[0] == 0
            self.now += bool(left[0])
            left[0] -= 1
            return left[0] >= 0

        return prefetcher.next(lambda: False, is_busy).record


def numbered(number: int) -> Batch:
    return Batch(*[number] * len(Batch._fields))


@pytest.fixture
def parts():
    reader = SlowReader()
    prefetcher = Prefetcher(reader.batches(), lambda batch: batch, clock=reader.clock)
    yield reader, prefetcher
    reader.may_read.release(5)
    prefetcher.close()


def test_the_wait_counts_from_the_moment_the_devices_stand_idle(parts):
    reader, prefetcher = parts
    assert reader.next_of(prefetcher, 0) == 0
    assert prefetcher.waited_seconds == 0.0  # the first batch: the reader starts up
    assert reader.next_of(prefetcher, 4) == 1
    assert prefetcher.waited_seconds == 3.0  # not the four seconds before
    assert reader.next_of(prefetcher, 0) == 2
    assert prefetcher.waited_seconds == 3.0


def test_a_batch_that_comes_while_the_devices_work_was_not_waited_for(parts):
    reader, prefetcher = parts
    reader.next_of(prefetcher, 0)

    def is_busy() -> bool:
        reader.may_read.release()
        return True

    assert prefetcher.next(lambda: False, is_busy).record == 1
    assert prefetcher.waited_seconds == 0.0


def test_a_batch_that_lies_ready_was_not_waited_for():
    is_full = threading.Event()

    def fast_reader():
        yield numbered(0)
        yield numbered(1)
        is_full.set()
        yield numbered(2)

    prefetcher = Prefetcher(fast_reader(), lambda batch: batch, clock=lambda: pytest.fail("no time has passed"))
    assert is_full.wait(10)  # two batches lie in the queue
    for number in range(2):
        assert prefetcher.next(lambda: False, lambda: pytest.fail("there is nothing to wait for")).record == number
        assert prefetcher.waited_seconds == 0.0
    prefetcher.close()


def test_the_wait_ends_when_it_is_given_up(parts):
    _, prefetcher = parts
    asked = iter([False, False, True])
    assert prefetcher.next(lambda: next(asked)) is None
    assert prefetcher.waited_seconds == 0.0
