# Table: read a table off its finished evaluations. table_inputs in common.smk says when it is stale.


rule table:
    input:
        table_inputs,
    output:
        csv="results/{table}.csv",
        md="results/{table}.md",
        tex="results/{table}.tex",
        metrics="results/{table}.metrics.json",
        sidecar="results/{table}.json",
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
