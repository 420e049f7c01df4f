"""Hand a job to the warm server of its project's folder, and stand for it until it ends.

The command that was started stays the job in all eyes: it passes signals on, dies of what the job
dies of, ends with its exit code, and a kill of it kills the job.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from distillery.warm.circumstances import circumstances
from distillery.warm.place import address, folder, is_private, peer, possible, serving
from distillery.warm.wire import receive, send

START_S = 300.0  # to wait for a server that is starting, where the machine is busy
ANSWER_S = 20.0  # to wait for the server's answer, which takes milliseconds
_FORWARDED = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1),
    *(signal.SIGUSR2, signal.SIGALRM, signal.SIGXCPU, signal.SIGCONT),
)


def run_warm(root: Path, argv: Sequence[str]) -> int | None:
    """Have the server run a command, if there is one that would run it as this process would.

    Args:
        root: the project's folder.
        argv: the words after `distillery`.

    Returns:
        The exit code; None: nothing has run, and the command is to run by itself.
    """
    place = folder(root)
    if not possible() or not is_private(place) or None in (sys.stdin, sys.stdout, sys.stderr):
        return None
    connection = _connected(place)
    if connection is None:
        return None
    with connection:
        request = _request(argv)
        # A signal that comes from here on is the job's, or this process's if there is no job.
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGTSTP})
        try:
            job = _started(connection, request)
            if job is None:
                return None
            _pass_signals_on(job)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return _end(_waited(connection))


def _connected(place: Path) -> socket.socket | None:
    """A connection to this user's server; None where there is none, or it does not come up."""
    started = time.monotonic()
    while True:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address(place) as name:
                connection.connect(name)
            if peer(connection) == os.geteuid():
                return connection
        except OSError:
            pass
        connection.close()
        if time.monotonic() - started > START_S or not serving(place):
            return None
        time.sleep(0.02)


def _request(argv: Sequence[str]) -> dict[str, object]:
    mask = os.umask(0o077)
    os.umask(mask)
    return {
        "argv": list(argv),
        "environment": dict(os.environ),
        "circumstances": circumstances(),
        "umask": mask,
        "streams": [
            [stream.encoding, stream.errors] for stream in (sys.stdin, sys.stdout, sys.stderr)
        ],
    }


def _started(connection: socket.socket, request: dict[str, object]) -> int | None:
    """Send the request with the present folder and the standard streams; a handle on the job.

    None where the server refuses or fails: nothing has run then.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    here = os.open(".", os.O_PATH)
    try:
        connection.settimeout(ANSWER_S)
        send(connection, request, (here, 0, 1, 2))
        answer, handles = receive(connection)
        connection.settimeout(None)
    except (OSError, ValueError):
        return None
    finally:
        os.close(here)
    return handles[0] if answer and "started" in answer and handles else None


def _pass_signals_on(job: int) -> None:
    """Have this process hand its signals to a job, and stop and go on with it."""

    def forward(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(job, number)

    def stop(number: int, frame: FrameType | None) -> None:
        forward(signal.SIGSTOP, None)  # an orphaned group of processes ignores SIGTSTP
        os.kill(os.getpid(), signal.SIGSTOP)

    for number, handler in (dict.fromkeys(_FORWARDED, forward) | {signal.SIGTSTP: stop}).items():
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler)


def _waited(connection: socket.socket) -> int:
    """The exit code of the job, which may take days; negative for a signal that it died of."""
    try:
        answer, _ = receive(connection)
    except (OSError, ValueError):
        answer = None
    if answer is None:  # the job and the server
        print("distillery: the job was killed; the same command continues", file=sys.stderr)
        return 1
    return int(answer["ended"])


def _end(code: int) -> int:
    """The exit code, or the death of this process by the signal that the job died of."""
    if code < 0:
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code
