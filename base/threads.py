"""Work on several items at a time, for functions that release the interpreter's lock."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


def map_ahead(work: Callable[[_In], _Out], items: Iterable[_In], threads: int) -> Iterator[_Out]:
    """Yields the results in the order of the items. An item is taken only when a thread is free for it, or one earlier.

    So items do not fill memory, whatever the consumer does meanwhile.
    """
    with ThreadPoolExecutor(threads) as pool:
        running: deque[Future[_Out]] = deque()
        for item in items:
            running.append(pool.submit(work, item))
            if len(running) > threads:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()
