"""Make tables without a workflow engine: their missing jobs, then the tables and pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from distillery.errors import PlanError
from distillery.plan.cost import BASE_MEMORY, Estimator
from distillery.plan.nodes import Node
from distillery.plan.parallel import SHARE, JobQueue, run_side_by_side
from distillery.plan.plan import Plan
from distillery.plan.preflight import ON_CPU, Preflight, judge, uses_gpu
from distillery.store.memory import memory_limit


def make_tables(
    plan: Plan, tables: list[str], device: str | None, threads: int = 1, cores: int = 1
) -> None:
    """Do what the printed commands would: on one core in this process, on more side by side.

    Args:
        plan: of the project.
        tables: names of tables, made one after the other.
        device: auto, cpu, cuda or cuda:N; None: that of params.yaml.
        threads: of each job.
        cores: of this machine that jobs may use together.

    Raises:
        DistilleryError: as a job raises it, or jobs failed.
    """
    if cores < 1:
        raise PlanError(f"--cores {cores}: must be 1 or more")
    estimator = Estimator(plan.settings, plan.store)
    _look_ahead(plan, estimator, plan.missing(tables), device)
    where = device or plan.settings.params.device
    slots = max(1, cores // max(1, threads))
    for table in tables:
        missing = plan.missing([table])
        if slots == 1:
            _one_by_one(plan, table, missing, where, threads)
        elif missing:
            _side_by_side(plan, table, missing, estimator, where, threads, slots)
        _finish(plan, table)


def _look_ahead(plan: Plan, estimator: Estimator, jobs: list[Node], device: str | None) -> None:
    """Say what these jobs will lack before the first of them runs here."""
    stop, warnings = judge(Preflight(plan.settings, estimator).findings(jobs, device))
    for text in warnings:
        print(f"distillery: warning: {text}", file=sys.stderr)
    if stop:
        raise PlanError(stop)


def _one_by_one(plan: Plan, table: str, missing: list[Node], device: str, threads: int) -> None:
    """Without a start of Python and torch for every job."""
    from distillery.store.job import run

    for number, node in enumerate(missing, 1):
        _say(table, number, len(missing), node)
        run(node.spec, plan.store, device, threads)


def _side_by_side(
    plan: Plan,
    table: str,
    missing: list[Node],
    estimator: Estimator,
    device: str,
    threads: int,
    slots: int,
) -> None:
    gpu, limit, count = uses_gpu(device) is not False, memory_limit(), len(missing)
    started: list[Node] = []

    def on_gpu(node: Node) -> bool:
        return gpu and node.spec.stage not in ON_CPU

    def need(node: Node) -> float:
        cost = estimator.cost(node)
        return cost.on_host(on_gpu(node)) if cost else 4 * BASE_MEMORY

    def said(node: Node) -> None:
        started.append(node)
        _say(table, len(started), count, node)

    memory = SHARE * limit[0] if limit else None
    run_side_by_side(
        JobQueue(missing, slots, memory, need, on_gpu), plan.settings.root, device, threads, said
    )


def _say(table: str, number: int, count: int, node: Node) -> None:
    print(f"{table}: {number} of {count}: {node.address}", file=sys.stderr)


def _finish(plan: Plan, table: str) -> None:
    """Assemble a table whose artefacts are there, and draw its figure, where they are not."""
    stem: Path = plan.settings.root / "results" / table
    if not plan.fresh(table):
        from distillery.stages.table import make_table

        make_table(plan.write_plan_stamp(table), plan.store, stem)
    if plan.has_figure(table) and not plan.drawn(table):
        from distillery.stages.picture import make_picture

        make_picture(plan.write_plan_stamp(table), plan.store, stem)
