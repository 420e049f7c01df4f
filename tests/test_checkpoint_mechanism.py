"""A loop that is killed at any step ends as if it had not been: the mechanism of checkpoints."""

from __future__ import annotations

from dataclasses import replace
from functools import partial, reduce
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Generator, Tensor

from distillery.errors import DistilleryError
from distillery.store import checkpoint
from distillery.store.checkpoint import Checkpoint, Pace, folding, gathered, load_state, save_state
from helpers.jobs import job_in
from helpers.kills import Killed, saving


def draws(stream: Generator, die: list[int], part: int) -> list[object]:
    """A result that follows from all that was drawn before; the process dies at some parts."""
    if die and part == die[0]:
        die.pop(0)
        raise Killed
    return [
        part,
        torch.rand(3, generator=stream),
        {"text": float(torch.rand((), generator=stream))},
    ]


@settings(max_examples=60, deadline=None)
@given(
    parts=st.integers(1, 12),
    die=st.lists(st.integers(0, 11), max_size=5),
    due=st.integers(0, 2**32),
    fold=st.booleans(),
)
def test_a_loop_that_dies_at_any_step_ends_as_if_it_had_not(
    parts, die, due, fold, tmp_path_factory
):
    folder, chance, remaining = tmp_path_factory.mktemp("loop"), Random(due), list(die)

    def loop(die: list[int], resumable: bool) -> list:
        job, stream = job_in(folder), Generator().manual_seed(7)
        if not fold:
            if not resumable:
                return [draws(stream, die, part) for part in range(parts)]
            return gathered(
                job, "loop", range(parts), partial(draws, stream, die), streams=[stream]
            )

        def add(total: tuple[Tensor, int], part: int) -> tuple[Tensor, int]:
            _, drawn, _ = draws(stream, die, part)
            return total[0] * 0.7 + drawn, total[1] + part

        each = folding(job, "loop", streams=[stream]) if resumable else reduce
        return list(each(add, range(parts), (torch.zeros(3), 0)))

    expected = loop([], resumable=False)
    for _ in range(len(die) + 1):
        with saving(due=chance):
            try:
                found = loop(remaining, resumable=True)
                break
            except Killed:
                continue
    assert str(found) == str(expected) and len(found) == len(expected)


def test_a_save_holds_what_is_new_alone(tmp_path):
    """Results of a list are written once: the sum of the files does not grow with their number."""
    with saving() as saves:
        gathered(job_in(tmp_path), "list", range(5), lambda part: torch.full((1000,), float(part)))
    assert saves == [f"list-{n}.pt" for n in range(5)]
    sizes = [file.stat().st_size for file in (tmp_path / "scratch").iterdir()]
    assert len(sizes) == 5 and max(sizes) < 4000 + 2500


def test_a_view_is_saved_without_what_it_is_a_view_of(tmp_path):
    whole = torch.arange(100_000.0)
    save_state({"view": whole[7:9], "nest": [(whole[:2],)]}, tmp_path / "state.pt")
    assert (tmp_path / "state.pt").stat().st_size < 4000
    assert load_state(tmp_path / "state.pt")["view"].tolist() == [7, 8]


OTHERS = {
    "half a file": lambda state: b"PK\x03\x04half",
    "nothing": lambda state: b"",
    "a list": lambda state: [state],
    "nothing in it": lambda state: {},
    "of another device": lambda state: state | {"of": state["of"] | {"device": "cuda"}},
    "of another job": lambda state: state | {"of": state["of"] | {"key": "other"}},
    "of another loop": lambda state: state | {"of": state["of"] | {"loop": "other"}},
    "of a longer loop": lambda state: state | {"of": state["of"] | {"part": [None, 9]}},
    "of another part": lambda state: state | {"of": state["of"] | {"part": [1, 4]}},
    "without streams": lambda state: state | {"streams": []},
    "with short streams": lambda state: state | {"streams": [torch.zeros(3, dtype=torch.uint8)]},
}


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("fold", [False, True])
def test_what_is_no_checkpoint_of_this_loop_counts_as_none(fold, other, tmp_path):
    def loop(made: list[int]) -> list:
        job, stream = job_in(tmp_path), Generator().manual_seed(7)

        def make(part: int) -> Tensor:
            made.append(part)
            return torch.rand(2, generator=stream)

        if not fold:
            return gathered(job, "loop", range(4), make, streams=[stream])
        each = folding(job, "loop", streams=[stream])
        return list(each(lambda total, part: (total[0] + make(part),), range(4), (torch.zeros(2),)))

    file = tmp_path / "scratch" / ("loop.pt" if fold else "loop-0.pt")
    with saving():
        expected = loop([])
    read = load_state(file)
    loop(first := [])
    assert first == [], "it is used where it is one"
    content = OTHERS[other](read)
    if isinstance(content, bytes):
        file.write_bytes(content)
    else:
        torch.save(content, file)
    again = loop(made := [])
    assert made[:1] == [0] and str(again) == str(expected)


@pytest.mark.parametrize(
    "change",
    [
        {"results": []},
        {"results": None},
        {"results": [1.0] * 5},
        {"total": None, "results": "text"},
        {"total": [1], "results": {}},
        {"done": 5, "results": [1.0] * 5},
        {"done": 0, "results": []},
        {"done": "1", "results": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("fold", [False, True])
def test_results_that_are_none_are_made_again(fold, change, tmp_path):
    def loop(made: list[int]) -> object:
        if not fold:
            return gathered(job_in(tmp_path), "loop", range(4), lambda p: made.append(p) or 1.0)
        each = folding(job_in(tmp_path), "loop")
        return each(lambda total, p: made.append(p) or (total[0] + 1.0,), range(4), (0.0,))

    with saving():
        expected = loop([])
    name = "loop.pt" if fold else "loop-0.pt"
    state = load_state(tmp_path / "scratch" / name)
    change = {key: value for key, value in change.items() if key in state}
    if change:
        torch.save(state | change, tmp_path / "scratch" / name)
        assert loop(made := []) == expected
        assert made[:1] == [0]


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    monkeypatch.delenv(checkpoint.ENVIRONMENT, raising=False)
    clock = Clock()
    monkeypatch.setattr(checkpoint, "time", clock)
    return clock


def loop_of(clock: Clock, pace: Pace, steps: int, step: float, save: float) -> list[float]:
    """When a loop saves whose steps and saves take so many seconds."""
    saves = []
    for _ in range(steps):
        clock.now += step
        if pace.due():
            with pace.saving():
                saves.append(clock.now)
                clock.now += save
    return saves


def test_a_cheap_save_comes_every_minute(clock):
    assert loop_of(clock, Pace(), 300, 1.0, 0.0) == [60.0, 120.0, 180.0, 240.0, 300.0]
    start = clock.now
    saves = loop_of(clock, Pace(), 3, 100.0, 1.0)
    assert [now - start for now in saves] == [100.0, 201.0, 302.0]


def test_a_dear_save_takes_its_share_of_the_time_and_no_more(clock):
    """At 30 s a save, a fortieth of the time allows one in 20 minutes, the first one apart."""
    saves = loop_of(clock, Pace(), 7200, 1.0, 30.0)
    assert saves[0] == 60
    assert all(30 * (count + 1) <= now / 40 for count, now in enumerate(saves) if count)
    assert len(saves) == int(7200 / 40 / 30), "the share is used"


def test_a_loop_that_ends_saves_what_took_a_second(clock, tmp_path, monkeypatch):
    def part(seconds: float) -> float:
        clock.now += seconds
        return seconds

    for seconds, saved in ((0.3, 0), (0.6, 1), (70.0, 2)):
        folder = tmp_path / str(seconds)
        gathered(job_in(folder), "list", [seconds] * 2, part)
        assert len(list((folder / "scratch").iterdir())) == saved
        folding(job_in(folder), "fold")(lambda total, s: (part(s),), [seconds] * 2, (0.0,))
        assert (folder / "scratch/fold.pt").is_file() == bool(saved)


def test_the_loops_within_a_loop_share_their_files(tmp_path):
    def row(x: int) -> list[int]:
        return gathered(job_in(tmp_path), "row", range(4 - x), lambda y: 10 * x + y, within=x)

    with saving() as saves:
        found = gathered(job_in(tmp_path), "rows", range(3), row)
    assert found == [[0, 1, 2, 3], [10, 11, 12], [20, 21]] and len(saves) == 9 + 3
    with saving() as again:
        assert row(2) == [20, 21] and not again
        assert row(1) == [10, 11, 12] and len(again) == 3


@pytest.mark.parametrize(("text", "seconds"), [("0", 0.0), ("2.5", 2.5), ("1e3", 1000.0)])
def test_the_environment_sets_the_seconds_whatever_a_save_costs(text, seconds, clock, monkeypatch):
    monkeypatch.setenv(checkpoint.ENVIRONMENT, text)
    pace = Pace()
    for _ in range(3):
        assert not pace.due() or not seconds
        clock.now += seconds
        assert pace.due()
        with pace.saving():
            clock.now += 1e6


@pytest.mark.parametrize("text", ["", "soon", "-1", "nan"])
def test_seconds_that_are_no_number_are_an_error(text, monkeypatch):
    monkeypatch.setenv(checkpoint.ENVIRONMENT, text)
    with pytest.raises(
        DistilleryError, match=rf"{checkpoint.ENVIRONMENT} = '{text}': is no number"
    ):
        Pace()


def test_loops_that_share_a_file_do_not_read_each_others_state(tmp_path):
    whole = Checkpoint(job_in(tmp_path), "steps")
    with saving():
        whole = Checkpoint(job_in(tmp_path), "steps")
        whole.of(3).offer(lambda: {"steps": 5})
    assert whole.of(3).load() == {"steps": 5}
    assert whole.of(4).load() is None and whole.load() is None
    whole.remove()
    whole.remove()
    assert whole.of(3).load() is None


def test_the_state_of_another_kind_of_device_counts_as_none(tmp_path):
    """Its random states are of another kind, and what two devices made neither makes again."""
    job = job_in(tmp_path)
    with saving():
        Checkpoint(job, "steps").offer(lambda: {"steps": 5})
    assert Checkpoint(job, "steps").load() == {"steps": 5}
    assert Checkpoint(replace(job, device=torch.device("cuda")), "steps").load() is None
