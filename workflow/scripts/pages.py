"""Fill the tables of docs/results/*.md from the result files beside them.

A page says where: between `<!-- table: data/infer-table1.csv dataset=cifar10 -->` and
`<!-- end -->` stands what the file says at these values of its columns. Whoever edits a number on
a page is overruled, and a test compares pages and files.

python workflow/scripts/pages.py
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pandas as pd

RESULTS = Path(__file__).resolve().parents[2] / "docs/results"
SPREAD = ("measured", "std", "ci95", "rise")
BLOCK = re.compile(r"(<!-- table: (?P<file>\S+)(?P<where>[^>]*) -->\n).*?(<!-- end -->)", re.S)
HEAD = (
    "| row | accuracy, % | draws x students | gain | steps | rise |\n"
    "| --- | ---: | ---: | ---: | ---: | ---: |\n"
)


def filled(text: str, folder: Path) -> str:
    """A page with its tables as the files of `folder` have them."""
    return BLOCK.sub(lambda found: found[1] + _table(found, folder) + found[4], text)


def _table(block: re.Match[str], folder: Path) -> str:
    values = pd.read_csv(folder / block["file"], dtype=str, keep_default_na=False)
    for condition in block["where"].split():
        column, _, value = condition.partition("=")
        values = values[values[column] == value]
    measured = values[values["measured"] != ""]
    if measured.empty:
        sys.exit(f"{block['file']}{block['where']}: nothing measured there")
    return "\n" + HEAD + "".join(map(_line, measured.to_dict("records"))) + "\n"


def _line(cell: dict[str, str]) -> str:
    one = {name: f"{float(cell[name]):.1f}" for name in SPREAD if cell[name]}
    spread = f" ± {one['std']} (±{one['ci95']})" if cell["std"] else ""
    counts = f"{cell['draws']} x {cell['students']}"
    gain = ""
    if cell.get("gain"):
        star = "*" if cell["gain_q"] and float(cell["gain_q"]) < 0.05 else ""
        tested = f" (p {cell['gain_p']}, q {cell['gain_q']})" if cell["gain_p"] else ""
        gain = f"{float(cell['gain']):+.1f}{star} over {cell['against']}{tested}"
    taken = (counts, gain, cell["steps"], one.get("rise", ""))
    shown = (cell["row"], one["measured"] + spread, *taken)
    return "| " + " | ".join(shown) + " |\n"


def main() -> None:
    """Fill all pages."""
    for page in sorted(RESULTS.glob("*.md")):
        page.write_text(filled(page.read_text(encoding="utf-8"), RESULTS), encoding="utf-8")


if __name__ == "__main__":
    main()
