"""What GPUs this machine has, found out without importing torch.

Where a count is in doubt (AMD's GPUs, Windows' Linux, devices without NVIDIA's list of them, parts
of a GPU) there is none, and the job says what is wrong when it starts.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from distillery.errors import PlanError

DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?")
# Signs of a GPU that torch calls cuda: NVIDIA's, AMD's, that of Windows below Linux, Jetson's.
_DRIVERS = ("nvidia*", "kfd", "dxg", "nvhost*", "nvgpu*", "nvmap")
QUERY_S = 10  # for nvidia-smi


def check_device_name(device: str, place: str) -> None:
    """Refuse what names no device.

    Raises:
        PlanError: it is none of auto, cpu, cuda and cuda:N.
    """
    if not DEVICE.fullmatch(device):
        raise PlanError(f"{place} = '{device}': no such device; use auto, cpu, cuda or cuda:N")


def lacking_device(device: str) -> str | None:
    """Why no job can have `device` on this machine; None where one can, or where nobody knows."""
    if not device.startswith("cuda"):
        return None
    if _built_for() == "cpu":
        return "torch is installed here without CUDA; use auto or cpu"
    count, index = gpu_count(), int(device.partition(":")[2] or 0)
    if count is None or index < count:
        return None
    there = "no GPU" if count == 0 else "one GPU, cuda:0" if count == 1 else f"{count} GPUs"
    return f"this machine shows {there}; use auto, cpu{'' if count == 0 else ' or cuda'}"


def gpu_count(root: Path = Path("/"), environment: Mapping[str, str] = os.environ) -> int | None:
    """How many GPUs a process can use at most; None where that cannot be told.

    Args:
        root: where /proc and /dev lie.
        environment: its CUDA_VISIBLE_DEVICES counts as CUDA reads it.
    """
    if _built_for() == "cpu":
        return 0
    if _built_for() == "rocm" or not (root / "proc").is_dir():
        return None
    listed, devices = root / "proc/driver/nvidia/gpus", root / "dev"
    driver = any(True for pattern in _DRIVERS for _ in devices.glob(pattern))
    if not driver and not listed.exists() and devices.is_dir():
        return 0
    try:
        count = len(list(listed.iterdir()))
    except OSError:
        return None
    parts = (root / "proc/driver/nvidia/capabilities").glob("gpu*/mig/gi*")
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    if any(parts) or not count or (visible or "").startswith("MIG"):
        return None
    return count if visible is None else _visible(visible, count)


def _visible(names: str, count: int) -> int:
    """How many of `count` GPUs CUDA_VISIBLE_DEVICES shows: those before the first that is none."""
    found = 0
    for name in names.split(","):
        number = re.match(r"\s*\+?(\d+)", name)
        if not name.strip().startswith("GPU-") and not (number and int(number[1]) < count):
            break
        found += 1
    return min(found, count)


@functools.cache
def _built_for() -> str | None:
    """What the installed torch computes on besides the CPU: cuda, rocm, or cpu for nothing.

    None where it is not installed or does not say.
    """
    try:
        spec = importlib.util.find_spec("torch")  # finds it, imports nothing
        folder = next(iter(spec.submodule_search_locations or ())) if spec else None
        text = Path(folder, "version.py").read_text(encoding="utf-8") if folder else ""
    except (ImportError, ValueError, StopIteration, OSError):
        return None
    said = dict(re.findall(r"^(cuda|hip)\b[^=\n]*= *(.+?) *$", text, re.M))
    if said.keys() != {"cuda", "hip"}:
        return None
    return "cuda" if said["cuda"] != "None" else "rocm" if said["hip"] != "None" else "cpu"


@functools.cache
def gpu_memory() -> int | None:
    """Bytes of the largest GPU of NVIDIA's; None where there is none or nobody says."""
    if not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=QUERY_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    sizes = [int(line) << 20 for line in done.stdout.split() if line.isdecimal()]
    return max(sizes, default=None)
