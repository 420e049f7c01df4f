# Whiten: the matrix that whitens a data set's images, for methods whose recipe names a whitening.


rule whiten:
    input:
        upstream("whiten"),
    output:
        "results/store/whiten/{id}/meta.json",
    log:
        "results/logs/whiten/{id}.log",
    benchmark:
        "results/benchmarks/whiten/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("whiten"),
        runtime=runtime("whiten"),
        gpu=GPUS,
    params:
        distillery=DISTILLERY,
        device=DEVICE,
        spec=spec("whiten"),
        cost=estimate("whiten"),
    message:
        "whiten {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} whiten --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
