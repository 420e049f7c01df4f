"""Jobs that die when so many of their checkpoints are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from random import Random
from unittest.mock import patch

from distillery.store import atomic, checkpoint


class Killed(BaseException):
    """Nothing catches it but what clears up, as for Ctrl-C."""


@contextmanager
def saving(
    die_after: int | None = None, before: bool = False, due: Random | None = None
) -> Iterator[list[str]]:
    """Let all loops save after each step, and die.

    Args:
        die_after: so many saves; None: never.
        before: whether the last of these saves is not written any more.
        due: whether a loop saves after a step is drawn from it; None: always.

    Yields:
        The names of the files that were saved, in order.
    """
    files: list[str] = []
    write = checkpoint.save_state

    def save(state: Mapping, file: Path) -> None:
        last = len(files) + 1 == die_after
        if not (last and before):
            write(state, file)
        files.append(file.name)
        if last:
            raise Killed

    def drawn(pace: checkpoint.Pace, seconds: float = 0) -> bool:
        return due is None or due.random() < 0.4

    with (
        patch.object(checkpoint, "save_state", save),
        patch.object(checkpoint.Pace, "due", drawn),
        patch.object(atomic, "_sync", lambda path: None),  # no power cut is played here
        patch.dict(os.environ, {checkpoint.ENVIRONMENT: "0"}),
    ):
        yield files


def until_done(work: Callable[[], object], chance: Random) -> tuple[object, int]:
    """What `work` returns after it died again and again, and how often it died."""
    for deaths in range(1000):
        try:
            with saving(chance.randint(1, 6), chance.random() < 0.3, chance):
                return work(), deaths
        except Killed:
            continue
    raise AssertionError("no progress")
