# The plan and the questions asked of it. Artefacts that exist never enter the graph, since a path names its whole provenance:
# existence is all there is to check, and neither modification times nor Snakemake's own metadata matter. All outputs are `update`:
# jobs replace them in one step, so that another Snakemake at the same folder, or a failed job, never takes a finished one away.

import functools
import shlex
import shutil
import sys
from pathlib import Path

from distillery.errors import DistilleryError
from distillery.plan.claims_files import claims_are_current
from distillery.plan.cost import Estimator
from distillery.plan.explain import describe, summary
from distillery.plan.plan import Plan
from distillery.plan.preflight import Preflight, judge, over_limits
from distillery.store.failures import explained
from distillery.store.spec import STAGES

# Shows stored artefacts too; for --dag, --rulegraph and --report.
FULL = bool(config.pop("full_dag", False))

try:
    PLAN = Plan(Path(), config, COMMAND_LINE)
    TABLES = PLAN.settings.known_tables()
    ESTIMATOR = Estimator(PLAN.settings, PLAN.store)
    PREFLIGHT = Preflight(PLAN.settings, ESTIMATOR)
except DistilleryError as error:
    raise WorkflowError(str(error))


def in_one_line(answer):
    # What a user, a file or the machine is to blame for ends the run in one line; a bug of ours keeps its traceback.
    @functools.wraps(answer)
    def answered(*arguments, **named):
        try:
            return answer(*arguments, **named)
        except DistilleryError as error:
            raise WorkflowError(str(error))
        except OSError as error:
            raise WorkflowError(explained(error) or str(error))

    return answered


# Of a failed job whose output was not there before, as is usual here: no news.
logger.addFilter(lambda record: "no backup found" not in record.getMessage())

DISTILLERY = f"{shlex.quote(sys.executable)} -m distillery"
DEVICE = PLAN.settings.params.device
GPUS = 1 if DEVICE != "cpu" and shutil.which("nvidia-smi") else 0
ON_CPU = ("data",)  # stages that compute nothing on a GPU


def meta(node):
    return f"results/store/{node.address}/meta.json"


def absent(nodes, there=PLAN.whole):
    return [meta(node) for node in nodes if FULL or not there(node)]


# A name of a table, which need not exist: the rule's inputs then say which one is nearest. Folders of other files are no tables,
# and the claims have a rule of their own.
NAME = r"(?!(store|scratch|plan|logs|benchmarks)/|claims\.)[^.]+"


wildcard_constraints:
    id=r"[^/]+",
    table=NAME,
    figure=NAME,


def node_of(stage, wildcards):
    return PLAN.node(f"{stage}/{wildcards.id}")


def upstream(stage):
    @in_one_line
    def inputs(wildcards):
        node = node_of(stage, wildcards)
        # An artefact of which no more than meta.json was fetched is there in Snakemake's eyes; a mark makes it again.
        partial = not FULL and PLAN.have(node) and not PLAN.whole(node)
        return absent(node.upstream()) + ([PLAN.mark_artefact(node)] if partial else [])

    return inputs


def device(stage):
    return "cpu" if stage in ON_CPU else DEVICE


def gpus(stage):
    return 0 if stage in ON_CPU else GPUS


def spec(stage):
    return lambda wildcards: node_of(stage, wildcards).spec.dumps()


def estimate(stage):
    def cost(wildcards):
        known = ESTIMATOR.cost(node_of(stage, wildcards))
        return describe(known) if known else "no estimate"

    return cost


def limit(name):
    # Of `resources` in a profile, or of --resources; None where nobody set one.
    found = workflow.global_resources.get(name)
    return getattr(found, "value", found)


def needed_mb(node):
    known = ESTIMATOR.cost(node)
    unknown = min(4000, limit("mem_mb") or 4000)
    return int(known.on_host(bool(gpus(node.spec.stage))) / 1e6) if known else unknown


def memory(stage):
    def mem_mb(wildcards, attempt):
        first = needed_mb(node_of(stage, wildcards))
        most = limit("mem_mb")
        # A further attempt gets more, as far as there is more.
        return (
            attempt * first if most is None else min(attempt * first, max(first, most))
        )

    return mem_mb


SAID = set()
AHEAD = set()  # missing artefacts of the tables that are asked for


def look_ahead(nodes):
    # What missing artefacts will lack: an error before the first job runs, a warning in a dry run. What only this machine lacks
    # matters where jobs run on it.
    AHEAD.update(nodes)
    memory_of = {node: needed_mb(node) for node in nodes}
    gpus_of = {node: gpus(node.spec.stage) for node in nodes}
    found = PREFLIGHT.findings(nodes)
    found += over_limits(memory_of, limit("mem_mb"), gpus_of, limit("gpu"))
    stop, warnings = judge(
        found,
        here=getattr(workflow, "local_exec", False),
        running=not getattr(workflow, "dryrun", True),
    )
    for text in warnings:
        if text not in SAID:
            SAID.add(text)
            logger.warning(f"warning: {text}")
    if stop:
        raise WorkflowError(stop)


def runtime(stage):
    def minutes(wildcards, attempt):
        known = ESTIMATOR.cost(node_of(stage, wildcards))
        return int(attempt * (10 + 3 * known.seconds / 60)) if known else 1440

    return minutes


@in_one_line
def table_inputs(wildcards):
    # Whether a table is stale, its own sidecar says; only then does it depend on anything: the missing artefacts that it reads, and
    # a mark that makes Snakemake assemble it.
    nodes = PLAN.table_inputs(wildcards.table)
    if FULL:
        return [meta(node) for node in nodes]
    if PLAN.fresh(wildcards.table):
        return []
    look_ahead(PLAN.missing([wildcards.table]))
    return [*absent(nodes, PLAN.have), PLAN.mark_table(wildcards.table)]


@in_one_line
def table_plan(wildcards):
    return PLAN.write_plan_stamp(wildcards.table)


@in_one_line
def picture_plan(wildcards):
    return PLAN.write_plan_stamp(wildcards.figure)


def table_summary(wildcards):
    return summary(
        PLAN.missing([wildcards.table]), ESTIMATOR, PLAN.settings.params.scale
    )


def targets(tables):
    full = PLAN.settings.full_name
    drawn = [
        name for name in tables if full(name) in TABLES and TABLES[full(name)].figure
    ]
    return [f"results/{name}.csv" for name in tables] + [
        f"results/{name}.png" for name in drawn
    ]


@in_one_line
def picture_inputs(wildcards):
    # As for tables: a picture whose sidecar names the present plan, of a table that is fresh, depends on nothing.
    name = wildcards.figure
    if not FULL and PLAN.drawn(name) and PLAN.fresh(name):
        return []
    look_ahead(PLAN.missing([name]))
    return [
        f"results/{name}.csv",
        *absent(PLAN.figure_inputs(name)),
        *([] if FULL else [PLAN.mark_picture(name)]),
    ]


@in_one_line
def claims_inputs(wildcards):
    # No table is made for the claims: they depend on a mark where they are not what the tables that exist would give.
    return [] if claims_are_current(Path()) else [PLAN.mark_claims()]
