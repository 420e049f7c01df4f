"""What memory there is, and what is kept in it whole: one limit for data, sets and test images."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

# Bytes of what is kept whole; the 50,000 test images of ImageNet at 224 pixels are 7.5 GB.
RESIDENT = 8 << 30
# Shares of the memory that is left which one thing may take: on a device the activations of a
# training need most of it, and from the host's memory to a device is a short way.
HOST_SHARE, DEVICE_SHARE = 0.8, 0.125


def fits(size: int, device: torch.device | str = "cpu") -> bool:
    """Whether `size` bytes are kept whole on a device, or in memory where it is the CPU.

    What is not kept is read, decoded or built again whenever it is asked for: slower, the same
    numbers.
    """
    return size <= RESIDENT and size <= _left(device)


def _left(device: torch.device | str) -> float:
    """Bytes that one thing may still take there."""
    if str(device).startswith("cuda"):
        import torch

        return DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]
    found = memory_left()
    return RESIDENT if found is None else HOST_SHARE * found


def memory_left(root: Path = Path("/")) -> int | None:
    """Bytes of memory that this process can still have; None: nobody says.

    Args:
        root: where /proc and /sys lie.
    """
    free = _kilobytes("MemAvailable", root / "proc/meminfo")
    limit, own = memory_limit(root), _kilobytes("VmRSS", root / "proc/self/status") or 0
    left = [free, limit[0] - own] if limit else [free]
    return min((size for size in left if size is not None), default=None)


def memory_limit(root: Path = Path("/")) -> tuple[int, str] | None:
    """Bytes of memory that a process can have, and whose limit that is; None: nobody says.

    Args:
        root: where /proc and /sys lie.
    """
    limits = []
    if total := _kilobytes("MemTotal", root / "proc/meminfo"):
        limits.append((total, "this machine has"))
    folder = root / "sys/fs/cgroup"
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = [*line.split(":", 2), "", ""][:3]
        if not controllers:
            top, name = folder, "memory.max"
        elif "memory" in controllers.split(","):
            top, name = folder / "memory", "memory.limit_in_bytes"
        else:
            continue
        own = top / path.strip("/")
        for place in (own, *own.parents):
            if place == top or top in place.parents:
                text = _read(place / name).strip()
                if text.isdecimal():
                    limits.append((int(text), "the cgroup of this process allows"))
    return min(limits, default=None)


def _kilobytes(name: str, file: Path) -> int | None:
    """Bytes of the line of a name in a file of /proc, which says so many kB."""
    found = re.search(rf"^{name}:\s*(\d+) kB", _read(file), re.M)
    return int(found[1]) << 10 if found else None


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError):
        return ""
