"""What a long job keeps in its scratch folder, so that a killed job goes on where it was.

A checkpoint that is anything but usable counts as none: half a file after a power cut, another
file of that name, one of another network. Nothing untrusted is unpickled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor
from torch import load as torch_load
from torch import save as torch_save

from distillery.store.atomic import write_file


def cached(file: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors that `make` returns, on the CPU, made once.

    Args:
        file: where an earlier run may have written them; an unusable one is made again.
        make: called where there is no such file.
    """
    try:
        return load_file(file)
    except Exception:  # whatever is wrong with it, it is no checkpoint
        tensors = {name: tensor.cpu().contiguous() for name, tensor in make().items()}
    write_file(file, lambda aside: save_file(tensors, aside))
    return tensors


def save_state(state: Mapping[str, Any], file: Path) -> None:
    """Write a nest of mappings, lists, numbers and tensors, so that half of it is never seen."""
    write_file(file, lambda aside: torch_save(dict(state), aside))


def load_state(file: Path) -> dict[str, Any] | None:
    """What `save_state` wrote, its tensors on the CPU; None where there is nothing readable.

    Whether it is the state of this very job, the caller finds out.
    """
    try:
        state = torch_load(file, map_location="cpu", weights_only=True)
    except Exception:  # whatever is wrong with it, it is no checkpoint
        return None
    return state if isinstance(state, dict) else None


def same_form(found: object, expected: object) -> bool:
    """Whether two nests have the same keys and lengths, and tensors of the same shape and type."""
    if isinstance(expected, Tensor):
        return (
            isinstance(found, Tensor)
            and found.shape == expected.shape
            and found.dtype == expected.dtype
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and found.keys() == expected.keys()
            and all(same_form(found[key], expected[key]) for key in expected)
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(found, tuple | list)
            and len(found) == len(expected)
            and all(map(same_form, found, expected))
        )
    return isinstance(found, type(expected))
