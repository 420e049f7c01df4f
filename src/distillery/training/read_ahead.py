"""Read what comes next while what was read is used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

P = TypeVar("P")
R = TypeVar("R")


class ReadAhead(Generic[P, R]):
    """A function of parts that are asked for one after the other; a thread is one part ahead.

    At most two results are under way. The thread ends with this object.
    """

    def __init__(self, read: Callable[[P], R], parts: Sequence[P]):
        """Read nothing yet.

        Args:
            read: the function; what it gives may depend on nothing but the part.
            parts: what it will be asked for.
        """
        self._read, self._parts = read, parts
        self._pool = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[R]] | None = None

    def __call__(self, number: int) -> R:
        """`read(parts[number])`; begins with the part after it."""
        ahead, self._next = self._next, None
        if ahead is not None and ahead[0] == number:
            found = ahead[1].result()
        else:
            found = self._read(self._parts[number])
        if number + 1 < len(self._parts):
            self._next = number + 1, self._pool.submit(self._read, self._parts[number + 1])
        return found
