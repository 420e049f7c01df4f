"""The digest of a folder's content: exactly DVC's own.

A pulled, a copied and an original folder therefore agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
import tempfile
import time
from pathlib import Path

from distillery.errors import DataError
from distillery.store.canonical import read_json

# What DVC never tracks; patterns of a .dvcignore are not looked at.
UNTRACKED = (".git", ".hg", ".dvc")

# Of each file: relative path, bytes, times of modification and of change in ns, and inode. The time
# of change cannot be set, as that of modification can; another file in its place has another inode.
Listing = list[tuple[str, int, int, int, int]]
# Times are so coarse at worst: a file as young could change again and keep them.
COARSE = 2 * 10**9
# By folder: a hash of its listing, and the digest that its content had then.
Cache = dict[str, list[str]]


def folder_digest(path: Path, cache: Path | None = None) -> str:
    """DVC's hash of a folder.

    Args:
        path: the folder.
        cache: a JSON file that remembers digests; a folder whose files kept names, sizes, times
            and inodes is not read again.

    Returns:
        MD5 of the JSON list of its files' MD5 and relative path, followed by ".dir".

    Raises:
        DataError: the folder is missing or unreadable, or holds a link to a folder, whose content
            DVC would not record, or something that is no file: a named pipe, a socket, a device, a
            link to nothing. These are never opened.
    """
    check_folder(path, "the data")
    try:
        begun, listing = time.time_ns(), _listing(path)
        key, state = str(path.resolve()), hashlib.md5(json.dumps(listing).encode()).hexdigest()
        cached = _load(cache)
        if key not in cached or cached[key][0] != state:
            cached[key] = [state, _dvc_hash(path, listing)]
            if all(max(file[2:4]) < begun - COARSE for file in listing):
                _save(cache, cached)
    except OSError as error:
        raise DataError(
            f"{error.filename or path}: unreadable ({error.strerror}); repair or remove it"
        ) from None
    return cached[key][1]


def check_folder(path: Path, what: str) -> None:
    """Raise DataError, which says to put `what` there, unless `path` is a folder."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such folder; put {what} there, `dvc pull` it, "
            f"or change the data set's source"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); change the data set's source") from None
    if not stat.S_ISDIR(mode):
        raise DataError(
            f"{path}: is {_KINDS.get(stat.S_IFMT(mode), 'a file')}, not a folder; "
            f"name the folder that holds {what}"
        )


def place_digest(folder: Path, cache: Path | None = None) -> str | None:
    """The digest that identifies the content of the folder of a data source.

    Args:
        folder: where the source lies, or would lie.
        cache: as for `folder_digest`.

    Returns:
        The hash in `DIR.dvc` beside the folder, which stands for it while it is not pulled;
        without such a file that of the folder; None when there is no folder either.

    Raises:
        DataError: as `folder_digest`; or the folder is not what `DIR.dvc` says.
    """
    record = folder.with_name(f"{folder.name}.dvc") if folder.name else None
    tracked = _tracked(record) if record else None
    if not folder.is_dir() or (tracked and not any(folder.iterdir())):
        return tracked
    found = folder_digest(folder, cache)
    if tracked not in (None, found):
        raise DataError(
            f"{folder}: is not what {record} records; `dvc add {folder}` if the change is meant, "
            f"else `dvc checkout {folder}`"
        )
    return found


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
                found = _status(file)
                name = file.relative_to(root).as_posix()
                times = found.st_mtime_ns, found.st_ctime_ns
                listing.append((name, found.st_size, *times, found.st_ino))
    return sorted(listing)


_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def _status(file: Path) -> os.stat_result:
    """Of a file; whatever else has a name is refused, since reading it could wait for ever."""
    try:
        found = file.stat()
    except FileNotFoundError:
        raise DataError(
            f"{file}: is a link to nothing; restore the file that it names, or remove the link"
        ) from None
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "no file")
        raise DataError(f"{file}: is {kind}, not a file; remove it")
    return found


def _raise(error: OSError) -> None:
    raise error


def _dvc_hash(root: Path, listing: Listing) -> str:
    files = [{"md5": _md5(root / name), "relpath": name} for name, *_ in listing]
    return hashlib.md5(json.dumps(files).encode()).hexdigest() + ".dir"


def _md5(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "md5").hexdigest()


def _tracked(file: Path) -> str | None:
    """The folder hash in a .dvc file.

    Files of DVC 2 lack `hash: md5` and hash text files differently: they do not count.
    """
    try:
        text = file.read_text("utf-8", "replace") if file.is_file() else ""
    except OSError as error:
        raise DataError(f"{file}: unreadable ({error.strerror}); repair or remove it") from None
    output = re.search(r"^outs:.*?\bmd5: ([0-9a-f]{32}\.dir)\b", text, re.DOTALL | re.MULTILINE)
    return output[1] if output and re.search(r"\bhash: md5\b", text) else None


def _load(cache: Path | None) -> Cache:
    with contextlib.suppress(OSError, ValueError):
        content = read_json(cache) if cache else {}
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
