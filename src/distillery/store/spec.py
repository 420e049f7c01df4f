"""The specification of one artefact: all that can change its bytes, and the identity from that."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from distillery.errors import ArtefactError, nearest
from distillery.store.canonical import digest, dumps, loads

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
# Fields of methods that came later, with what was done before: a key leaves them out then.
LATER = {"precision": "fp32", "layers": "torch", "graph_gb": 0.0}
NAME = re.compile(r"[^/\x00.][^/\x00]{0,250}")  # of an artefact's folder: no path, no hidden file
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
        streams: what the random streams follow from besides their roles (the key of the data, ipc,
            the numbers of the draw and of the student), so that two recipes that differ in
            something else draw the same; empty: they follow from the identity without code.
    """

    stage: str
    label: str
    recipe: dict[str, Any]
    inputs: Inputs
    roots: list[str]
    code: str
    local: dict[str, Any] = field(default_factory=dict)
    environment: int = 1
    streams: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def id(self) -> str:
        """`label-<12 hex>`: SHA-256 of all that is said here but `label`, `roots` and `local`."""
        identity = [self.stage, self.recipe, self.inputs, self.code, self.environment]
        identity += [self.streams] if self.streams else []
        return f"{self.label}-{digest(identity)}"

    @property
    def address(self) -> str:
        """`stage/id`, the artefact's place below the store."""
        return f"{self.stage}/{self.id}"

    def key(self, input_keys: Inputs) -> str:
        """The identity without code, from which adoption follows.

        Code is left out, since it must not change when code is reworded.

        Args:
            input_keys: the keys of the inputs, by role.

        Returns:
            16 hex digits.
        """
        recipe, method = self.recipe, self.recipe.get("method")
        if self.stage == "distill" and isinstance(method, dict):
            said = {k: v for k, v in method.items() if k not in LATER or v != LATER[k]}
            recipe = recipe | {"method": said}
        identity = [self.stage, _with_key_names(recipe), input_keys]
        return digest(identity + ([self.streams] if self.streams else []), 16)

    def dumps(self) -> str:
        """This spec as one line of canonical JSON, with a checksum."""
        fields = asdict(self)
        return dumps(fields | {"checksum": digest(fields, 16)})

    @classmethod
    def loads(cls, text: str) -> Spec:
        """Parse what `dumps` wrote.

        Raises:
            ArtefactError: the text is no specification of a job, or not the one that was planned.
        """
        try:
            fields = loads(text)
            checksum = fields.pop("checksum", None) if isinstance(fields, dict) else None
            spec = cls(**fields)
            spec._check()
            if checksum != digest(asdict(spec), 16):
                raise ValueError("its checksum is not that of its content: it was changed")
            return spec
        except (ValueError, TypeError, RecursionError) as error:
            raise ArtefactError(
                f"--spec: no job specification ({error}); take it from `distillery plan --commands`"
            ) from None

    def _check(self) -> None:
        """Raise ValueError for what no planner writes, such as a path that leaves the store."""
        if self.stage not in STAGES:
            raise ValueError(
                f"stage = {self.stage!r}: does not exist: {nearest(str(self.stage), STAGES)}"
            )
        _check_name(self.label, "label")
        kinds = {"recipe": dict, "inputs": dict, "roots": list, "code": str, "local": dict}
        kinds |= {"streams": dict}
        for name, kind in kinds.items():
            if not isinstance(value := getattr(self, name), kind):
                raise ValueError(f"{name} = {value!r}: is no {kind.__name__}")
        if not isinstance(self.environment, int) or isinstance(self.environment, bool):
            raise ValueError(f"environment = {self.environment!r}: is no whole number")
        for root in self.roots:
            if not isinstance(root, str) or not re.fullmatch(r"distillery(\.\w+)+", root):
                raise ValueError(f"roots: {root!r} is no module of this package")
        for role, addresses in self.inputs.items():
            for address in addresses if isinstance(addresses, list) else [addresses]:
                _check_address(address, f"inputs.{role}")

    def map_inputs(self, convert: Any) -> dict[str, Any]:
        """The inputs with each address replaced by `convert(address)`."""
        return {
            role: convert(a) if isinstance(a, str) else [convert(x) for x in a]
            for role, a in self.inputs.items()
        }


def _check_name(name: object, where: str) -> None:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise ValueError(f"{where} = {name!r}: is no name of an artefact")


def _check_address(address: object, where: str) -> None:
    stage, slash, name = address.partition("/") if isinstance(address, str) else ("", "", "")
    if stage not in STAGES or not slash:
        raise ValueError(f"{where} = {address!r}: is no address of an artefact, stage/name")
    _check_name(name, where)


def _with_key_names(value: Any) -> Any:
    if isinstance(value, dict):
        return {KEY_NAMES.get(key, key): _with_key_names(item) for key, item in value.items()}
    return [_with_key_names(item) for item in value] if isinstance(value, list | tuple) else value


def folder(store: Path, address: str) -> Path:
    """Folder of the artefact `stage/id`."""
    return store / address
