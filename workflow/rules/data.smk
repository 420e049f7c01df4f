# Data: a source (built-in digits, torchvision name, parquet, folder of class folders) into one canonical parquet.


rule data:
    input:
        upstream("data"),
    output:
        "results/store/data/{id}/meta.json",
    log:
        "results/logs/data/{id}.log",
    benchmark:
        "results/benchmarks/data/{id}.tsv"
    threads: 1
    resources:
        mem_mb=memory("data"),
        runtime=runtime("data"),
    params:
        distillery=DISTILLERY,
        spec=spec("data"),
        cost=estimate("data"),
    message:
        "data {wildcards.id} ({params.cost})"
    shell:
        "{params.distillery} data --threads {threads} --spec {params.spec:q} > {log} 2>&1"
