"""Failures that a machine, a file or a recipe causes, in one line; what is left is a bug.

Errors of this package say themselves what is wrong. Here are those of the system and of libraries
that can reach a user: each is told from a bug by its type, its number or words of its message.
"""

from __future__ import annotations

import errno
import os
import traceback

_AGAIN = "then run the same command again"
_REASONS = {
    errno.EACCES: f"permission denied; let this user read and write it, {_AGAIN}",
    errno.EPERM: f"not permitted; let this user read and write it, {_AGAIN}",
    errno.EROFS: "lies on a read-only file system; choose another folder, or mount it for writing",
    errno.ENOENT: "no such file or folder; check the path",
    errno.ENOTDIR: "a part of this path is a file where a folder is expected; rename or remove it",
    errno.EISDIR: "is a folder where a file is expected; rename or remove it",
    errno.EEXIST: "is there already, and is not what is expected; rename or remove it",
    errno.ENODEV: "no such device; check the path",
    errno.ENXIO: "no such device or address; check the path",
    errno.ELOOP: "links that lead back to themselves; mend them",
    errno.ENAMETOOLONG: "the name is too long for this file system; shorten it",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
    errno.ENFILE: "too many open files on this machine; close some",
    errno.EIO: "the disk cannot be read or written; check it",
    errno.ENOSPC: f"the disk is full; free space, {_AGAIN}",
    errno.EDQUOT: f"the quota is full; free space, {_AGAIN}",
    errno.EFBIG: "the file is larger than this file system or limit allows",
    errno.ESTALE: f"the network's file system lost it; check the mount, {_AGAIN}",
    errno.ETIMEDOUT: f"the network's file system does not answer; check it, {_AGAIN}",
    errno.ENOMEM: f"out of memory; close other programs or use fewer cores, {_AGAIN}",
}
_HOST_MEMORY = ("can't allocate memory", "Cannot allocate memory", "not enough memory")
_GPU_MEMORY = ("CUDA out of memory", "HIP out of memory")
_SMALLER = "lower micro_batch, or batch, in the recipe"


def explained(error: BaseException) -> str | None:
    """The one-line explanation of a failure that is no bug of this package; None for a bug."""
    for explain in (_of_memory, _of_a_single_sample, _of_a_file, _of_a_library):
        if text := explain(error):
            return " ".join(text.split())
    return None


def bug(error: BaseException) -> str:
    """The last line about an error that nobody foresaw; its traceback stands above it."""
    frames = traceback.extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return f"a bug of ours{place} ({text}); please report it with the traceback above"


def _of_memory(error: BaseException) -> str | None:
    text = str(error)
    if any(words in text for words in _GPU_MEMORY) or type(error).__name__ == "OutOfMemoryError":
        return f"out of memory on the GPU: {_SMALLER}, or use another device"
    if isinstance(error, MemoryError) or any(words in text for words in _HOST_MEMORY):
        return f"out of memory: {_SMALLER}, or run fewer jobs at a time (--cores)"
    return None


def _of_a_single_sample(error: BaseException) -> str | None:
    if "Expected more than 1 value per channel" not in str(error):
        return None
    return (
        "batch normalisation met a batch of one sample, which has no statistics: raise training's "
        "batch (or ipc), or take a network with another norm"
    )


def _of_a_file(error: BaseException) -> str | None:
    if not isinstance(error, OSError) or error.errno is None:
        return None
    paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
    reason = _REASONS.get(error.errno, f"{os.strerror(error.errno)}; check it")
    return f"{' -> '.join(paths) or 'the system'}: {reason}"


def _of_a_library(error: BaseException) -> str | None:
    library = type(error).__module__.partition(".")[0]
    names = {"safetensors": "a safetensors file", "safetensors_rust": "a safetensors file"}
    names |= {"pyarrow": "a parquet file"}
    if library not in names:
        return None
    return f"{names[library]} cannot be read or written ({error}); make or fetch it again"
