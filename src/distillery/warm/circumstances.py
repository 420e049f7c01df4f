"""What a process is made of before its first line runs: equal in a server and a job, or no server.

A job that a server forks inherits these from the server instead of from whoever started the job:
the code and the libraries as they were read, the environment that libraries read when they are
loaded, and what the system ties to a process. Where one differs the job runs by itself, so that
`ulimit`, `nice`, `taskset`, a container or an edit mean what they always mean.
"""

from __future__ import annotations

import os
import re
import resource
import signal
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distillery.store.canonical import digest

PACKAGE = Path(__file__).parents[1]
# Numbers of threads, all read when a library is loaded; what is not set follows the first.
THREADS = (
    *("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS", "MKL_NUM_THREADS"),
    *("VECLIB_MAXIMUM_THREADS", "NUMEXPR_NUM_THREADS"),
)
# Other variables that are read when Python or a library starts.
_LOADING = re.compile(
    r"(PYTHON(?!PATH$)|LD_|OMP_|GOMP_|KMP_|MKL_|OPENBLAS_|GOTO_|BLIS_|VECLIB_|NUMEXPR_|NPY_|NUMPY_|"
    r"TORCH|PYTORCH|ATEN_|DNNL_|ONEDNN_|TRITON|MALLOC_|GLIBC_|ARROW_|LC_|LANG$|LANGUAGE$)"
)
_STATUS = ("Uid", "Gid", "Groups", "CapEff", "CapBnd", "NoNewPrivs", "Seccomp")
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def circumstances(environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What must be equal, by what it is about; values are JSON.

    Args:
        environment: of the job.
    """
    return {
        "the source": source_stamp(),
        "the interpreter": [sys.executable, sys.version, _path(), sys.getfilesystemencoding()],
        "the options of Python": [list(sys.flags), sys.warnoptions, sorted(sys._xoptions)],
        "the environment": _loading(environment),
        "the limits": _limits(),
        "the priority": [os.nice(0), sorted(os.sched_getaffinity(0))],
        "the signals": _signals(),
        "the user or container": _kernel(),
    }


def source_stamp() -> str:
    """A digest that changes with every edit of this package and every installed package.

    It is of sizes and times, as any write or rename changes them, and reads no file.
    """
    stamps = [[str(PACKAGE)]]
    folders = [str(PACKAGE)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.name == "__pycache__":
                    continue
                if entry.is_dir():
                    folders.append(entry.path)
                elif entry.name.endswith(".py"):
                    stamps.append([entry.path, *_stamp(entry.stat())])
    libraries = {sysconfig.get_path(name) for name in ("purelib", "platlib")}
    stamps += [[path, *_stamp(os.stat(path))] for path in libraries if os.path.isdir(path)]
    return digest(sorted(stamps), 16)


def _stamp(found: os.stat_result) -> list[str]:
    numbers = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
    return [str(number) for number in numbers]


def _path() -> list[str]:
    """Where modules are looked for, without the first entry: of `-m` it is the present folder."""
    return sys.path[1:]


def _loading(environment: Mapping[str, str]) -> dict[str, str]:
    chosen = {key: value for key, value in environment.items() if _LOADING.match(key)}
    first = environment.get(THREADS[0], "")
    return chosen | {key: environment.get(key, first) for key in THREADS}


def _limits() -> dict[str, list[int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {name: list(resource.getrlimit(getattr(resource, name))) for name in names}


def _signals() -> list[list[int]]:
    """The signals that are ignored and those that are blocked, Python's own habits apart."""
    ours = {signal.SIGPIPE, signal.SIGXFSZ}
    ignored = [s for s in signal.valid_signals() - ours if signal.getsignal(s) == signal.SIG_IGN]
    return [sorted(ignored), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))]


def _kernel() -> list[str]:
    lines = Path("/proc/self/status").read_text().splitlines()
    known = [line for line in lines if line.partition(":")[0] in _STATUS]
    known += [_link(f"/proc/self/ns/{name}") for name in _NAMESPACES]
    return [*known, _link("/proc/self/root"), Path("/proc/self/cgroup").read_text()]


def _link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
