"""A warm server that has loaded nothing, jobs that do one thing, and commands that ask for them.

python -m helpers.warm serve ROOT [held]      python -m helpers.warm job ROOT WORD ...
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from distillery.warm import place, server
from distillery.warm.client import run_warm
from helpers.project import ROOT

COLD = 99  # exit code of a command that found no server


def job(words: list[str]) -> int:
    """What the server runs: the first word says what."""
    word, *rest = words
    if word == "exit":
        return int(rest[0])
    if word == "say":
        print("out", *rest)
        print("err", *rest, file=sys.stderr)
    elif word == "fail":
        raise RuntimeError("a bug")
    elif word == "read":
        print(sys.stdin.read().upper())
    elif word == "where":
        mask = os.umask(0)
        print(os.getcwd(), os.environ.get(rest[0]), mask, sys.argv[1:])
    elif word == "kill":
        os.kill(os.getpid(), getattr(signal, rest[0]))
    elif word == "peak":
        held = bytearray(int(rest[0]) << 20)
        held[::4096] = b"x" * len(held[::4096])
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10)
    elif word == "sleep":  # leaves a file when it may end by itself, another when it is interrupted
        try:
            print(os.getpid(), flush=True)
            time.sleep(float(rest[0]))
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            return 130
        print("slept", flush=True)
    return 0


def environment(source: Path = ROOT / "src") -> dict[str, str]:
    path = os.pathsep.join([str(source), str(ROOT / "tests")])
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def start(*words: str, source: Path = ROOT / "src", **options: object) -> subprocess.Popen[str]:
    """A process of this module."""
    options = {"cwd": ROOT / "tests", "env": environment(source), "text": True, **options}
    return subprocess.Popen(
        [sys.executable, "-m", "helpers.warm", *words], stdout=subprocess.PIPE, **options
    )


def ask(root: Path, *words: str, **options: object) -> tuple[int, str]:
    """Exit code and output of a command."""
    process = start("job", str(root), *words, **options)
    output, _ = process.communicate(timeout=60)
    return process.returncode, output


@contextlib.contextmanager
def served(root: Path, *words: str, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A server of the folder `root`, until the end of the block at the latest."""
    process = start("serve", str(root), *words, **options)
    try:
        socket = place.folder(root) / place.SOCKET
        until(lambda: socket.exists() or process.poll() is not None)
        yield process
    finally:
        process.kill()
        process.wait()


def until(true: Callable[[], object], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def main() -> int:
    kind, root, *words = sys.argv[1:]
    if kind == "serve":
        server._load = lambda: None
        handle = None
        if "held" in words:
            lock = place.Lock(place.make_folder(Path(root)) / place.SERVER)
            assert lock.take()
            handle = lock.handle
        idle = float(words[words.index("idle") + 1]) if "idle" in words else 300
        server.serve(Path(root), job, handle, idle)
        return 0
    code = run_warm(Path(root), words)
    return COLD if code is None else code


if __name__ == "__main__":
    sys.exit(main())
