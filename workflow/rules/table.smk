# A table is stale when its own sidecar does not name the present plan; only then does it depend on anything: the missing
# artefacts it reads, and its plan file, which is written anew and so is newer than the table.


def table_inputs(wildcards):
    try:
        nodes = PLAN.table_inputs(wildcards.table)
        if FULL:
            return [meta(node) for node in nodes]
        if PLAN.fresh(wildcards.table):
            return []
        return [*absent(nodes), str(PLAN.mark(wildcards.table))]
    except DistilleryError as error:
        raise WorkflowError(str(error))


def table_summary(wildcards):
    return summary(PLAN.missing([wildcards.table]), ESTIMATOR, PLAN.settings.params.scale)


rule table:
    input:
        table_inputs,
    output:
        csv="results/{table}.csv",
        md="results/{table}.md",
        tex="results/{table}.tex",
        metrics="results/{table}.metrics.json",
        sidecar="results/{table}.json",
    params:
        summary=table_summary,
    log:
        "results/logs/table/{table}.log",
    benchmark:
        "results/benchmarks/table/{table}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    message:
        "table {wildcards.table}: {params.summary}"
    shell:
        "{DISTILLERY} table {wildcards.table} --plan results/plan/{wildcards.table}.json 2> {log}"
