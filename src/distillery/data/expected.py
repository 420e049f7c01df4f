"""What a scale says of a data set, against what the data are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def contradiction(expected: Mapping[str, Any], found: Mapping[str, Any]) -> str | None:
    """What a scale says of a data set against what the data are.

    Args:
        expected: by name (classes, train, test, shape), the value and where it is written.
        found: what is known of the data, by the same names.

    Returns:
        One line of the first difference; None where there is none.
    """
    for name, value in found.items():
        stated, where = expected.get(name, (value, ""))
        if stated != value:
            return f"{where} = {stated}: the data has {value}; correct the one that is wrong"
    return None
