"""Open finished artefacts of the store and verify them.

An artefact is a folder whose `meta.json` was written last: where it exists, every file that it
lists was there. Checksums are compared on opening, so that a truncated or edited file is an error
here, and never a wrong number later.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from distillery.errors import ArtefactError
from distillery.store.canonical import file_sha256

META = "meta.json"
FORMAT = 2  # of meta.json and of the files beside it; none in meta.json means 1
# Bytes. Larger files (parquet of ImageNet) are compared by size alone: to hash them costs minutes
# per job.
CHECKSUM_LIMIT = 4 << 30
_REQUIRED = ("stage", "id", "spec", "metadata", "files")


class FileRecord(TypedDict):
    """What meta.json says of a file: its size in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


class Circumstances(TypedDict):
    """What may differ between two makings of one artefact; never shown in a table.

    Attributes:
        seconds: wall time of the job.
        peak_memory_bytes: of the process.
        peak_gpu_memory_bytes: 0 without a GPU.
        device: name of the processor or GPU.
        threads: CPU threads of the job.
        python: its version.
        versions: of the libraries by name; None: not installed.
        created: UTC, ISO 8601.
    """

    seconds: float
    peak_memory_bytes: int
    peak_gpu_memory_bytes: int
    device: str
    threads: int
    python: str
    versions: dict[str, str | None]
    created: str


class Meta(Circumstances):
    """The content of meta.json.

    Attributes:
        format: `FORMAT` when it was written.
        stage: name of the stage that made the artefact.
        id: name of the folder, label and hash.
        key: the identity without code, from which all seeds follow.
        spec: fields of the `store.spec.Spec` that was carried out.
        metadata: what the stage returned.
        modules: digest of each module of this package that could run, by dotted name.
        files: size and checksum of each file by name.
        adopted_from: id, modules and date before the artefact was adopted under newer code.
    """

    format: NotRequired[int]
    stage: str
    id: str
    key: str
    spec: dict[str, Any]
    metadata: dict[str, Any]
    modules: dict[str, str]
    files: dict[str, FileRecord]
    adopted_from: NotRequired[dict[str, Any]]


@dataclass(frozen=True)
class Artefact:
    """A verified artefact.

    Attributes:
        path: its folder.
        meta: the content of its meta.json.
    """

    path: Path
    meta: Meta

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
        """Path of the file `name` of the artefact.

        Raises:
            ArtefactError: the artefact does not list it.
        """
        if name not in self.meta["files"]:
            listed = ", ".join(sorted(self.meta["files"]))
            raise ArtefactError(f"{self.path}: has no file '{name}' (it lists {listed})")
        return self.path / name


def read_meta(path: Path) -> Meta:
    """The meta.json of the artefact folder `path`.

    Raises:
        ArtefactError: it is missing, not JSON, or lacks a key that every artefact has.
    """
    try:
        meta: Meta = json.loads((path / META).read_text())
    except FileNotFoundError:
        raise ArtefactError(
            f"{path}: not in the store; run the plan that makes it, or `dvc pull` it"
        ) from None
    except (ValueError, OSError) as error:
        raise ArtefactError(
            f"{path / META}: unreadable ({error}); delete the folder and run again"
        ) from None
    missing = [key for key in _REQUIRED if key not in meta]
    if missing:
        raise ArtefactError(
            f"{path / META}: lacks {', '.join(missing)}; delete the folder and run again"
        )
    return meta


def open_artefact(path: Path) -> Artefact:
    """Open the artefact in folder `path` and verify the size and SHA-256 of every file it lists.

    Raises:
        ArtefactError: a file, which the message names, is missing, truncated or changed.
    """
    meta = read_meta(path)
    verify_files(path, meta["files"])
    return Artefact(path, meta)


def verify_files(path: Path, files: Mapping[str, FileRecord]) -> None:
    """Verify the size and SHA-256 of the files that the meta.json of the folder `path` lists.

    Raises:
        ArtefactError: a file, which the message names, is missing, truncated or changed.
    """
    for name, recorded in files.items():
        _check_file(path / name, recorded)


def _check_file(file: Path, recorded: FileRecord) -> None:
    again = "delete the folder and run again"
    if not file.is_file():
        raise ArtefactError(f"{file}: missing though {META} lists it; `dvc pull` it, or {again}")
    size = file.stat().st_size
    if size != recorded["bytes"]:
        raise ArtefactError(f"{file}: {size} bytes, {META} says {recorded['bytes']}; {again}")
    if size <= CHECKSUM_LIMIT and file_sha256(file) != recorded["sha256"]:
        raise ArtefactError(f"{file}: its content is not what {META} recorded; {again}")
