"""The digest of a folder's content: exactly DVC's own.

A pulled, a copied and an original folder therefore agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from distillery.errors import DataError

# What DVC never tracks; patterns of a .dvcignore are not looked at.
UNTRACKED = (".git", ".hg", ".dvc")

# Relative path, bytes and modification time in ns of each file.
Listing = list[tuple[str, int, int]]
# By folder: a hash of its listing, and the digest that its content had then.
Cache = dict[str, list[str]]


def folder_digest(path: Path, cache: Path | None = None) -> str:
    """DVC's hash of a folder.

    Args:
        path: the folder.
        cache: a JSON file that remembers digests; a folder whose files kept names, sizes and
            modification times is not read again.

    Returns:
        MD5 of the JSON list of its files' MD5 and relative path, followed by ".dir".

    Raises:
        DataError: the folder is missing or unreadable, or holds a link to a folder, whose content
            DVC would not record.
    """
    if not path.is_dir():
        raise DataError(
            f"{path}: no such folder; put the data there, `dvc pull` it, "
            f"or change the data set's source"
        )
    try:
        listing = _listing(path)
        key, state = str(path.resolve()), hashlib.md5(json.dumps(listing).encode()).hexdigest()
        cached = _load(cache)
        if key not in cached or cached[key][0] != state:
            cached[key] = [state, _dvc_hash(path, listing)]
            _save(cache, cached)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: unreadable ({error.strerror}); repair or remove it"
        ) from None
    return cached[key][1]


def place_digest(folder: Path, cache: Path | None = None) -> str | None:
    """The digest that identifies the content of the folder of a data source.

    Args:
        folder: where the source lies, or would lie.
        cache: as for `folder_digest`.

    Returns:
        The hash in `DIR.dvc` beside the folder, which stands for it even while it is not pulled;
        without such a file that of the folder; None when there is no folder either.

    Raises:
        DataError: as `folder_digest`.
    """
    tracked = _tracked(folder.with_name(f"{folder.name}.dvc"))
    return tracked or (folder_digest(folder, cache) if folder.is_dir() else None)


def _listing(root: Path) -> Listing:
    listing = []
    for base, folders, names in os.walk(root, onerror=_raise):
        paths = [os.path.join(base, name) for name in folders]
        links = [path for path in paths if os.path.islink(path)]
        if links:
            raise DataError(
                f"{links[0]}: is a link to a folder, which DVC does not follow; "
                f"put the files themselves there"
            )
        folders[:] = [name for name in folders if name not in UNTRACKED]
        for name in names:
            if name != ".git":
                file = Path(base, name)
                stat = file.stat()
                name = file.relative_to(root).as_posix()
                listing.append((name, stat.st_size, stat.st_mtime_ns))
    return sorted(listing)


def _raise(error: OSError) -> None:
    raise error


def _dvc_hash(root: Path, listing: Listing) -> str:
    files = [{"md5": _md5(root / name), "relpath": name} for name, _, _ in listing]
    return hashlib.md5(json.dumps(files).encode()).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _tracked(file: Path) -> str | None:
    """The folder hash in a .dvc file.

    Files of DVC 2 lack `hash: md5` and hash text files differently: they do not count.
    """
    text = file.read_text() if file.is_file() else ""
    output = re.search(r"^outs:.*?\bmd5: ([0-9a-f]{32}\.dir)\b", text, re.DOTALL | re.MULTILINE)
    return output[1] if output and re.search(r"\bhash: md5\b", text) else None


def _load(cache: Path | None) -> Cache:
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(cache.read_text()) if cache else {}
        return content if isinstance(content, dict) else {}
    return {}


def _save(cache: Path | None, content: Cache) -> None:
    if cache is None:
        return
    with contextlib.suppress(OSError):  # planning works without a cache, only slower
        cache.parent.mkdir(parents=True, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=cache.parent, prefix=cache.name)
        with os.fdopen(handle, "w") as file:
            json.dump(content, file)
        os.replace(aside, cache)
