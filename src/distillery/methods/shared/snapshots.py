"""States of a learned set that are kept on the way, for a curve of accuracies."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.store.checkpoint import Checkpoint, same_form

if TYPE_CHECKING:
    from distillery.store.job import Job

SNAPSHOTS = "snapshots.safetensors"

Values = dict[str, Tensor]  # the learned tensors by name


class Snapshots:
    """The states after each of some equal parts of the meta-steps, as they are stored.

    A job that may be killed saves each once, in a file of its own: in the checkpoint of the loop
    they would be written again with each save.
    """

    def __init__(self, job: Job, parts: int, meta_steps: int):
        """None are taken yet.

        Args:
            job: gives the scratch folder and that of the results.
            parts: states to keep; 1: the last one alone, which is the set itself.
            meta_steps: in all.
        """
        steps = {meta_steps * (part + 1) // parts for part in range(parts)}
        self._job, self._steps = job, steps if parts > 1 else set()
        self._taken: dict[int, Values] = {}
        self._saved: set[int] = set()

    def offer(self, step: int, values: Callable[[], Mapping[str, Tensor]]) -> None:
        """Keep the tensors after `step` meta-steps, if it is one of the states."""
        if step in self._steps:
            self._taken[step] = {name: value.cpu().clone() for name, value in values().items()}

    def save(self) -> None:
        """Write those that are new since the last save to the scratch folder."""
        for step in self._taken.keys() - self._saved:
            self._file(step).save({"values": self._taken[step]})
            self._saved.add(step)

    def load(self, done: int, form: Mapping[str, Tensor]) -> bool:
        """Read the states of the first `done` meta-steps.

        Args:
            done: meta-steps made.
            form: tensors of the names, shapes and types that a state has.

        Returns:
            Whether all are there; otherwise none is taken.
        """
        found: dict[int, Values] = {}
        for step in sorted(step for step in self._steps if step <= done):
            stored = self._file(step).load()
            if stored is None or not same_form(stored.get("values"), form):
                return False
            found[step] = stored["values"]
        self._taken, self._saved = found, set(found)
        return True

    def write(self) -> None:
        """Write snapshots.safetensors: all tensors, named "<meta-step>/<name>"."""
        if self._steps:
            named = {
                f"{step}/{name}": value
                for step, values in self._taken.items()
                for name, value in values.items()
            }
            save_file(named, self._job.out / SNAPSHOTS)

    def _file(self, step: int) -> Checkpoint:
        return Checkpoint(self._job, f"snapshot-{step}")


def read_snapshots(folder: Path) -> Mapping[int, Values]:
    """The tensors that were kept in an artefact, by meta-step, ascending."""
    states: dict[int, Values] = {}
    for key, value in load_file(folder / SNAPSHOTS).items():
        step, _, name = key.partition("/")
        states.setdefault(int(step), {})[name] = value
    return dict(sorted(states.items()))
