# Teachers: networks trained on real data, one artefact per architecture and data set.


rule teacher:
    input:
        upstream("teacher"),
    output:
        "results/store/teacher/{id}/meta.json",
    log:
        "results/logs/teacher/{id}.log",
    benchmark:
        "results/benchmarks/teacher/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("teacher"),
        runtime=runtime("teacher"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("teacher"),
        cost=estimate("teacher"),
    message:
        "teacher {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} teacher --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
