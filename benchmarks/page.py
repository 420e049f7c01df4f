"""Fill docs/results/benchmarks.md from results/*.json, each between `<!-- NAME -->` marks.

python benchmarks/page.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pairs import RESULTS

PAGE = Path(__file__).parents[1] / "docs" / "results" / "benchmarks.md"


def table(found: dict[str, Any]) -> str:
    """The paragraph and the table of a result file, as Markdown."""
    columns = {key: heading.partition("|")[::2] for key, heading in found["columns"].items()}
    lines = [
        "| " + " | ".join(heading for heading, _ in columns.values()) + " |",
        "| " + " | ".join("---:" if form else "---" for _, form in columns.values()) + " |",
    ]
    for row in found["rows"]:
        cells = (format(row[key], form) for key, (_, form) in columns.items())
        lines.append("| " + " | ".join(cells) + " |")
    return f"{found['about']}\n\n" + "\n".join(lines)


def main() -> None:
    """Replace what stands between the marks of each result file."""
    page = PAGE.read_text()
    for path in sorted(RESULTS.glob("*.json")):
        start, end = f"<!-- {path.stem} -->", f"<!-- /{path.stem} -->"
        if start not in page:
            raise SystemExit(f"{PAGE}: has no place for {path.stem}: write {start}{end} into it")
        before, _, rest = page.partition(start)
        text = table(json.loads(path.read_text()))
        page = f"{before}{start}\n{text}\n{end}{rest.partition(end)[2]}"
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
