"""The command line: one command per stage, and the plan. None of them needs a workflow engine."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distillery.errors import DistilleryError, PlanError, nearest
from distillery.store.own_code import run_own_code
from distillery.store.spec import STAGES
from distillery.warm.client import run_warm

if TYPE_CHECKING:
    from distillery.plan.plan import Plan
    from distillery.store.spec import Spec

    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

BUG = 70  # exit code, as sysexits.h has it


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `distillery`; None: those of the process.

    Returns:
        The exit code: 0; 1 for what a user, a file or the machine caused, said in one line on
        stderr; 70 for a bug, with its traceback; 130 when interrupted.
    """
    try:
        if argv is None:  # a process of its own, not a call from Python
            run_own_code(sys.argv[1:])
        arguments = _parser().parse_args(argv)
        arguments.own_process = argv is None
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
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> int:
    """Say an error that is none of this package's own: one line, or a bug with its traceback."""
    from distillery.store.failures import bug, explained

    if text := explained(error):
        print(f"distillery: {text}", file=sys.stderr)
        return 1
    traceback.print_exc()
    print(f"distillery: {bug(error)}", file=sys.stderr)
    return BUG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="distillery", description="Distil image data sets and rebuild the papers' tables."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for stage in STAGES:
        _stage_parser(commands, stage)
    for name, run, about in (
        ("table", _table, "assemble a table from finished evaluations"),
        ("picture", _picture, "draw a figure from a finished table and its analyses"),
    ):
        made = _command(commands, name, run, about)
        made.add_argument("table", help="table2, infer/table2")
        made.add_argument("--plan", type=Path, help="its plan, already written, as by Snakemake")
    _command(commands, "show", _show, "print a table readably").add_argument("table")
    _command(commands, "claims", _claims, "check the papers' claims by the tables that exist")
    plan = _command(commands, "plan", _plan, "say what a table needs, why, and what it costs")
    plan.add_argument(
        "tables",
        nargs="*",
        help="results/table2.csv, table2 or infer/table2 (default: those of params.yaml)",
    )
    plan.add_argument(
        "--commands", action="store_true", help="print the shell commands that make it, in order"
    )
    plan.add_argument(
        "--rehash",
        action="store_true",
        help="read all data folders again, whatever the times of their files say",
    )
    plan.add_argument("--write", action="store_true", help="write results/plan/<table>.json")
    _explain_parser(commands)
    _serve_parser(commands)
    make = _command(commands, "make", _make, "make tables without a workflow engine")
    make.add_argument("tables", nargs="*", help="as for plan")
    make.add_argument(
        "--cores",
        type=int,
        default=1,
        help="jobs side by side, within this machine's memory (default 1: all in this process)",
    )
    _compute_options(make)
    adopt = _command(
        commands, "adopt", _adopt, "keep artefacts whose code changed without changing behaviour"
    )
    adopt.add_argument("tables", nargs="*", help="as for plan")
    adopt.add_argument(
        "--verify",
        nargs="?",
        type=_number,
        const=1,
        metavar="N|SHARE",
        help="first make N (default 1) or a share of each kind of job again and compare",
    )
    adopt.add_argument("--device", help="of --verify: auto, cpu, cuda or cuda:N")
    prune = _command(commands, "prune", _prune, "remove artefacts that no plan reaches")
    prune.add_argument("--yes", action="store_true", help="remove; without it they are only listed")
    return parser


def _explain_parser(commands: Commands) -> None:
    explain = _command(commands, "explain", _explain, "say which file and key set a value")
    explain.add_argument(
        "key", help="evaluate.static.training.epochs, or its beginning for several values"
    )
    explain.add_argument("--dataset", help="of the scale (default: its only one)")
    explain.add_argument("--ipc", type=_number, help="images per class")
    explain.add_argument("--student", help="a network")
    explain.add_argument("--table", help="table2, infer/table2: the table of --row")
    explain.add_argument("--row", help="a row of --table, with its overrides")
    explain.add_argument(
        "--axis",
        action="append",
        default=[],
        metavar="AXIS=VALUE",
        help="the value of an axis of --table's own; may be given again",
    )


def _number(text: str) -> float:
    return int(text) if text.isdecimal() else float(text)


def _command(
    commands: Commands, name: str, run: Callable[[argparse.Namespace], int | None], about: str
) -> argparse.ArgumentParser:
    parser = commands.add_parser(name, help=about, description=about)
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: here)"
    )
    parser.add_argument("--scale", help="in place of the scale in params.yaml")
    parser.set_defaults(run=run)
    return parser


def _stage_parser(commands: Commands, stage: str) -> None:
    parser = commands.add_parser(stage, help=f"make one artefact of the {stage} stage")
    parser.add_argument("artefact", nargs="?", help="its id, or the part of it before the hash")
    parser.add_argument("--spec", help="the job as JSON, in place of an id (what Snakemake passes)")
    parser.add_argument(
        "--root", type=Path, default=Path(), help="the project's folder (default: here)"
    )
    parser.add_argument("--scale", help="in place of the scale in params.yaml")
    _compute_options(parser)
    parser.set_defaults(run=lambda arguments: _stage(stage, arguments))


def _serve_parser(commands: Commands) -> None:
    serve = _command(
        commands, "serve", _serve, "keep a process with torch loaded, from which jobs start at once"
    )
    serve.add_argument(
        "--idle", type=float, default=300, help="seconds without a job until it ends (default 300)"
    )
    serve.add_argument("--lock", type=int, help="of a run that starts it and holds it: a handle")


def _compute_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--device",
        help="auto, cpu, cuda or cuda:N (default: that of params.yaml; with --spec auto)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="threads on the CPU (default 1: results do not depend on cores)",
    )


def _stage(stage: str, arguments: argparse.Namespace) -> int:
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    if arguments.own_process:
        code = run_warm(arguments.root, sys.argv[1:])
        if code is not None:
            return code
    from distillery.plan.machine import lacking_device
    from distillery.store.job import run
    from distillery.store.spec import Spec

    _check_device(arguments)
    if arguments.spec is not None:
        spec, device = Spec.loads(arguments.spec), "auto"
        if spec.stage != stage:
            raise PlanError(
                f"--spec: is a job of stage {spec.stage}; call `distillery {spec.stage}`"
            )
    else:
        plan = load_plan(arguments)
        spec, device = _find(plan, stage, arguments.artefact or ""), plan.settings.params.device
    store, device = arguments.root / "results/store", arguments.device or device
    if why := lacking_device(device):
        raise PlanError(f"device '{device}': {why}")
    print(run(spec, store, device, arguments.threads))
    return 0


def _serve(arguments: argparse.Namespace) -> None:
    from distillery.warm.server import serve

    serve(arguments.root, main, arguments.lock, arguments.idle)


def _find(plan: Plan, stage: str, name: str) -> Spec:
    """The one planned job of a stage with this id, or this part of it before the hash."""
    for _ in plan.growing():
        pass
    specs = {n.spec.id: n.spec for n in plan.nodes.values() if n.spec.stage == stage}
    found = [spec for identity, spec in specs.items() if name in (identity, spec.label)]
    if len(found) != 1:
        raise PlanError(
            f"{stage} '{name}': {len(found)} planned artefacts of that name: {nearest(name, specs)}"
        )
    return found[0]


def load_plan(arguments: argparse.Namespace) -> Plan:
    """The plan of the project at `arguments.root`, at `arguments.scale` when one is given."""
    from distillery.plan.plan import Plan

    return Plan(arguments.root, _params(arguments))


def _params(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """Values in place of params.yaml, when the command line names a scale."""
    from distillery.plan.origins import merge
    from distillery.plan.yaml_files import read_yaml

    scale = arguments.scale
    return merge(read_yaml(arguments.root / "params.yaml"), {"scale": scale}) if scale else None


def _explain(arguments: argparse.Namespace) -> None:
    from distillery.plan.explain_value import Question, explain_value
    from distillery.plan.settings import Settings

    axes = dict(_axis(text) for text in arguments.axis)
    names = ("key", "dataset", "ipc", "student", "table", "row")
    question = Question(**{name: getattr(arguments, name) for name in names}, axes=axes)
    settings = Settings(arguments.root, _params(arguments))
    print(*explain_value(settings, question), sep="\n")


def _axis(text: str) -> tuple[str, Any]:
    """The axis and the value of `axis=value`, read as YAML reads a value."""
    from distillery.plan.yaml_files import read_value

    axis, equals, value = text.partition("=")
    if not equals:
        raise PlanError(f"--axis '{text}': write axis=value")
    return axis, read_value(value, f"--axis '{text}'")


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
    from distillery.plan.stage_plans.data import DIGESTS

    if arguments.rehash:
        (arguments.root / DIGESTS).unlink(missing_ok=True)
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
    device = f"--device {plan.settings.params.device}"
    yield "set -e"
    for node in plan.missing(tables):
        yield f"{run} {node.spec.stage} {root} {device} --spec {shlex.quote(node.spec.dumps())}"
    for table in tables:
        document = f"{table} {root} --plan {shlex.quote(str(plan.write_plan_stamp(table)))}"
        yield f"{run} table {document}"
        if plan.has_figure(table):
            yield f"{run} picture {document}"


def _make(arguments: argparse.Namespace) -> None:
    os.environ.setdefault("OMP_NUM_THREADS", str(arguments.threads))
    from distillery.plan.making import make_tables

    _check_device(arguments)
    plan = load_plan(arguments)
    tables = _tables(plan, arguments.tables)
    make_tables(plan, tables, arguments.device, arguments.threads, arguments.cores)


def _check_device(arguments: argparse.Namespace) -> None:
    from distillery.plan.machine import check_device_name

    if arguments.device:
        check_device_name(arguments.device, "--device")


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


def _claims(arguments: argparse.Namespace) -> None:
    from distillery.plan.claims_files import write_claims

    print(*write_claims(arguments.root), sep="\n")


def _adopt(arguments: argparse.Namespace) -> None:
    from distillery.plan.verify import adopt_tables

    _check_device(arguments)
    plan = load_plan(arguments)
    device = arguments.device or plan.settings.params.device
    for line in adopt_tables(plan, _tables(plan, arguments.tables), arguments.verify, device):
        print(line)


def _prune(arguments: argparse.Namespace) -> None:
    from distillery.plan.upkeep import every_plan, prune, unreachable

    paths = unreachable(every_plan(arguments.root))
    print(*paths, sep="\n")
    if arguments.yes:
        prune(paths)
    print(f"{len(paths)} artefacts", "removed" if arguments.yes else "would go; --yes removes them")
