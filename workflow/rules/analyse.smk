# Analyse: what a figure shows of a distilled set, or of a student trained on it.


rule analyse:
    input:
        upstream("analyse"),
    output:
        "results/store/analyse/{id}/meta.json",
    log:
        "results/logs/analyse/{id}.log",
    benchmark:
        "results/benchmarks/analyse/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("analyse"),
        runtime=runtime("analyse"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("analyse"),
        cost=estimate("analyse"),
    message:
        "analyse {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} analyse --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
