#!/bin/sh
# Run a command of dvc.yaml with the programs of the project's environment and the code of this folder:
#     sh workflow/scripts/run.sh COMMAND ...
# DVC may be started by its path, without an activated environment, and `python` is then any python. DVC's experiments and git's
# worktrees have no environment of their own; theirs is the main folder's.
set -eu

here=$(cd "$(dirname "$0")/../.." && pwd -P)

environment() {
    if [ -n "${VIRTUAL_ENV:-}" ] && [ -x "$VIRTUAL_ENV/bin/snakemake" ]; then
        echo "$VIRTUAL_ENV"
        return
    fi
    folder=$here # of an experiment: below .dvc/tmp of the main folder
    while [ "$folder" != / ] && [ ! -x "$folder/.venv/bin/snakemake" ]; do
        folder=$(dirname "$folder")
    done
    if [ "$folder" = / ]; then # of a worktree: beside the shared .git
        shared=$(cd "$here" && git rev-parse --git-common-dir 2>/dev/null) || return 0
        folder=$(cd "$here" && cd "$shared/.." && pwd -P)
    fi
    if [ -x "$folder/.venv/bin/snakemake" ]; then
        echo "$folder/.venv"
    fi
}

found=$(environment)
if [ -n "$found" ]; then
    PATH="$found/bin:$PATH"
elif ! command -v snakemake >/dev/null; then
    echo "run.sh: no environment with snakemake; run make setup, or activate the environment" >&2
    exit 1
fi
PYTHONPATH="$here/src${PYTHONPATH:+:$PYTHONPATH}"
export PATH PYTHONPATH
exec "$@"
