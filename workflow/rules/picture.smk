# Picture: draw a figure from its finished table and the values of its analyses.


rule picture:
    input:
        picture_inputs,
    output:
        png=update("results/{figure}.png"),
        pdf=update("results/{figure}.pdf"),
        values=update("results/{figure}.values.csv"),
        sidecar=update("results/{figure}.picture.json"),
    log:
        "results/logs/picture/{figure}.log",
    threads: 1
    resources:
        mem_mb=2000,
        runtime=10,
    params:
        distillery=DISTILLERY,
        plan=picture_plan,
    message:
        "picture {wildcards.figure}"
    shell:
        "{params.distillery} picture {wildcards.figure} --plan {params.plan} 2> {log}"
