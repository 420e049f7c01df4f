"""Results of a long job's steps, kept in its scratch folder so that a killed job goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor


def kept(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns, on the CPU; read from `file` when an earlier run wrote them there.

    A file that is not readable (a power cut can leave half of one) is made again.
    """
    try:
        return load_file(file)
    except (FileNotFoundError, SafetensorError):
        found = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
    save_file(found, aside := file.with_suffix(".part"))
    os.replace(aside, file)
    return found
