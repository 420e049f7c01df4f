# Evaluate: one student trained on a distilled set, one artefact per repeat.


rule evaluate:
    input:
        upstream("evaluate"),
    output:
        "results/store/evaluate/{id}/meta.json",
    log:
        "results/logs/evaluate/{id}.log",
    benchmark:
        "results/benchmarks/evaluate/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("evaluate"),
        runtime=runtime("evaluate"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("evaluate"),
        cost=estimate("evaluate"),
    message:
        "evaluate {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} evaluate --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
