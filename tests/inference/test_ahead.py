"""Reading ahead in a thread."""

import threading
import time

import pytest

from ssu_jax.inference.ahead import ahead


def counted(number, log):
    try:
        for value in range(number):
            log.append(value)
            yield value
    finally:
        log.append("closed")


def test_order_is_kept_and_the_work_is_done_in_another_thread():
    threads = set()

    def items():
        for value in range(20):
            threads.add(threading.current_thread())
            yield value

    assert list(ahead(items(), 3)) == list(range(20))
    assert threading.current_thread() not in threads
    assert list(ahead(counted(0, []))) == []


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_than_depth_is_made_before_it_is_asked_for(depth):
    log = []
    items = ahead(counted(100, log), depth)
    assert next(items) == 0
    deadline = time.monotonic() + 10
    while len(log) < depth + 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert log == list(range(depth + 1))
    items.close()
    assert log[-1] == "closed"


def test_an_error_comes_where_its_item_is_due():
    def items():
        yield 1
        raise ValueError("damaged")

    found = ahead(items(), 2)
    assert next(found) == 1
    with pytest.raises(ValueError, match="damaged"):
        next(found)
