"""Results of a long job's steps, kept in its scratch folder so that a killed job goes on."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def cached(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns, on the CPU, made once.

    Args:
        file: where an earlier run may have written them. One that is not readable (a power cut can
            leave half of it) is made again.
        make: called where there is no such file.
    """
    try:
        return load_file(file)
    except (FileNotFoundError, SafetensorError):
        tensors = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
    save_file(tensors, aside := file.with_suffix(".part"))
    os.replace(aside, file)
    return tensors
