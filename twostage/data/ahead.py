"""Work on a row of items by threads, a little ahead of whoever takes the results."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_Item = TypeVar("_Item")
_Found = TypeVar("_Found")


def in_order(
    items: Iterable[_Item], work: Callable[[_Item], _Found], *, threads: int | None = None
) -> Iterator[_Found]:
    """What ``work`` finds for each item, in the order of the items. The first error ends it.

    Decoding and hashing release the interpreter's lock, so threads use every core.

    Args:
        threads: as many as there are cores if not given. Work on 2 * ``threads`` items runs ahead.
    """
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[Future[_Found]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
