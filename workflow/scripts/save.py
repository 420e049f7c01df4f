"""Add the finished artefacts that DVC does not track yet to the tracked store.

A stage's folder is added whole only the first time; afterwards files are added by name, since
adding the folder again would drop everything that is not on this disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

from dvc.repo import Repo
from store import STORE, StoreError, script, tracked

from distillery.errors import ArtefactError
from distillery.store.artefact import META, is_whole, read_meta, verify_files
from distillery.store.spec import STAGES


def unsaved(artefact: Path, known: Mapping[str, str], repo: Repo) -> bool:
    """Whether DVC lacks the artefact as it is: never added, made again, or lost from the cache.

    One that was made again has another meta.json, which holds the time of its making.
    """
    files = [str(file) for file in artefact.iterdir()]
    if any(file not in known for file in files):
        return True
    meta = hashlib.md5((artefact / META).read_bytes()).hexdigest()
    cached = (repo.cache.local.oid_to_path(known[file]) for file in files)
    return meta != known[str(artefact / META)] or not all(map(Path.is_file, map(Path, cached)))


def whole(artefact: Path) -> str | None:
    """What is wrong with an artefact; None when nothing is."""
    try:
        verify_files(artefact, read_meta(artefact)["files"])
    except ArtefactError as error:
        return str(error)
    return None


def save() -> None:
    """Track every complete artefact.

    Raises:
        StoreError: an artefact is not what its meta.json says; all others are tracked.
    """
    with Repo() as repo:
        known = tracked(repo)
        stages = sorted(STORE / stage for stage in STAGES if (STORE / stage).is_dir())
        first = [str(stage) for stage in stages if not stage.with_suffix(".dvc").exists()]
        later = [stage for stage in stages if str(stage) not in first]
        complete = sorted(filter(is_whole, (path for stage in later for path in stage.iterdir())))
        new = [artefact for artefact in complete if unsaved(artefact, known, repo)]
        wrong = {artefact: problem for artefact in new if (problem := whole(artefact))}
        files = [str(f) for artefact in new if artefact not in wrong for f in artefact.iterdir()]
        if first:
            repo.add(first)
        if files:
            repo.add(sorted(files))
    print(f"save: {len(first)} stages and {len(files)} files newly tracked")
    if wrong:
        raise StoreError(f"{len(wrong)} artefacts are not saved: {next(iter(wrong.values()))}")


if __name__ == "__main__":
    script("save", save)
