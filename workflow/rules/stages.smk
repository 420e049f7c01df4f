# One rule for each stage that makes artefacts: data, whiten, embed, teacher, distill, label, evaluate, analyse.
# They differ in the stage that they call: `distillery <stage>` runs `make` of src/distillery/stages/<stage>.py.
# What is not defined here stands in common.smk. The plan knows what an artefact is made of, and what of that is missing.

for stage in STAGES:

    rule:
        name:
            stage
        input:
            upstream(stage),
        output:
            update(f"results/store/{stage}/{{id}}/meta.json"),
        log:
            f"results/logs/{stage}/{{id}}.log",
        benchmark:
            f"results/benchmarks/{stage}/{{id}}.tsv"
        threads: 1
        resources:
            mem_mb=memory(stage),
            runtime=runtime(stage),
            gpu=gpus(stage),
        params:
            distillery=DISTILLERY,
            stage=stage,
            device=device(stage),
            spec=spec(stage),
            cost=estimate(stage),
        message:
            "{rule} {wildcards.id} ({params.cost})"
        shell:
            "{params.distillery} {params.stage} --device {params.device} --threads {threads} --spec {params.spec:q} > {log} 2>&1"
