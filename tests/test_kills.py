"""SIGKILL at a random moment: the same command goes on, with no step by hand, to the same bytes.

KILLS asks for more kills than the tests run, from KILLS_FIRST on, and KILLS_LOG names a file for
what each did.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.project import make_project

TABLE = "results/table2.csv"
COMMANDS = {
    "snakemake": ("snakemake", TABLE, "--cores", "2"),
    "dvc": ("dvc", "repro"),
    "make": ("distillery", "make", TABLE),
}
# How long the engines take, as multiples of `make`, which starts no process for each job.
LENGTHS = {"snakemake": 3.0, "dvc": 3.5, "make": 1.0}
# Who dies: the engine alone, which leaves orphans; a job of it; or all at once, as in a power cut.
CASES = [
    *(("snakemake", "engine"), ("dvc", "engine"), ("make", "engine")),
    *(("snakemake", "job"), ("snakemake", "all"), ("dvc", "all"), ("dvc", "job")),
]
KILLS = int(os.environ.get("KILLS", "2"))
FIRST = int(os.environ.get("KILLS_FIRST", "0"))


def start(project: Path, engine: str, log: Path) -> subprocess.Popen:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with open(log, "ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", *COMMANDS[engine]],
            cwd=project,
            stdout=file,
            stderr=file,
            env=os.environ | {"PYTHONPATH": str(project / "src"), "PATH": path},
            start_new_session=True,
        )


def made(project: Path) -> dict[str, bytes]:
    """The files of all artefacts but meta.json, which tells the time, and those of the table."""
    store = (f for f in (project / "results/store").glob("*/*/*") if f.name != "meta.json")
    files = [*store, *(project / "results").glob("table2.*")]
    return {str(f.relative_to(project)): f.read_bytes() for f in files if f.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> tuple[Path, dict[str, bytes], float]:
    """A project of which nothing but the data is made, what it makes, and the seconds it takes."""
    project = make_project(tmp_path_factory.mktemp("kills"))
    subprocess.run(["git", "init", "--quiet"], cwd=project, check=True)
    log = project.parent / "log"
    started = time.monotonic()
    assert start(project, "make", log).wait() == 0, log.read_text()
    seconds, expected = time.monotonic() - started, made(project)
    for folder in ("distill", "label", "evaluate", "teacher"):
        shutil.rmtree(project / "results/store" / folder)
    for file in (project / "results").glob("table2.*"):
        file.unlink()
    return project, expected, seconds


def jobs_of(session: int) -> list[int]:
    """The processes of a session that are jobs: `distillery <stage> ... --spec`."""
    found = []
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
            status = (folder / "stat").read_text().rpartition(")")[2].split()
        except (OSError, ValueError):
            continue
        if int(status[3]) == session and b"--spec" in words and words[0].endswith(b"python"):
            found.append(int(folder.name))
    return found


def kill(process: subprocess.Popen, victim: str, stream: random.Random) -> str:
    if victim == "all":
        os.killpg(process.pid, signal.SIGKILL)
    elif victim == "job":
        for _ in range(300):
            if jobs := jobs_of(process.pid):
                os.kill(stream.choice(jobs), signal.SIGKILL)
                break
            if process.poll() is not None:
                return "too late"
            time.sleep(0.1)
    else:
        process.kill()
    process.wait()
    return "killed"


@pytest.mark.parametrize("number", range(FIRST, FIRST + KILLS))
def test_the_same_command_goes_on_to_the_same_bytes(number, whole, tmp_path):
    source, expected, seconds = whole
    stream, (engine, victim) = random.Random(number), CASES[number % len(CASES)]
    project, log = shutil.copytree(source, tmp_path / "project"), tmp_path / "log"
    process, moment = start(project, engine, log), stream.uniform(0.5, LENGTHS[engine] * seconds)
    time.sleep(moment)
    kept = {file: file.read_bytes() for file in project.glob("results/store/*/*/meta.json")}
    outcome = kill(process, victim, stream) if process.poll() is None else "too late"
    again = start(project, engine, log)
    assert again.wait() == 0, f"{engine}, {victim} after {moment:.1f} s:\n{log.read_text()[-3000:]}"
    assert made(project) == expected
    assert {file: file.read_bytes() for file in kept} == kept, "what was finished stays"
    if path := os.environ.get("KILLS_LOG"):
        said = {"engine": engine, "victim": victim, "after": round(moment, 1), "outcome": outcome}
        with open(path, "a") as file:
            file.write(json.dumps(said | {"finished": len(kept)}) + "\n")
    shutil.rmtree(project)
