# Embed: what a source knows of how near the classes are to each other, for methods whose recipe names an embedding.


rule embed:
    input:
        upstream("embed"),
    output:
        "results/store/embed/{id}/meta.json",
    log:
        "results/logs/embed/{id}.log",
    benchmark:
        "results/benchmarks/embed/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("embed"),
        runtime=runtime("embed"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("embed"),
        cost=estimate("embed"),
    message:
        "embed {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} embed --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
