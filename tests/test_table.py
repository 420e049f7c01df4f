"""Tables: the printed numbers, and a table read off a store of meta.json files alone."""

import csv
import hashlib
import json
import re
import subprocess
import sys

import pytest
from scipy import stats

from distillery.errors import ArtefactError, PlanError
from distillery.stages.table import make_table, write
from distillery.store.canonical import digest
from distillery.table.assemble import AXES, COLUMNS, assemble
from distillery.table.gains import gains
from distillery.table.published import lookup
from distillery.table.render import show
from helpers.project import ROOT
from helpers.tables import grid, made, make_plan, make_store, position, put

PUBLISHED = ROOT / "workflow/published"
ROWS = {
    **{
        "infer_table1": 81,
        "infer_table2": 42,
        "infer_table3": 16,
        "infer_table4": 24,
        "infer_table5": 12,
        "infer_table6": 16,
    },
    **{
        "gift_table1": 88,
        "gift_table2": 36,
        "gift_table3": 42,
        "gift_table4": 84,
        "gift_table5": 48,
        "gift_table6": 56,
    },
    **{
        "gift_table7": 48,
        "gift_table8": 4,
        "gift_table9": 8,
        "gift_table10": 8,
        "gift_table11": 12,
        "gift_table12": 36,
    },
    **{"gift_table13": 54, "podd_table1": 40, "podd_table2": 43, "podd_figure6": 7},
}


# --- the printed numbers --------------------------------------------------------------------------


def rows(name):
    with open(PUBLISHED / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_printed_row_is_there():
    assert {file.stem: len(rows(file.stem)) for file in PUBLISHED.glob("*.csv")} == ROWS
    assert sum(ROWS.values()) == 805
    assert sum("mean" in row for name in ROWS for row in rows(name)) == 769


def test_printed_digits_survive_as_numbers():
    cells = [cell for name in ROWS for cell in rows(name) if "mean" in cell]
    texts = [cell[key] for cell in cells for key in ("mean", "std") if cell[key]]
    assert [repr(float(text)) for text in texts] == texts
    assert all(0 <= float(text) <= 100 for text in texts)


def find(paper, dataset, ipc, method, student, labels="", variant="", table=None, **keys):
    return lookup(paper, dataset, ipc, method, student, labels, variant, PUBLISHED, table, **keys)


@pytest.mark.parametrize(
    ("setting", "mean", "std", "table"),
    [
        (("infer", "imagenet-1k", 10, "infer", "resnet18", "static"), 28.7, 0.2, "2"),
        (("infer", "imagenet-1k", 50, "infer", "resnet50", "dynamic"), 63.4, 0.3, "2"),
        (("infer", "imagenet-1k", 50, "infer+dyn", "resnet50", "dynamic"), 63.4, 0.3, "2"),
        (("infer", "cifar10", 10, "random", "convnet", "hard"), 31.0, 0.5, "1"),
        (("infer", "cifar10", 10.0, "random", "convnet128", "hard"), 31.0, 0.5, "1"),
        (
            ("infer", "imagenet-1k", 10, "sre2l", "resnet18", "static", "static-same-cr"),
            9.8,
            0.1,
            "2",
        ),
        (("infer", "imagenet-1k", 10, "sre2l", "resnet18", "dynamic"), 21.3, 0.6, "2"),
        (("infer", "cifar100", 50, "infer", "resnet50", "dynamic"), 70.0, 0.2, "4"),
        (("gift", "cifar100", 10, "rded", "convnet", "", "gift"), 50.6, 0.3, "1"),
        (("gift", "imagenet-1k", 100, "rded", "resnet18", "", "refine+loss"), 59.3, 0.1, "2"),
        (("gift", "imagenet-1k", 10, "sre2l", "resnet18", "dynamic"), 31.5, 0.3, "2"),
        (("podd", "cifar100", 0.4, "podd", "convnet", "static"), 35.7, 0.2, "1"),
        (("podd", "cifar10", 1, "podd", "convnet", "hard"), 59.1, 0.5, "1"),
    ],
)
def test_lookup_finds_what_the_paper_prints(setting, mean, std, table):
    found = find(*setting)
    assert (found["mean"], found["std"], found["table"]) == (mean, std, table)


def test_lookup_prefers_the_table_that_asks():
    setting = ("gift", "tiny-imagenet", 10, "datm", "convnet", "", "")
    assert find(*setting, "table1", distill_arch="convnet")["mean"] == 26.5
    assert find(*setting, "table4", distill_arch="convnet")["mean"] == 36.1
    assert (
        find("podd", "cifar10", 1, "podd", "convnet", "hard", table="podd/table2")["table"] == "2"
    )


def test_lookup_keeps_apart_what_two_tables_call_by_one_name():
    made, labelled = (
        find("infer", "cifar100", 10, "infer", "resnet18", "static", "ensemble=R", t)
        for t in ("table3", "table6")
    )
    assert (made["mean"], labelled["mean"]) == (40.9, 37.6)
    assert (
        find("infer", "cifar100", 10, "infer", "resnet18", "static", "ensemble=R", "table1") is None
    )


@pytest.mark.parametrize(
    "setting",
    [
        (
            "infer",
            "imagenet-1k",
            10,
            "random",
            "resnet18",
            "static",
        ),  # printed with hard labels only
        ("infer", "imagenet-1k", 20, "infer", "resnet18", "static"),
        ("infer", "imagenet-1k", 10, "sre2l", "resnet18", "static"),  # printed as static-same-cr
        ("infer", "digits", 10, "infer", "resnet18", "static"),
        ("infer", "cifar10", 10, "infer", "vgg11", "static"),
        ("gift", "cifar10", 10, "infer", "resnet18", "static"),
    ],
)
def test_lookup_invents_nothing(setting):
    assert find(*setting) is None


def test_lookup_refuses_to_choose():
    with pytest.raises(
        PlanError, match=r"gift table 5 prints 3 numbers.*optimizer: adam, adamw, sgd"
    ):
        find("gift", "cifar100", 10, "sre2l", "convnet", table="table5")
    assert (
        find("gift", "cifar100", 10, "sre2l", "convnet", table="table5", optimizer="sgd")["mean"]
        == 1.5
    )


def test_lookup_says_when_the_paper_names_no_network():
    assert find("podd", "cifar10", 1, "frepo", "convnet", table="table2")["network_stated"] is False
    assert (
        find("podd", "cifar10", 1, "rat-bptt", "convnet", table="table2")["network_stated"] is True
    )


# --- a table of a fabricated store ----------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path / "store")


@pytest.fixture
def plan():
    return make_plan()


def test_cells_of_the_tidy_table(plan, store, tmp_path):
    random, quoted, infer = made(plan, store, tmp_path / "table2")
    assert list(infer) == list(COLUMNS)
    assert infer == {
        **{
            "paper": "infer",
            "table": "table2",
            "row": "INFER",
            "method": "infer",
            "variant": "",
            "labels": "static",
        },
        **{
            "protocol": "static",
            "scale": "demo",
            "dataset": "digits",
            "ipc": "7",
            "student": "convnet-w32",
        },
        **{
            "published": "28.7",
            "published_std": "0.2",
            "published_table": "2",
            "published_dataset": "imagenet-1k",
        },
        **{"published_student": "resnet18", "published_ipc": "10", "comparable": "no"},
        # 40, 42, 47: mean 43, variance (9 + 1 + 16) / 2; t_{0.975, 2} = 4.302653
        **{
            "measured": "43.0000",
            "std": "3.6056",
            "n": "3",
            "ci95": "8.9567",
            "measured_best": "43.83",
            "difference": "",
        },
        # 70 of 1400 images + 2800 of 89600 bytes; stored 4480 + 512 + 1400 of 89600
        **{"cr_published": "0.81", "cr_paper": "8.12", "cr_stored": "7.13", "bytes": "6392"},
        "bytes_by_part": "compensators=512;images=4480;labels=1400",
        **{
            "pixels": "",
            "label_floats": "",
        },  # the artefacts do not say: they are older than the columns
        **{"ids": "infer-r0;infer-r1;infer-r2", "distilled_id": "digits-infer-bbb"},
        **{"label_id": "digits-infer-ddd", "data_id": "digits-aaa"},
    }
    assert (random["measured"], random["n"], random["std"], random["ci95"]) == (
        "31.5000",
        "1",
        "",
        "",
    )
    assert (random["cr_paper"], random["cr_stored"], random["label_id"]) == ("5.00", "5.00", "")
    assert (quoted["published"], quoted["cr_published"]) == ("31.4", "4.53")
    assert {
        quoted[name] for name in COLUMNS[COLUMNS.index("measured") :] if name != "cr_published"
    } == {""}


def test_difference_only_where_the_setting_is_the_papers(plan, store, tmp_path):
    plan["positions"][2]["published"] |= {"comparable": True}
    *_, infer = made(plan, store, tmp_path / "table2")
    assert (infer["comparable"], infer["difference"]) == ("yes", "14.30")
    assert (infer["published_dataset"], infer["published_student"], infer["published_ipc"]) == (
        "digits",
        "convnet-w32",
        "7",
    )
    assert "Difference (measured − published)" in (tmp_path / "table2.md").read_text()
    plan["positions"][2]["published"] |= {"network_stated": False}
    *_, infer = made(plan, store, tmp_path / "other")
    assert (infer["comparable"], infer["difference"]) == ("no", "")
    assert "Difference" not in (tmp_path / "other.md").read_text()


def test_dynamic_labels_are_charged_by_the_paper_and_not_stored(plan, store, tmp_path):
    plan["positions"][2] |= {"labels": "dynamic", "charged": "dynamic", "label": None}
    *_, infer = made(plan, store, tmp_path / "table2")
    assert float(infer["cr_paper"]) == pytest.approx(
        5 + 100 * 14_000 * 25.9 * 2**30 / 1.5e10 / 89_600, abs=0.005
    )
    assert (infer["bytes"], infer["cr_stored"]) == ("4992", "5.57")
    plan["positions"][2] |= {"label_epochs": 0}
    assert made(plan, store, tmp_path / "table2")[2]["cr_paper"] == ""


def test_the_papers_own_size_of_the_original_takes_precedence(plan, store, tmp_path):
    plan["positions"][2] |= {"original_bytes": 28_000}
    assert (
        made(plan, store, tmp_path / "table2")[2]["cr_paper"] == "15.00"
    )  # 5 % of the images + 2800 of 28000 bytes


def test_missing_or_foreign_artefacts_are_named(plan, store):
    plan["positions"][0]["evaluations"].append("evaluate/random-r1")
    with pytest.raises(ArtefactError, match="evaluate/random-r1: not in the store"):
        assemble(plan, store)
    put(store, "evaluate/random-r1", {"epochs": 20})
    with pytest.raises(
        ArtefactError, match=r"evaluate/random-r1: its meta\.json states no 'accuracy'"
    ):
        assemble(plan, store)
    (store / "evaluate/random-r1/meta.json").write_text(
        (store / "evaluate/random-r0/meta.json").read_text()
    )
    with pytest.raises(ArtefactError, match="random-r1: holds evaluate/random-r0"):
        assemble(plan, store)


def test_bad_plans_are_named(plan, store, tmp_path):
    with pytest.raises(PlanError, match="not a readable plan"):
        make_table(tmp_path / "none.json", store, tmp_path / "table2")
    plan["positions"].append(plan["positions"][0])
    with pytest.raises(PlanError, match="two positions at digits / Random / convnet-w32 / 7"):
        write(assemble(plan, store), plan, tmp_path / "table2")
    del plan["positions"][0]["student"]
    with pytest.raises(PlanError, match="lacks 'student'"):
        assemble(plan, store)


SUFFIXES = (".csv", ".md", ".tex", ".metrics.json", ".json")


def test_same_plan_same_bytes_and_nothing_else_is_left(plan, store, tmp_path):
    for name in ("one", "two"):
        made(plan, store, tmp_path / name / "table2")
    first, second = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert set(first) == {f"table2{suffix}" for suffix in SUFFIXES}
    assert first == second


def test_sidecar_names_plan_cells_and_content(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    sidecar = json.loads((tmp_path / "table2.json").read_text())
    assert sidecar == {
        **{"table": "infer/table2", "scale": "demo", "plan": digest(plan, 64)},
        "csv_sha256": hashlib.sha256((tmp_path / "table2.csv").read_bytes()).hexdigest(),
        "cells": [
            "evaluate/random-r0",
            "evaluate/infer-r0",
            "evaluate/infer-r1",
            "evaluate/infer-r2",
        ],
    }


def test_metrics_hold_measured_numbers_only(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    metrics = json.loads((tmp_path / "table2.metrics.json").read_text())
    assert metrics == {
        "Random": {"digits": {"convnet-w32/7": 31.5}},
        "INFER": {"digits": {"convnet-w32/7": 43.0}},
    }


def test_markdown_has_the_papers_shape(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    text = show(tmp_path / "table2")
    assert grid(text, "Measured (scale demo, dataset digits, n=1/3, last epoch)") == [
        ["", "CR (%) ipc 7", "convnet-w32 ipc 7"],
        ["Random", "5.00", "31.5"],
        ["G-VBSM", "–", "–"],
        ["INFER", "8.12", "43.0 ± 3.6"],
    ]
    assert grid(text, "Published (INFER Table 2, imagenet-1k)") == [
        ["", "CR (%) ipc 10", "resnet18 ipc 10"],
        ["Random", "0.78", "10.5 ± 0.4"],
        ["G-VBSM", "4.53", "31.4 ± 0.5"],
        ["INFER", "0.81", "28.7 ± 0.2"],
    ]
    assert grid(text, "Stored")[-1] == [
        "INFER",
        "7",
        "8.12",
        "7.13",
        "6392",
        "compensators=512;images=4480;labels=1400",
    ]
    with pytest.raises(ArtefactError, match="not made yet"):
        show(tmp_path / "table9")


def test_columns_keep_the_axes_order_when_a_row_lacks_some(plan, store, tmp_path):
    wide = [
        position("INFER", "infer", "static", student=s, ipc=i) for s in ("a", "b") for i in (10, 50)
    ]
    plan["positions"] = [position("Random", "random", "hard", student="b", ipc=10), *wide]
    made(plan, store, tmp_path / "table2")
    header, *_ = grid(
        show(tmp_path / "table2"), "Measured (scale demo, dataset digits, n=0, last epoch)"
    )
    assert header == ["", "b ipc 10", "b ipc 50", "a ipc 10", "a ipc 50"]


def test_latex_is_well_formed(plan, store, tmp_path):
    plan["shape"]["rows"][0] = plan["positions"][0]["row"] = "50% of {R&D}_1 \\ #2"
    made(plan, store, tmp_path / "table2")
    text = (tmp_path / "table2.tex").read_text()
    body = text.partition("\n")[2]
    assert r"50\% of \{R\&D\}\_1 \textbackslash{} \#2" in body
    assert re.findall(r"(?<!\\)[%_#]", body) == []
    for kind in ("table", "tabular"):
        assert text.count(f"\\begin{{{kind}}}") == text.count(f"\\end{{{kind}}}") == 3
    tables = re.findall(r"\\begin\{tabular\}\{(lr+)\}(.*?)\\end\{tabular\}", text, re.S)
    assert len(tables) == 3
    for columns, rows in tables:
        lines = [line for line in rows.splitlines() if line.endswith("\\\\")]
        spans = [
            sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line)) for line in lines
        ]
        assert {
            len(re.findall(r"(?<!\\)&", line)) + 1 + span
            for line, span in zip(lines, spans, strict=True)
        } == {len(columns)}


def test_a_table_rebuilds_without_torch(plan, store, tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    files = ", ".join(
        f"Path({str(f)!r})" for f in (tmp_path / "plan.json", store, tmp_path / "table2")
    )
    code = (
        "import sys; from pathlib import Path; from distillery.stages.table import make_table;"
        f"make_table({files});"
        "found = {'torch', 'pydantic', 'snakemake', 'dvc'} & set(sys.modules);"
        "assert not found, f'the table stage imports {found}'"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
    )
    assert json.loads((tmp_path / "table2.json").read_text())["plan"] == digest(plan, 64)


def test_lookup_needs_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import distillery.table.published;"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert loaded <= set(sys.stdlib_module_names) | {'distillery'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})


# --- gains and axes of a table's own --------------------------------------------------------------


def test_a_gain_is_the_difference_at_the_same_place_with_welchs_p():
    values = {
        ("a", 5): [40.0, 42.0, 47.0],
        ("b", 5): [30.0, 31.0, 33.0],
        ("a", 9): [50.0],
        ("b", 9): [50.5],
        ("b", 7): [1.0],
    }
    places = [
        {"row": row, "ipc": ipc, "dataset": "d", "against": "b" if row == "a" else None}
        for row, ipc in values
    ]
    plan = {"shape": {"panel": "dataset", "columns": ["ipc"]}, "positions": places}
    first, second, third, fourth, fifth = gains(plan, lambda p: values[p["row"], p["ipc"]])
    # variances 13 and 7/3: t = (43 - 94/3) / sqrt(46/9), Welch-Satterthwaite's degrees of freedom
    # by hand
    t, df = (43 - 94 / 3) / (46 / 9) ** 0.5, (46 / 9) ** 2 / ((13 / 3) ** 2 / 2 + (7 / 9) ** 2 / 2)
    assert first == {
        "against": "b",
        "gain": pytest.approx(35 / 3),
        "gain_p": pytest.approx(2 * stats.t.sf(t, df)),
    }
    assert third == {"against": "b", "gain": -0.5, "gain_p": None}  # one repeat has no spread
    assert second == fourth == fifth == {}


def test_gains_and_own_axes_have_columns_only_where_a_table_has_them(plan, store, tmp_path):
    plain = made(plan, store, tmp_path / "plain")
    plan["axes"] = ["optimizer"]
    for place in plan["positions"]:
        place["optimizer"] = "sgd"
    plan["positions"][2]["against"] = "Random"
    with_gain = made(plan, store, tmp_path / "gain")
    assert list(plain[0]) == list(COLUMNS)
    assert list(with_gain[0]) == [
        *COLUMNS[:AXES],
        "optimizer",
        *COLUMNS[AXES:],
        "against",
        "gain",
        "gain_p",
    ]
    assert (with_gain[2]["gain"], with_gain[2]["optimizer"]) == ("11.5000", "sgd")  # 43 - 31.5
    assert "Gain (row − the row it is compared with; * Welch p < 0.05)" in show(tmp_path / "gain")
