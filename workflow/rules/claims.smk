# Claims: the papers' claims by the tables that exist. No table is made for them: `distillery claims` reads what is there, and whether
# what it wrote before is still what it would write, it says itself.


rule claims:
    input:
        claims_inputs,
    output:
        csv=update("results/claims.csv"),
        md=update("results/claims.md"),
    log:
        "results/logs/claims.log",
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        distillery=DISTILLERY,
    message:
        "claims of the papers, by the tables that exist"
    shell:
        "{params.distillery} claims > {log} 2>&1"
