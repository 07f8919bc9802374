"""Reading ahead: a generator that runs in a thread of its own while what it gave before is being worked on."""

import collections
import concurrent.futures
from collections.abc import Generator
from typing import TypeVar

Item = TypeVar("Item")
_END = object()


def ahead(items: Generator[Item, None, None], depth: int = 1) -> Generator[Item, None, None]:
    """The items in their order, up to `depth` of them made before they are asked for.

    An error is raised where its item is due. When this generator is closed, `items` is closed too.
    """
    with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        waiting = collections.deque(pool.submit(next, items, _END) for _ in range(depth))
        try:
            while (item := waiting.popleft().result()) is not _END:
                waiting.append(pool.submit(next, items, _END))
                yield item
                del item  # not held while the next one is waited for
        finally:
            for future in waiting:
                future.cancel()
            pool.submit(items.close).result()
