# Label: the soft labels stored with a distilled set (static ones; dynamic labels are made while a student trains).


rule label:
    input:
        upstream("label"),
    output:
        "results/store/label/{id}/meta.json",
    log:
        "results/logs/label/{id}.log",
    benchmark:
        "results/benchmarks/label/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("label"),
        runtime=runtime("label"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("label"),
        cost=estimate("label"),
    message:
        "label {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} label --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
