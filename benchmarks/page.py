"""Fill the tables of docs/results/benchmarks.md from the result files of the benchmarks.

python benchmarks/page.py

A table stands between the lines `<!-- benchmark-NAME -->` and `<!-- end -->`; its file is
docs/results/data/benchmark-NAME.json, written by the benchmark of that name.
"""

from __future__ import annotations

import json
import re

from records import RESULTS, markdown

PAGE = RESULTS.parent / "benchmarks.md"
TABLE = re.compile(r"(<!-- (benchmark-[\w-]+) -->\n).*?(?=<!-- end -->)", re.DOTALL)


def filled(page: str) -> str:
    """The page with its tables as the result files have them now."""

    def fill(found: re.Match[str]) -> str:
        content = json.loads((RESULTS / f"{found[2]}.json").read_text(encoding="utf-8"))
        return f"{found[1]}\n{markdown(content)}\n\n"

    return TABLE.sub(fill, page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
