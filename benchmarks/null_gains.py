"""How many gains of nothing get a star: rows of INFER whose alpha differs by 1e-6 alone.

On digits at demo scale with ipc 5 and convnet-w32, in a copy of the project; prints the mean of
each row, the spread within and between rows, and the starred gains over the first row.

python benchmarks/null_gains.py [--rows 21 --draws 3 --students 2 --jobs 2]
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import yaml

from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.store.job import run
from distillery.table.assemble import AssembledCell, assemble

ROOT = Path(__file__).parents[1]
TABLE = "infer/null-gains"
GRID = {"dataset": ["digits"], "student": ["convnet-w32"], "ipc": [5]}


def table(rows: int) -> dict:
    """A table of INFER with alpha = 1 + k 1e-6, each row against the first."""

    def row(k: int) -> dict:
        against = {"against": "INFER 0"} if k else {}
        override = {"override": {"distill": {"alpha": 1 + k * 1e-6}}}
        return {"row": f"INFER {k}", "method": "infer", "labels": "static"} | override | against

    rows_of = [row(k) for k in range(rows)]
    return {"title": "Gains of nothing", "columns": ["student", "ipc"], "rows": rows_of}


def make_project(folder: Path, options: argparse.Namespace) -> Plan:
    """Plan the table in a copy of the workflow at `folder`."""
    shutil.copytree(ROOT / "workflow", folder / "workflow")
    (folder / f"workflow/tables/{TABLE}.yaml").write_text(yaml.safe_dump(table(options.rows)))
    scale = folder / "workflow/scales/demo.yaml"
    demo = yaml.safe_load(scale.read_text())
    scale.write_text(yaml.safe_dump(demo | {"tables": demo["tables"] | {TABLE: GRID}}))
    counts = {"draws": options.draws, "students": options.students}
    return Plan(folder, {"scale": "demo", "device": "cpu", "tables": [TABLE]} | counts)


def waves(nodes: list[Node]) -> Iterator[list[Node]]:
    """The nodes stage by stage, so that those of one wave do not wait for each other."""
    for _, wave in itertools.groupby(nodes, key=lambda node: node.spec.stage):
        yield list(wave)


def make(plan: Plan, jobs: int) -> list[AssembledCell]:
    """Make every artefact of the table in `jobs` processes, and read the table off them."""
    stages = ("data", "teacher", "distill", "label", "evaluate")
    nodes = sorted(plan.missing([TABLE]), key=lambda node: stages.index(node.spec.stage))
    with ProcessPoolExecutor(jobs) as pool:
        for wave in waves(nodes):
            print(f"{len(wave)} x {wave[0].spec.stage}", flush=True)
            list(pool.map(partial(run, store=plan.store), [node.spec for node in wave]))
    return assemble(plan.document(TABLE), plan.store)


def report(cells: list[AssembledCell]) -> None:
    """Print the rows, the spreads and the stars."""
    for cell in cells:
        measured, gain = cell.measured, cell.gain
        star = "" if gain is None else f"  gain {gain.difference:+.2f} p {gain.p} q {gain.q}"
        print(f"{cell.planned.row:9} {measured.mean:6.2f} sd {measured.std} n {measured.n}{star}")
    within = statistics.fmean(cell.measured.std or 0.0 for cell in cells)
    between = statistics.stdev(cell.measured.mean for cell in cells)
    gains = [cell.gain for cell in cells if cell.gain]
    below = sum(gain.p is not None and gain.p < 0.05 for gain in gains)
    starred = sum(gain.starred for gain in gains)
    print(f"sd within rows {within:.2f} ({cells[0].measured.over}), between rows {between:.2f}")
    print(f"{starred} of {len(gains)} gains of nothing are starred; p < 0.05 in {below}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, default in (("rows", 21), ("draws", 3), ("students", 2), ("jobs", 2)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report(make(make_project(Path(folder) / "project", options), options.jobs))


if __name__ == "__main__":
    main()
