"""Wall and CPU seconds of the demo, of one job, and of planning: warm, cold, and before.

python benchmarks/warm_jobs.py [--rounds 3] [--cores 2] [--demo 1] [--before CHECKOUT]

Each variant runs in a copy of the project without its results, and the variants take turns. CPU
seconds are those of all processes that a command leaves behind, the server among them. `before`
is another checkout of the project, such as a worktree of an earlier commit. The medians are written
to docs/results/data/benchmark-warm-jobs.json and printed as a table.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from records import keep
from time_to_fail import COPIED

ROOT = Path(__file__).parents[1]
TABLE = "results/table2.csv"
SUBREAPER = 36  # of prctl(2): who loses its parent becomes a child of this process
THREADS = ("OMP", "OPENBLAS", "GOTO", "MKL", "VECLIB", "NUMEXPR")


def copied(source: Path, folder: Path) -> Path:
    """The project at `source` without its results, in `folder`."""
    for name in COPIED:
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, folder / name)
    empty(folder)
    return folder


def empty(root: Path) -> None:
    shutil.rmtree(root / "results", ignore_errors=True)
    (root / "results/store").mkdir(parents=True)


def timed(root: Path, warm: bool, *words: str) -> tuple[float, float]:
    """Wall seconds of a command, and CPU seconds of it and all that it started."""
    environment = os.environ | {"PYTHONPATH": str(root / "src")}
    environment |= {f"{name}_NUM_THREADS": "1" for name in THREADS}
    environment |= {"DISTILLERY_WARM": "on" if warm else "off"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    before, start = cpu(), time.perf_counter()
    command = [sys.executable, "-m", *words]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
    wall = time.perf_counter() - start
    if done.returncode:
        sys.exit(f"{shlex.join(command)}:\n{done.stdout}{done.stderr}")
    try:
        while True:  # the server, which ends within a second
            os.wait()
    except ChildProcessError:
        return wall, cpu() - before


def cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class Project:
    """A copy of a checkout, with its jobs."""

    def __init__(self, source: Path, folder: Path, warm: bool, cores: int) -> None:
        self.root, self.warm, self.cores = copied(source, folder), warm, cores
        self.time("distillery", "plan")  # compiles the code

    def time(self, *words: str) -> tuple[float, float]:
        return timed(self.root, self.warm, *words)

    def demo(self) -> tuple[float, float]:
        empty(self.root)
        return self.snakemake()

    def snakemake(self) -> tuple[float, float]:
        return self.time("snakemake", "--cores", str(self.cores), TABLE)

    def make(self) -> tuple[float, float]:
        empty(self.root)
        more = ("--cores", str(self.cores)) if self.warm else ()
        return self.time("distillery", "make", TABLE, *more)

    def plan(self) -> tuple[float, float]:
        return self.time("distillery", "plan", TABLE)

    def student(self) -> tuple[float, float]:
        """One student of a set that is there; warm, from a server that is there."""
        words = self.job("evaluate")
        server = self.serve() if self.warm else None
        try:
            used = [self.timed_job(words, server) for _ in range(3)]
        finally:
            if server:
                server.terminate()
                server.wait()
        return median(wall for wall, _ in used), median(spent for _, spent in used)

    def timed_job(self, words: list[str], server: subprocess.Popen | None) -> tuple[float, float]:
        shutil.rmtree(self.root / "results/store/evaluate", ignore_errors=True)
        before = children_cpu(server.pid) if server else 0.0
        environment = os.environ | {"PYTHONPATH": str(self.root / "src")}
        environment |= {f"{name}_NUM_THREADS": "1" for name in THREADS}
        environment |= {"DISTILLERY_WARM": "on" if server else "off"}
        own, start = cpu(), time.perf_counter()
        subprocess.run(words, cwd=self.root, check=True, capture_output=True, env=environment)
        wall = time.perf_counter() - start
        own = cpu() - own
        time.sleep(0.2)  # until the server has waited for the job
        return wall, own + (children_cpu(server.pid) - before if server else 0.0)

    def job(self, stage: str) -> list[str]:
        """The command of the first job of a stage, whose inputs are made."""
        environment = os.environ | {"PYTHONPATH": str(self.root / "src")}
        plan = [sys.executable, "-m", "distillery", "plan", "--commands", TABLE]
        printed = subprocess.check_output(plan, cwd=self.root, env=environment, text=True)
        for words in map(shlex.split, printed.splitlines()[1:]):
            if words[3] == stage:
                return words
            self.time(*words[2:])
        raise SystemExit(f"no job of stage {stage}")

    def serve(self) -> subprocess.Popen:
        environment = os.environ | {"PYTHONPATH": str(self.root / "src")}
        environment |= {f"{name}_NUM_THREADS": "1" for name in THREADS}
        command = [sys.executable, "-m", "distillery", "serve"]
        server = subprocess.Popen(command, cwd=self.root, env=environment)
        while not list(self.root.glob("results/scratch/warm/*/socket")):
            time.sleep(0.05)
        return server


def children_cpu(process: int) -> float:
    """CPU seconds of the children that a process has waited for."""
    numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return sum(int(number) for number in numbers[13:15]) / os.sysconf("SC_CLK_TCK")


Measure = Callable[[Project], tuple[float, float]]


def main() -> None:
    """Measure, write the file and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--demo", type=int, default=1, help="0: leave the whole demo out")
    parser.add_argument("--before", type=Path, help="another checkout")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
    measures: dict[str, Measure] = {"a student's job": Project.student}
    if options.demo:
        measures |= {
            f"demo, {options.cores} cores": Project.demo,
            "snakemake, nothing to do": Project.snakemake,
            "demo by distillery make": Project.make,
        }
    measures["distillery plan"] = Project.plan
    with tempfile.TemporaryDirectory() as folder:
        sources = {"warm": ROOT, "cold": ROOT}
        sources |= {"before": options.before.resolve()} if options.before else {}
        projects = {}
        for name, source in sources.items():
            place = Path(folder, name)
            place.mkdir()
            projects[name] = Project(source, place, name == "warm", options.cores)
        found = [
            row
            for what, measure in measures.items()
            for row in rows(what, measure, projects, options.rounds)
        ]
    command = f"`python benchmarks/warm_jobs.py`: {options.rounds} rounds, medians"
    print(keep("warm-jobs", f"{command}; ratios are to the last variant.", COLUMNS, found))


COLUMNS = {"what": "", "variant": "", "wall": "wall s|.2f", "cpu": "CPU s|.2f"}
COLUMNS |= {"wall_ratio": "wall ratio|.2f", "cpu_ratio": "CPU ratio|.2f"}


def rows(
    what: str, measure: Measure, projects: dict[str, Project], rounds: int
) -> list[dict[str, Any]]:
    """A row for each variant, the last of which the ratios are to."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in projects}
    for _ in range(rounds):
        for name, project in projects.items():
            found[name].append(measure(project))
    medians = {
        name: [median(part) for part in zip(*used, strict=True)] for name, used in found.items()
    }
    base = medians[list(medians)[-1]]
    return [
        {"what": what, "variant": name, "wall": wall, "cpu": spent}
        | {"wall_ratio": wall / base[0], "cpu_ratio": spent / base[1]}
        for name, (wall, spent) in medians.items()
    ]


if __name__ == "__main__":
    main()
