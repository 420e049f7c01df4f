"""Open finished artefacts of the store and verify them.

An artefact is a folder whose `meta.json` was written last: where it exists, every file that it
lists was there. Checksums are compared on opening, so that a truncated or edited file is an error
here, and never a wrong number later.
"""

from __future__ import annotations

import json
from collections.abc import Container, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NotRequired, TypedDict

from distillery.errors import ArtefactError, shown
from distillery.store.atomic import Write, text_writer
from distillery.store.canonical import digest, file_sha256, read_json
from distillery.store.spec import Spec

META = "meta.json"
FORMAT = 2  # of meta.json and of the files beside it; none in meta.json means 1
# Bytes. Larger files (parquet of ImageNet) are compared by size alone: to hash them costs minutes
# per job.
CHECKSUM_LIMIT = 4 << 30
# What every meta.json holds, and the type of it.
_REQUIRED = {
    "format": int,
    "stage": str,
    "id": str,
    "key": str,
    "spec": dict,
    "metadata": dict,
    "modules": dict,
    "files": dict,
    "checksum": str,
}
_RECORDED = {"bytes": int, "sha256": str}  # of each file
_AGAIN = "delete the folder and run again"


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
        checksum: of all the rest of meta.json, hex.
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
    checksum: NotRequired[str]  # `meta_writer` puts it in
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
    """The meta.json of the artefact folder `path`, checked.

    Raises:
        ArtefactError: it is missing or unreadable, is not what a job writes, was changed since, or
            is that of another artefact than the folder's name says.
    """
    file = path / META
    try:
        meta = read_json(file)
    except FileNotFoundError:
        raise ArtefactError(
            f"{path}: not in the store; run the plan that makes it, or `dvc pull` it"
        ) from None
    except (ValueError, OSError) as error:
        raise ArtefactError(f"{file}: unreadable ({error}); {_AGAIN}") from None
    check_meta(meta, path)
    return meta


def check_meta(meta: Any, path: Path) -> None:
    """Check a meta.json that was read from the artefact folder `path`.

    Raises:
        ArtefactError: as `read_meta` does.
    """
    file = path / META
    if not isinstance(meta, dict):
        raise ArtefactError(f"{file}: holds {type(meta).__name__}, not keys and values; {_AGAIN}")
    if is_earlier(meta):
        raise ArtefactError(
            f"{file}: of an earlier format; `distillery adopt` keeps the artefact, or {_AGAIN}"
        )
    check_shape(meta, file)
    if meta["format"] > FORMAT:
        raise ArtefactError(
            f"{file}: format {meta['format']} of a newer version, this one reads {FORMAT}; "
            f"update this version"
        )
    try:
        whole = meta["checksum"] == _checksum(meta)
    except (ValueError, RecursionError):  # half a Unicode character, 1e999: nothing that is written
        whole = False
    if not whole:
        raise ArtefactError(f"{file}: its content was changed since it was written; {_AGAIN}")
    address, place = f"{meta['stage']}/{meta['id']}", "/".join(path.resolve().parts[-2:])
    if address != place:
        raise ArtefactError(f"{path}: holds another artefact, {address}; {_AGAIN}")


def is_earlier(meta: Mapping[str, Any]) -> bool:
    """Whether a meta.json is of a format before checksums, and not one that lost its format."""
    version = meta.get("format", 1)
    return isinstance(version, int) and version < FORMAT and "checksum" not in meta


def check_shape(meta: Mapping[str, Any], file: Path, without: Container[str] = ()) -> None:
    """Check the keys and types of a meta.json.

    Args:
        meta: its content.
        file: where it stands, for the message.
        without: keys that it may lack, since an earlier format does.

    Raises:
        ArtefactError: a key is missing, or its value is of another type.
    """
    for key, kind in _REQUIRED.items():
        if key not in meta and key in without:
            continue
        if key not in meta:
            raise ArtefactError(f"{file}: lacks {key}; {_AGAIN}")
        if not isinstance(meta[key], kind):
            raise ArtefactError(
                f"{file}: {key} = {shown(meta[key])}: is no {kind.__name__}; {_AGAIN}"
            )
    for name, recorded in meta["files"].items():
        if not isinstance(recorded, dict) or any(
            not isinstance(recorded.get(key), kind) for key, kind in _RECORDED.items()
        ):
            raise ArtefactError(f"{file}: files.{name} = {shown(recorded)}: {_AGAIN}")


def _check_recipe(meta: Meta, path: Path) -> None:
    """The recipe that the artefact says it was made with is the one that its name is a hash of."""
    try:
        planned = Spec(**meta["spec"]).id
    except (TypeError, ValueError, AttributeError) as error:
        raise ArtefactError(f"{path / META}: spec: {error}; {_AGAIN}") from None
    if planned != meta["id"]:
        raise ArtefactError(f"{path / META}: its spec is that of {planned}; {_AGAIN}")


def _checksum(meta: Mapping[str, Any]) -> str:
    return digest({key: value for key, value in meta.items() if key != "checksum"}, 64)


def content(meta: Meta) -> str:
    """What an artefact says and holds, and the libraries that made it, as 12 hex digits.

    When and where it was made does not count.
    """
    return digest([meta["metadata"], meta["files"], meta.get("versions", {})])


def meta_writer(meta: Meta) -> Write:
    """A function that writes meta.json, sealed by its checksum, to a path.

    Raises:
        ArtefactError: the metadata hold a number that is not finite.
    """
    try:
        plain = json.loads(json.dumps(meta, allow_nan=False))
    except ValueError as error:
        raise ArtefactError(f"{meta['stage']}/{meta['id']}: metadata: {error}") from None
    sealed = plain | {"checksum": _checksum(plain)}
    return text_writer(json.dumps(sealed, indent=1, sort_keys=True) + "\n")


def open_artefact(path: Path) -> Artefact:
    """Open the artefact in folder `path` and verify the size and SHA-256 of every file it lists.

    Raises:
        ArtefactError: as `read_meta` does; the artefact's name does not follow from its recipe; or
            a file, which the message names, is missing, truncated or changed.
    """
    meta = read_meta(path)
    _check_recipe(meta, path)
    verify_files(path, meta["files"])
    return Artefact(path, meta)


def is_whole(path: Path) -> bool:
    """Whether the artefact folder `path` has its meta.json and all files that this lists.

    A table needs meta.json alone, so a clone may hold no more of it. What is in the files, and
    whether meta.json is sound, `open_artefact` finds out and says.
    """
    try:
        files = read_json(path / META)["files"]
        return all((path / name).is_file() for name in files)
    except FileNotFoundError:
        return False
    except (OSError, ValueError, TypeError, KeyError):
        return True


def verify_files(path: Path, files: Mapping[str, FileRecord]) -> None:
    """Verify the size and SHA-256 of the files that the meta.json of the folder `path` lists.

    Raises:
        ArtefactError: a file, which the message names, is missing, truncated or changed.
    """
    for name, recorded in files.items():
        _check_file(path / name, recorded)


def _check_file(file: Path, recorded: FileRecord) -> None:
    again = _AGAIN
    if not file.is_file():
        raise ArtefactError(f"{file}: missing though {META} lists it; `dvc pull` it, or {again}")
    size = file.stat().st_size
    if size != recorded["bytes"]:
        raise ArtefactError(f"{file}: {size} bytes, {META} says {recorded['bytes']}; {again}")
    if size <= CHECKSUM_LIMIT and file_sha256(file) != recorded["sha256"]:
        raise ArtefactError(f"{file}: its content is not what {META} recorded; {again}")
