"""Digests of code that were found once are kept beside the compiled code, for the same source.

To follow the names of a job through the source takes as long as a small job itself. What was found
holds for the very texts that it was found in: the file names their digest, and the trees that are
followed are parsed from the same texts. As with compiled code, nobody needs the file, and where it
cannot be written it is not.
"""

from __future__ import annotations

import atexit
import functools
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from distillery.store import source_text

Digests = dict[str, str]
NAME = "code_digests.json"


def remembered(roots: tuple[str, ...], find: Callable[[tuple[str, ...]], Digests]) -> Digests:
    """The digest of each module that counts from `roots`, from the file or, once, from `find`."""
    known, key = _known(), " ".join(roots)
    if key not in known:
        known[key] = find(roots)
        _keep_at_exit()
    return dict(known[key])


def _file() -> Path:
    package = source_text.ROOT / source_text.PACKAGE
    return Path(importlib.util.cache_from_source(str(package / "__init__.py"))).with_name(NAME)


def _source() -> list[object]:
    """What the digests hold for: the texts, and the Python that parsed them."""
    return [source_text.text_digest(), list(sys.version_info[:2])]


@functools.cache
def _known() -> dict[str, Digests]:
    """What is known by now, by roots."""
    return _kept(_file(), _source())


def _kept(file: Path, source: list[object]) -> dict[str, Digests]:
    """What a file says; of another source, or where it is absent or broken, nothing."""
    with suppress(OSError, ValueError, TypeError, KeyError):
        kept = json.loads(file.read_text())
        if kept["source"] == source:
            return dict(kept["digests"])
    return {}


@functools.cache
def _keep_at_exit() -> None:
    if not sys.dont_write_bytecode and source_text.texts():
        atexit.register(_keep, _file(), _source(), _known())


def _keep(file: Path, source: list[object], known: dict[str, Digests]) -> None:
    aside = file.with_name(f".{os.getpid()}.{NAME}")
    with suppress(OSError):
        file.parent.mkdir(exist_ok=True)
        digests = _kept(file, source) | known
        aside.write_text(json.dumps({"source": source, "digests": digests}))
        os.replace(aside, file)
