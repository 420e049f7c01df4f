"""The teachers behind an artefact: their accuracies, handed on from stage to stage.

An evaluation states them, so that a table that warns of weak teachers is read off evaluations
alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distillery.store.job import Job

BEHIND = "teachers_behind"  # of the metadata of a set, of stored labels, of an evaluation
_ROLES = ("distilled", "label", "student")  # inputs that have teachers behind them


def teachers_behind(job: Job) -> dict[str, float]:
    """Accuracy of the last epoch, percent, of each teacher that a job's inputs rest on.

    Returns:
        By the name of the artefact without its hash, such as "cifar10-resnet18".
    """
    found: dict[str, float] = {}
    for role in _ROLES:
        artefact = job.find_input(role)
        found |= artefact.metadata.get(BEHIND, {}) if artefact else {}
    own = job.inputs_of("teachers")
    found |= {plain_name(one.id): one.metadata["accuracy"]["last"] for one in own}
    return dict(sorted(found.items()))


def plain_name(identity: str) -> str:
    """The id of an artefact without its hash, which another version of the code changes."""
    return identity.rpartition("-")[0] or identity
