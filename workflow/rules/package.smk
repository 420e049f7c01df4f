# The package of this folder, for the rules and for their jobs; and params.yaml read by it before Snakemake reads it, which takes
# the last of two equal keys in silence.

import os
import shlex
import sys
from pathlib import Path

SRC = os.path.join(workflow.basedir, "src")
sys.path.insert(0, SRC)
shell.prefix(f"export PYTHONPATH={shlex.quote(SRC)}; ")

from distillery.errors import DistilleryError
from distillery.store.own_code import own_source
from distillery.plan.yaml_files import read_yaml

# What --config and --configfile say: it wins over what params.yaml says for one scale.
COMMAND_LINE = {key: value for key, value in config.items() if key != "full_dag"}

try:
    read_yaml(Path("params.yaml"))
except DistilleryError as error:
    raise WorkflowError(str(error))

if other := own_source(Path()):
    raise WorkflowError(
        f"{other}: this folder has code of its own, and the Snakefile in {workflow.basedir} runs another; "
        f"run snakemake without --snakefile"
    )
