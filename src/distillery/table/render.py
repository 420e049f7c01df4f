"""Write a laid-out table as Markdown and LaTeX text."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from distillery.errors import ArtefactError
from distillery.table.layout import TextGrid

_LATEX = str.maketrans(
    {character: f"\\{character}" for character in "&%$#_{}"}
    | {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
    }
    | {"±": r"$\pm$", "−": "$-$", "–": "--", "×": r"$\times$", "†": r"$^\dagger$"}
)


def markdown(title: str, panels: Mapping[str, list[TextGrid]], notes: list[str]) -> str:
    """The table as Markdown, columns aligned so that it reads well in a terminal too."""
    lines = [f"# {title}", ""]
    for name, grids in panels.items():
        lines += [f"## {name}", ""]
        for grid in grids:
            lines += [f"**{grid.title}**", "", *_aligned(grid), ""]
    return "\n".join([*lines, *(f"- {note}" for note in notes)]) + "\n"


def _aligned(grid: TextGrid) -> list[str]:
    header = ["", *(" ".join(filter(None, column)) for column in grid.columns)]
    body = [[label, *texts] for label, texts in grid.rows]
    cells = [[text.replace("|", "\\|") for text in row] for row in (header, *body)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    ruler = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    lines = [
        [text.ljust(widths[0]) if i == 0 else text.rjust(widths[i]) for i, text in enumerate(row)]
        for row in cells
    ]
    return [f"| {' | '.join(row)} |" for row in (lines[0], ruler, *lines[1:])]


def latex(title: str, panels: Mapping[str, list[TextGrid]], notes: list[str]) -> str:
    """The table as LaTeX: one `table` per grid, with the rules of the booktabs package."""
    lines = ["% Needs \\usepackage{booktabs}."]
    for name, grids in panels.items():
        for grid in grids:
            caption = " ".join((f"{title}.", f"{name}:", f"{grid.title}.")).translate(_LATEX)
            lines += [
                "\\begin{table}[ht]",
                "\\centering",
                f"\\caption{{{caption}}}",
                *_tabular(grid),
                "\\end{table}",
                "",
            ]
    return "\n".join([*lines, *(f"{note.translate(_LATEX)}\\par" for note in notes)]) + "\n"


def _tabular(grid: TextGrid) -> list[str]:
    groups = [
        (name, len(list(columns)))
        for name, columns in itertools.groupby(grid.columns, key=lambda column: column[0])
    ]
    top = [f"\\multicolumn{{{width}}}{{c}}{{{name.translate(_LATEX)}}}" for name, width in groups]
    header = ["", *(name.translate(_LATEX) for _, name in grid.columns)]
    body = [[text.translate(_LATEX) for text in (label, *texts)] for label, texts in grid.rows]
    lines = [["", *top], header] if any(name for name, _ in groups) else [header]
    ruled = [*(_line(line) for line in lines), "\\midrule", *(_line(line) for line in body)]
    return [
        f"\\begin{{tabular}}{{l{'r' * len(grid.columns)}}}",
        "\\toprule",
        *ruled,
        "\\bottomrule",
        "\\end{tabular}",
    ]


def _line(cells: list[str]) -> str:
    return " & ".join(cells) + " \\\\"


def show(stem: Path) -> str:
    """The text of a finished table for the terminal; `stem` is its path without suffix.

    Raises:
        ArtefactError: the table was not made yet.
    """
    file = Path(f"{stem}.md")
    if not file.is_file():
        raise ArtefactError(
            f"{file}: not made yet; `distillery table {Path(stem).name}` makes it from finished "
            "evaluations"
        )
    return file.read_text(encoding="utf-8")
