# Distillery: data -> whiten, embed, teacher -> distill -> label -> evaluate -> analyse -> table -> picture.
# params.yaml says which tables; src/distillery/plan turns them into artefacts; a rule makes each missing one.

from snakemake.utils import min_version

min_version("9.0")


include: "workflow/rules/package.smk"


configfile: "params.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/stages.smk"
include: "workflow/rules/table.smk"
include: "workflow/rules/picture.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/warm.smk"


rule all:
    default_target: True
    input:
        targets(PLAN.settings.params.tables),
