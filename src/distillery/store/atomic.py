"""Write files so that a reader, a kill or a full disk never sees half of one.

Each file is written beside its target, synced to the disk and renamed. Files that belong together
are all written before the first of them is renamed.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

Write = Callable[[Path], object]


def write_together(files: Mapping[Path, Write]) -> None:
    """Write files that belong together, in this order; the last one says that all are there.

    Args:
        files: by target, a function that writes the content to the path that it is given. The
            folders are made.

    Raises:
        OSError: a file cannot be written. While files are written, no target has changed yet.
    """
    asides = {target: _aside(target) for target in files}
    try:
        for target, write in files.items():
            target.parent.mkdir(parents=True, exist_ok=True)
            write(asides[target])
            _sync(asides[target])
        for target, aside in asides.items():
            os.replace(aside, target)
        for folder in {target.parent for target in files}:
            _sync(folder)
    finally:
        for aside in asides.values():
            with suppress(OSError):  # renamed, never written, or the disk is gone
                aside.unlink()


def write_file(target: Path, write: Write) -> None:
    """Write one file, as `write_together` does."""
    write_together({target: write})


def write_text(target: Path, text: str) -> None:
    """Write a text file in UTF-8, as `write_together` does."""
    write_file(target, text_writer(text))


def text_writer(text: str) -> Write:
    """A function that writes `text` in UTF-8, line ends as they are, to a path."""
    return lambda path: path.write_text(text, encoding="utf-8", newline="")


def copier(source: Path) -> Write:
    """A function that puts `source` at a path: a hard link where there can be one, else a copy.

    The source stays, so that nothing is lost when what follows fails.
    """

    def place(target: Path) -> None:
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)

    return place


def _aside(target: Path) -> Path:
    # safetensors and pandas look at no suffix, matplotlib is told the format by it
    return target.with_name(f".{os.getpid()}.{target.name}")


def _sync(path: Path) -> None:
    """Have the system put a file, or the entries of a folder, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system without it
            raise
    finally:
        os.close(handle)
