"""One way to write a value as JSON, and one way to hash it: the ground of every identity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def dumps(value: Any) -> str:
    """Canonical JSON: sorted keys, no spaces, no NaN. Raises ValueError on NaN, TypeError on what JSON cannot say."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False
    )


def digest(value: Any, length: int = 12) -> str:
    """The first `length` hex digits of the SHA-256 of a value's canonical JSON."""
    return hashlib.sha256(dumps(value).encode()).hexdigest()[:length]


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def class_order_hash(classes: list[str]) -> str:
    """Hash of the class names in label order (16 hex digits): equal only for the same classes in the same order."""
    return digest(list(classes), 16)
