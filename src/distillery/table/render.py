"""Write a laid-out table as CSV, Markdown and LaTeX text."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from distillery.errors import ArtefactError
from distillery.table.layout import Block
from distillery.table.scores import ACCURACIES, SCORES

_AS_PRINTED = "{!r}".format  # a printed number keeps its printed digits
_TWO = "{:.2f}".format
MEASURED = ("measured", "std", "ci95", "gain")
_FORMATS = {
    **dict.fromkeys(("ipc", "published_ipc"), "{:g}".format),
    **dict.fromkeys(("published", "published_std"), lambda x: _AS_PRINTED(float(x))),
    **dict.fromkeys(("measured_best", "cr_published", "cr_paper", "cr_stored"), _TWO),
    **dict.fromkeys(("gain_p", *ACCURACIES, *SCORES), "{:.4f}".format),
    "difference": lambda x: _TWO(round(x, 2) + 0.0),  # no -0.00
}
_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
    | {"±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$"}
)


def csv_text(frame: pd.DataFrame, digits: int = 1) -> str:
    """The tidy table as CSV: measured numbers with three decimals more than the `digits` of a cell, ratios with two, printed
    ones as printed, None as nothing."""
    formats = _FORMATS | dict.fromkeys(MEASURED, f"{{:.{digits + 3}f}}".format)
    texts = {name: [_text(formats, name, value) for value in frame[name]] for name in frame.columns}
    return pd.DataFrame(texts, columns=frame.columns, dtype=object).to_csv(
        index=False, lineterminator="\n"
    )


def _text(formats: Mapping[str, Callable[[Any], str]], column: str, value: Any) -> str:
    return "" if value is None else formats.get(column, str)(value)


def markdown(title: str, panels: Mapping[str, list[Block]], notes: list[str]) -> str:
    """The table as Markdown, columns aligned so that it reads well in a terminal too."""
    lines = [f"# {title}", ""]
    for name, blocks in panels.items():
        lines += [f"## {name}", ""]
        for block in blocks:
            lines += [f"**{block.title}**", "", *_grid(block), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"


def _grid(block: Block) -> list[str]:
    header = ["", *(" ".join(filter(None, column)) for column in block.columns)]
    body = [[label, *texts] for label, texts in block.rows]
    cells = [[text.replace("|", "\\|") for text in row] for row in (header, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [text.ljust(widths[0]) if i == 0 else text.rjust(widths[i]) for i, text in enumerate(row)]
        for row in cells
    ]
    return [f"| {' | '.join(row)} |" for row in (lines[0], ruler, *lines[1:])]


def latex(title: str, panels: Mapping[str, list[Block]], notes: list[str]) -> str:
    """The table as LaTeX: one `table` per block, rules of the booktabs package."""
    lines = ["% Needs \\usepackage{booktabs}."]
    for name, blocks in panels.items():
        for block in blocks:
            caption = " ".join((f"{title}.", f"{name}:", f"{block.title}.")).translate(_LATEX)
            lines += [
                "\\begin{table}[ht]",
                "\\centering",
                f"\\caption{{{caption}}}",
                *_tabular(block),
                "\\end{table}",
                "",
            ]
    return "\n".join([*lines, *(f"{note.translate(_LATEX)}\\par" for note in notes)]) + "\n"


def _tabular(block: Block) -> list[str]:
    groups = [
        (name, len(list(columns)))
        for name, columns in itertools.groupby(block.columns, key=lambda column: column[0])
    ]
    top = [f"\\multicolumn{{{width}}}{{c}}{{{name.translate(_LATEX)}}}" for name, width in groups]
    header = ["", *(name.translate(_LATEX) for _, name in block.columns)]
    body = [[text.translate(_LATEX) for text in (label, *texts)] for label, texts in block.rows]
    lines = [["", *top], header] if any(name for name, _ in groups) else [header]
    ruled = [*(_line(line) for line in lines), "\\midrule", *(_line(line) for line in body)]
    return [
        f"\\begin{{tabular}}{{l{'r' * len(block.columns)}}}",
        "\\toprule",
        *ruled,
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\"


def show(stem: Path) -> str:
    """The text of a finished table for the terminal. `stem` is its path without suffix.

    Raises ArtefactError when the table was not made yet.
    """
    file = Path(f"{stem}.md")
    if not file.is_file():
        raise ArtefactError(
            f"{file}: not made yet; `distillery table {Path(stem).name}` makes it from finished evaluations"
        )
    return file.read_text(encoding="utf-8")
