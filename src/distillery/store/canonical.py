"""One way to write a value as JSON, and one way to hash it: every identity is built on both."""

from __future__ import annotations

import errno
import hashlib
import json
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def dumps(value: Any) -> str:
    """Canonical JSON of a value: sorted keys, no spaces, no NaN.

    Raises:
        ValueError: the value holds a NaN or an infinite number.
        TypeError: it holds something that JSON has no form for.
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def loads(text: str | bytes) -> Any:
    """The value of a JSON text, of any JSON and not of canonical JSON alone.

    Raises:
        ValueError: it is malformed, holds NaN or Infinity, or is nested too deeply to be read.
    """
    try:
        return json.loads(text, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("is nested too deeply") from None


def read_json(path: Path) -> Any:
    """The value of a JSON file.

    Raises:
        ValueError: as `loads` does, or it is not UTF-8.
        OSError: it is not there, cannot be read, or is no file; a named pipe would be waited for.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return loads(path.read_text(encoding="utf-8"))


def _no_constant(name: str) -> float:
    raise ValueError(f"holds {name}")


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of the value's canonical JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def class_order_hash(classes: Iterable[str]) -> str:
    """Hash of the class names in label order: equal only for the same classes in the same order.

    Returns:
        16 hex digits.
    """
    return digest(list(classes), 16)
