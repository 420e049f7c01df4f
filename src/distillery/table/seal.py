"""Files that are written together from a plan, and the sidecar that seals them.

The sidecar, written last, says what they were made from, the checksum of each, and what each
artefact said that was read. So one question, `is_sealed`, answers whether a table or a picture on
disk is the plan's, whoever wrote, edited or deleted what in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.store.artefact import META, content, read_meta
from distillery.store.atomic import Write, write_together
from distillery.store.canonical import file_sha256, read_json

FILES, ARTEFACTS = "files", "artefacts"


def write_sealed(
    stem: Path,
    contents: Mapping[str, bytes],
    sidecar: str,
    identity: Mapping[str, Any],
    artefacts: Mapping[str, str],
) -> None:
    """Write files and, last, their sidecar; all are written aside before the first is renamed.

    Args:
        stem: path of the files without their suffixes.
        contents: of each file, by suffix.
        sidecar: its suffix.
        identity: what the files were made from; JSON values.
        artefacts: `store.artefact.content` of each artefact that was read, by address.

    Raises:
        OSError: a file cannot be written; then none has changed, unless it was while renaming.
    """
    sealed = {
        **identity,
        FILES: {
            suffix: hashlib.sha256(content).hexdigest() for suffix, content in contents.items()
        },
        ARTEFACTS: dict(artefacts),
    }
    text = json.dumps(sealed, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    files = {**contents, sidecar: text.encode()}
    write_together({Path(f"{stem}{suffix}"): _writer(data) for suffix, data in files.items()})


def _writer(content: bytes) -> Write:
    return lambda path: path.write_bytes(content)


def is_sealed(
    stem: Path, suffixes: Iterable[str], sidecar: str, identity: Mapping[str, Any], store: Path
) -> bool:
    """Whether files are the very ones that `write_sealed` wrote from `identity`.

    Args:
        stem: path of the files without their suffixes.
        suffixes: of the files.
        sidecar: its suffix.
        identity: what they should have been made from.
        store: folder of the artefacts. Those that it holds must say what they said then; those that
            it lacks are taken at the sidecar's word, so that a clone needs no store.
    """
    try:
        sealed = read_json(Path(f"{stem}{sidecar}"))
        files, artefacts = sealed.pop(FILES), sealed.pop(ARTEFACTS)
        return (
            sealed == dict(identity)
            and set(files) == set(suffixes)
            and all(file_sha256(Path(f"{stem}{suffix}")) == sha for suffix, sha in files.items())
            and all(_says(store / address, said) for address, said in artefacts.items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArtefactError):
        return False


def _says(folder: Path, said: str) -> bool:
    return not (folder / META).is_file() or content(read_meta(folder)) == said
