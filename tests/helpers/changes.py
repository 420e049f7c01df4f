"""Kinds of change to a finished project, and the jobs that each must run: no more, no fewer.

The project is that of `helpers.project`: one data set, two teachers, a row of random images with
hard labels and a row of INFER with static ones, two students of each.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = "results/table2"
ALL = {"data": 1, "teacher": 2, "distill": 2, "label": 1, "evaluate": 4, "table": 1}


@dataclass(frozen=True)
class Change:
    """A change.

    Attributes:
        what: in words, for the page.
        do: carries it out in a project.
        jobs: what the next run makes, by stage.
        why: in words, for the page.
    """

    what: str
    do: Callable[[Path], object]
    jobs: Mapping[str, int]
    why: str


def replaced(file: str, old: str, new: str) -> Callable[[Path], object]:
    """A function that replaces text of a file, which must be there."""

    def replace(project: Path) -> None:
        text = (project / file).read_text()
        assert old in text, f"{file} does not contain {old!r}"
        (project / file).write_text(text.replace(old, new))

    return replace


def params(new: str) -> Callable[[Path], object]:
    return replaced("params.yaml", "evaluate: {}", new)


def appended(files: str, text: str) -> Callable[[Path], object]:
    """A function that appends text to files by a pattern."""

    def append(project: Path) -> None:
        found = list(project.glob(files))
        assert found, files
        for file in found:
            file.write_text(file.read_text() + text)

    return append


def removed(*patterns: str) -> Callable[[Path], object]:
    """A function that removes files and folders by patterns."""

    def remove(project: Path) -> None:
        for pattern in patterns:
            found = list(project.glob(pattern))
            assert found, pattern
            for path in found:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return remove


def retimed(project: Path) -> None:
    for number, file in enumerate(sorted(project.rglob("*"))):
        if file.is_file():
            os.utime(file, (1e9 + 7919 * number % 1000,) * 2)


def twice(*changes: Callable[[Path], object]) -> Callable[[Path], object]:
    def do(project: Path) -> None:
        for change in changes:
            change(project)

    return do


LOSS = "src/distillery/losses/kl.py"
EVERYTHING = ("results/store", "results/scratch", "results/logs", "results/benchmarks")

CHANGES = (
    Change("nothing", lambda project: None, {}, ""),
    Change("the time of every file", retimed, {}, "times play no part"),
    Change(
        "a comment in every source file",
        appended("src/distillery/**/*.py", "\n# another comment\n"),
        {},
        "comments, docstrings and layout are no code",
    ),
    Change(
        "a function in every source file that nothing calls",
        appended("src/distillery/**/*.py", "\n\ndef unused():\n    return 1\n"),
        {},
        "code counts where a job can reach it",
    ),
    Change(
        "an evaluation setting of one kind of labels",
        params("evaluate: {static: {training: {epochs: 3}}}"),
        {"evaluate": 2, "table": 1},
        "the students that read it",
    ),
    Change(
        "a setting of one method",
        params("distill: {infer: {iterations: 4}}"),
        {"distill": 1, "label": 1, "evaluate": 2, "table": 1},
        "its set and what follows from that",
    ),
    Change(
        "the recipe of the labels",
        replaced(
            "workflow/scales/tiny.yaml", "static: {teachers: [net-a, ", "static: {teachers: ["
        ),
        {"label": 1, "evaluate": 2, "table": 1},
        "the set stays",
    ),
    Change(
        "the training of one of two teachers",
        params("teacher: {net-b: {training: {epochs: 1}}}"),
        {"teacher": 1, "distill": 1, "label": 1, "evaluate": 2, "table": 1},
        "the row without teachers stays",
    ),
    Change(
        "one more student for each cell",
        replaced("params.yaml", "students: 2", "students: 3"),
        {"evaluate": 2, "table": 1},
        "the others stay",
    ),
    Change(
        "code of one loss",
        replaced(LOSS, "    return divergence(logits", "    return 0 + divergence(logits"),
        {"evaluate": 2, "table": 1},
        "the students trained with it",
    ),
    Change(
        "code of one method",
        replaced(
            "src/distillery/methods/random.py",
            'return real_images("random"',
            '_ = 1 + 1\n    return real_images("random"',
        ),
        {"distill": 1, "evaluate": 2, "table": 1},
        "its set and the students of it",
    ),
    Change(
        "code that lays tables out",
        replaced("src/distillery/table/layout.py", 'EMPTY = "–"', 'EMPTY = "-"'),
        {"table": 1},
        "tables are read off evaluations",
    ),
    Change(
        "the title of the table",
        replaced("workflow/tables/infer/table2.yaml", "a small table", "another title"),
        {"table": 1},
        "it stands in the plan of the table",
    ),
    Change(
        "one more row of the table",
        appended(
            "workflow/tables/infer/table2.yaml",
            "  - {row: Again, method: random, labels: static}\n",
        ),
        {"label": 1, "evaluate": 2, "table": 1},
        "the set of random images is there already",
    ),
    Change(
        "a setting in `scales` for another scale",
        twice(
            lambda project: shutil.copy(
                project / "workflow/scales/tiny.yaml", project / "workflow/scales/wide.yaml"
            ),
            params("scales: {wide: {evaluate: {static: {training: {epochs: 3}}}}}"),
        ),
        {},
        "this scale does not read it",
    ),
    Change(
        "an edit of the CSV by hand",
        appended(f"{TABLE}.csv", "edited\n"),
        {"table": 1},
        "the sidecar holds its checksum",
    ),
    Change(
        "the Markdown deleted", removed(f"{TABLE}.md"), {"table": 1}, "it is a file of the table"
    ),
    Change(
        "the labels deleted",
        removed("results/store/label"),
        {},
        "the table is there, and nothing reads them",
    ),
    Change(
        "the labels and the table deleted",
        removed("results/store/label", f"{TABLE}.csv"),
        {"table": 1},
        "a table is read off its evaluations alone",
    ),
    Change(
        "the labels, the table and one student of INFER deleted",
        removed("results/store/label", f"{TABLE}.csv", "results/store/evaluate/*infer*-d0-s0-*"),
        {"label": 1, "evaluate": 1, "table": 1},
        "that student reads the labels",
    ),
    Change(
        "Snakemake's memory deleted",
        removed(".snakemake", "results/scratch"),
        {},
        "it plays no part",
    ),
    Change(
        "all but the committed table deleted",
        removed(*EVERYTHING, ".snakemake"),
        {},
        "the table names its plan",
    ),
    Change(
        "`environment` raised",
        appended("params.yaml", "environment: 2\n"),
        ALL,
        "what it is for",
    ),
)


def page() -> str:
    """The matrix as a page of the documentation."""
    stages = list(ALL)
    lines = [
        "# What a change makes again",
        "",
        "Measured by `tests/test_changes.py`, which also writes this page: a finished project with",
        "one data set, two teachers, a row of random images (hard labels) and a row of INFER",
        "(static labels), two students each; then one change, then `snakemake results/table2.csv`.",
        "The numbers are the jobs that ran. `distillery make` and `dvc repro` have the same plan.",
        "",
        f"| change | {' | '.join(stages)} | |",
        f"| --- | {' | '.join('---:' for _ in stages)} | --- |",
        *(
            f"| {change.what} | "
            + " | ".join(str(change.jobs.get(stage, "")) for stage in stages)
            + f" | {change.why} |"
            for change in CHANGES
        ),
    ]
    return "\n".join(lines) + "\n"
