"""What a long job keeps in its scratch folder, so that a killed job goes on where it was.

All long loops save their state by time, at a `Pace`: at most a minute of work is lost in each of
the two loops that may be nested. A loop saves its state whole (`Checkpoint`, `folding`), or, where
it makes a list of results, those that are new (`gathered`). The results of a job that was killed
have the bytes of one that was not.

A checkpoint that is anything but usable counts as none: half a file after a power cut, another
file of that name, one of another job, device or form. Nothing untrusted is unpickled.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from torch import Tensor
from torch import load as torch_load
from torch import save as torch_save

from distillery.errors import DistilleryError
from distillery.store.atomic import write_file

if TYPE_CHECKING:
    from distillery.store.job import Job

# Seconds between two saves of a loop, and the share of its time that it may spend on them. Loops
# are nested at most once, so that a job spends a twentieth.
SECONDS, SHARE = 60.0, 1 / 40
AT_END = 1.0  # seconds of work that are worth a save when a loop is over
ENVIRONMENT = "DISTILLERY_CHECKPOINT_SECONDS"  # in place of both; results do not depend on it

P = TypeVar("P")
R = TypeVar("R")
S = TypeVar("S")


class Stateful(Protocol):
    """What a loop changes besides its results: a random stream (torch.Generator), or the like."""

    def get_state(self) -> Tensor:
        """All that the rest of the loop follows from."""
        ...

    def set_state(self, state: Tensor, /) -> object:
        """Take a state of before, which is on the CPU."""
        ...


class Fold(Protocol):
    """What `functools.reduce` does, as far as our loops need it."""

    def __call__(self, function: Callable[[S, P], S], parts: Iterable[P], start: S, /) -> S:
        """Return function(... function(function(start, part 0), part 1) ..., last part)."""
        ...


class Pace:
    """Says when a loop is to save: SECONDS after the last time, where SHARE allows it.

    The share is that of the time since the pace was made, the next save counted as the last. With
    the environment variable the loop saves after so many seconds, whatever that costs.
    """

    def __init__(self) -> None:
        """Start the clock.

        Raises:
            DistilleryError: the environment variable holds no number of seconds.
        """
        stated = os.environ.get(ENVIRONMENT)
        self._whatever = stated is not None  # it costs
        self._seconds = SECONDS if stated is None else _stated(stated)
        self._start = self._last = time.monotonic()
        self._spent = self._cost = 0.0

    def due(self, seconds: float = math.inf) -> bool:
        """Whether to save now, so many seconds after the last time at the latest."""
        now = time.monotonic()
        if now - self._last < min(seconds, self._seconds):
            return False
        return self._whatever or self._spent + self._cost <= SHARE * (now - self._start)

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Measure a save, done in the context."""
        started = time.monotonic()
        yield
        self._last = time.monotonic()
        self._cost = self._last - started
        self._spent += self._cost


def _stated(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise DistilleryError(
            f"{ENVIRONMENT} = '{text}': is no number of seconds; unset it or write one, 0 or more"
        )
    return seconds


class Checkpoint:
    """The state of a loop, in one file of the job's scratch folder; each save replaces the last."""

    def __init__(self, job: Job, name: str, part: object = None, pace: Pace | None = None):
        """Find the checkpoint of a loop.

        Args:
            job: gives the scratch folder; its key and its device are part of the checkpoint.
            name: of the loop within the job.
            part: which of several loops after one another that share the file, a JSON value.
            pace: when to save; a fresh one by default.
        """
        self._job, self._name, self._pace = job, name, pace or Pace()
        self._of = _identity(job, name) | {"part": part}
        self.file = job.scratch / f"{name}.pt"

    def of(self, part: object) -> Checkpoint:
        """That of one of several loops after one another; file and pace are shared."""
        return Checkpoint(self._job, self._name, part, self._pace)

    def load(self) -> dict[str, Any] | None:
        """The state that was last saved for this very loop, its tensors on the CPU; None: none.

        Whether it has the form of a state the caller finds out.
        """
        stored = load_state(self.file)
        if stored is None or stored.pop("of", None) != self._of:
            return None
        return stored

    def offer(self, state: Callable[[], Mapping[str, Any]], seconds: float = math.inf) -> None:
        """Save what `state` returns, if a save is due.

        Args:
            state: returns a nest of mappings, lists, tuples, numbers, text and tensors.
            seconds: after the last save, when it is due at the latest.
        """
        if self._pace.due(seconds):
            with self._pace.saving():
                self.save(state())

    def save(self, state: Mapping[str, Any]) -> None:
        """Save a state now."""
        save_state({**state, "of": self._of}, self.file)

    def remove(self) -> None:
        """Delete the file, where there is one: the loop is over."""
        self.file.unlink(missing_ok=True)


def gathered(
    job: Job,
    name: str,
    parts: Sequence[P],
    function: Callable[[P], R],
    *,
    streams: Sequence[Stateful] = (),
    label: str | None = None,
    within: object = None,
) -> list[R]:
    """`[function(part) for part in parts]`, which goes on where a killed job stopped.

    Each save holds the results since the last one, so that all saves together are as large as the
    results.

    Args:
        job: gives the scratch folder.
        name: of the loop within the job.
        parts: what the results are made of.
        function: from a part to its result, a nest of lists, tuples, numbers, text and tensors on
            the CPU; from part to part it remembers nothing but `streams`.
        streams: the random streams that `function` draws from, and what else it changes.
        label: of a progress bar; None: there is none.
        within: which part of a loop around this one, that keeps what comes of the results; a JSON
            value. The loops of all parts share the files, and save nothing when they are over.
    """
    journal: _Journal[R] = _Journal(job, name, [within, len(parts)], streams)
    left = parts[len(journal.results) :]
    with _progress(job, len(parts), len(journal.results), label) as advance:
        for part in left:
            journal.results.append(function(part))
            journal.offer()
            advance()
    if within is None:
        journal.offer(AT_END)
    return journal.results


class _Journal(Generic[R]):
    """A list of results, and the files that hold it: each is named by the first of its results."""

    def __init__(self, job: Job, name: str, parts: list[Any], streams: Sequence[Stateful]):
        self._folder, self._name, self._streams = job.scratch, name, streams
        self._of, self._pace = _identity(job, name) | {"part": parts}, Pace()
        self._count = parts[-1]
        self.results: list[R] = []
        states = _states(streams)
        self._saved = 0
        while (stored := load_state(self._file())) is not None and self._goes_on(stored):
            self.results += stored["results"]
            self._saved = len(self.results)
            states = stored["streams"]
        _restore(streams, states)

    def _file(self) -> Path:
        """The file of the results that are not saved yet."""
        return self._folder / f"{self._name}-{self._saved}.pt"

    def _goes_on(self, stored: Mapping[str, Any]) -> bool:
        results = stored.get("results")
        return (
            stored.get("of") == self._of
            and isinstance(results, list)
            and 0 < len(results) <= self._count - len(self.results)
            and same_form(stored.get("streams"), _states(self._streams))
        )

    def offer(self, seconds: float = math.inf) -> None:
        """Save the new results, if there are any and a save is due."""
        new = self.results[self._saved :]
        if not new or not self._pace.due(seconds):
            return
        with self._pace.saving():
            state = {"of": self._of, "results": new, "streams": _states(self._streams)}
            save_state(state, self._file())
        self._saved = len(self.results)


def folding(
    job: Job, name: str, *, streams: Sequence[Stateful] = (), label: str | None = None
) -> Fold:
    """A `functools.reduce` that goes on where a killed job stopped.

    Its function gets the start or what it returned before: a tuple of numbers, text, lists and
    tensors, which are on the CPU when the fold goes on. Each save holds it whole.

    Args:
        job: gives the scratch folder.
        name: of the loop within the job.
        streams: the random streams that the function draws from, and what else it changes.
        label: of a progress bar; None: there is none.
    """

    def fold(function: Callable[[S, P], S], parts: Iterable[P], start: S, /) -> S:
        parts, total, done = list(parts), start, 0
        checkpoint = Checkpoint(job, name, len(parts))
        stored = checkpoint.load()
        if stored is not None and _is_fold(stored, len(parts), streams):
            total, done = stored["total"], stored["done"]
            _restore(streams, stored["streams"])

        def state() -> dict[str, Any]:
            return {"total": total, "done": done, "streams": _states(streams)}

        with _progress(job, len(parts), done, label) as advance:
            for part in parts[done:]:
                total, done = function(total, part), done + 1
                checkpoint.offer(state, math.inf if done < len(parts) else AT_END)
                advance()
        return total

    return fold


def _is_fold(stored: Mapping[str, Any], count: int, streams: Sequence[Stateful]) -> bool:
    return (
        stored.keys() == {"total", "done", "streams"}
        and isinstance(stored["total"], tuple)
        and isinstance(stored["done"], int)
        and 0 < stored["done"] <= count
        and same_form(stored["streams"], _states(streams))
    )


@contextmanager
def _progress(job: Job, count: int, done: int, label: str | None) -> Iterator[Callable[[], object]]:
    if label is None:
        yield lambda: None
        return
    with job.progress(count, label) as bar:
        bar.update(done)
        yield bar.update


def _identity(job: Job, name: str) -> dict[str, Any]:
    return {"key": job.key, "loop": name, "device": job.device.type}


def _states(streams: Sequence[Stateful]) -> list[Tensor]:
    return [stream.get_state() for stream in streams]


def _restore(streams: Sequence[Stateful], states: Sequence[Tensor]) -> None:
    for stream, state in zip(streams, states, strict=True):
        stream.set_state(state)


def save_state(state: Mapping[str, Any], file: Path) -> None:
    """Write a nest of mappings, lists, numbers and tensors, so that half of it is never seen."""
    write_file(file, lambda aside: torch_save(_compact(dict(state)), aside))


def _compact(nest: Any) -> Any:
    """A nest whose tensors bring no memory but their own: torch saves what a view is a view of."""
    if isinstance(nest, Tensor):
        own = nest.untyped_storage().nbytes() == nest.nbytes
        return nest.detach() if own else nest.detach().clone()
    if isinstance(nest, Mapping):
        return {key: _compact(value) for key, value in nest.items()}
    if isinstance(nest, list):
        return [_compact(value) for value in nest]
    return tuple(map(_compact, nest)) if isinstance(nest, tuple) else nest


def load_state(file: Path) -> dict[str, Any] | None:
    """What `save_state` wrote, its tensors on the CPU; None where there is nothing readable.

    Whether it is the state of this very job, the caller finds out.
    """
    try:
        state = torch_load(file, map_location="cpu", weights_only=True)
    except Exception:  # whatever is wrong with it, it is no checkpoint
        return None
    return state if isinstance(state, dict) else None


def same_form(found: object, expected: object) -> bool:
    """Whether two nests have the same keys and lengths, and tensors of the same shape and type."""
    if isinstance(expected, Tensor):
        return (
            isinstance(found, Tensor)
            and found.shape == expected.shape
            and found.dtype == expected.dtype
        )
    if isinstance(expected, Mapping):
        return (
            isinstance(found, Mapping)
            and found.keys() == expected.keys()
            and all(same_form(found[key], expected[key]) for key in expected)
        )
    if isinstance(expected, tuple | list):
        return (
            isinstance(found, tuple | list)
            and len(found) == len(expected)
            and all(map(same_form, found, expected))
        )
    return isinstance(found, type(expected))
