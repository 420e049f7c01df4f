# Distill: a data set and a budget into a distilled set; the method is in the plan's recipe.


rule distill:
    input:
        upstream("distill"),
    output:
        "results/store/distill/{id}/meta.json",
    params:
        spec=spec("distill"),
        cost=estimate("distill"),
    log:
        "results/logs/distill/{id}.log",
    benchmark:
        "results/benchmarks/distill/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("distill"),
        runtime=runtime("distill"),
        gpu=GPUS,
    message:
        "distill {wildcards.id} ({params.cost})"
    shell:
        "{DISTILLERY} distill --device {DEVICE} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
