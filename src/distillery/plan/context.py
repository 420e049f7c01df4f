"""What planning one stage needs: the settings, the nodes planned so far, and how a node is made."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar

from distillery.plan.cell import Experiment
from distillery.plan.models import Dataset
from distillery.plan.named_files import by_content, content
from distillery.plan.nodes import Node, NodeInputs
from distillery.plan.origins import ResolvedBlock
from distillery.plan.settings import Settings
from distillery.store.fingerprint import code_digest
from distillery.store.spec import Spec

T = TypeVar("T")

# Part of the code of every artefact: how torch is set up, and the `Job` that a stage is handed.
RUNNER = ("distillery.store.job", "distillery.store.runtime")


class Context:
    """Settings with a memory of nodes: one setting gives one node, whichever table asks.

    Attributes:
        settings: params.yaml and the scale that it names.
        nodes: all nodes made so far, by address.
    """

    def __init__(self, settings: Settings) -> None:
        """Start with no nodes."""
        self.settings = settings
        self.nodes: dict[str, Node] = {}
        self._remembered: dict[Hashable, Any] = {}

    def dataset(self, experiment: Experiment) -> Dataset:
        """The data set of an experiment.

        Raises:
            PlanError: the scale has none of its name.
        """
        return self.settings.dataset(experiment.dataset)

    def recipe(self, stage: str, block: str, experiment: Experiment) -> ResolvedBlock:
        """The values of `stage.block` for an experiment, from all layers, not yet checked.

        Raises:
            PlanError: no layer has such a block.
        """
        return self.settings.recipe(
            stage,
            block,
            experiment.dataset,
            experiment.row.override,
            experiment,
            asked_by=experiment.row_place,
        )

    def remember(self, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when `key` was first asked for."""
        if key not in self._remembered:
            self._remembered[key] = make()
        return self._remembered[key]

    def node(
        self,
        stage: str,
        label: str,
        recipe: dict[str, Any],
        *,
        inputs: NodeInputs,
        code: Iterable[str] = (),
        dataset: str,
        local: dict[str, Any] | None = None,
        streams: dict[str, Any] | None = None,
    ) -> Node:
        """Make the node of an artefact, or return the one that has its address.

        Args:
            stage: one of `STAGES`.
            label: the readable part of its name.
            recipe: resolved values; only those that its job reads. Files count by content.
            inputs: planned artefacts by role.
            code: modules of the components that its job uses; the stage and the runtime are added.
            dataset: a name of the scale.
            local: what differs between machines without changing a byte.
            streams: what the random streams follow from, as of `Spec`.
        """
        addresses = {
            role: [node.address for node in found] if isinstance(found, list) else found.address
            for role, found in inputs.items()
        }
        named, paths = by_content(
            recipe,
            self.settings.root,
            lambda file: self.remember(("content", file), lambda: content(file)),
        )
        roots = sorted({*RUNNER, f"distillery.stages.{stage}", *code})
        spec = Spec(
            stage=stage,
            label=label.replace(":", "-").replace("/", "-"),
            recipe=named,
            inputs=addresses,
            roots=roots,
            code=code_digest(roots),
            local=paths | (local or {}),
            environment=self.settings.params.environment,
            streams=streams or {},
        )
        return self.nodes.setdefault(spec.address, Node(spec, dict(inputs), dataset))
