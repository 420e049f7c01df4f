"""What the numbers of every job depend on besides its stage: seeds, and how torch is set up.

It is part of the code of every artefact.
"""

from __future__ import annotations

import hashlib
import os
from typing import TYPE_CHECKING

from distillery.errors import PlanError

if TYPE_CHECKING:
    import torch


def seed(streams: str, role: str) -> int:
    """A 63-bit seed for `role`, derived from `streams`, as `Spec.streams` gives them to a job."""
    return int.from_bytes(hashlib.sha256(f"{streams}/{role}".encode()).digest()[:8], "big") >> 1


def prepare_torch(device: str, threads: int) -> torch.device:
    """Make torch deterministic and compute in true float32.

    Args:
        device: auto, cpu, cuda or cuda:N; auto is cuda where there is one.
        threads: CPU threads that torch may use.

    Returns:
        The device.

    Raises:
        PlanError: there is no such device, or `threads` is below 1.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    import torch

    if threads < 1:
        raise PlanError(f"--threads {threads}: must be 1 or more")
    torch.set_num_threads(threads)
    torch.backends.cudnn.benchmark = False
    # TF32 has ten bits of mantissa, which is not the float32 that the recipes say.
    torch.backends.cudnn.allow_tf32 = False
    # use_deterministic_algorithms would import torch's compiler, 3 s per job.
    torch.set_deterministic_debug_mode("warn")
    # A property that torch puts on the module at run time, unknown to its types.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        chosen = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError):
        raise PlanError(
            f"device '{device}': not on this machine; use auto, cpu, cuda or cuda:N"
        ) from None
    return chosen
