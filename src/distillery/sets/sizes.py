"""What a table states of the data, the set and the stored labels that a number was measured on.

An evaluation keeps it in its own metadata, so that a table is read off evaluations alone: neither
the set nor the data need be at hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from distillery.store.job import Job

# What is stored, by the role of an input, and the metadata that say how much it is.
PARTS = ("distilled", "label")
_COUNTED = ("bytes", "numbers", "kinds")


def sizes_of(job: Job) -> dict[str, Any]:
    """The sizes of what a job reads; those of the student that it reads, where it reads no other.

    Returns:
        As `stated_sizes`.
    """
    student = job.find_input("student")
    known = student.metadata.get("sizes", {}) if student else {}

    def metadata(role: str) -> Mapping[str, Any] | None:
        artefact = job.find_input(role)
        return artefact.metadata if artefact else None

    return known | stated_sizes(metadata)


def stated_sizes(metadata: Callable[[str], Mapping[str, Any] | None]) -> dict[str, Any]:
    """Sizes by the role of an input.

    Args:
        metadata: of the input of a role; None where there is none.

    Returns:
        data: raw_bytes (decoded training pixels), train (images) and classes (their number).
        distilled and label: bytes and numbers by part, and the kind of each part; without numbers
        and kinds where the artefact is older than these. No entry for what is not read.
    """
    sizes: dict[str, Any] = {}
    if data := metadata("data"):
        sizes["data"] = {
            "raw_bytes": data["raw_bytes"],
            "train": data["counts"]["train"],
            "classes": len(data["classes"]),
        }
    for role in PARTS:
        if found := metadata(role):
            sizes[role] = {name: found[name] for name in _COUNTED if name in found}
    return sizes
