"""The code that runs is that of the project's folder, whichever copy the environment installed.

An environment holds one installation, often that of a main folder. A second clone, a git worktree
or the temporary folder of a DVC experiment has code of its own, and its results are to be that
code's.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from distillery.errors import PlanError

PACKAGE = Path(__file__).parents[1]


def own_source(root: Path) -> Path | None:
    """The `src` of a project's folder, when it holds another copy of this package.

    Returns:
        An absolute path; None when the folder has no copy, or its copy is the one that runs.
    """
    source = root.resolve() / "src"
    copy = source / PACKAGE.name
    other = (copy / "__main__.py").is_file() and not copy.samefile(PACKAGE)
    return source if other else None


def run_own_code(argv: Sequence[str]) -> None:
    """Start the command again, in place of this process, with the code of the project's folder.

    It returns when that is the code that runs already.

    Args:
        argv: the words after `distillery`; the folder is that of `--root`, else the present one.

    Raises:
        PlanError: Python takes another copy of the package all the same.
    """
    source = own_source(_root(argv))
    if source is None:
        return
    path = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if path[0] == str(source):
        raise PlanError(
            f"{source}: Python runs {PACKAGE} in place of this folder's code; "
            f"start it without options such as -I, -E or -P"
        )
    # A repeated start must not let PYTHONPATH grow, and an empty entry would mean another folder.
    rest = [entry for entry in path if entry not in ("", str(source))]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(source), *rest])}
    sys.stdout.flush()
    sys.stderr.flush()
    command = [sys.executable, "-m", PACKAGE.name, *argv]
    os.execve(sys.executable, command, environment)


def _root(argv: Sequence[str]) -> Path:
    """The folder that `--root` names; its mistakes are said by the parser of the command line."""
    parser = argparse.ArgumentParser(add_help=False, exit_on_error=False)
    parser.add_argument("--root", type=Path, default=Path())
    try:
        return Path(parser.parse_known_args(list(argv))[0].root)
    except argparse.ArgumentError:
        return Path()
