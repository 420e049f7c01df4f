"""Run one job: check the spec, make the artefact aside, move it into the store, write meta.json last.

Killed at any moment it leaves nothing where a result belongs; started again it continues from its checkpoint.
"""

from __future__ import annotations

import ctypes
import errno
import importlib
import json
import os
import platform
import resource
import shutil
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from distillery.errors import ArtefactError
from distillery.store.artefact import FORMAT, META, Artefact, open_artefact, read_meta
from distillery.store.canonical import file_sha256
from distillery.store.fingerprint import code_digest, module_digests
from distillery.store.runtime import prepare_torch, seed
from distillery.store.spec import Spec, folder

if TYPE_CHECKING:
    import torch
    from tqdm import tqdm

LIBRARIES = ("torch", "torchvision", "numpy", "pyarrow", "pillow", "scikit-learn", "safetensors")
_MALLOPT = {
    "trim_threshold": (-1, 2**31 - 1),
    "top_pad": (-2, 64 << 20),
    "mmap_max": (-4, 0),
}  # glibc's numbers
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class Job:
    """What a stage's `make` works with.

    recipe: the resolved values. inputs: verified artefacts by role. out: staging folder, its files become the artefact.
    scratch: folder for checkpoints, survives kills, removed on success. key: identity without code, the root of all seeds.
    """

    recipe: dict[str, Any]
    inputs: dict[str, Artefact | list[Artefact]]
    out: Path
    scratch: Path
    key: str
    device: torch.device = field(default=None)

    def input(self, role: str) -> Artefact:
        """The one artefact of `role`. Raises ArtefactError when the job has none."""
        found = self.find_input(role)
        if found is None:
            raise ArtefactError(f"the job has no input '{role}'; plan again")
        return found

    def find_input(self, role: str) -> Artefact | None:
        """The one artefact of `role`, or None."""
        found = self.inputs.get(role)
        if isinstance(found, list):
            raise ArtefactError(
                f"the job has several inputs '{role}' where one is read; plan again"
            )
        return found

    def inputs_of(self, role: str) -> list[Artefact]:
        """The artefacts of `role`, which may be several; none when the job has none."""
        found = self.inputs.get(role, [])
        return found if isinstance(found, list) else [found]

    def seed(self, role: str) -> int:
        """A 63-bit seed for `role`, derived from the cell."""
        return seed(self.key, role)

    def generator(self, role: str, device: str = "cpu") -> torch.Generator:
        """A fresh generator for `role`; the same cell and role always give the same stream."""
        import torch

        return torch.Generator(device).manual_seed(self.seed(role))

    def progress(self, work: Any, label: str) -> tqdm:
        """A tqdm bar with an estimate of the time left, over an iterable or a total; in a log a line every 15 s."""
        from tqdm import tqdm

        live = sys.stderr.isatty()
        options = {
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
    """Make the artefact of `spec` in `store` and return its folder; a complete one is left alone.

    Raises ArtefactError when the code is not the planned one, an input is missing or corrupt, or the disk is full, and whatever
    error of `distillery.errors` the stage raises.
    """
    target = folder(store, spec.address)
    scratch = store.parent / "scratch" / spec.address
    scratch.mkdir(parents=True, exist_ok=True)
    # One process per artefact: an orphan of a killed run and its restart never train side by side.
    with FileLock(f"{scratch}.lock"):
        if (target / META).is_file():
            return target
        if code_digest(spec.roots) != spec.code:
            raise ArtefactError(
                f"{spec.address}: the source changed after planning; run the same command again"
            )
        try:
            _make(spec, store, target, scratch, device, threads)
        except OSError as error:
            if error.errno in _FULL:
                raise _full(scratch, error) from None
            raise
        except Exception as error:
            if "No space left" in str(error) or "File too large" in str(error):
                raise _full(scratch, error) from None
            raise
        finally:
            shutil.rmtree(scratch / "out", ignore_errors=True)
    shutil.rmtree(scratch, ignore_errors=True)
    return target


def _full(scratch: Path, error: Exception) -> ArtefactError:
    return ArtefactError(
        f"{scratch}: the disk or quota is full ({error}); free space, then run the same command again"
    )


def _make(spec: Spec, store: Path, target: Path, scratch: Path, device: str, threads: int) -> None:
    started = time.perf_counter()
    keys = spec.map_inputs(lambda address: read_meta(folder(store, address))["key"])
    out = scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    inputs = spec.map_inputs(lambda address: open_artefact(folder(store, address)))
    keep_freed_memory()
    job = Job(
        spec.recipe | spec.local,
        inputs,
        out,
        scratch,
        spec.key(keys),
        prepare_torch(device, threads),
    )
    metadata = importlib.import_module(f"distillery.stages.{spec.stage}").make(job)
    meta = {
        "format": FORMAT,
        "stage": spec.stage,
        "id": spec.id,
        "key": job.key,
        "spec": asdict(spec),
        "metadata": metadata,
        "modules": module_digests(spec.roots),
        **_circumstances(job, started, threads),
    }
    publish(out, target, meta)


def keep_freed_memory() -> None:
    """Let the C library keep memory that is freed: a step of a training frees tensors of the sizes that the next one asks for,
    and the kernel would hand out new, zeroed pages every time (up to a quarter of a small student's time)."""
    with suppress(OSError, AttributeError):  # another C library
        for option in _MALLOPT.values():
            ctypes.CDLL(None).mallopt(*option)


def publish(out: Path, target: Path, meta: dict[str, Any]) -> None:
    """Move the files of `out` to the artefact folder `target`, then write its meta.json, which makes it exist."""
    files = sorted(f for f in out.iterdir() if f.is_file())
    meta["files"] = {f.name: {"bytes": f.stat().st_size, "sha256": file_sha256(f)} for f in files}
    target.mkdir(parents=True, exist_ok=True)
    for file in files:
        os.replace(file, target / file.name)
    aside = out / META
    aside.write_text(json.dumps(meta, indent=1, sort_keys=True, allow_nan=False) + "\n")
    os.replace(aside, target / META)


def _circumstances(job: Job, started: float, threads: int) -> dict[str, Any]:
    """What may differ between two makings of the same artefact; kept beside the metadata, never in a table."""
    import torch

    cuda = job.device.type == "cuda"
    return {
        "seconds": round(time.perf_counter() - started, 2),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        * (1 if sys.platform == "darwin" else 1024),
        "peak_gpu_memory_bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "device": torch.cuda.get_device_name()
        if cuda
        else platform.processor() or platform.machine(),
        "threads": threads,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in LIBRARIES},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
