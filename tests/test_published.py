"""The printed numbers: every row is there, and a setting finds the one that the paper prints."""

import csv
import functools
import os
import re
import subprocess
import sys

import pytest
import yaml

from distillery.errors import PlanError
from distillery.plan.plan import Plan
from distillery.plan.settings import Settings, merge, read_yaml
from distillery.table.published import PaperNames, PublishedNumbers
from helpers.project import ROOT

PUBLISHED = ROOT / "workflow/published"
ROWS = {
    "infer_table1": 81,
    "infer_table2": 42,
    "infer_table3": 16,
    "infer_table4": 24,
    "infer_table5": 12,
    "infer_table6": 16,
    "gift_table1": 88,
    "gift_table2": 36,
    "gift_table3": 42,
    "gift_table4": 84,
    "gift_table5": 48,
    "gift_table6": 56,
    "gift_table7": 48,
    "gift_table8": 4,
    "gift_table9": 8,
    "gift_table10": 8,
    "gift_table11": 12,
    "gift_table12": 36,
    "gift_table13": 54,
    "podd_table1": 40,
    "podd_table2": 43,
    "podd_figure6": 7,
}


def rows(name):
    with open(PUBLISHED / f"{name}.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_printed_row_is_there():
    assert {file.stem: len(rows(file.stem)) for file in PUBLISHED.glob("*_*.csv")} == ROWS
    assert sum(ROWS.values()) == 805
    assert sum("mean" in row for name in ROWS for row in rows(name)) == 769


def test_printed_digits_survive_as_numbers():
    cells = [cell for name in ROWS for cell in rows(name) if "mean" in cell]
    texts = [cell[key] for cell in cells for key in ("mean", "std") if cell[key]]
    assert [repr(float(text)) for text in texts] == texts
    assert all(0 <= float(text) <= 100 for text in texts)


@functools.cache
def numbers(paper: str) -> PublishedNumbers:
    return PublishedNumbers(PUBLISHED, paper, Settings(ROOT).paper(paper).words.names())


def find(paper, dataset, ipc, method, student, labels="", variant="", table=None, **keys):
    setting = {"dataset": dataset, "ipc": ipc, "method": method, "student": student}
    named = {"labels": labels, "variant": variant, "prefer_table": table}
    return numbers(paper).find(**setting, **named, **keys)


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
    assert (found.mean, found.std, found.table) == (mean, std, table)


def test_lookup_prefers_the_table_that_asks():
    setting = ("gift", "tiny-imagenet", 10, "datm", "convnet", "", "")
    assert find(*setting, "table1", distill_arch="convnet").mean == 26.5
    assert find(*setting, "table4", distill_arch="convnet").mean == 36.1
    assert find("podd", "cifar10", 1, "podd", "convnet", "hard", table="podd/table2").table == "2"


def test_lookup_keeps_apart_what_two_tables_call_by_one_name():
    made, labelled = (
        find("infer", "cifar100", 10, "infer", "resnet18", "static", "ensemble=R", t)
        for t in ("table3", "table6")
    )
    assert (made.mean, labelled.mean) == (40.9, 37.6)
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
        find("gift", "cifar100", 10, "sre2l", "convnet", table="table5", optimizer="sgd").mean
        == 1.5
    )


def test_lookup_says_when_the_paper_names_no_network():
    assert find("podd", "cifar10", 1, "frepo", "convnet", table="table2").network_stated is False
    assert find("podd", "cifar10", 1, "rat-bptt", "convnet", table="table2").network_stated is True


def test_lookup_needs_the_standard_library_alone():
    code = (
        "import sys; before = set(sys.modules); import distillery.table.published;"
        "loaded = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "assert loaded <= set(sys.stdlib_module_names) | {'distillery'}, loaded"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "src")})


# --- a paper beside its tables --------------------------------------------------------------------

CSV = """table,dataset,ipc,method,eval_arch,labels,variant,mean,std,compression_ratio,note
1,digits,5,ours,net-small,,,71.5,0.5,,
1,digits,5,Random,net-small,,,40.25,,,
2,digits,5,ours,net-small,,slots=2,70.0,,,
"""

PAPER = """
name: NewPaper
title: "A paper that nobody has read"
words:
  same:
    method: {ours: {method: infer, labels: static}, Random: random}
    eval_arch: {net-small: net-a}
  hard_labels_where_blank: [random]
  variants_of_one_table: ["slots="]
printed:
  table1: {correlation: 0.5}
"""

NEW_TABLE = """
title: "a table of a new paper"
published: new_table1.csv
columns: [student, ipc]
paper: {dataset: [digits], student: [net-a], ipc: [5]}
rows:
  - {row: Random, method: random, labels: hard}
  - {row: Ours, method: infer, labels: static, against: Random}
"""


@pytest.fixture
def new_paper(project):
    """The tiny project with a table of a paper that the code has never heard of."""
    folder = project / "workflow/tables/new"
    folder.mkdir()
    (folder / "paper.yaml").write_text(PAPER)
    (folder / "table1.yaml").write_text(NEW_TABLE)
    (project / "workflow/published/new_table1.csv").write_text(CSV)
    return project


def planned(project, **changes) -> Plan:
    settings = read_yaml(project / "workflow/scales/tiny.yaml")
    settings["tables"]["new/table1"] = {"dataset": ["digits"], "student": ["net-a"], "ipc": [5]}
    (project / "workflow/scales/tiny.yaml").write_text(yaml.safe_dump(settings))
    return Plan(project, merge(read_yaml(project / "params.yaml"), changes))


def test_a_new_paper_is_files_beside_its_tables(new_paper):
    plan = planned(new_paper)
    random, ours = plan.cells("new/table1")
    assert (ours.published.mean, ours.published.std, ours.published.table) == (71.5, 0.5, "1")
    assert (random.published.mean, random.comparable) == (40.25, False)
    assert random.reason.startswith("the scale 'paper' has no such cell")
    document = plan.document("new/table1")
    assert (document.paper, document.paper_name) == ("new", "NewPaper")
    assert document.printed == {"correlation": 0.5}
    assert "new/table1" in plan.settings.known_tables()
    assert not any(name.endswith("/paper") for name in plan.settings.known_tables())


def test_words_of_a_paper_hold_for_that_paper_alone(new_paper):
    names = Settings(new_paper).paper("new").words.names()
    folder = new_paper / "workflow/published"
    setting = {"dataset": "digits", "ipc": 5, "student": "net-a"}
    known, unknown = PublishedNumbers(folder, "new", names), PublishedNumbers(folder, "new")
    assert known.find(method="infer", labels="static", **setting).mean == 71.5
    assert known.find(method="infer", labels="dynamic", **setting) is None
    assert known.find(method="random", labels="hard", **setting).mean == 40.25
    assert known.find(method="random", labels="static", **setting) is None
    assert unknown.find(method="infer", labels="static", **setting) is None
    two = {"method": "ours", "variant": "slots=2", **setting}
    assert known.find(prefer_table="table2", **two).mean == 70.0
    assert known.find(prefer_table="table1", **two) is None
    assert PublishedNumbers(folder, "new", PaperNames()).find(method="ours", **setting) is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("printed:", "prnted:", r"new/paper\.yaml\.prnted: unknown key: did you mean 'printed'"),
        ("  table1:", "  tabel1:", r"printed\.tabel1: no such table: did you mean 'table1'"),
        ("0.5}", "half}", r"new/paper\.yaml\.printed\.table1\.correlation = 'half'"),
        ("variants_of_one_table", "variants", r"words\.variants: unknown key: did you mean"),
    ],
)
def test_a_wrong_paper_file_is_one_line(new_paper, edit, old, new, message):
    edit(new_paper / "workflow/tables/new/paper.yaml", old, new)
    with pytest.raises(PlanError, match=message) as error:
        planned(new_paper).document("new/table1")
    assert "\n" not in str(error.value)


def test_a_folder_without_a_paper_file_is_called_by_its_name(new_paper):
    (new_paper / "workflow/tables/new/paper.yaml").unlink()
    document = planned(new_paper).document("new/table1")
    assert (document.paper_name, document.printed) == ("new", {})


def test_a_paper_file_is_no_table(new_paper):
    with pytest.raises(PlanError, match="table 'new/paper' does not exist"):
        planned(new_paper).cells("new/paper")


GOOD = (PUBLISHED / "infer_table2.csv").read_bytes()
# What a file of printed numbers holds, and what the one line says of it.
BROKEN = {
    "empty": (b"", "x_table1.csv: holds no rows; fill in"),
    "header": (GOOD.splitlines(True)[0], "holds no rows"),
    "latin": (GOOD + "\u00e9".encode("latin-1"), "x_table1.csv: is not UTF-8"),
    "utf-16": (GOOD.decode().encode("utf-16"), "is not UTF-8"),
    "short": (GOOD + b"infer,2,cifar10\n", "line 44: has not 16 values, one for each column"),
    "long": (GOOD + b"," * 20 + b"\n", "line 44: has not 16 values"),
    "no method": (GOOD.replace(b",method,", b",methods,", 1), "line 2: has no column 'method'"),
    "no table": (GOOD.replace(b"paper,table,", b"paper,tab,", 1), "expected different names, `tab"),
    "columns twice": (GOOD.replace(b",std,", b",mean,", 1), "expected different names"),
    "open quote": (GOOD + b'"', "unreadable .unexpected end of data"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_file_is_one_line(tmp_path, case):
    content, message = BROKEN[case]
    (tmp_path / "x_table1.csv").write_bytes(content)
    with pytest.raises(PlanError, match=message) as error:
        PublishedNumbers(tmp_path, "x", PaperNames())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("column", "text"),
    [("mean", "33,7"), ("mean", ""), ("mean", "nan"), ("std", "?"), ("ipc", "ten"), ("std", "inf")],
)
def test_a_number_that_is_none_is_one_line(tmp_path, column, text):
    cells = rows("infer_table2")[:2]
    cells[1][column] = text
    with (tmp_path / "x_table1.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(cells[0]))
        writer.writeheader()
        writer.writerows(cells)
    with pytest.raises(PlanError, match=rf"x_table1\.csv line 3: {column} = '{re.escape(text)}'"):
        PublishedNumbers(tmp_path, "x", PaperNames())


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.timeout(20)
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    make(tmp_path / "x_table1.csv")
    with pytest.raises(PlanError, match=r"x_table1\.csv: unreadable \(no file\)"):
        PublishedNumbers(tmp_path, "x", PaperNames())


def test_the_cell_that_confirms_most_wins(tmp_path):
    head = "table,dataset,ipc,method,eval_arch,labels,variant,mean,std,compression_ratio,note\n"
    lines = ["1,digits,5,ours,net-a,,,1.0,,,", "1,digits,5,ours,net-a,static,,2.0,,,"]
    lines += ["2,digits,5,other,net-a,,,3.0,,,", "2,digits,5,other,net-a,,,4.0,,,"]
    lines += ["3,digits,5,other,net-a,,,5.0,,,"]
    (tmp_path / "new_table1.csv").write_text(head + "\n".join(lines) + "\n")
    numbers, setting = PublishedNumbers(tmp_path, "new"), {"dataset": "digits", "ipc": 5}
    assert numbers.find(method="ours", labels="static", **setting).mean == 2.0
    assert numbers.find(method="ours", labels="dynamic", **setting).mean == 1.0
    found = numbers.find(method="other", prefer_table="table3", **setting)
    assert (found.mean, found.table) == (5.0, "3")
    assert numbers.find(method="other", prefer_table="table1", **setting).mean == 5.0, (
        "a table that prints two numbers is passed over where it does not ask"
    )
    with pytest.raises(PlanError, match="new table 2 prints 2 numbers for other, digits, ipc 5"):
        numbers.find(method="other", prefer_table="table2", **setting)
