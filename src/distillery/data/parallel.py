"""Map a function over images, in order, on the threads the job was given."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

A, B = TypeVar("A"), TypeVar("B")

SMALL = (
    64 * 64
)  # pixels; below this, threads lose more to the interpreter's lock (headers are parsed in Python) than they win


def ordered_map(function: Callable[[A], B], items: Iterable[A], pixels: int) -> Iterator[B]:
    """`function` of each item, in order. Images of `pixels` or more go to as many threads as torch uses.

    At most four items per thread are under way, however many there are.
    """
    threads = torch.get_num_threads() if pixels >= SMALL else 1
    if threads == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        pending: deque = deque()
        for item in items:
            pending.append(pool.submit(function, item))
            if len(pending) >= 4 * threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
