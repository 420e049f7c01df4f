"""What DVC tracks of the store, and the objects behind it; shared by fetch.py and save.py.

An object is the content of a file under the name of its MD5, in the cache of this machine and on
the remote of the lab. DVC takes an object for what its name says; here each is read before it is
used.
"""

from __future__ import annotations

import hashlib
import json
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.config import NoRemoteError
from dvc.exceptions import DvcException
from dvc.logger import setup as show_messages
from dvc.repo import Repo
from dvc_data.callbacks import TqdmCallback

# The scripts run the code of their own folder, not what the environment installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))
STORE = Path("results/store")


class StoreError(Exception):
    """What a user must mend, in one line."""


def script(name: str, run: Callable[[], None]) -> None:
    """Run a script; what a user must mend ends it with one line and exit code 1.

    DVC's own messages are shown as its commands show them.
    """
    from distillery.errors import DistilleryError
    from distillery.store.failures import bug, explained

    show_messages()
    try:
        run()
    except (StoreError, DistilleryError, DvcException) as error:
        sys.exit(f"{name}: {' '.join(str(error).split())}")
    except Exception as error:
        if text := explained(error):
            sys.exit(f"{name}: {text}")
        traceback.print_exc()
        sys.exit(f"{name}: {bug(error)}")


def listings() -> dict[str, str]:
    """The object that lists the files of each tracked folder of the store, by folder."""
    found = {}
    for file in sorted(STORE.glob("*.dvc")):
        try:
            (out,) = yaml.safe_load(file.read_text())["outs"]
            found[f"{STORE}/{out['path']}"] = str(out["md5"])
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise StoreError(
                f"{file}: names no folder ({error}); `git checkout {file}`, or merge it"
            ) from None
    return found


def tracked(repo: Repo) -> dict[str, str]:
    """The object of each file of the store that DVC tracks, on disk or not, by path.

    Raises:
        StoreError: a listing cannot be had. Without it, what exists would be computed again.
    """
    folders = listings()
    lost = bring(repo, folders.values())
    for folder, oid in folders.items():
        if oid in lost:
            raise StoreError(
                f"{folder}.dvc: its listing {oid} is {lost[oid]}; `dvc push` it from where it was "
                f"made, or remove {folder}.dvc, and what it lists is forgotten"
            )
    cache = repo.cache.local
    return {
        f"{folder}/{entry['relpath']}": entry["md5"]
        for folder, oid in folders.items()
        for entry in json.loads(Path(cache.oid_to_path(oid)).read_text())
    }


def bring(repo: Repo, oids: Iterable[str]) -> dict[str, str]:
    """Bring objects into the cache, and read them there.

    A damaged object is dropped from the cache, and asked for once more.

    Args:
        repo: the repository.
        oids: their names.

    Returns:
        Those that cannot be had, each with the reason.

    Raises:
        StoreError: the remote cannot be reached or read.
    """
    wanted = set(oids)
    for _ in range(2):
        missing = [oid for oid in sorted(wanted) if not _place(repo, oid).is_file()]
        absent = _download(repo, missing) if missing else {}
        damaged = [oid for oid in wanted - absent.keys() if not _is_whole(repo, oid)]
        for oid in damaged:
            _place(repo, oid).unlink()
        if not damaged:
            return absent
    place = _remote(repo).oid_to_path
    return absent | {
        oid: f"damaged on the remote (remove {place(oid)}, then `dvc push` the new one)"
        for oid in damaged
    }


def _place(repo: Repo, oid: str) -> Path:
    return Path(repo.cache.local.oid_to_path(oid))


def _is_whole(repo: Repo, oid: str) -> bool:
    with _place(repo, oid).open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest() == oid.removesuffix(".dir")


def _remote(repo: Repo) -> Any:
    return repo.cloud.get_remote_odb(command="fetch")


def _download(repo: Repo, oids: list[str]) -> dict[str, str]:
    """Copy objects from the remote into the cache; those that it lacks come back with a reason."""
    try:
        remote = _remote(repo)
        absent, error = _copy(repo, remote, oids)
        if absent and not error and not any(map(remote.exists, listings().values())):
            error = FileNotFoundError("it holds nothing of this store")
    except NoRemoteError:
        raise StoreError(
            f"{len(oids)} objects are not in the cache, and there is no remote; `dvc remote add "
            f"--default` the one that has them{_INSTEAD}"
        ) from None
    except Exception as raised:  # each kind of remote has errors of its own library
        error = raised
    if error:
        place = repo.config["remote"][repo.config["core"]["remote"]]["url"]
        raise StoreError(
            f"remote {place}: cannot be read ({error}); check its address, its mount and your "
            f"permission, or `dvc push` to it{_INSTEAD}"
        )
    return dict.fromkeys(absent, f"missing on the remote, {remote.path}")


_INSTEAD = "; nothing was computed; to do without it: snakemake --cores all results/TABLE.csv"


def _copy(repo: Repo, remote: Any, oids: list[str]) -> tuple[set[str], BaseException | None]:
    """Copy objects; those that are not there, and the first failure of another kind."""
    failed: dict[str, BaseException] = {}
    with TqdmCallback(
        desc=f"fetch from {remote.path}", unit="file", disable=not sys.stderr.isatty()
    ) as progress:
        repo.cache.local.add(
            [remote.oid_to_path(oid) for oid in oids],
            remote.fs,
            oids,
            batch_size=remote.fs.jobs,
            callback=progress,
            check_exists=False,
            on_error=failed.__setitem__,
        )
    absent = {oid for oid, error in failed.items() if isinstance(error, FileNotFoundError)}
    others = [error for oid, error in failed.items() if oid not in absent]
    return absent, others[0] if others else None


def check_out(repo: Repo, files: Mapping[str, str]) -> None:
    """Put files of the store, whose objects are in the cache, in their places."""
    if files:  # without targets, everything would be checked out
        repo.checkout(targets=sorted(files), force=True)
