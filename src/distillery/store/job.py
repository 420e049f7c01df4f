"""Run one job: make an artefact aside, move it into the store, write its meta.json last.

Killed at any moment, a job leaves nothing where a result belongs; started again, it continues from
its checkpoint.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import platform
import resource
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from distillery.errors import ArtefactError
from distillery.store.artefact import (
    FORMAT,
    META,
    Artefact,
    Circumstances,
    FileRecord,
    Meta,
    content,
    is_whole,
    meta_writer,
    open_artefact,
    read_meta,
    verify_files,
)
from distillery.store.atomic import copier, write_file, write_together
from distillery.store.canonical import digest, file_sha256, read_json
from distillery.store.eager import leave_compiler_out
from distillery.store.fingerprint import code_digest, module_digests
from distillery.store.named_files import check_files
from distillery.store.runtime import prepare_torch, seed
from distillery.store.spec import Spec, folder

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

LOCKS = ".locks"  # folder in the store
LIBRARIES = ("torch", "torchvision", "numpy", "pyarrow", "pillow", "scikit-learn", "safetensors")
# Parameter numbers and values of glibc's mallopt.
_MALLOPT = {
    "trim_threshold": (-1, 2**31 - 1),
    "top_pad": (-2, 64 << 20),
    "mmap_max": (-4, 0),
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_WORDS = ("No space left", "File too large")  # of libraries that wrap the system's error


@dataclass(frozen=True)
class Job:
    """What a stage's `make` works with.

    Attributes:
        recipe: the resolved recipe as the planner wrote it, JSON values by field name: those of the
            spec's recipe, with what differs between machines (`Spec.local`) put in. Stages read it
            into their recipe type by `components.fields.read`.
        inputs: verified artefacts by role; a list where a role may have several.
        out: staging folder; its files become the artefact.
        scratch: folder for checkpoints; it survives kills and is removed on success.
        key: the identity without code.
        streams: what all seeds follow from besides their roles.
        device: where tensors are computed.
    """

    recipe: Mapping[str, Any]
    inputs: Mapping[str, Artefact | list[Artefact]]
    out: Path
    scratch: Path
    key: str
    streams: str
    device: torch.device

    def input(self, role: str) -> Artefact:
        """The one artefact of `role`.

        Raises:
            ArtefactError: the job has none, or several.
        """
        artefact = self.find_input(role)
        if artefact is None:
            raise ArtefactError(f"the job has no input '{role}'; plan again")
        return artefact

    def find_input(self, role: str) -> Artefact | None:
        """The one artefact of `role`, or None.

        Raises:
            ArtefactError: the job has several.
        """
        artefact = self.inputs.get(role)
        if isinstance(artefact, list):
            raise ArtefactError(
                f"the job has several inputs '{role}' where one is read; plan again"
            )
        return artefact

    def inputs_of(self, role: str) -> list[Artefact]:
        """The artefacts of `role`, which may be several; none when the job has none."""
        artefacts = self.inputs.get(role, [])
        return artefacts if isinstance(artefacts, list) else [artefacts]

    def seed(self, role: str) -> int:
        """A 63-bit seed for `role`, derived from the job's streams."""
        return seed(self.streams, role)

    def generator(self, role: str, device: str = "cpu") -> torch.Generator:
        """A fresh generator for `role`; the same streams and role always draw the same."""
        import torch

        return torch.Generator(device).manual_seed(self.seed(role))

    def progress(self, work: int | Iterable[Any], label: str) -> tqdm:
        """A progress bar with an estimate of the time left; in a log file a line every 15 s.

        Args:
            work: what to iterate over, or the number of steps.
            label: what stands before the bar.
        """
        from tqdm import tqdm

        live = sys.stderr.isatty()
        options: dict[str, Any] = {
            "desc": label,
            "file": sys.stderr if live else _Lines(),
            "mininterval": 0.5 if live else 15,
            "ncols": 100,
        }
        return tqdm(total=work, **options) if isinstance(work, int) else tqdm(work, **options)


class _Lines:
    """A log file's view of a progress bar: each redraw is a line of its own."""

    def write(self, text: str) -> None:
        text = text.strip("\r\n")
        if text:
            sys.stderr.write(text + "\n")

    def flush(self) -> None:
        sys.stderr.flush()


def run(spec: Spec, store: Path, device: str = "auto", threads: int = 1) -> Path:
    """Make the artefact of `spec` in `store`, unless it is there and complete.

    Args:
        spec: what to make.
        store: folder of the store.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads that torch may use.

    Returns:
        The folder of the artefact.

    Raises:
        ArtefactError: the code is not the planned one, an input is missing or corrupt, or the disk
            is full.
        DistilleryError: as the stage raises it.
    """
    target = folder(store, spec.address)
    if is_whole(target):
        return target
    scratch = store.parent / "scratch" / spec.address
    with _alone(store, spec.address):
        if is_whole(target):
            return target
        if code_digest(spec.roots) != spec.code:
            raise ArtefactError(
                f"{spec.address}: the source changed after planning; run the same command again"
            )
        scratch.mkdir(parents=True, exist_ok=True)
        if not _finished(spec, scratch / "out"):
            _make_aside(spec, store, scratch, device, threads)
        publish(scratch / "out", target)
    shutil.rmtree(scratch, ignore_errors=True)
    return target


@contextmanager
def _alone(store: Path, address: str) -> Iterator[None]:
    """Let one process at a time make the artefact `stage/id`, whatever it was started by.

    An orphan of a killed run and its restart, two engines, and two projects that share a store by a
    link never make it side by side. The system frees the lock of a process that dies.
    """
    lock = store.resolve() / LOCKS / f"{address}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    alone = FileLock(lock)
    try:
        alone.acquire(blocking=False)
    except Timeout:
        print(f"{address}: another process is making it; waiting for it", file=sys.stderr)
        alone.acquire()
    try:
        yield
    finally:
        alone.release()


def _finished(spec: Spec, out: Path) -> bool:
    """Whether an earlier run made the artefact, but could not move it into the store."""
    try:
        meta = _read_out(out)
        verify_files(out, meta["files"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ArtefactError):
        return False
    return bool(meta["id"] == spec.id)


def _make_aside(spec: Spec, store: Path, scratch: Path, device: str, threads: int) -> None:
    """Make the artefact in the staging folder; nothing is left there when that fails."""
    try:
        _make(spec, store, scratch, device, threads)
    except BaseException as error:
        shutil.rmtree(scratch / "out", ignore_errors=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise _full(scratch, error) from None
        if isinstance(error, Exception) and any(words in str(error) for words in _FULL_WORDS):
            raise _full(scratch, error) from None
        raise


def _full(scratch: Path, error: Exception) -> ArtefactError:
    return ArtefactError(
        f"{scratch}: the disk or quota is full ({error}); "
        f"free space, then run the same command again"
    )


def _make(spec: Spec, store: Path, scratch: Path, device: str, threads: int) -> None:
    started = time.perf_counter()
    job = _prepare(spec, store, scratch, device, threads)
    metadata = importlib.import_module(f"distillery.stages.{spec.stage}").make(job)
    meta: Meta = {
        "format": FORMAT,
        "stage": spec.stage,
        "id": spec.id,
        "key": job.key,
        "spec": asdict(spec),
        "metadata": metadata,
        "modules": module_digests(spec.roots),
        **_circumstances(job, started, threads),
        "files": file_records(job.out),
    }
    write_file(job.out / META, meta_writer(meta))


def _prepare(spec: Spec, store: Path, scratch: Path, device: str, threads: int) -> Job:
    keys = spec.map_inputs(lambda address: read_meta(folder(store, address))["key"])
    check_files(spec.recipe, spec.local)
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    inputs = spec.map_inputs(lambda address: open_artefact(folder(store, address)))
    keep_freed_memory()
    leave_compiler_out()
    key = spec.key(keys)
    return Job(
        recipe=spec.recipe | spec.local,
        inputs=inputs,
        out=out,
        scratch=scratch,
        key=key,
        streams=digest(spec.streams, 16) if spec.streams else key,
        device=prepare_torch(device, threads),
    )


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed, where it is glibc.

    A training step frees tensors of the sizes that the next step asks for, and the kernel would
    hand out new, zeroed pages every time (up to a quarter of a small student's time).
    """
    with suppress(OSError, AttributeError):  # another C library
        for option in _MALLOPT.values():
            ctypes.CDLL(None).mallopt(*option)


def file_records(folder: Path) -> dict[str, FileRecord]:
    """Size and checksum of each file directly in `folder`, by name."""
    files = sorted(file for file in folder.iterdir() if file.is_file())
    return {
        file.name: {"bytes": file.stat().st_size, "sha256": file_sha256(file)} for file in files
    }


def publish(out: Path, target: Path) -> None:
    """Move a finished artefact into the store, its meta.json, which makes it exist, last.

    Args:
        out: staging folder with a meta.json and the files that it lists; on any file system.
        target: folder of the artefact.

    Raises:
        ArtefactError: the store cannot be written; what is in `out` stays, and the next call, or
            the next run of the job, moves it.
    """
    names = sorted(file.name for file in out.iterdir() if file.is_file() and file.name != META)
    if not _says_the_same(out, target):
        names.append(META)
    try:
        write_together({target / name: copier(out / name) for name in names})
    except OSError as error:
        raise ArtefactError(
            f"{target}: cannot be written ({error.strerror or error}); the finished artefact waits "
            f"in {out}: mend that, then run the same command again"
        ) from None


def _says_the_same(out: Path, target: Path) -> bool:
    """Whether the artefact is there but for files, and these turned out the same again.

    Its meta.json, which others may have recorded, then stays.
    """
    try:
        return content(read_meta(target)) == content(_read_out(out))
    except (OSError, ValueError, ArtefactError):
        return False


def _read_out(out: Path) -> Meta:
    meta: Meta = read_json(out / META)
    return meta


def _circumstances(job: Job, started: float, threads: int) -> Circumstances:
    import torch

    cuda = job.device.type == "cuda"
    # Linux counts the peak in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit,
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "device": device_name(job.device),
        "threads": threads,
        "python": platform.python_version(),
        "versions": versions(),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def device_name(device: torch.device) -> str:
    """The name of a GPU, or of the processor."""
    import torch

    processor = platform.processor() or platform.machine()
    return torch.cuda.get_device_name() if device.type == "cuda" else processor


def versions() -> dict[str, str | None]:
    """The versions of the libraries on which numbers depend, by name; None: not installed."""
    return {name: _version(name) for name in LIBRARIES}


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
