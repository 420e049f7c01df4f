"""Fill the tables of docs/results/benchmarks.md from the result files of the benchmarks.

python benchmarks/page.py [--check]

A table stands between the lines `<!-- benchmark-NAME -->` and `<!-- end -->`; its file is
docs/results/data/benchmark-NAME.csv, written by the benchmark of that name. With --check nothing is
written, and a page that is not up to date is an error.
"""

from __future__ import annotations

import csv
import re
import sys

from compare import RESULTS, table

PAGE = RESULTS.parent / "benchmarks.md"
TABLE = re.compile(r"(<!-- (benchmark-[\w-]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its tables as the result files have them now."""

    def fill(found: re.Match[str]) -> str:
        with (RESULTS / f"{found[2]}.csv").open(newline="") as file:
            return f"{found[1]}\n{table(list(csv.DictReader(file)))}\n\n"

    return TABLE.sub(fill, page)


if __name__ == "__main__":
    before = PAGE.read_text()
    after = filled(before)
    if "--check" in sys.argv:
        sys.exit(after != before and f"{PAGE.name} is not up to date: python benchmarks/page.py")
    PAGE.write_text(after)
