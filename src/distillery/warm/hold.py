"""Start the warm server of a folder for a run, and hold it as long as the run lasts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

from distillery.warm.circumstances import PACKAGE, THREADS
from distillery.warm.place import LOG, SERVER, USERS, Lock, make_folder, possible


class Hold:
    """A run's claim on the server: with the last one, or its process, the server goes.

    Nothing here may stop a run: where there can be no server, jobs run by themselves.
    """

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._lock: Lock | None = None
        self.server: subprocess.Popen[bytes] | None = None

    def start(self, root: Path) -> None:
        """Hold the server of a project's folder, started where it does not run; no waiting."""
        if self._lock or not possible():
            return
        try:
            place = make_folder(root)
            self._lock = Lock(place / USERS)
            self._lock.take(shared=True, wait=True)  # a server looks only for a moment
            self.server = _start(root, place)
        except OSError:
            self.end()

    def end(self) -> None:
        """Let the server go."""
        if self._lock:
            self._lock.close()
        self._lock = None

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()


def _start(root: Path, place: Path) -> subprocess.Popen[bytes] | None:
    """Start the server, unless there is one; it has the lock from here on, while it loads."""
    lock = Lock(place / SERVER)
    try:
        if not lock.take():
            return None
        command = [sys.executable, "-m", PACKAGE.name, "serve", "--lock", str(lock.handle)]
        with open(place / LOG, "wb") as log:
            return subprocess.Popen(
                [*command, "--root", str(root)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | {"PYTHONPATH": str(PACKAGE.parent)} | dict.fromkeys(THREADS, "1"),
                start_new_session=True,
                pass_fds=(lock.handle,),
            )
    finally:
        lock.close()
