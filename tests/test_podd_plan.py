"""PoDD's tables in the plan: whitening and embeddings, the papers' recipes, ipc below one."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from distillery.components.fields import read
from distillery.errors import PlanError
from distillery.methods import podd
from distillery.plan.cell import Experiment, TableCell
from distillery.plan.checks import check_pixels, instances
from distillery.plan.cost import Estimator
from distillery.plan.plan import Plan
from distillery.plan.stage_plans.analyse import plan_analyses
from distillery.plan.stage_plans.distill import plan_distilled
from distillery.plan.stage_plans.evaluate import plan_evaluations
from distillery.plan.table_models import RowLabels
from distillery.plan.types import recipe_object
from distillery.store.canonical import file_sha256
from distillery.training.recipe import batch_size
from helpers.planning import at
from helpers.project import ROOT


@pytest.fixture(scope="module")
def paper() -> Plan:
    return at("paper")


def cell_of(plan: Plan, table: str, row: str, **place) -> TableCell:
    return next(
        p
        for p in plan.cells(f"podd/{table}")
        if p.row.row == row and all(getattr(p, k) == v for k, v in place.items())
    )


# --- inputs ---------------------------------------------------------------------------------------


def test_a_methods_fields_bring_whitening_and_embeddings():
    podd = cell_of(at("demo"), "table1", "PoDD", ipc=0.6)
    assert set(podd.distilled[0].inputs) == {"data", "whitening", "embeddings"}
    assert podd.distilled[0].inputs["whitening"].spec.recipe == {"ridge": 0.1}
    assert podd.distilled[0].inputs["whitening"].spec.label == "digits-zca"
    assert set(podd.students[0].inputs) == {"data", "distilled", "whitening"}
    assert podd.students[0].inputs["whitening"] is podd.distilled[0].inputs["whitening"]
    assert set(podd.distilled[0].inputs["embeddings"].inputs) == {"data", "teachers"}
    plain = cell_of(at("demo"), "table2", "BPTT")  # whitening: none
    assert set(plain.distilled[0].inputs) == {"data"} and set(plain.students[0].inputs) == {
        "data",
        "distilled",
    }


def test_another_ridge_moves_all_that_is_whitened_and_nothing_else():
    before, after = at("demo"), at("demo", whiten={"zca": {"ridge": 0.2}})
    old, new = (
        {n.spec.label: n.address for n in plan.missing(["podd/table2"])} for plan in (before, after)
    )
    moved = {label for label in old if old[label] != new[label]}
    assert moved == {
        label for label in old if "podd" in label or "rat-bptt" in label or label == "digits-zca"
    }


def test_a_row_may_change_the_whitening():
    experiment = Experiment(
        "digits", 1, "convnet-in16", cell_of(at("demo"), "table1", "PoDD", ipc=1.0).row
    )
    context = at("demo").context
    row = experiment.row.model_copy(update={"override": {"whiten": {"ridge": 0.5}}})
    other = plan_distilled(replace(experiment, row=row), context)
    assert other.input("whitening").spec.recipe == {"ridge": 0.5}
    distilled = plan_distilled(experiment, context)
    assert distilled.input("whitening").spec.recipe == {"ridge": 0.1}


def test_a_row_may_change_the_embeddings():
    context = at("demo").context
    row = cell_of(at("demo"), "table1", "PoDD", ipc=1.0).row
    experiment = Experiment("digits", 1, "convnet-in16", row)
    teachers = {"embed": {"teachers": ["convnet-w16"]}}
    other = replace(experiment, row=row.model_copy(update={"override": teachers}))
    found = [
        plan_distilled(setting, context).input("embeddings") for setting in (experiment, other)
    ]
    assert found[0].key != found[1].key
    assert found[1].spec.recipe["source"]["teachers"] == ["convnet-w16"]


def test_the_network_of_a_method_is_an_entry_of_networks_or_the_student():
    podd = cell_of(at("demo"), "table1", "PoDD", ipc=1.0).distilled[0]
    assert podd.spec.recipe["method"]["network"] == {
        "name": "convnet",
        "width": 16,
        "norm": "instance",
    }
    assert "distillery.nets.convnet" in podd.spec.roots
    wide = cell_of(
        at("demo", networks={"convnet-in16": {"width": 24}}), "table1", "PoDD", ipc=1.0
    ).distilled[0]
    assert wide.spec.recipe["method"]["network"]["width"] == 24 and wide.key != podd.key
    own = cell_of(
        at("demo", distill={"podd": {"network": "student"}}), "table1", "PoDD", ipc=1.0
    ).distilled[0]
    assert own.key == podd.key
    given = {"podd": {"network": {"name": "convnet", "width": 16, "norm": "instance"}}}
    assert (
        cell_of(at("demo", distill=given), "table1", "PoDD", ipc=1.0).distilled[0].key == podd.key
    )


def test_a_file_of_embeddings_counts_by_its_content_not_by_its_place(tmp_path):
    found = []
    for name, content in (("a", b"one"), ("b", b"one"), ("c", b"two")):
        (tmp_path / name).write_bytes(content)
        plan = at(
            "demo",
            embed={"file": {"path": str(tmp_path / name)}},
            distill={"podd": {"embedding": "file"}},
        )
        found.append(
            cell_of(plan, "table1", "PoDD", ipc=1.0).distilled[0].inputs["embeddings"].spec
        )
    a, b, c = found
    assert a.recipe["digest"] == file_sha256(tmp_path / "a") and "path" not in a.recipe["source"]
    assert a.local["source"]["path"] == str(tmp_path / "a") and a.local != b.local
    assert a.id == b.id != c.id
    absent = at(
        "demo", embed={"file": {"path": "no/such"}}, distill={"podd": {"embedding": "file"}}
    )
    assert (
        cell_of(absent, "table1", "PoDD", ipc=1.0)
        .distilled[0]
        .inputs["embeddings"]
        .spec.recipe["digest"]
        == "absent"
    )


def test_an_analysis_of_the_order_has_the_embeddings_of_the_set():
    plan = at("demo")
    ((score,),) = cell_of(plan, "order-score", "PoDD").evaluations
    assert set(score.inputs) == {"data", "distilled", "embeddings", "whitening"}
    with pytest.raises(
        PlanError,
        match=r"row 'PoDD': analysis 'order' needs embeddings; name some in distill.podd.embedding",
    ):
        without = {"podd-order": {"embedding": "none"}}
        grid = {"podd/order-score": {"order": ["given"]}}
        at("demo", distill=without, grid=grid).cells("podd/order-score")


# --- refusals -------------------------------------------------------------------------------------


def refused(row: str, table: str = "table2", **update) -> str:
    plan = at("demo")
    place = cell_of(plan, table, row)
    with pytest.raises(PlanError) as error:
        row = place.row.model_copy(update=update)
        plan_evaluations(Experiment("digits", 1, "convnet-in16", row), 1, plan.context)
    return str(error.value)


@pytest.mark.parametrize("labels", ["static", "dynamic", "fkd"])
def test_teachers_do_not_label_whitened_sets(labels):
    message = refused("PoDD", labels=RowLabels(kind=labels, recipe="static"), protocol="static")
    assert message == (
        f"row 'PoDD': labels '{labels}' are made by teachers, which see normalised pixels; "
        "set distill.whitening to none for this row"
    )


def test_analyses_with_teachers_do_not_look_at_whitened_sets():
    with pytest.raises(
        PlanError,
        match="row 'x': analysis 'similarity' looks with teachers, which see normalised pixels",
    ):
        check_pixels(
            {"teachers": ["a"]}, {"whitening": None}, "row 'x': analysis 'similarity' looks with"
        )
    check_pixels({"teachers": ["a"]}, {}, "here")
    check_pixels({}, {"whitening": None}, "here")


def test_an_analysis_with_teachers_is_not_planned_for_a_whitened_set():
    row = cell_of(at("demo"), "table2", "PoDD").row
    experiment, analysis = (
        Experiment("digits", 1, "convnet-in16", row),
        {"teachers": ["convnet-w16"]},
    )
    plan = at("demo", analyse={"similarity": analysis})
    with pytest.raises(PlanError, match="row 'PoDD': analysis 'similarity' looks with teachers,"):
        plan_analyses("similarity", experiment, 1, plan.context)


def test_learned_labels_need_a_method_that_learns_some():
    message = refused("Random", labels=RowLabels(kind="learned", recipe="learned"), protocol="podd")
    assert message.startswith(
        "row 'Random': labels 'learned' are those that a set holds, method 'random' stores none "
        "with this recipe (workflow/scales/demo.yaml.distill.random); use hard"
    )


def test_a_row_stands_only_where_it_says(tmp_path):
    rows = [(p.row.row, p.ipc) for p in at("demo").cells("podd/table1") if p.evaluations]
    posters = [
        (row, ipc) for row in ("PoDD", "PoDD, labels of the code") for ipc in (1.0, 0.6, 0.3)
    ]
    assert rows == [("Full data", 1.0), ("RaT-BPTT", 1.0), *posters]


# --- budgets below one image per class ------------------------------------------------------------


def test_a_share_of_an_image_names_its_artefacts():
    podd = cell_of(at("demo"), "table1", "PoDD", ipc=0.3)
    assert podd.distilled[0].spec.label == "digits-podd-ipc0.3-d0"
    assert podd.students[0].spec.label == "digits-podd-ipc0.3-learned-convnet-in16-d0-s0"
    assert podd.distilled[0].spec.recipe["ipc"] == 0.3
    with pytest.raises(
        PlanError, match=r"ipc 0.6 on 'digits': method 'rat-bptt' needs a whole number"
    ):
        row = cell_of(at("demo"), "table1", "RaT-BPTT").row
        plan_distilled(Experiment("digits", 0.6, None, row), at("demo").context)


@pytest.mark.parametrize("scale", ["demo", "mini", "paper"])
def test_every_poster_holds_a_patch(scale):
    # With K images of side h per class, n classes and a class grid of 5 x 2, 10 x 10 or 20 x 10
    # (README of PoDD's code): H = floor(rows h sqrt(K)), W = floor(K n h^2 / H). The paper has no
    # rule; this one gives its 202 x 202 (section 1). At 0.9 the sizes are those of the README.
    rows = {10: 2, 100: 10, 200: 10}
    authors = {
        "cifar10": (153, 60),
        "cifar100": (303, 303),
        "cub200": (610, 302),
        "tiny-imagenet": (1211, 608),
    }
    plan = at(scale)
    for p in (p for p in plan.cells("podd/table1") if p.row.row == "PoDD"):
        metadata = plan.settings.dataset(p.dataset).expected
        side = metadata.shape[1]
        height = math.floor(rows[metadata.classes] * side * math.sqrt(p.ipc))
        width = (
            height
            if metadata.classes == 100
            else math.floor(p.ipc * metadata.classes * side**2 / height)
        )
        recipe = {
            key: value
            for key, value in p.distilled[0].spec.recipe["method"].items()
            if key != "name"
        }
        layout = podd.poster_layout(read(podd.Recipe, recipe), p.ipc, metadata.classes, side)
        expected = authors[p.dataset] if (scale, p.ipc) == ("paper", 0.9) else (width, height)
        assert (layout.width, layout.height) == expected and min(expected) >= side, (
            p.dataset,
            p.ipc,
        )
        assert not layout.reference and "label_shape" not in recipe


def test_the_instances_of_a_poster_are_its_patches(paper):
    podd = (
        cell_of(paper, "table1", "PoDD", dataset="cub200", ipc=0.5)
        .distilled[0]
        .spec.recipe["method"]
    )
    assert instances(podd, 0.5, 200) == 1800


# --- the papers' recipes --------------------------------------------------------------------------

# PoDD: section 5.1 (patches, batches, epochs) and the README of its code (windows, rates; a
# meta-step is a batch of the data). RaT-BPTT: the README of its code; CIFAR-10 as there for 10
# images per class.
RECIPES = [
    (
        "PoDD",
        "cifar10",
        {
            "meta_steps": 40000,
            "batch": 5000,
            "patch_grid": [16, 6],
            "window": 60,
            "inner_steps": 200,
            "lr": 1e-3,
        },
    ),
    (
        "PoDD",
        "cifar100",
        {"meta_steps": 50000, "batch": 2000, "patch_grid": [20, 20], "patches": 50, "window": 100},
    ),
    (
        "PoDD",
        "cub200",
        {
            "meta_steps": 16000,
            "batch": 3000,
            "patch_grid": [60, 30],
            "patches": 200,
            "inner_steps": 200,
        },
    ),
    (
        "PoDD",
        "tiny-imagenet",
        {
            "meta_steps": 100000,
            "batch": 500,
            "patch_grid": [40, 20],
            "patches": 30,
            "inner_lr": 5e-4,
        },
    ),
    (
        "PoDD",
        "tiny-imagenet",
        {
            "lr": 5e-4,
            "window": 100,
            "inner_steps": 300,
            "window_start": "epoch",
            "labels": "learned",
        },
    ),
    (
        "RaT-BPTT",
        "cifar10",
        {
            "meta_steps": 40000,
            "batch": 5000,
            "window": 60,
            "inner_steps": 200,
            "window_start": "epoch",
            "lr": 1e-3,
            "inner_lr": 1e-3,
        },
    ),
    (
        "RaT-BPTT",
        "cifar100",
        {
            "batch": 5000,
            "window": 90,
            "inner_steps": 130,
            "window_start": "fixed",
            "lr": 3e-4,
            "inner_lr": 1e-3,
        },
    ),
    (
        "RaT-BPTT",
        "tiny-imagenet",
        {"batch": 1000, "window": 100, "inner_steps": 300, "lr": 3e-4, "labels": "learned"},
    ),
]


@pytest.mark.parametrize(("row", "dataset", "expected"), RECIPES)
def test_methods_have_the_papers_recipes(paper, row, dataset, expected):
    recipe = (
        cell_of(paper, "table1", row, dataset=dataset, ipc=1.0).distilled[0].spec.recipe["method"]
    )
    assert {key: recipe[key] for key in expected} == expected
    assert recipe["network"]["width"] == 128 and recipe["network"]["norm"] == "instance"


def test_rat_bptt_draws_as_its_budget_says(paper):
    # README of RaT-BPTT's code: 10 images of each class (CIFAR-10), 1 (CIFAR-100), 1 of each of 50
    # classes (Tiny-ImageNet). It says nothing of CIFAR-10 and Tiny-ImageNet at one image per class:
    # there all images take part in each inner step.
    row = cell_of(paper, "table2", "RaT-BPTT").row
    found = {}
    for dataset, ipc in itertools.product(("cifar10", "cifar100", "tiny-imagenet"), (1, 10, 50)):
        experiment = Experiment(dataset, ipc, "convnet-in", row)
        made = plan_distilled(experiment, paper.context).spec.recipe["method"]
        found[dataset, ipc] = recipe_object("method", made).images_per_step(
            ipc, paper.settings.dataset(dataset).expected.classes
        )
    few, hundred = {1: 200, 10: 50, 50: 50}, {1: 100, 10: 100, 50: 100}
    expected = {"cifar10": {1: 10, 10: 100, 50: 100}, "cifar100": hundred, "tiny-imagenet": few}
    assert found == {
        (dataset, ipc): count
        for dataset, counts in expected.items()
        for ipc, count in counts.items()
    }
    experiment = Experiment("cifar100", 10, "convnet-in", row)
    ten = plan_distilled(experiment, paper.context).spec.recipe["method"]
    assert (ten["lr"], ten["window"], ten["inner_steps"], ten["window_start"]) == (
        1e-3,
        100,
        300,
        "epoch",
    )


def test_rat_bptt_takes_the_meta_steps_of_the_poster_beside_it(paper):
    """So that what the poster gains is no longer training; RaT-BPTT's own are 15 times as many."""
    for dataset in ("cifar10", "cifar100", "cub200", "tiny-imagenet"):
        steps = [
            cell_of(paper, "table1", row, dataset=dataset, ipc=1.0)
            .distilled[0]
            .spec.recipe["method"]["meta_steps"]
            for row in ("RaT-BPTT", "PoDD", "PoDD, labels of the code")
        ]
        assert len(set(steps)) == 1, dataset


def test_labels_of_the_code_stand_beside_those_of_the_paper(paper):
    """At each printed place of Table 1, and of Table 2; both learned, nothing else differs."""
    for table in ("table1", "table2"):
        cells = {(p.row.row, p.dataset, p.ipc): p for p in paper.cells(f"podd/{table}")}
        places = [key[1:] for key in cells if key[0] == "PoDD" and cells[key].evaluations]
        assert len(places) == {"table1": 32, "table2": 4}[table]
        for place in places:
            ours, code = (
                cells[row, *place].distilled[0].spec.recipe["method"]
                for row in ("PoDD", "PoDD, labels of the code")
            )
            assert code["label_shape"] == "reference" and code["labels"] == "learned"
            same = set(code) - {"label_shape", "labels"}
            assert {key: ours[key] for key in same} == {key: code[key] for key in same}
            assert cells["PoDD, labels of the code", *place].published is None


def test_the_methods_have_evaluations_of_their_own(paper):
    """README of RaT-BPTT: marks to 3000 steps, raw labels; BPTT: 300 epochs of SGD 0.01, 0.9."""
    learned, fixed, bptt = (
        cell_of(paper, "table2", row, dataset="cifar100").students[0].spec.recipe
        for row in ("RaT-BPTT", "RaT-BPTT, fixed labels", "BPTT")
    )
    assert (learned["loss"], fixed["loss"]) == ({"name": "raw-ce"}, {"name": "ce"})
    assert learned["training"] == fixed["training"] and learned["training"]["epochs"] == 3000
    optimizer = {"name": "sgd", "lr": 0.01, "momentum": 0.9, "weight_decay": 0.0}
    training = bptt["training"]
    assert {key: training["optimizer"][key] for key in optimizer} == optimizer
    assert (training["epochs"], training["batch"], bptt["loss"]) == (300, 640, {"name": "ce"})


def test_clip_reads_the_names_of_the_authors(paper):
    """Their lists: boat of CIFAR-10, computer keyboard of CIFAR-100, words.txt's first words."""
    found = {
        dataset: cell_of(paper, "table1", "PoDD", dataset=dataset, ipc=1.0)
        .distilled[0]
        .input("embeddings")
        .spec
        for dataset in ("cifar10", "cifar100", "tiny-imagenet")
    }
    assert {spec.recipe["source"]["name"] for spec in found.values()} == {"clip"}
    assert {spec.recipe["source"]["tokens"] for spec in found.values()} == {"all"}
    assert found["cifar10"].recipe["source"]["names"] == {"ship": "boat"}
    assert found["cifar100"].recipe["source"]["names"] == {"keyboard": "computer keyboard"}
    words = found["tiny-imagenet"]
    assert words.local["source"]["words_path"].endswith("tiny-imagenet-200/words.txt")
    assert (
        words.recipe["source"]["words_path"] == "sha256:absent"
    )  # by content, and there is none here


def test_posters_of_cifar10_have_fixed_labels_from_seven_tenths_on(paper):
    found = {
        p.ipc: p.distilled[0].spec.recipe["method"]
        for p in paper.cells("podd/table1")
        if (p.row.row, p.dataset) == ("PoDD", "cifar10")
    }
    assert {ipc for ipc, recipe in found.items() if recipe["labels"] == "fixed"} == {
        1.0,
        0.9,
        0.8,
        0.7,
    }
    assert found[0.9]["size"] == [153, 60] and "size" not in found[0.8]


def test_students_take_the_steps_of_the_inner_loop(paper):
    steps = {}
    for p in [
        *paper.cells("podd/table1"),
        *paper.cells("podd/table2"),
        *paper.cells("podd/figure6"),
    ]:
        if p.evaluations and p.row.row not in ("BPTT", "Full data"):  # with trainings of their own
            training, method = (
                p.students[0].spec.recipe["training"],
                p.distilled[0].spec.recipe["method"],
            )
            count = instances(method, p.ipc, paper.settings.dataset(p.dataset).expected.classes)
            batches = math.ceil(count / batch_size(count, training["batch"], None))
            steps[p.row.row, p.dataset, p.extra.get("patches")] = batches * training["epochs"]
            optimizer = training["optimizer"]
            assert (optimizer["name"], optimizer["weight_decay"], training["schedule"]["name"]) == (
                "adam",
                0.0,
                "constant",
            )
            assert optimizer["lr"] == (
                5e-4 if p.row.protocol == "podd" and p.dataset == "tiny-imagenet" else 1e-3
            )
            assert (training["augment"], training["precision"]) == (["dsa:flip-rotate"], "fp32")
    assert len(steps) == 3 * 4 + 2 * 4 + 2 * 7  # of Tables 1 and 2, of Figure 6
    assert set(steps.values()) == {3000, 2000, 1998}
    assert {row for (row, *_), count in steps.items() if count == 3000} == {
        "RaT-BPTT",
        "RaT-BPTT, fixed labels",
    }


def test_short_runs_of_figure_6_and_of_the_orders(paper):
    ten = (
        cell_of(paper, "figure6", "PoDD", extra={"patches": "10 (5x2)"})
        .distilled[0]
        .spec.recipe["method"]
    )
    assert (ten["patch_grid"], ten["labels"], ten["meta_steps"]) == ([5, 2], "fixed", 5000)
    steps = cell_of(paper, "figure6", "PoDD, steps", extra={"patches": "10 (5x2)"})
    assert steps.distilled[0].spec.recipe["method"] == ten | {"meta_steps": 500}
    assert steps.published is None  # the printed numbers stand beside the 500 epochs
    for row, meta_steps in (("PoDD", 250), ("PoDD, epochs", 2500)):
        orders = [
            p.distilled[0].spec.recipe["method"]
            for p in paper.cells("podd/order")
            if p.row.row == row
        ]
        assert [o["order"] for o in orders] == ["poco", *(f"random:{i}" for i in range(30))]
        assert {(o["meta_steps"], o["labels"]) for o in orders} == {(meta_steps, "learned")}


def test_the_order_of_cifar100_is_scored_without_learning_a_poster(paper):
    cells = [p for p in paper.cells("podd/order-score") if p.dataset == "cifar100"]
    recipes = [p.distilled[0].spec.recipe["method"] for p in cells]
    assert [recipe["order"] for recipe in recipes] == ["poco", "given", "random:0"]
    assert {recipe["meta_steps"] for recipe in recipes} == {1}


def test_what_section_6_proposes_changes_that_alone(paper):
    plain, cyclic, augmented = (
        cell_of(paper, "section6", row, ipc=0.3)
        for row in ("PoDD", "PoDD, cyclic", "PoDD, augmented patches")
    )
    method = plain.distilled[0].spec.recipe["method"]
    assert cyclic.distilled[0].spec.recipe["method"] == method | {"cyclic": True}
    changed = {"augment": ["dsa:one"]}
    assert augmented.distilled[0].spec.recipe["method"] == method | changed
    training = plain.students[0].spec.recipe["training"]
    assert augmented.students[0].spec.recipe["training"] == training | changed
    (poster,) = paper.cells("podd/figure9")
    posters = poster.distilled[0].spec.recipe["method"]
    assert (poster.ipc, posters["posters"], posters["labels"]) == (10, "per-class", "learned")


def test_the_cost_of_unrolling_by_hand(paper):
    # A forward pass of the ConvNet is 0.10 GFLOP an image, a training step 3 passes, one that is
    # differentiated 12.3. PoDD on CIFAR-10: 40,000 meta-steps of (70 steps before the window x 3 +
    # 60 in it x 12.3) x 96 patches + 3 x 5,000 real images = 424 PFLOP; likewise 412, 318 and, for
    # 40,000 meta-steps of RaT-BPTT, 98. The estimator counts multiply-adds, 2 FLOP each.
    estimator = Estimator(paper.settings, ROOT / "results/store")
    for row, dataset, petaflop in (
        ("PoDD", "cifar10", 424),
        ("PoDD", "cifar100", 412),
        ("PoDD", "cub200", 318),
        ("RaT-BPTT", "cifar10", 98),
    ):
        node = cell_of(paper, "table1", row, dataset=dataset, ipc=1.0).distilled[0]
        assert 2 * estimator.rate * estimator.cost(node).seconds / 1e15 == pytest.approx(
            petaflop, rel=0.05
        )


def test_every_new_stage_has_an_estimate():
    plan = at("demo")
    costs = {
        n.spec.stage: Estimator(plan.settings, plan.store).cost(n)
        for n in plan.missing(["podd/table1", "podd/order-score"])
    }
    assert {"whiten", "embed", "distill", "evaluate", "analyse"} <= set(costs)
    assert costs["whiten"].bytes == 4 * 64**2 and all(cost.seconds > 0 for cost in costs.values())


def test_an_average_is_printed_and_never_measured(paper):
    averages = [p for p in paper.cells("podd/table2") if p.dataset == "average"]
    assert len(averages) == 14 and not any(p.evaluations for p in averages)
    assert {p.row.row: p.published.mean for p in averages if p.published}["PoDD"] == 33.4
    assert [
        cell.original_bytes
        for cell in paper.document("podd/table2").cells
        if cell.place.dataset == "average"
    ] == [None] * 14
