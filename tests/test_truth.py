"""Whatever the order of engines, edits, deletions and tampering: a table is the plan's, or is made.

Random sequences over a project whose store holds the students of every setting, so that engines
mostly assemble tables and train nothing. What the table should be is known beforehand: it was made
once from nothing for each setting. TRUTH_SEQUENCES asks for more of them than the tests run, from
TRUTH_FIRST on, and TRUTH_LOG names a file for what each did.
"""

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from helpers.project import PARAMS, make_project

TABLE = "table2"
FILES = tuple(f"results/{TABLE}{end}" for end in (".csv", ".md", ".tex", ".metrics.json", ".json"))
# The settings between which the sequences go to and fro.
SETTINGS = {
    "as it was": "evaluate: {}",
    "shorter": "evaluate: {hard: {training: {epochs: 1}}}",
    "warmer": "evaluate: {static: {loss: {name: kl, temperature: 9.0}}}",
}
SEQUENCES = int(os.environ.get("TRUTH_SEQUENCES", "10"))
FIRST = int(os.environ.get("TRUTH_FIRST", "0"))
STEPS = 4


def run(project: Path, *command: str) -> str:
    """Run a Python module in the project, with the project's code."""
    path = f"{project / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project / "src"), "PATH": path},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def choose(project: Path, setting: str) -> None:
    """Edit params.yaml."""
    (project / "params.yaml").write_text(PARAMS.replace("evaluate: {}", SETTINGS[setting]))


def snakemake(project: Path) -> None:
    run(project, "snakemake", f"results/{TABLE}.csv", "--cores", "2")


def make(project: Path) -> None:
    run(project, "distillery", "make", f"results/{TABLE}.csv")


def repro(project: Path) -> None:
    run(project, "dvc", "repro")


ENGINES: dict[str, Callable[[Path], None]] = {"snakemake": snakemake, "make": make, "dvc": repro}


def contents(project: Path) -> dict[str, bytes | None]:
    files = [project / name for name in FILES]
    return {file.name: file.read_bytes() if file.is_file() else None for file in files}


@pytest.fixture(scope="module")
def truth(tmp_path_factory) -> tuple[Path, dict[str, dict[str, bytes | None]]]:
    """A project under git with the students of every setting, and the table of each of them."""
    project = make_project(tmp_path_factory.mktemp("truth"))
    tables = {}
    for setting in SETTINGS:
        choose(project, setting)
        make(project)
        tables[setting] = contents(project)
        for file in FILES:
            (project / file).unlink()
    assert len({table["table2.csv"] for table in tables.values()}) == len(SETTINGS)
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    return project, tables


# What hands do to a table and to what the engines remember; a file is one of FILES.
HANDS: dict[str, Callable[[Path, Path], object]] = {
    "delete": lambda project, file: file.unlink(missing_ok=True),
    "append": lambda project, file: file.write_bytes(read(file) + b"edited\n"),
    "swap a digit": lambda project, file: file.write_bytes(read(file).replace(b"9", b"8")),
    "empty": lambda project, file: file.write_bytes(b""),
    "from tomorrow": lambda project, file: file.exists() and os.utime(file, (9e9, 9e9)),
    "from long ago": lambda project, file: file.exists() and os.utime(file, (1e9, 1e9)),
    "edit and keep its time": lambda project, file: keep_time(file),
    "forget snakemake": lambda project, file: forget(project / ".snakemake"),
    "forget scratch": lambda project, file: forget(project / "results/scratch"),
    "forget a student": lambda project, file: forget(min(project.glob("results/store/evaluate/*"))),
    "forget sets": lambda project, file: forget(project / "results/store/distill"),
}


def read(file: Path) -> bytes:
    return file.read_bytes() if file.is_file() else b""


def keep_time(file: Path) -> None:
    if file.is_file():
        found = file.stat()
        file.write_bytes(file.read_bytes()[::-1])
        os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns))


def forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("number", range(FIRST, FIRST + SEQUENCES))
def test_a_table_is_never_stale_and_never_made_needlessly(number, truth, tmp_path):
    source, tables = truth
    project = shutil.copytree(source, tmp_path / "project")
    stream, history = random.Random(number), []
    for _ in range(STEPS):
        setting = stream.choice(list(SETTINGS))
        choose(project, setting)
        hands = stream.sample(list(HANDS), stream.randint(0, 2))
        for hand in hands:
            HANDS[hand](project, project / stream.choice(FILES))
        before = contents(project)
        engine = stream.choices(list(ENGINES), (5, 3, 1))[0]
        history.append((setting, hands, engine))
        stamps = {name: stamp(project / name) for name in FILES}
        ENGINES[engine](project)
        assert contents(project) == tables[setting], f"stale after {history}"
        if before == tables[setting] and engine != "dvc":  # DVC removes outputs before it runs
            after = {name: stamp(project / name) for name in FILES}
            assert after == stamps, f"made needlessly after {history}"
    log = os.environ.get("TRUTH_LOG")
    if log:
        with open(log, "a") as file:
            file.write(json.dumps({"sequence": number, "steps": history}) + "\n")

    shutil.rmtree(project)


def stamp(file: Path) -> int:
    return file.stat().st_mtime_ns if file.is_file() else 0
