"""The command line: one command per stage, and the plan. No workflow engine is needed for any of them."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from distillery.errors import DistilleryError, PlanError, nearest
from distillery.store.spec import STAGES

if TYPE_CHECKING:
    from distillery.plan.plan import Plan


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code. Errors a user can cause are one line on stderr and exit code 1."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments) or 0
    except DistilleryError as error:
        print(f"distillery: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `distillery plan ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("distillery: interrupted; the same command continues", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distillery", description="Distil image data sets and rebuild the papers' tables."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for stage in STAGES:
        _stage_parser(commands, stage)
    table = _command(commands, "table", _table, "assemble a table from finished evaluations")
    table.add_argument("table", help="table2, infer/table2")
    table.add_argument(
        "--plan",
        type=Path,
        help="its plan file, when one is already written (what Snakemake passes)",
    )
    picture = _command(
        commands, "picture", _picture, "draw a figure from a finished table and its analyses"
    )
    picture.add_argument("table", help="infer/figure8")
    picture.add_argument(
        "--plan",
        type=Path,
        help="its plan file, when one is already written (what Snakemake passes)",
    )
    _command(commands, "show", _show, "print a table readably").add_argument("table")
    plan = _command(commands, "plan", _plan, "say what a table needs, why, and what it costs")
    plan.add_argument(
        "tables",
        nargs="*",
        help="results/table2.csv, table2 or infer/table2 (default: those of params.yaml)",
    )
    plan.add_argument(
        "--commands", action="store_true", help="print the shell commands that make it, in order"
    )
    plan.add_argument("--write", action="store_true", help="write results/plan/<table>.json")
    make = _command(
        commands, "make", _make, "make tables in this one process: fastest where jobs are small"
    )
    make.add_argument("tables", nargs="*", help="as for plan")
    _compute_options(make)
    adopt = _command(
        commands, "adopt", _adopt, "keep artefacts whose code changed without changing behaviour"
    )
    adopt.add_argument("tables", nargs="*")
    prune = _command(commands, "prune", _prune, "remove artefacts that no plan reaches")
    prune.add_argument("--yes", action="store_true", help="remove; without it they are only listed")
    return parser


def _command(commands, name: str, run, about: str) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: here)"
    )
    parser.add_argument("--scale", help="in place of the scale in params.yaml")
    parser.set_defaults(run=run)
    return parser


def _stage_parser(commands, stage: str) -> None:
    parser = commands.add_parser(stage, help=f"make one artefact of the {stage} stage")
    parser.add_argument("artefact", nargs="?", help="its id, or the part of it before the hash")
    parser.add_argument("--spec", help="the job as JSON, in place of an id (what Snakemake passes)")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: here)"
    )
    parser.add_argument("--scale", help="in place of the scale in params.yaml")
    _compute_options(parser)
    parser.set_defaults(run=lambda arguments: _stage(stage, arguments))


def _compute_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads on the CPU (default 1: results do not depend on cores)",
    )


def _stage(stage: str, arguments: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    from distillery.store.job import run
    from distillery.store.spec import Spec

    spec = Spec.loads(arguments.spec) if arguments.spec else _find(stage, arguments)
    path = run(spec, arguments.root / "results/store", arguments.device, arguments.threads)
    print(path)


def _find(stage: str, arguments: argparse.Namespace):
    plan = load_plan(arguments)
    for _ in plan.growing():
        pass
    specs = {n.spec.id: n.spec for n in plan.nodes.values() if n.spec.stage == stage}
    found = [
        spec for identity, spec in specs.items() if arguments.artefact in (identity, spec.label)
    ]
    if len(found) != 1:
        name = arguments.artefact or ""
        raise PlanError(
            f"{stage} '{name}': {len(found)} planned artefacts of that name: {nearest(name, specs)}"
        )
    return found[0]


def load_plan(arguments: argparse.Namespace) -> Plan:
    """The plan of the project at `arguments.root`, at `arguments.scale` when one is given."""
    from distillery.plan.plan import Plan
    from distillery.plan.settings import merge, read_yaml

    scale = arguments.scale
    params = merge(read_yaml(arguments.root / "params.yaml"), {"scale": scale}) if scale else None
    return Plan(arguments.root, params)


def _tables(plan: Plan, names: list[str]) -> list[str]:
    names = names or plan.settings.params.tables
    return [_stem(name) for name in names]


def _stem(target: str) -> str:
    """The table's name from what a user types: a target path or the bare name."""
    stem = target.removeprefix("results/")
    return re.sub(r"(\.metrics|\.values|\.picture)?\.(csv|md|tex|json|png|pdf)$", "", stem)


def _plan(arguments: argparse.Namespace) -> None:
    from distillery.plan.explain import Explainer
    from distillery.plan.plan import write_plan

    plan = load_plan(arguments)
    tables = _tables(plan, arguments.tables)
    if arguments.write:
        paths = {table: arguments.root / "results/plan" / f"{table}.json" for table in tables}
        print(
            *(write_plan(path, plan.document(table).json()) for table, path in paths.items()),
            sep="\n",
        )
    elif arguments.commands:
        print(*_commands(arguments, plan, tables), sep="\n")
    else:
        print(*Explainer(plan).lines(tables), sep="\n")


def _commands(arguments: argparse.Namespace, plan: Plan, tables: list[str]) -> Iterator[str]:
    """A shell script that stops at the first failure."""
    run = f"{shlex.quote(sys.executable)} -m distillery"
    root = f"--root {shlex.quote(str(arguments.root))}"
    yield "set -e"
    for node in plan.missing(tables):
        yield f"{run} {node.spec.stage} {root} --spec {shlex.quote(node.spec.dumps())}"
    for table in tables:
        document = f"{table} {root} --plan {shlex.quote(str(plan.write_plan_stamp(table)))}"
        yield f"{run} table {document}"
        if plan.settings.table(plan.settings.full_name(table)).figure:
            yield f"{run} picture {document}"


def _make(arguments: argparse.Namespace) -> None:
    """What a run of the printed commands would do, without a start of Python and torch for every job."""
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    from distillery.store.job import run

    plan = load_plan(arguments)
    tables = _tables(plan, arguments.tables)
    missing = plan.missing(tables)
    for number, node in enumerate(missing, 1):
        print(f"{number} of {len(missing)}: {node.address}", file=sys.stderr)
        run(node.spec, arguments.root / "results/store", arguments.device, arguments.threads)
    for table in tables:
        _finish(plan, table, arguments.root)


def _finish(plan: Plan, table: str, root: Path) -> None:
    """Assemble a table whose artefacts are there, and draw its figure if it has one."""
    from distillery.stages.table import make_table

    paths = plan.write_plan_stamp(table), root / "results/store", root / "results" / table
    make_table(*paths)
    if plan.settings.table(plan.settings.full_name(table)).figure:
        from distillery.stages.picture import make_picture

        make_picture(*paths)


def _table(arguments: argparse.Namespace) -> None:
    from distillery.stages.table import make_table

    table = _stem(arguments.table)
    document = arguments.plan or load_plan(arguments).write_plan_stamp(table)
    make_table(document, arguments.root / "results/store", arguments.root / "results" / table)


def _picture(arguments: argparse.Namespace) -> None:
    from distillery.stages.picture import make_picture

    table = _stem(arguments.table)
    document = arguments.plan or load_plan(arguments).write_plan_stamp(table)
    make_picture(document, arguments.root / "results/store", arguments.root / "results" / table)


def _show(arguments: argparse.Namespace) -> None:
    from distillery.table.render import show

    print(show(arguments.root / "results" / _stem(arguments.table)))


def _adopt(arguments: argparse.Namespace) -> None:
    from distillery.plan.upkeep import adopt

    plan = load_plan(arguments)
    adopted = adopt(plan, _tables(plan, arguments.tables))
    for node, source in adopted:
        print(f"{node.spec.stage:<9} {source} -> {node.spec.id}")
    print(f"{len(adopted)} artefacts adopted under the present code")


def _prune(arguments: argparse.Namespace) -> None:
    from distillery.plan.upkeep import every_plan, prune, unreachable

    paths = unreachable(every_plan(arguments.root))
    print(*paths, sep="\n")
    if arguments.yes:
        prune(paths)
    print(
        f"{len(paths)} artefacts {'removed' if arguments.yes else 'would go; --yes removes them'}"
    )
