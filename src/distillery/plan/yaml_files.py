"""Reading YAML files: each is parsed once, and again when it changed."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml

from distillery.errors import PlanError, nearest


@functools.cache
def _parsed(path: Path, stamp: int) -> Any:
    try:
        return yaml.load(
            path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        )
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise PlanError(f"{path}: not YAML: {error}") from None


def read_yaml(path: Path) -> Any:
    """The content of a YAML file.

    Raises:
        PlanError: it is missing or malformed.
    """
    if not path.is_file():
        others = (file.stem for file in path.parent.glob("*.yaml"))
        raise PlanError(f"{path}: no such file: {nearest(path.stem, others)}")
    return _parsed(path, path.stat().st_mtime_ns)
