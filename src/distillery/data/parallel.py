"""Map a function over images, in order, on the threads the job was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

A = TypeVar("A")
B = TypeVar("B")

# Pixels of an image. Below this, threads lose more to the interpreter's lock (headers are parsed
# in Python) than they win.
SMALL = 64 * 64


def ordered_map(function: Callable[[A], B], items: Iterable[A], pixels: int) -> Iterator[B]:
    """`function` of each item, in order, on as many threads as torch uses where that pays.

    At most four items per thread are under way, however many there are.

    Args:
        function: what to do with an item.
        items: images, in any form.
        pixels: of one image; below `SMALL` there is one thread.
    """
    threads = torch.get_num_threads() if pixels >= SMALL else 1
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque[Future[B]] = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
