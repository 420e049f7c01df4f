"""Claims of the papers: on their printed cells, against an earlier count, and on made-up tables."""

import csv
import math
import re
import shutil

import pytest

from distillery.cli import main
from distillery.errors import ArtefactError, PlanError
from distillery.plan.claim_cells import PrintedCells
from distillery.plan.claims import CLAIMS, check_claims, read_claims
from distillery.plan.claims_files import claims_are_current, write_claims
from distillery.table.expression import Number, Reference, evaluate, parse
from helpers.project import ROOT

# Computed from the printed digits by other expressions, cell by cell, before these were written.
COMPUTED = ROOT / "tests/data/claims.csv"
HEAD = (
    "paper,table,row,scale,dataset,ipc,student,published_dataset,published_student,published_ipc,"
    "comparable,measured,std,draws,students,cr_paper"
)


def line(row, measured, std, *, paper="imagenet-1k,resnet18,50", own="cifar10,10,net", same="no"):
    dataset, student, ipc = paper.split(",")
    return (
        f"infer,table2,{row},mini,{own},{dataset},{student},{ipc},{same},{measured},{std},3,2,4.04"
    )


@pytest.fixture
def root(tmp_path):
    """A folder with the tables' definitions and printed numbers, and nothing measured."""
    for name in ("tables", "published"):
        shutil.copytree(ROOT / "workflow" / name, tmp_path / "workflow" / name)
    return tmp_path


def measure(root, *lines, file="infer/table2", head=HEAD):
    path = root / "results" / f"{file}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join((head, *lines)) + "\n")


def of(root, claim):
    return next(found for found in check_claims(root) if found.claim.id == claim)


def claim_file(root, expression, *, rests_on="cells", claimed="1.0", unit="points"):
    """One claim only, X1."""
    with (root / CLAIMS).open("w", newline="") as file:
        writer = csv.writer(file)
        names = "id,paper,section,kind,rests_on,claim,claimed,unit,expression,note"
        writer.writerow(names.split(","))
        writer.writerow(
            ["X1", "infer", "", "result", rests_on, "a claim", claimed, unit, expression, ""]
        )


def test_the_printed_cells_give_what_was_computed_from_them(root):
    with COMPUTED.open(newline="") as file:
        expected = {row["id"]: row for row in csv.DictReader(file)}
    found = {one.claim.id: one for one in check_claims(root)}
    assert len(found) == 110
    assert found.keys() == expected.keys()
    for name, one in found.items():
        computed = expected[name]["computed"]
        if computed:
            decimals = len(computed.partition(".")[2])
            assert abs(one.printed - float(computed)) <= 0.5 * 10**-decimals + 1e-9, name
        else:
            assert one.printed is None, name
        assert one.printed_verdict == expected[name]["verdict"], name
    assert {one.measured_verdict for one in found.values()} == {
        "not measured",
        "rests on no cells",
    }
    resting = [one for one in found.values() if one.claim.rests_on == "cells"]
    assert len(resting) == 66
    assert all(one.measured_verdict == "not measured" for one in resting)


def test_a_gain_of_another_setting_is_judged_by_its_sign(root):
    measure(root, line("INFER", 70.0, 3.0), line("SRe2L*", 64.0, 4.0))
    found = of(root, "I01")
    assert (found.printed, found.measured) == (pytest.approx(34.5), 6.0)
    assert found.measured_sd == pytest.approx(5.0)  # of 3 and 4
    assert found.measured_verdict == "holds"
    assert found.judged_by.startswith("sign alone")
    assert found.beyond_spread == "no"  # 6 is less than twice 5
    assert (found.scale, found.draws, found.students) == ("mini", "3", "2")
    assert (found.cells_measured, found.measured_at) == ("2 of 2", "cifar10 net ipc 10")
    measure(root, line("INFER", 60.0, 1.0), line("SRe2L*", 64.0, 1.0))
    found = of(root, "I01")
    assert (found.measured, found.measured_verdict) == (-4.0, "does not hold")
    assert found.beyond_spread == "yes"


def test_a_value_is_judged_only_where_all_cells_are_comparable(root):
    paper, own = "imagenet-1k,resnet50,50", "imagenet-1k,50,resnet50"
    measure(root, line("INFER", 54.0, 0.3, paper=paper, own=own))
    assert of(root, "I02").measured_verdict == "not comparable"  # 53.3 is printed
    measure(root, line("INFER", 53.7, 0.0, paper=paper, own=own, same="yes"))
    found = of(root, "I02")  # 0.4 is less than the least tolerance, half a point
    assert found.measured_verdict == "holds"
    measure(root, line("INFER", 54.2, 0.4, paper=paper, own=own, same="yes"))
    found = of(root, "I02")
    assert found.judged_by == "value, tolerance 1.00"  # twice the root of 0.4² + 0.3²
    assert found.measured_verdict == "holds"
    measure(root, line("INFER", 54.4, 0.4, paper=paper, own=own, same="yes"))
    found = of(root, "I02")
    assert found.measured_verdict == "does not hold"


def test_a_bound_is_judged_over_what_is_measured_and_says_how_much_that_is(root):
    cells = [line("INFER", 70.0, 1.0), line("SRe2L*", 60.0, 1.0)]
    others = [
        line(row, value, 1.0, paper="imagenet-1k,resnet18,10", own="cifar10,5,net")
        for row, value in (("INFER", 50.0), ("SRe2L*", 47.0))
    ]
    alone = line("INFER", 1.0, 1.0, paper="imagenet-1k,resnet50,10", own="cifar10,5,other")
    measure(root, *cells, *others, alone)
    found = of(root, "I36")
    assert found.measured == 3.0  # the lesser of 10 and 3; the cell without a partner counts not
    assert found.measured_verdict == "holds where measured"
    assert found.cells_measured == "5 of 12"
    measure(root, *cells, line("SRe2L*", 52.0, 1.0, paper="imagenet-1k,resnet18,10"), others[0])
    assert of(root, "I36").measured_verdict == "does not hold"


def test_a_cell_that_is_the_papers_own_place_wins_over_one_that_stands_for_it(root):
    own = "imagenet-1k,50,resnet18"
    measure(
        root,
        line("INFER", 1.0, 0.0),
        line("INFER", 2.0, 0.0, own=own),
        line("INFER", 3.0, 0.0),
        line("SRe2L*", 0.0, 0.0),
    )
    assert of(root, "I01").measured == 2.0


def test_a_ratio_is_read_from_its_own_column(root):
    lines = [line("INFER", 1.0, 0.0, own="imagenet-1k,50,resnet18", same="yes")]
    measure(root, *lines)
    found = of(root, "I03")
    assert (found.measured, found.measured_verdict) == (4.04, "holds")
    measure(root, lines[0].replace("4.04", "4.05"))
    assert of(root, "I03").measured_verdict == "does not hold"  # half of its last digit is allowed


def test_a_ratio_that_was_not_counted_is_not_measured(root):
    counted = line("INFER", 1.0, 0.0)
    measure(root, counted.replace("4.04", ""))
    found = of(root, "I03")
    assert (found.measured_verdict, found.cells_measured) == ("not measured", "0 of 1")


def test_the_rule_of_tables_leaves_the_claims_to_their_own():
    rules = (ROOT / "workflow/rules/common.smk").read_text()
    name = re.search(r'^NAME = r"(.+)"$', rules, re.M)[1]
    names = ("claims", "claims-mini", "infer/table2", "store/x")
    there = [one for one in names if re.fullmatch(rf"results/({name})\.csv", f"results/{one}.csv")]
    assert there == ["claims-mini", "infer/table2"]


def test_a_network_has_the_name_that_the_table_file_gives_it(root):
    """GIFT trains torchvision's EfficientNet under a name of its own; it is the printed one."""
    place = "tiny-imagenet,10,tv-efficientnet_b0,tiny-imagenet,tv-efficientnet_b0,10"
    measure(
        root,
        *(
            f'gift,table4,"{row}",paper,{place},yes,{value},0.1,1,3,'
            for row, value in (("RDED, ConvNet", 20.0), ("RDED, ConvNet + GIFT", 21.5))
        ),
        file="gift/table4",
    )
    found = of(root, "G17")
    assert (found.measured, found.cells_measured) == (pytest.approx(1.5), "2 of 84")


def test_a_data_set_at_another_size_has_the_printed_name(root):
    place = "imagenet-1k-64,10,convnet,imagenet-1k-64,convnet,10"
    measure(
        root,
        *(
            f"gift,table2,{row},paper,{place},yes,{value},0.1,1,3,"
            for row, value in (("RDED", 20.0), ("RDED + GIFT", 23.5))
        ),
        file="gift/table2",
    )
    found = of(root, "G01")
    assert (found.measured, found.measured_verdict) == (3.5, "holds")  # 3.9 is printed


def test_the_short_table_counts_for_its_own_paper_only(root):
    measure(root, line("INFER", 70.0, 1.0), line("SRe2L*", 60.0, 1.0), file="table2")
    assert of(root, "I01").measured == 10.0
    measure(root, line("G-VBSM", 1.0, 1.0, paper="imagenet-1k,resnet18,10"), file="table2")
    assert of(root, "I51").cells_measured == "0 of 18"  # it has starred rows
    assert of(root, "I37").cells_measured == "0 of 12"
    assert of(root, "I50").cells_measured == "1 of 18"
    assert of(root, "G03").cells_measured == "0 of 2"  # a row of the same name at the same place


def test_a_loss_that_is_claimed_holds_where_something_is_lost(root):
    cells = [f"infer/table2[{row}; imagenet-1k; resnet18; 50]" for row in ("INFER", "SRe2L*")]
    claim_file(root, " - ".join(cells), claimed="-2.0")
    measure(root, line("INFER", 60.0, 1.0), line("SRe2L*", 64.0, 1.0))
    assert of(root, "X1").measured_verdict == "holds"
    measure(root, line("INFER", 65.0, 1.0), line("SRe2L*", 64.0, 1.0))
    assert of(root, "X1").measured_verdict == "does not hold"


def test_a_row_is_meant_only_where_it_stands():
    cells = PrintedCells(ROOT).cells(Reference("podd/table1", "Full data", ()))
    assert cells
    assert {cell.place[-1] for cell in cells} == {"1"}


@pytest.mark.parametrize(
    ("text", "value", "variance"),
    [
        ("1 + 2 * 3 - 4 / 2", 5.0, 0.0),
        ("-(1 - 3)", 2.0, 0.0),
        ("floor(7 / 2) + abs(-2) + sqrt(9)", 8.0, 0.0),
        ("a/t[A] - a/t[B]", 6.0, 5.0),
        ("a/t[A] / 2", 5.0, 1.0),
        ("a/t[A] * a/t[B]", 40.0, 4 * 16 + 1 * 100),
        ("a/t[A] / a/t[B]", 2.5, 4 / 16 + 100 / 256),
        ("max(a/t[A], a/t[B])", 10.0, 4.0),
        ("smallest(a/t[S] - a/t[B])", -3.0, 9 + 1),
        ("largest(a/t[S], a/t[B])", 7.0, 16.0),
        ("smallest(max(a/t[S], a/t[B]))", 4.0, 1.0),
    ],
)
def test_expressions_by_hand(text, value, variance):
    cells = {
        "A": Number(10.0, 4.0),
        "B": Number(4.0, 1.0),
        "S": {("x",): Number(1.0, 9.0), ("y",): Number(7.0, 16.0)},
    }
    found = evaluate(parse(text, "here"), lambda reference: cells[reference.row])
    assert found.value == pytest.approx(value)
    assert found.variance == pytest.approx(variance)


def test_what_is_not_there_makes_no_number_but_is_left_out_of_the_smallest():
    cells = {
        "A": Number(1.0, None),
        "B": None,
        "S": {("x",): Number(5.0)},
        "T": {("y",): Number(2)},
    }

    def value(text):
        return evaluate(parse(text, "here"), lambda reference: cells[reference.row])

    assert value("a/t[A] - a/t[B]") is None
    assert value("max(a/t[A], a/t[B])") is None
    assert value("smallest(a/t[A] + 1, a/t[B])") == Number(2.0, None)
    assert value("smallest(a/t[S] - a/t[T])") is None  # no place in common
    assert value("1 / 0") is None
    assert math.isclose(value("a/t[A] * 0.5").value, 0.5)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getcwd()",
        "().__class__",
        "cell_0",
        "2 ** 99",
        "'a' * 3",
        "True",
        "[1]",
        "lambda: 1",
        "min()",
        "sqrt(1, 2)",
        "max(1, key=2)",
        "1 +",
        "(" * 500,
        "1" * 5000,
        "unknown(1)",
        "a/t[A].size",
    ],
)
def test_nothing_but_the_grammar_is_read(text):
    with pytest.raises(PlanError, match="here"):
        parse(text, "here")


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("infer/table2[INFR; imagenet-1k; resnet18; 50]", "no row 'INFR': did you mean 'INFER'"),
        ("infer/table2[INFER; imagenet; resnet18; 50]", "no dataset 'imagenet': did you mean"),
        ("infer/table2[INFER; imagenet-1k; resnet18; 7]", "no ipc '7'"),
        ("infer/table2[INFER; imagenet-1k; resnet18; 50; x]", "more values than the axes"),
        ("infer/table99[INFER]", "table 'infer/table99' does not exist"),
        ("infer/table1[CDA]", "the paper prints no such cell"),
        ("infer/table2[INFER]", "is a series"),
        ("infer/table2[INFER; imagenet-1k; resnet18; 50].ratio", "no column 'ratio'"),
    ],
)
def test_a_wrong_cell_is_one_line(root, capsys, expression, complaint):
    claim_file(root, expression)
    assert main(["claims", "--root", str(root)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"{CLAIMS}: X1: expression" in said
    assert complaint in said
    assert not (root / "results/claims.csv").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"rests_on": "cell"}, "rests_on 'cell': did you mean 'cells'"),
        ({"rests_on": "arithmetic"}, "rests_on arithmetic, its expression has 1 cells"),
        ({"claimed": "about 3"}, "claimed 'about 3'"),
    ],
)
def test_a_wrong_claim_is_named(root, change, complaint):
    claim_file(root, "infer/table2[INFER; imagenet-1k; resnet18; 50]", **change)
    with pytest.raises(PlanError, match=complaint):
        read_claims(root)


def test_a_table_without_a_column_or_with_words_for_numbers_is_named(root):
    measure(root, head=HEAD.replace(",draws", ""))
    with pytest.raises(ArtefactError, match=r"infer/table2\.csv: has no column 'draws'"):
        check_claims(root)
    measure(root, line("INFER", "high", 1.0))
    with pytest.raises(ArtefactError, match="line 2: measured = 'high'"):
        check_claims(root)


def test_both_files_are_written_and_stale_when_a_table_changes(root):
    assert not claims_are_current(root)
    page, table = write_claims(root)
    assert claims_are_current(root)
    assert "110 claims" in page.read_text()
    measure(root, line("INFER", 70.0, 1.0), line("SRe2L*", 60.0, 1.0))
    assert not claims_are_current(root)
    write_claims(root)
    assert claims_are_current(root)
    with table.open(newline="") as file:
        written = {row["id"]: row for row in csv.DictReader(file)}
    assert written["I01"]["measured"] == "10"
    assert written["I01"]["measured_verdict"] == "holds"
    assert written["I34"]["printed"] == "-32.3"
    page.unlink()
    assert not claims_are_current(root)
