"""The digest of a source's content: for folders exactly DVC's own, so that a pulled, a copied and an original folder agree."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from distillery.data.source import ON_DISK, parse
from distillery.errors import DataError

UNTRACKED = (
    ".git",
    ".hg",
    ".dvc",
)  # what DVC never tracks; patterns of a .dvcignore are not looked at

Listing = list[tuple[str, int, int]]  # relative path, bytes, modification time in ns


def folder_digest(path: Path, cache: Path | None = None) -> str:
    """DVC's hash of the folder `path`: MD5 of the JSON list of its files' MD5 and relative path, followed by ".dir".

    cache: a JSON file that remembers digests; a folder whose files kept names, sizes and modification times is not read again.
    Raises DataError when the folder is missing or unreadable, or holds a link to a folder, whose content DVC would not record.
    """
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; put the data there, `dvc pull` it, or change the data set's source"
        )
    try:
        listing = _listing(path)
        key, state = str(path.resolve()), hashlib.md5(json.dumps(listing).encode()).hexdigest()
        known = _load(cache)
        if known.get(key, [None])[0] != state:
            known[key] = [state, _dvc_hash(path, listing)]
            _save(cache, known)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: unreadable ({error.strerror}); repair or remove it"
        ) from None
    return known[key][1]


def source_digest(source: str, base: Path, cache: Path | None = None) -> str | None:
    """The content digest of `kind:place`, a relative place lying below `base`.

    On disk: the hash in `DIR.dvc` beside the folder, which stands for it even while it is not pulled; without one, that of the
    folder, or None when there is no folder. Otherwise the source names a fixed release and is its own digest.
    Raises DataError on an unknown kind and as `folder_digest`.
    """
    kind, place = parse(source)
    if kind not in ON_DISK:
        return source
    folder = base / place
    tracked = _tracked(folder.with_name(f"{folder.name}.dvc"))
    return tracked or (folder_digest(folder, cache) if folder.is_dir() else None)


def _listing(root: Path) -> Listing:
    found = []
    for base, folders, names in os.walk(root, onerror=_raise):
        links = [
            os.path.join(base, name) for name in folders if os.path.islink(os.path.join(base, name))
        ]
        if links:
            raise DataError(
                f"{links[0]}: is a link to a folder, which DVC does not follow; put the files themselves there"
            )
        folders[:] = [name for name in folders if name not in UNTRACKED]
        for name in names:
            if name != ".git":
                file = Path(base, name)
                stat = file.stat()
                found.append((file.relative_to(root).as_posix(), stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def _raise(error: OSError) -> None:
    raise error


def _dvc_hash(root: Path, listing: Listing) -> str:
    files = [{"md5": _md5(root / name), "relpath": name} for name, _, _ in listing]
    return hashlib.md5(json.dumps(files).encode()).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _tracked(file: Path) -> str | None:
    """The folder hash in a .dvc file. Those of DVC 2 lack `hash: md5` and hash text files differently: they do not count."""
    text = file.read_text() if file.is_file() else ""
    found = re.search(r"^outs:.*?\bmd5: ([0-9a-f]{32}\.dir)\b", text, re.DOTALL | re.MULTILINE)
    return found[1] if found and re.search(r"\bhash: md5\b", text) else None


def _load(cache: Path | None) -> dict[str, list[str]]:
    with contextlib.suppress(OSError, ValueError):
        known = json.loads(cache.read_text()) if cache else {}
        return known if isinstance(known, dict) else {}
    return {}


def _save(cache: Path | None, known: dict[str, list[str]]) -> None:
    if cache is None:
        return
    with contextlib.suppress(OSError):  # planning works without a cache, only slower
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
        with os.fdopen(handle, "w") as file:
            json.dump(known, file)
        os.replace(aside, cache)
