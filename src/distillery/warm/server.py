"""A process that has imported what jobs need and forks each job: `distillery serve`.

It has initialised nothing that a fork cannot take along: one thread, no CUDA, no pool of OpenMP's.
A job is a child of the server, in a process group of its own, with the folder, environment, umask
and standard streams of the command that asked for it; `warm.circumstances` says what else has to
be equal. The job says its exit code itself, so that it outlives the server's death; the server says
which signal a job died of. A job dies with the command that stands for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import multiprocessing
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import IO, Any

from distillery.components.registry import KINDS, index
from distillery.errors import PlanError
from distillery.store.fingerprint import code_digest
from distillery.store.spec import STAGES
from distillery.warm.circumstances import THREADS, circumstances
from distillery.warm.place import SERVER, SOCKET, USERS, Lock, address, make_folder, peer
from distillery.warm.wire import receive, send

Main = Callable[[list[str]], int]
# No pyarrow, sklearn or torchvision: the first starts threads, the others cost every fork more
# than the few jobs that need them gain.
PRELOADED = (
    *("numpy", "torch", "torch.optim", "safetensors.torch", "scipy.special", "PIL.Image"),
    *("PIL.JpegImagePlugin", "PIL.PngImagePlugin", "tqdm", "multiprocessing.synchronize"),
    *("distillery.store.job", "distillery.training.loop", "distillery.nets.network"),
    "distillery.plan.machine",
)
IDLE_S = 300.0
POLL_S = 0.5
REQUEST_S = 5.0  # for a command to send its request


def serve(root: Path, main: Main, lock: int | None = None, idle: float = IDLE_S) -> None:
    """Serve the jobs of a project's folder until told to end, idle, stale or no longer wanted.

    Args:
        root: the project's folder.
        main: runs a command and returns its exit code; called in the forks.
        lock: a handle on the server's lock, from a run that has taken it; the server then ends as
            soon as no run holds it any more (`warm.hold`).
        idle: seconds without a job after which the server ends.

    Raises:
        PlanError: this system has no warm jobs, or what was imported has started a thread.
    """
    if sys.platform != "linux":
        raise PlanError("serve: warm jobs need Linux; jobs run by themselves here")
    for name in THREADS:
        os.environ.setdefault(name, "1")
    ours = circumstances()
    place = make_folder(root)
    own = Lock(place / SERVER, lock)
    if not own.take():
        print(f"distillery: {place}: has a server already", file=sys.stderr)
        return
    before = dict(os.environ)
    _load()
    added = {key: value for key, value in os.environ.items() if before.get(key) != value}
    server = _Server(place, own, ours, added, main)
    signal.signal(signal.SIGTERM, server.end)
    signal.signal(signal.SIGINT, server.end)
    server.run(lock is not None, idle)


def _load() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    # What every job reads of the source: the names of components, and what code they run.
    components = [module for kind in KINDS for module in index(kind).values()]
    code_digest([*components, *(f"distillery.stages.{stage}" for stage in STAGES)])
    threads = os.listdir("/proc/self/task")
    if len(threads) > 1:
        raise PlanError(
            f"serve: what jobs need has started {len(threads) - 1} threads; jobs run by themselves"
        )
    gc.collect()
    gc.freeze()  # a collection in a job would copy the pages of all these objects


class _Server:
    def __init__(
        self, place: Path, lock: Lock, ours: dict[str, Any], added: dict[str, str], main: Main
    ) -> None:
        self.place, self.lock, self.ours, self.added, self.main = place, lock, ours, added, main
        self.users = Lock(place / USERS)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.jobs: dict[int, tuple[BaseProcess, socket.socket]] = {}
        # What a job has in place of the server's own; of a signal that is ignored, that.
        self.handlers = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)}
        self.mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        self.ended = False

    def end(self, *_: object) -> None:
        """Take no more jobs; those that run go on."""
        self.ended = True

    def run(self, held: bool, idle: float) -> None:
        """Listen until the end, which comes at once when nobody wants a held server any more."""
        (self.place / SOCKET).unlink(missing_ok=True)  # of a server that was killed
        with address(self.place) as name:
            self.listener.bind(name)
        os.chmod(self.place / SOCKET, 0o600)
        self.listener.listen(128)
        used = time.monotonic()
        try:
            while not self.ended:
                ready = wait([self.listener, *self.jobs], timeout=POLL_S)
                for job in [found for found in ready if isinstance(found, int)]:
                    self._bury(job)
                if self.listener in ready:
                    self._accept()
                if ready or self.jobs:
                    used = time.monotonic()
                elif (held and self._unwanted()) or time.monotonic() - used > idle:
                    break
        finally:
            self._close()

    def _unwanted(self) -> bool:
        free = self.users.take()
        if free:
            self.users.free()
        return free

    def _close(self) -> None:
        """Leave nothing that a command could connect to, and let the jobs that run be."""
        (self.place / SOCKET).unlink(missing_ok=True)
        self.listener.close()
        self.lock.close()
        for job in list(self.jobs):
            self._bury(job)

    def _bury(self, job: int) -> None:
        """Tell the command of a job that has ended how; wait for it where it has not."""
        process, connection = self.jobs.pop(job)
        process.join()
        with connection, contextlib.suppress(OSError):
            send(connection, {"ended": process.exitcode})

    def _accept(self) -> None:
        connection, _ = self.listener.accept()
        handles: list[int] = []
        try:
            connection.settimeout(REQUEST_S)
            if peer(connection) != os.geteuid():
                raise PermissionError
            request, handles = receive(connection)
            if request is None or len(handles) != 4:
                raise ValueError("no request")
            if refused := self._differing(request["circumstances"]):
                send(connection, {"refused": refused})
                self.ended = self.ended or "the source" in refused
                raise ValueError(refused)
            self._start(connection, request, handles)
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()  # the command then runs by itself
        finally:
            for handle in handles:
                os.close(handle)

    def _differing(self, theirs: dict[str, Any]) -> list[str]:
        return [about for about, value in self.ours.items() if theirs.get(about) != value]

    def _start(
        self, connection: socket.socket, request: dict[str, Any], handles: list[int]
    ) -> None:
        connection.settimeout(None)
        fork = multiprocessing.get_context("fork")
        process = fork.Process(target=self._job, args=(connection, request, handles))
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.jobs[process.sentinel] = (process, connection)

    def _job(self, connection: socket.socket, request: dict[str, Any], handles: list[int]) -> None:
        """In the fork: become the process that the command would have been, and run it."""
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, self.mask)
        _die_with(connection)
        self.lock.close()
        self.users.close()
        for other in (self.listener, *(other for _, other in self.jobs.values())):
            other.close()
        os.setpgid(0, 0)
        _become(request, handles, self.added)
        with open(os.pidfd_open(os.getpid()), "rb") as own:  # by which signals are passed on
            send(connection, {"started": os.getpid()}, (own.fileno(),))
        code = self.main(request["argv"])
        sys.stdout.flush()
        sys.stderr.flush()
        _die_with(connection, False)
        with contextlib.suppress(OSError):
            send(connection, {"ended": code})
        sys.exit(code)


def _die_with(connection: socket.socket, yes: bool = True) -> None:
    """Have the kernel kill this process when the other end of a connection is gone."""
    handle = connection.fileno()
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    if not yes:
        fcntl.fcntl(handle, fcntl.F_SETFL, flags & ~os.O_ASYNC)
        return
    fcntl.fcntl(handle, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(handle, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(handle, fcntl.F_SETFL, flags | os.O_ASYNC)
    with contextlib.suppress(BlockingIOError):  # nothing to read: the other end is there
        connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        os._exit(1)


def _become(request: dict[str, Any], handles: list[int], added: dict[str, str]) -> None:
    """Take on a command's folder, environment, umask and streams."""
    here, *streams = handles
    os.fchdir(here)
    os.umask(request["umask"])
    os.environ.clear()
    os.environ.update(added | request["environment"])
    time.tzset()
    tempfile.tempdir = None
    for number, handle in enumerate(streams):
        os.dup2(handle, number)
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        encoding, errors = request["streams"][number]
        setattr(sys, name, _stream(number, mode, encoding, errors))
    for handle in handles:
        os.close(handle)
    sys.argv[1:] = request["argv"]


def _stream(number: int, mode: str, encoding: str, errors: str) -> IO[str]:
    """A standard stream as Python opens it: by lines where a person may be reading."""
    buffering = 1 if number == 2 or os.isatty(number) else -1
    return open(number, mode, buffering, encoding, errors, closefd=False)
