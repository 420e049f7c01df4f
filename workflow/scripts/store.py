"""What DVC tracks of the store, asked of DVC itself; shared by fetch.py and save.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

STORE = Path("results/store")


def dvc(*arguments: str) -> str:
    """Run a dvc command and return its output; leave with its message when it fails."""
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments], stdout=subprocess.PIPE, text=True
    )
    if done.returncode:
        # An empty listing would silently recompute everything, so a failed one ends the run.
        sys.exit(f"dvc {' '.join(arguments[:3])} failed: see its message above")
    return done.stdout


def tracked() -> set[str]:
    """Paths of all files of the store that DVC tracks, on disk or not."""
    if not list(STORE.glob("*.dvc")):
        return set()
    return {
        f"{STORE}/{line}" for line in dvc("ls", "-R", "--dvc-only", ".", str(STORE)).splitlines()
    }
