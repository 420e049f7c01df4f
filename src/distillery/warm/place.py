"""Where a warm server of a project's folder is: a socket and two locks, one set a host and user.

The socket is addressed by a handle on its folder, since an address holds 107 bytes and a path may
be longer. Locks are `flock`s, which the system frees when their process dies, however it dies:
`server` is held by the one server there may be, `users` by every run that wants one.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

SWITCH = "DISTILLERY_WARM"  # environment variable; `off` or 0: every job runs by itself
FOLDER = "results/scratch/warm"
SOCKET, SERVER, USERS, LOG = "socket", "server", "users", "log"
_CREDENTIALS = struct.Struct("3i")  # process, user, group


def possible() -> bool:
    """Whether jobs may be warm here: on Linux, where the switch does not say otherwise."""
    return sys.platform == "linux" and os.environ.get(SWITCH, "on").lower() not in ("off", "0")


def folder(root: Path) -> Path:
    """The folder of this host's and user's server of the project at `root`."""
    return root / FOLDER / f"{socket.gethostname()[:100]}-{os.geteuid()}"


def make_folder(root: Path) -> Path:
    """Make the folder, for its user alone; what others could have put there is refused.

    Raises:
        PermissionError: the folder is another user's, or others may write there.
        OSError: it cannot be made.
    """
    path = folder(root)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    if not is_private(path):
        raise PermissionError(f"{path}: is not this user's alone")
    return path


def is_private(path: Path) -> bool:
    """Whether a folder is this user's, is no link, and nobody else may write there."""
    try:
        found = os.lstat(path)
    except OSError:
        return False
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return ours and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


@contextlib.contextmanager
def address(place: Path) -> Iterator[str]:
    """The address of the socket in a folder, short however deep the folder lies."""
    handle = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)


def peer(connection: socket.socket) -> int:
    """The user at the other end of a connection, as the kernel knows it."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


class Lock:
    """A lock on a file, shared or alone, until it is closed or its process is gone."""

    def __init__(self, file: Path, handle: int | None = None) -> None:
        """Open the file, made where it is absent, or take over a handle on it, lock and all."""
        if handle is None:
            handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        os.set_inheritable(handle, False)
        self.handle = handle

    def take(self, shared: bool = False, wait: bool = False) -> bool:
        """Lock the file, if no other holder forbids it; whether it is locked now."""
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(self.handle, kind | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            return False
        return True

    def free(self) -> None:
        """Unlock the file."""
        fcntl.flock(self.handle, fcntl.LOCK_UN)

    def close(self) -> None:
        """Close the file; another process that has the handle keeps the lock."""
        os.close(self.handle)


def serving(place: Path) -> bool:
    """Whether a server of this folder is alive, though perhaps still starting."""
    try:
        lock = Lock(place / SERVER)
    except OSError:
        return False
    try:
        return not lock.take(shared=True)
    finally:
        lock.close()
