"""Open finished artefacts of the store and verify them.

An artefact is a folder whose `meta.json` came last: where it exists, everything it lists exists too. Checksums are compared on
opening, so that a truncated or edited file is an error here and never a wrong number later.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.store.canonical import file_sha256

META = "meta.json"
FORMAT = 2  # of meta.json and of the files beside it; none in meta.json means 1
CHECKSUM_LIMIT = (
    4 << 30
)  # larger files (ImageNet parquet) are compared by size alone: hashing them costs minutes per job


@dataclass(frozen=True)
class Artefact:
    """A verified artefact: its folder and its meta.json (keys: stage, id, spec, metadata, files, seed, ...)."""

    path: Path
    meta: dict[str, Any]

    @property
    def id(self) -> str:
        """Name of the folder: label and hash."""
        return self.meta["id"]

    @property
    def metadata(self) -> dict[str, Any]:
        """What the stage measured and declared: accuracies, classes, shape, bytes by part."""
        return self.meta["metadata"]

    @property
    def recipe(self) -> dict[str, Any]:
        """The resolved values it was made with."""
        return self.meta["spec"]["recipe"]

    def file(self, name: str) -> Path:
        """Path of one of the artefact's files. Raises ArtefactError when the artefact does not list it."""
        if name not in self.meta["files"]:
            raise ArtefactError(
                f"{self.path}: has no file '{name}' (it lists {', '.join(sorted(self.meta['files']))})"
            )
        return self.path / name


def read_meta(path: Path) -> dict[str, Any]:
    """The meta.json of an artefact folder. Raises ArtefactError when it is missing or not JSON."""
    try:
        meta = json.loads((path / META).read_text())
    except FileNotFoundError:
        raise ArtefactError(
            f"{path}: not in the store; run the plan that makes it, or `dvc pull` it"
        ) from None
    except (ValueError, OSError) as error:
        raise ArtefactError(
            f"{path / META}: unreadable ({error}); delete the folder and run again"
        ) from None
    missing = [key for key in ("stage", "id", "spec", "metadata", "files") if key not in meta]
    if missing:
        raise ArtefactError(
            f"{path / META}: lacks {', '.join(missing)}; delete the folder and run again"
        )
    return meta


def open_artefact(path: Path) -> Artefact:
    """Open the artefact in folder `path` and verify the size and SHA-256 of every file it lists.

    Raises ArtefactError naming the file when one is missing, truncated or changed.
    """
    meta = read_meta(path)
    verify_files(path, meta["files"])
    return Artefact(path, meta)


def verify_files(path: Path, files: dict[str, dict[str, Any]]) -> None:
    """Verify the size and SHA-256 of the files that the meta.json of the folder `path` lists.

    Raises:
        ArtefactError: a file, which it names, is missing, truncated or changed.
    """
    for name, recorded in files.items():
        file = path / name
        if not file.is_file():
            raise ArtefactError(
                f"{file}: missing though {META} lists it; `dvc pull` it, or delete the folder and run again"
            )
        size = file.stat().st_size
        if size != recorded["bytes"]:
            raise ArtefactError(
                f"{file}: {size} bytes, {META} says {recorded['bytes']}; delete the folder and run again"
            )
        if size <= CHECKSUM_LIMIT and file_sha256(file) != recorded["sha256"]:
            raise ArtefactError(
                f"{file}: its content is not what {META} recorded; delete the folder and run again"
            )
