"""What a benchmark found, as a file from which the page of benchmarks is filled."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parents[1] / "docs" / "results" / "data"


def keep(
    name: str, about: str, columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]
) -> str:
    """Write docs/results/data/benchmark-NAME.json; returns it as Markdown.

    Args:
        name: of the benchmark, and of its place in docs/results/benchmarks.md.
        about: a paragraph below the table: the command and its settings.
        columns: from the keys of a row to headings with, after a bar, a format, such as "s|.3f".
        rows: the table.
    """
    content = {"about": about, "columns": dict(columns), "rows": [dict(row) for row in rows]}
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    (RESULTS / f"benchmark-{name}.json").write_text(text, encoding="utf-8")
    return markdown(content)


def markdown(content: Mapping[str, Any]) -> str:
    """The table of a result file and what is said about it."""
    columns = {key: heading.partition("|")[::2] for key, heading in content["columns"].items()}
    lines = [
        "| " + " | ".join(heading for heading, _ in columns.values()) + " |",
        "| " + " | ".join("---:" if form else "---" for _, form in columns.values()) + " |",
    ]
    for row in content["rows"]:
        cells = (format(row[key], form) for key, (_, form) in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", content["about"]])
