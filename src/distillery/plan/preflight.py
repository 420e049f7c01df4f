"""What would stop or kill the jobs of a plan, said before the first of them runs.

What is certain is an error where jobs are about to run, and a warning where one only plans. What an
estimate says is a warning always: it may be wrong by a factor of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distillery.plan.cost import Estimator, volume
from distillery.plan.machine import gpu_count, gpu_memory, lacking_device
from distillery.plan.nodes import Node
from distillery.plan.settings import Settings
from distillery.plan.stage_plans.data import ABSENT as NO_FILE
from distillery.store.memory import memory_limit
from distillery.store.named_files import ABSENT, file_pairs

ON_CPU = ("data",)  # stages that compute nothing on a GPU
BATCHES = ("batch", "micro_batch", "parallel_groups")  # fields on which the activations depend
HELD = ("window",)  # fields on which the rest of the memory depends


@dataclass(frozen=True)
class Finding:
    """Something that a job needs and will not have.

    Attributes:
        text: one line: what, where, what to do.
        certain: whether the job cannot run; else it is an estimate.
        anywhere: whether that holds on any machine, not on this one alone.
    """

    text: str
    certain: bool
    anywhere: bool = False


class Preflight:
    """Looks at the jobs that a plan is about to run.

    Attributes:
        settings: of the plan.
        estimator: of what jobs take.
    """

    def __init__(self, settings: Settings, estimator: Estimator) -> None:
        """Look at nothing yet."""
        self.settings, self.estimator = settings, estimator

    def findings(
        self, nodes: Iterable[Node], device: str | None = None, place: str = "--device"
    ) -> list[Finding]:
        """Everything that `nodes` lack, the certain first.

        Args:
            nodes: artefacts that are missing.
            device: where their jobs compute; None: that of params.yaml.
            place: what says `device`, for the message.
        """
        jobs = list(nodes)
        if device is None:
            device, place = self.settings.params.device, self.settings.place_of("device")
        found = [*_without_source(jobs, self.settings), *_without_file(jobs)]
        if any(node.spec.stage not in ON_CPU for node in jobs) and (why := lacking_device(device)):
            found.append(Finding(f"{place} = '{device}': {why}", certain=True))
        return found + list(self._too_large(jobs, device))

    def _too_large(self, jobs: list[Node], device: str) -> Iterator[Finding]:
        """One line for each stage whose largest job does not fit into the memory."""
        on_gpu = uses_gpu(device)
        limit, card = memory_limit(), gpu_memory() if on_gpu else None
        host: dict[str, list[tuple[float, Node]]] = {}
        gpu: dict[str, list[tuple[float, Node]]] = {}
        for node in jobs:
            if cost := self.estimator.cost(node):
                moved = on_gpu is not False and node.spec.stage not in ON_CPU
                need = cost.on_host(moved)
                if limit and need > limit[0]:
                    host.setdefault(node.spec.stage, []).append((need, node))
                # What is kept whole stays with the host where it is too large for the GPU.
                if card and moved and cost.device > card:
                    gpu.setdefault(node.spec.stage, []).append((cost.device, node))
        if limit:
            for large in host.values():
                yield Finding(_said(large, "memory", f"{limit[1]} {volume(limit[0])}"), False)
        for large in gpu.values():
            there = f"the GPU has {volume(card or 0)}"
            yield Finding(_said(large, "GPU memory", there, of_gpu=True), False)


def uses_gpu(device: str) -> bool | None:
    """Whether jobs compute on a GPU of this machine; None where that cannot be told."""
    if device != "auto":
        return device != "cpu"
    count = gpu_count()
    return None if count is None else count > 0


def _said(large: list[tuple[float, Node]], what: str, there: str, of_gpu: bool = False) -> str:
    need, node = max(large, key=lambda job: job[0])
    others = f", and {len(large) - 1} more of this stage" if len(large) > 1 else ""
    join = " " if there.endswith("or") else "; "
    return (
        f"{node.spec.stage} {node.spec.id}{others}: about {volume(need)} of {what} by the "
        f"estimate, {there}{join}{_advice(node, of_gpu)}"
    )


def _advice(node: Node, of_gpu: bool) -> str:
    fields = list(_fields(node.spec.recipe, BATCHES if of_gpu else (*BATCHES, *HELD)))
    stage = node.spec.stage
    if stage == "evaluate" and not any(name.endswith("micro_batch") for name in fields):
        return f"lower {stage} {', '.join(fields)}, or set training.micro_batch"
    if fields:
        return f"lower {stage} {', '.join(fields)}"
    return f"lower `size` of data set '{node.dataset}'"


def _fields(recipe: Mapping[str, Any], names: tuple[str, ...], path: str = "") -> Iterator[str]:
    """The fields of these names that a recipe sets, each with its keys."""
    for key, value in recipe.items():
        if isinstance(value, Mapping):
            yield from _fields(value, names, f"{path}{key}.")
        elif key in names and value:
            yield f"{path}{key}".removeprefix("method.")


def _without_source(jobs: list[Node], settings: Settings) -> Iterator[Finding]:
    """Data sets that must be read and whose folder is not there."""
    for node in jobs:
        source = node.spec.local.get("source") if node.spec.stage == "data" else None
        if source is None:
            continue
        folder = Path(source.partition(":")[2])
        if not folder.is_dir():
            place = settings.where / "datasets" / node.dataset / "source"
            tracked = folder.with_name(f"{folder.name}.dvc")
            pulled = tracked.is_file()
            what = f"`dvc pull {tracked}`" if pulled else "put the data there"
            text = f"{place}: {folder}: no such folder; {what}, or change the data set's source"
            yield Finding(text, certain=True, anywhere=not pulled)


def _without_file(jobs: list[Node]) -> Iterator[Finding]:
    """Files that recipes name and that are not there."""
    missing: dict[str, Node] = {}
    for node in jobs:
        recipe, local = node.spec.recipe, node.spec.local
        for planned, file in file_pairs(recipe, local):
            if planned == ABSENT:
                missing.setdefault(file, node)
        if node.spec.stage == "embed" and recipe.get("digest") == NO_FILE:
            missing.setdefault(local["source"]["path"], node)
    for file, node in missing.items():
        text = f"{node.spec.stage} {node.spec.id}: {file}: no such file; put it there, or change "
        yield Finding(f"{text}the path", certain=True, anywhere=True)


def judge(
    findings: Iterable[Finding], *, here: bool = True, running: bool = True
) -> tuple[str | None, list[str]]:
    """What stops the jobs, and what is only worth saying.

    Args:
        findings: what jobs lack.
        here: whether the jobs run on this machine; else what it lacks does not matter.
        running: whether they are about to run; else nothing stops.

    Returns:
        The text of the first certain finding, or None; then those of the others that matter.
    """
    matter = [finding for finding in findings if here or finding.anywhere]
    stops = [finding for finding in matter if finding.certain and running]
    return (stops[0].text if stops else None), [f.text for f in matter if f not in stops]


def over_limits(
    jobs: Mapping[Node, float], memory: float | None, gpus: Mapping[Node, int], most: int | None
) -> Iterator[Finding]:
    """Jobs that ask for more than a limit of Snakemake's, which would refuse them when they come.

    Args:
        jobs: with the megabytes that each asks for.
        memory: the limit of these; None: nobody set one.
        gpus: with the number of GPUs that each asks for.
        most: the limit of these.
    """
    large = {node: need for node, need in jobs.items() if memory is not None and need > memory}
    if large and memory is not None:
        others = [(need * 1e6, job) for job, need in large.items()]
        there = f"resources: mem_mb = {memory:g} allows {volume(memory * 1e6)}: raise it, or"
        yield Finding(_said(others, "memory", there), certain=True, anywhere=True)
    wanting = [node for node, count in gpus.items() if most is not None and count > most]
    if wanting:
        text = f"resources: gpu = {most}: {len(wanting)} jobs compute on a GPU, such as "
        text += f"{wanting[0].spec.stage} {wanting[0].spec.id}; raise it, or set device: cpu"
        yield Finding(text, certain=True, anywhere=True)
