"""The specification of one artefact: all that can change its bytes, and the identity from that."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError
from distillery.store.canonical import digest, dumps

# Those that make artefacts, in the order of the flow.
STAGES = ("data", "whiten", "embed", "teacher", "distill", "label", "evaluate", "analyse")
# Seeds and adoption follow from the key, so a renamed field keeps its first name there.
KEY_NAMES = {
    "parallel_groups": "together",
    "inner_steps": "longest",
    "window_start": "offset",
    "step_ipc": "of_each",
    "step_classes": "chosen",
}
Inputs = dict[str, str | list[str]]  # role -> "stage/id", or a list of them


@dataclass(frozen=True)
class Spec:
    """What one job makes.

    Attributes:
        stage: one of `STAGES`.
        label: readable part of the name.
        recipe: resolved values, only those that this artefact reads.
        inputs: addresses of the upstream artefacts by role.
        roots: modules whose import closure is the code.
        code: digest of that code.
        local: what differs between machines without changing a byte (where a data source lies); not
            in the identity.
        environment: params.yaml's number for the libraries, raised by hand when an upgrade should
            make everything anew.
    """

    stage: str
    label: str
    recipe: dict[str, Any]
    inputs: Inputs
    roots: list[str]
    code: str
    local: dict[str, Any] = field(default_factory=dict)
    environment: int = 1

    @cached_property
    def id(self) -> str:
        """`label-<12 hex>`: SHA-256 of stage, recipe, inputs, code digest and environment."""
        identity = [self.stage, self.recipe, self.inputs, self.code, self.environment]
        return f"{self.label}-{digest(identity)}"

    @property
    def address(self) -> str:
        """`stage/id`, the artefact's place below the store."""
        return f"{self.stage}/{self.id}"

    def key(self, input_keys: Inputs) -> str:
        """The identity without code, from which seeds and adoption follow.

        Code is left out, since these must not change when it is reworded.

        Args:
            input_keys: the keys of the inputs, by role.

        Returns:
            16 hex digits.
        """
        return digest([self.stage, _with_key_names(self.recipe), input_keys], 16)

    def dumps(self) -> str:
        """This spec as one line of canonical JSON."""
        return dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Spec:
        """Parse `dumps()`.

        Raises:
            ArtefactError: the text is no spec.
        """
        try:
            return cls(**json.loads(text))
        except (ValueError, TypeError) as error:
            raise ArtefactError(
                f"--spec: no job specification ({error}); take it from `distillery plan --commands`"
            ) from None

    def map_inputs(self, convert: Any) -> dict[str, Any]:
        """The inputs with each address replaced by `convert(address)`."""
        return {
            role: convert(a) if isinstance(a, str) else [convert(x) for x in a]
            for role, a in self.inputs.items()
        }


def _with_key_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {KEY_NAMES.get(key, key): _with_key_names(item) for key, item in value.items()}
    return [_with_key_names(item) for item in value] if isinstance(value, list | tuple) else value


def folder(store: Path, address: str) -> Path:
    """Folder of the artefact `stage/id`."""
    return store / address
