"""A planned artefact: its specification and the planned artefacts that it is made from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from distillery.store.spec import Spec

# Role of an input -> the node that has it, or a list of them.
NodeInputs = dict[str, "Node | list[Node]"]


@dataclass(frozen=True, eq=False)
class Node:
    """A planned artefact.

    Attributes:
        spec: what its job makes.
        inputs: the planned artefacts that its job reads, by role.
        dataset: the name of its data set in the scale; what the estimates know of it counts.
    """

    spec: Spec
    inputs: NodeInputs
    dataset: str

    @cached_property
    def key(self) -> str:
        """Identity without code."""
        keys = {
            role: [node.key for node in found] if isinstance(found, list) else found.key
            for role, found in self.inputs.items()
        }
        return self.spec.key(keys)

    @property
    def address(self) -> str:
        """`stage/id`, its place below the store."""
        return self.spec.address

    def find_input(self, role: str) -> Node | None:
        """The one input of a role, or None where it has none.

        Raises:
            TypeError: the role is one of a list of inputs.
        """
        found = self.inputs.get(role)
        if isinstance(found, list):
            raise TypeError(f"{self.address}: input '{role}' is a list")
        return found

    def input(self, role: str) -> Node:
        """The one input of a role.

        Raises:
            KeyError: there is none.
            TypeError: the role is one of a list of inputs.
        """
        found = self.find_input(role)
        if found is None:
            raise KeyError(role)
        return found

    def inputs_of(self, role: str) -> list[Node]:
        """The inputs of a role as a list, empty where there are none."""
        found = self.inputs.get(role, [])
        return found if isinstance(found, list) else [found]

    def upstream(self) -> list[Node]:
        """The direct inputs, in a fixed order."""
        return [node for role in sorted(self.inputs) for node in self.inputs_of(role)]
