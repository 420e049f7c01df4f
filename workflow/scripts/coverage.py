"""Write which printed cells can be measured: coverage.md and .csv of docs/results."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "src"))

OUT = ROOT / "docs/results"
HEAD = """# Printed cells that can be measured

Written by `python workflow/scripts/coverage.py` from the plan of the scale `paper`; do not edit.
coverage.csv has one line for each printed cell of workflow/published. "Comparable" says that the
planned data, network, protocol and recipe are those of the scale `paper`; what differs from a paper
even there is in docs/protocols.md.

"""


def main() -> None:
    """Write both files."""
    from distillery.plan.coverage import coverage, coverage_csv, summary
    from distillery.store.atomic import write_text

    cells = coverage(ROOT)
    write_text(OUT / "coverage.csv", coverage_csv(cells))
    write_text(OUT / "coverage.md", HEAD + summary(cells))


if __name__ == "__main__":
    main()
