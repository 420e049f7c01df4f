# Distill: a data set and a budget into a distilled set; the method is in the plan's recipe.


rule distill:
    input:
        upstream("distill"),
    output:
        "results/store/distill/{id}/meta.json",
    log:
        "results/logs/distill/{id}.log",
    benchmark:
        "results/benchmarks/distill/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("distill"),
        runtime=runtime("distill"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("distill"),
        cost=estimate("distill"),
    message:
        "distill {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} distill --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
