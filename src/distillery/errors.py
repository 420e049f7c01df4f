"""The errors that a user can cause: each is one line that says what, where, and what to do."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable

LONGEST = 1000  # letters of a word; no path or name that someone means is longer


class DistilleryError(Exception):
    """An error with a one-line message, which the command line prints without a traceback.

    Of a word of thousands of letters, which a slip can put into any file, its two ends are told.
    """

    def __init__(self, message: str):
        printable = "".join(
            c if c.isprintable() or c.isspace() else ascii(c)[1:-1] for c in str(message)
        )
        super().__init__(" ".join(map(_ends, printable.split())))


def _ends(word: str) -> str:
    return word if len(word) <= LONGEST else f"{word[:200]}...{word[-50:]}"


class PlanError(DistilleryError):
    """params.yaml, a scale or a table file asks for what does not exist or is impossible."""


class DataError(DistilleryError):
    """A data source is missing, empty, unreadable or inconsistent."""


class ArtefactError(DistilleryError):
    """A stored artefact is missing, truncated, changed, or not the one that was planned."""


class ClassOrderError(DistilleryError):
    """Two things that must know the same classes in the same order do not."""


class SetError(DistilleryError):
    """A distilled set is not what its method, its budget or the data promise."""


class TeacherError(DistilleryError):
    """A teacher cannot be used: it does not know the data it is asked to label."""


class BudgetError(DistilleryError):
    """The budget (ipc) is zero, larger than a class has images, or too small for the method."""


class _Short(reprlib.Repr):
    """Enough of a value to find it in a file again."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxlist, self.maxtuple = 3, 4, 8, 8
        self.maxstring, self.maxother, self.maxlong = 80, 80, 30

    def repr_int(self, x: int, level: int) -> str:
        try:
            return super().repr_int(x, level)
        except ValueError:  # Python writes out no more than 4300 digits
            return f"a number of {x.bit_length()} bits"


def shown(value: object) -> str:
    """A value as a message shows it: like `repr`, the middle of a long one left out."""
    text = _Short().repr(value)
    return text if len(text) <= 300 else f"{text[:200]} ... {text[-50:]}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A hint for a wrong name: the nearest valid one, then all of them, or the first 25.

    Args:
        name: the wrong name.
        valid: all names that exist.

    Returns:
        A phrase such as ``did you mean 'infer'? (valid: infer, random)``.
    """
    names = sorted(set(map(str, valid)))
    close = difflib.get_close_matches(str(name)[:200], names, n=1, cutoff=0.5)
    hint = f"did you mean '{close[0]}'? " if close else ""
    listed = ", ".join(names) if len(names) <= 25 else f"{', '.join(names[:25])}, ..."
    return f"{hint}(valid: {listed or 'none'})"
