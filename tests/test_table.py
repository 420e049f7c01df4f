"""Tables: read off a store of meta.json files alone, laid out, compared row by row."""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from scipy import stats

from distillery.errors import ArtefactError, PlanError
from distillery.stages.table import make_table
from distillery.table.assemble import AssembledCell, assemble
from distillery.table.files import is_written, write
from distillery.table.gains import Gain, gains
from distillery.table.layout import layout
from distillery.table.notes import notes
from distillery.table.render import show
from distillery.table.stats import summarize
from distillery.table.tidy import COLUMNS, PLACE_COLUMNS
from distillery.table.verdict import STATED
from helpers.project import ROOT
from helpers.tables import (
    RANDOM,
    cell,
    changed,
    document,
    evaluation,
    grid,
    made,
    make_plan,
    make_store,
    put,
    put_infer,
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
        "paper": "infer",
        "table": "table2",
        "row": "INFER",
        "method": "infer",
        "variant": "",
        "labels": "static",
        "protocol": "static",
        "scale": "demo",
        "dataset": "digits",
        "ipc": "7",
        "student": "convnet-w32",
        "published": "28.7",
        "published_std": "0.2",
        "published_table": "2",
        "published_dataset": "imagenet-1k",
        "published_student": "resnet18",
        "published_ipc": "10",
        "comparable": "no",
        # 40, 42, 47: mean 43, variance (9 + 1 + 16) / 2; t_{0.975, 2} = 4.302653
        "measured": "43.0000",
        "std": "3.6056",
        "n": "3",
        "spread_over": "students",
        "draws": "1",
        "students": "3",
        "ci95": "8.9567",
        "measured_best": "43.83",
        "difference": "",
        "verdict": "not comparable: another setting",
        "steps": "40",
        "instances": "70",
        "epochs": "20",
        "rise": "",  # no epoch of the second or third quarter was tested
        # 70 of 1400 images + 2800 of 89600 bytes; stored 4480 + 512 + 1400 of 89600
        "cr_published": "0.81",
        "cr_paper": "8.12",
        "cr_stored": "7.13",
        "bytes": "6392",
        "bytes_by_part": "compensators=512;images=4480;labels=1400",
        "pixels": "",
        "label_floats": "",  # the artefacts do not say: they are older than the columns
        "ids": "infer-r0;infer-r1;infer-r2",
        "distilled_id": "digits-infer-bbb",
        "label_id": "digits-infer-ddd",
        "data_id": "digits-aaa",
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
    plan = changed(plan, 2, comparable=True)
    *_, infer = made(plan, store, tmp_path / "table2")
    assert (infer["comparable"], infer["difference"]) == ("yes", "14.30")
    assert (infer["published_dataset"], infer["published_student"], infer["published_ipc"]) == (
        "digits",
        "convnet-w32",
        "7",
    )
    text = (tmp_path / "table2.md").read_text()
    header, *_, last = grid(text, "Measured beside printed (INFER Table 2, imagenet-1k, digits)")
    assert header[3:] == ["measured", "printed", "difference", "verdict", "CR printed (%)"]
    assert last[3:] == ["43.0 ± 3.6", "28.7 ± 0.2", "+14.3", "above", "0.81"]
    assert STATED in text
    anonymous = replace(plan.cells[2].published, network_stated=False)
    plan = changed(plan, 2, published=anonymous)
    *_, infer = made(plan, store, tmp_path / "other")
    assert (infer["comparable"], infer["difference"]) == ("no", "")
    assert infer["verdict"] == "not comparable: the paper names no network"


def test_dynamic_labels_are_counted_by_the_papers_ratio_and_not_stored(plan, store, tmp_path):
    plan = changed(plan, 2, labels="dynamic", counted_as="dynamic", label=())
    *_, infer = made(plan, store, tmp_path / "table2")
    assert float(infer["cr_paper"]) == pytest.approx(
        5 + 100 * 14_000 * 25.9 * 2**30 / 1.5e10 / 89_600, abs=0.005
    )
    assert (infer["bytes"], infer["cr_stored"]) == ("4992", "5.57")
    plan = changed(plan, 2, label_epochs=0)
    assert made(plan, store, tmp_path / "table2")[2]["cr_paper"] == ""


def test_the_papers_own_size_of_the_original_takes_precedence(plan, store, tmp_path):
    plan = changed(plan, 2, original_bytes=28_000)
    assert (
        made(plan, store, tmp_path / "table2")[2]["cr_paper"] == "15.00"
    )  # 5 % of the images + 2800 of 28000 bytes


def test_parts_of_one_name_are_added(plan, store, tmp_path):
    put_infer(store, {"bytes": {"images": 4480, "labels": 100}})
    *_, infer = made(plan, store, tmp_path / "table2")
    assert (infer["bytes"], infer["bytes_by_part"]) == ("5980", "images=4480;labels=1500")


def test_a_value_of_nothing_is_a_value(plan, store):
    put(store, "evaluate/random-r0", {"value": 0.0})
    random, *_ = assemble(plan, store)
    assert (random.measured.mean, random.measured_best) == (0.0, None)


def test_a_difference_of_nothing_has_no_sign(plan, store, tmp_path):
    printed = replace(plan.cells[2].published, mean=43.004)
    *_, infer = made(changed(plan, 2, published=printed, comparable=True), store, tmp_path / "t")
    assert infer["difference"] == "0.00"  # 43 - 43.004


def test_each_budget_has_its_own_compression_ratio(plan, store, tmp_path):
    place = replace(plan.cells[0].place, ipc=14)
    wide = replace(plan, cells=(*plan.cells, replace(plan.cells[0], place=place)))
    made(wide, store, tmp_path / "table2")
    counts = "1 student of one set/3 students of one set"
    title = f"Measured (scale demo, dataset digits, {counts}, last epoch)"
    header, random, *_, infer = grid(show(tmp_path / "table2"), title)
    assert header == [
        "",
        "CR (%) ipc 7",
        "CR (%) ipc 14",
        "convnet-w32 ipc 7",
        "convnet-w32 ipc 14",
    ]
    assert random == ["Random", "5.00", "10.00", "31.5", "31.5"]
    assert infer == ["INFER", "8.12", "–", "43.0 ± 3.6", "–"]


def test_missing_or_foreign_artefacts_are_named(plan, store):
    plan = changed(plan, 0, evaluations=(("evaluate/random-r0", "evaluate/random-r1"),))
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
    with pytest.raises(
        ArtefactError, match="random-r1: holds another artefact, evaluate/random-r0"
    ):
        assemble(plan, store)


def test_bad_plans_are_named(plan, store, tmp_path):
    with pytest.raises(PlanError, match="not a readable plan"):
        make_table(tmp_path / "none.json", store, tmp_path / "table2")
    twice = replace(plan, cells=(*plan.cells, plan.cells[0]))
    with pytest.raises(PlanError, match="two cells at digits / Random / convnet-w32 / 7"):
        write(twice, assemble(twice, store), tmp_path / "table2")
    shape = replace(plan.shape, columns=("student", "gamma"))
    with pytest.raises(PlanError, match=r"axis 'gamma' does not exist.*valid: dataset, ipc"):
        assemble(replace(plan, shape=shape), store)


SUFFIXES = (".csv", ".md", ".tex", ".metrics.json", ".json")


def test_same_plan_same_bytes_and_nothing_else_is_left(plan, store, tmp_path):
    for name in ("one", "two"):
        made(plan, store, tmp_path / name / "table2")
    first, second = (
        {f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "two")
    )
    assert set(first) == {f"table2{suffix}" for suffix in SUFFIXES}
    assert first == second


def test_sidecar_names_plan_artefacts_and_content(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    sidecar = json.loads((tmp_path / "table2.json").read_text())
    artefacts = sidecar.pop("artefacts")
    assert set(artefacts) == {
        "evaluate/random-r0",
        "evaluate/infer-r0",
        "evaluate/infer-r1",
        "evaluate/infer-r2",
    }
    assert len(set(artefacts.values())) == 4
    assert sidecar == {
        "table": "infer/table2",
        "scale": "demo",
        "plan": plan.digest(),
        "files": {
            suffix: hashlib.sha256((tmp_path / f"table2{suffix}").read_bytes()).hexdigest()
            for suffix in (".csv", ".md", ".tex", ".metrics.json")
        },
    }


# What was done to a written table or its store; whether the table is still the plan's.
TAMPERED = {
    "nothing": (lambda stem, store: None, True),
    "CSV edited": (lambda stem, store: edit_file(f"{stem}.csv", "31.5", "99.9"), False),
    "Markdown edited": (lambda stem, store: edit_file(f"{stem}.md", "31.5", "99.9"), False),
    "LaTeX edited": (lambda stem, store: edit_file(f"{stem}.tex", "31.5", "99.9"), False),
    "metrics edited": (lambda stem, store: edit_file(f"{stem}.metrics.json", "31", "99"), False),
    "scale edited": (lambda stem, store: edit_file(f"{stem}.json", '"demo"', '"mini"'), False),
    "plan edited": (
        lambda stem, store: edit_file(f"{stem}.json", '"plan": "', '"plan": "0'),
        False,
    ),
    "sidecar is text": (lambda stem, store: Path(f"{stem}.json").write_text("-"), False),
    "sidecar is a list": (lambda stem, store: Path(f"{stem}.json").write_text("[]"), False),
    "sidecar is older": (lambda stem, store: Path(f"{stem}.json").write_text('{"plan": 1}'), False),
    "Markdown deleted": (lambda stem, store: Path(f"{stem}.md").unlink(), False),
    "sidecar deleted": (lambda stem, store: Path(f"{stem}.json").unlink(), False),
    "no store": (lambda stem, store: shutil.rmtree(store), True),
    "half a store": (lambda stem, store: shutil.rmtree(store / "evaluate/infer-r1"), True),
    "made again, the same": (lambda stem, store: make_store(store), True),
    "made again, another number": (
        lambda stem, store: put(store, "evaluate/random-r0", evaluation(32, 32, distilled=RANDOM)),
        False,
    ),
    "made again, another library": (
        lambda stem, store: put(
            store, "evaluate/random-r0", evaluation(31.5, 31.5, distilled=RANDOM), torch="9.9"
        ),
        False,
    ),
    "a damaged artefact": (
        lambda stem, store: (store / "evaluate/infer-r1/meta.json").write_text("{"),
        False,
    ),
}


def edit_file(path, old, new):
    text = Path(path).read_text()
    assert old in text
    Path(path).write_text(text.replace(old, new))


@pytest.mark.parametrize("name", TAMPERED)
def test_a_table_is_the_plans_or_is_told(name, plan, store, tmp_path):
    tamper, whole = TAMPERED[name]
    stem = tmp_path / "table2"
    made(plan, store, stem)
    tamper(stem, store)
    assert is_written(plan, stem, store) == whole
    assert not is_written(changed(plan, 0, variant="another"), stem, store)


def test_versions_that_differ_between_cells_are_said(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    assert "Versions of libraries" not in show(tmp_path / "table2")
    for repeat, torch in enumerate(("2.10", "2.11", "2.11")):
        put(store, f"evaluate/infer-r{repeat}", evaluation(40.0, 41.0), torch=torch, numpy="2.4")
    others = {"torch": "2.11", "numpy": "2.4", "timm": None}
    put(store, "evaluate/random-r0", evaluation(31.5, 31.5), **others)
    made(plan, store, tmp_path / "table2")
    text = (
        "Versions of libraries differ between cells (cells in brackets): torch 2.10 (1), 2.11 (2)."
    )
    assert text in show(tmp_path / "table2")
    assert text in (tmp_path / "table2.tex").read_text()


def test_a_table_needs_its_evaluations_alone(plan, store):
    assert {folder.name for folder in store.iterdir()} == {"evaluate"}
    put(store, "evaluate/random-r0", evaluation(31.5, 31.5))  # does not say what the set takes
    random, _, infer = assemble(plan, store)
    assert random.stored is None and infer.stored.bytes == 6392


def test_metrics_hold_measured_numbers_only(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    metrics = json.loads((tmp_path / "table2.metrics.json").read_text())
    put(store, "evaluate/random-r0", evaluation(31.4567, 31.5, distilled=RANDOM))
    made(plan, store, tmp_path / "finer")
    finer = json.loads((tmp_path / "finer.metrics.json").read_text())
    assert finer["Random"] == {"digits": {"convnet-w32/7": 31.46}}, "one decimal more than a cell"
    assert metrics == {
        "Random": {"digits": {"convnet-w32/7": 31.5}},
        "INFER": {"digits": {"convnet-w32/7": 43.0}},
    }


def test_markdown_has_the_papers_shape(plan, store, tmp_path):
    made(plan, store, tmp_path / "table2")
    text = show(tmp_path / "table2")
    counts = "1 student of one set/3 students of one set"
    assert grid(text, f"Measured (scale demo, dataset digits, {counts}, last epoch)") == [
        ["", "CR (%) ipc 7", "convnet-w32 ipc 7"],
        ["Random", "5.00", "31.5"],
        ["G-VBSM", "–", "–"],
        ["INFER", "8.12", "43.0 ± 3.6"],
    ]
    names = ["", "student", "ipc", "measured", "printed", "difference", "verdict", "CR printed (%)"]
    other, place = "not comparable (1)", ["convnet-w32", "7"]
    assert grid(text, "Measured beside printed (INFER Table 2, imagenet-1k)") == [
        names,
        ["Random", *place, "31.5", "10.5 ± 0.4", "–", other, "0.78"],
        ["G-VBSM", *place, "–", "31.4 ± 0.5", "–", "not measured", "4.53"],
        ["INFER", *place, "43.0 ± 3.6", "28.7 ± 0.2", "–", other, "0.81"],
    ]
    assert "- (1) not comparable: another setting.\n" in text
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


def test_a_printed_gain_stands_apart_from_the_measured_one(plan, store, tmp_path):
    number = replace(plan.cells[2].published, gain=16.3)
    plan = changed(plan, 2, published=number, against="Random")
    random, _, infer = made(plan, store, tmp_path / "gains")
    assert (infer["gain_published"], random["gain_published"]) == ("16.3", "")
    text = show(tmp_path / "gains")
    assert grid(text, "Published gain (INFER, as printed)") == [
        ["", "resnet18 ipc 10"],
        ["Random", "–"],
        ["G-VBSM", "–"],
        ["INFER", "+16.3"],
    ]
    assert "16.3" not in str(grid(text, "Gain (row − the row it is compared with; * q < 0.05)"))


def test_columns_keep_the_axes_order_when_a_row_lacks_some(plan, store, tmp_path):
    wide = [
        cell("INFER", "infer", "static", student=s, ipc=i) for s in ("a", "b") for i in (10, 50)
    ]
    plan = document([cell("Random", "random", "hard", student="b", ipc=10), *wide])
    made(plan, store, tmp_path / "table2")
    header, *_ = grid(
        show(tmp_path / "table2"), "Measured (scale demo, dataset digits, nothing, last epoch)"
    )
    assert header == ["", "b ipc 10", "b ipc 50", "a ipc 10", "a ipc 50"]


def test_latex_is_well_formed(plan, store, tmp_path):
    plan = changed(plan, 0, row="50% of {R&D}_1 \\ #2")
    rows = tuple(c.row for c in plan.cells)
    plan = replace(plan, shape=replace(plan.shape, rows=rows))
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
    (tmp_path / "plan.json").write_text(json.dumps(plan.json()))
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
    assert json.loads((tmp_path / "table2.json").read_text())["plan"] == plan.digest()


# --- gains and axes of a table's own --------------------------------------------------------------


def test_a_gain_is_the_difference_at_the_same_place_with_welchs_p_where_draws_do_not_pair():
    values = {
        ("a", 5): [[40.0], [41.0, 43.0], [47.0]],  # three draws, of means 40, 42, 47
        ("b", 5): [[30.0, 32.0], [33.0]],  # two draws, of means 31 and 33
        ("a", 9): [[50.0, 60.0]],
        ("b", 9): [[50.5], [51.5]],
        ("b", 7): [[1.0]],
    }
    cells = [
        cell(row, "random", "hard", ipc=ipc, against="b" if row == "a" else None)
        for row, ipc in values
    ]
    found = gains(document(cells), lambda c: values[c.row, c.place.ipc])
    first, second, third, fourth, fifth = found
    # variances 13 and 2 of the means of draws: t = (43 - 32) / sqrt(13/3 + 2/2),
    # Welch-Satterthwaite's degrees of freedom by hand
    t, df = 11 / (16 / 3) ** 0.5, (16 / 3) ** 2 / ((13 / 3) ** 2 / 2 + 1**2 / 1)
    p = pytest.approx(2 * stats.t.sf(t, df))
    assert first == Gain("b", pytest.approx(11), "Welch", p, p)  # of one test q is p
    assert third == Gain("b", 4.0)  # one draw: its two students say nothing of another set
    assert second is fourth is fifth is None


def test_one_constant_side_has_a_p_and_two_have_none():
    values = {
        "a": [[2.0], [4.0], [9.0]],
        "b": [[1.0], [1.0]],
        "c": [[3.0], [3.0], [3.0]],
    }
    against = {"a": "b", "b": "a", "c": "b"}
    cells = [cell(row, "random", "hard", against=against[row]) for row in values]
    ours, theirs, constant = gains(document(cells), lambda c: values[c.row])
    # mean 5 and variance 13 against 1 and 0: t = 4 / sqrt(13 / 3), 2 degrees of freedom, of which
    # p = 1 - t / sqrt(2 + t^2), so 1 - sqrt(48 / 74)
    assert (ours.difference, theirs.difference) == (4.0, -4.0)
    assert ours.p == pytest.approx(1 - (48 / 74) ** 0.5) == theirs.p
    assert constant == Gain("b", 2.0)


def test_a_row_that_is_compared_with_nothing_measured_has_no_gain():
    cells = [
        cell("a", "random", "hard", ipc=5, against="b"),
        cell("a", "random", "hard", ipc=9, against="b"),
        cell("b", "random", "hard", ipc=9),
    ]
    found = gains(document(cells), lambda c: [] if c.row == "b" else [[1.0], [2.0]])
    assert found == [None, None, None]


@pytest.mark.parametrize(
    ("q", "text"), [(0.0499, "+1.0*"), (0.05, "+1.0"), (0.1, "+1.0"), (0.5, "+1.0"), (None, "+1.0")]
)
def test_a_star_says_that_q_is_below_a_twentieth(q, text):
    plan = document([cell("a", "random", "hard", against="b"), cell("b", "random", "hard")])
    measured = summarize([[40.0], [42.0]])
    cells = [
        AssembledCell(plan.cells[0], measured, gain=Gain("b", 1.0, "paired t", 0.001, q)),
        AssembledCell(plan.cells[1], measured),
    ]
    (gain,) = (g for g in layout(plan, cells)["digits"] if g.title.startswith("Gain"))
    assert gain.rows == [("a", [text]), ("b", ["–"])]


def test_a_note_says_where_a_row_has_nothing_to_be_compared_with() -> None:
    ipcs = {"a": (5, 7, 9), "b": (5,), "c": (5, 9), "d": (5,)}
    against = {"a": "b", "c": "e", "d": "a"}
    cells = [
        cell(row, "random", "hard", ipc=ipc, against=against.get(row))
        for row, places in ipcs.items()
        for ipc in places
    ]
    cells.append(cell("f", "random", "hard", ipc=5, against="b"))  # printed only
    plan = document(cells)
    measured = summarize([[1.0, 2.0]])
    found = [
        AssembledCell(one, measured if one.row != "f" else None, gain=gain)
        for one, gain in zip(
            cells, gains(plan, lambda c: [] if c.row == "f" else [[1.0], [2.0]]), strict=True
        )
    ]
    said = [line for line in notes(plan, found, "t.csv") if line.startswith("No gain")]
    place = "dataset digits, student convnet-w32, ipc "
    assert said == [
        f"No gain of a over b at {place}7; {place}9: b is not measured there.",
        "No gain of c over e: e is not measured there.",
    ]


def test_gains_and_own_axes_have_columns_only_where_a_table_has_them(plan, store, tmp_path):
    plain = made(plan, store, tmp_path / "plain")
    for index in range(3):
        place = replace(plan.cells[index].place, axes={"optimizer": "sgd"})
        plan = changed(plan, index, place=place)
    plan = replace(changed(plan, 2, against="Random"), axes=("optimizer",))
    with_gain = made(plan, store, tmp_path / "gain")
    assert list(plain[0]) == list(COLUMNS)
    assert list(with_gain[0]) == [
        *PLACE_COLUMNS,
        "optimizer",
        *COLUMNS[len(PLACE_COLUMNS) :],
        "against",
        "gain",
        "gain_test",
        "gain_p",
        "gain_q",
        "gain_published",
    ]
    assert (with_gain[2]["gain"], with_gain[2]["optimizer"]) == ("11.5000", "sgd")  # 43 - 31.5
    assert "Gain (row − the row it is compared with; * q < 0.05)" in show(tmp_path / "gain")
