"""The command line, Snakemake and DVC run in a project, with the project's own code."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path


def run_module(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a Python module, `distillery` or `snakemake`, with its arguments."""
    return subprocess.run(
        [sys.executable, "-m", *command],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
    )


# Gives up the two capabilities by which root reads and writes whatever the modes of files say;
# capabilities(7) numbers them 1 and 2, and prctl(2) the operation 24. Others have none to give up.
_ORDINARY = """
import ctypes, os, sys
if os.geteuid() == 0:
    libc = ctypes.CDLL(None, use_errno=True)
    for capability in (1, 2):
        if libc.prctl(24, capability, 0, 0, 0):
            sys.exit(f"capability {capability} cannot be given up: errno {ctypes.get_errno()}")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


def run_as_ordinary_user(project: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments; modes of files bind it even where the tests run as root."""
    return subprocess.run(
        [sys.executable, "-c", _ORDINARY, *command],
        cwd=project,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
    )


def built_by_snakemake(project: Path, *arguments: str) -> tuple[Counter[str], str]:
    """Build table2; the artefacts really made, by stage, with the table, and what was printed."""
    before = {meta: meta.stat().st_mtime_ns for meta in project.glob("results/store/*/*/meta.json")}
    sidecar = project / "results/table2.json"
    stamp = sidecar.stat().st_mtime_ns if sidecar.exists() else 0
    done = run_module(project, "snakemake", "results/table2.csv", "--cores", "2", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    after = project.glob("results/store/*/*/meta.json")
    made = Counter(m.parent.parent.name for m in after if before.get(m) != m.stat().st_mtime_ns)
    if sidecar.exists() and sidecar.stat().st_mtime_ns != stamp:
        made["table"] += 1
    return made, done.stdout + done.stderr
