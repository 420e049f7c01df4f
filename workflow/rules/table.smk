# Table: read a table off its finished evaluations. table_inputs in common.smk says when it is stale.


rule table:
    input:
        table_inputs,
    output:
        csv=update("results/{table}.csv"),
        md=update("results/{table}.md"),
        tex=update("results/{table}.tex"),
        metrics=update("results/{table}.metrics.json"),
        sidecar=update("results/{table}.json"),
    log:
        "results/logs/table/{table}.log",
    benchmark:
        "results/benchmarks/table/{table}.tsv"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        distillery=DISTILLERY,
        plan=table_plan,
        summary=table_summary,
    message:
        "table {wildcards.table}: {params.summary}"
    shell:
        "{params.distillery} table {wildcards.table} --plan {params.plan} 2> {log}"
