"""What a learned set keeps on the way: written once, and read again after a kill."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from distillery.methods.shared.snapshots import SNAPSHOTS, Snapshots, read_snapshots
from distillery.store import checkpoint
from distillery.store.checkpoint import Checkpoint
from helpers.jobs import job_in

FORM = {"poster": torch.zeros(3, 50, 40), "soft": torch.zeros(4, 4)}
SIZE = sum(value.nbytes for value in FORM.values())


def state(step: int) -> dict[str, torch.Tensor]:
    return {name: torch.full_like(value, step) for name, value in FORM.items()}


def test_they_are_the_states_after_equal_parts(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    kept = Snapshots(job, 3, 10)
    for step in range(1, 11):
        kept.offer(step, lambda: state(step))  # noqa: B023, it is called at once
    kept.write()
    assert list(read_snapshots(job.out)) == [3, 6, 10]
    assert set(load_file(job.out / SNAPSHOTS)) == {
        f"{step}/{name}" for step in (3, 6, 10) for name in FORM
    }
    assert read_snapshots(job.out)[6]["soft"].equal(state(6)["soft"])
    assert not list(job.scratch.iterdir())  # nobody saved them on the way


def test_one_part_is_the_set_itself_and_no_file(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    kept = Snapshots(job, 1, 10)
    kept.offer(10, lambda: state(10))
    kept.save()
    kept.write()
    assert not list(job.scratch.iterdir()) and not (job.out / SNAPSHOTS).exists()


def test_each_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """40 saves of a loop with 20 snapshots.

    In the file of the loop the states so far were written again with each save: 820 of them, for
    20. A Tiny-ImageNet poster (10 MB, 4600 saves by the minute): 0.6 TB with its three copies in
    the loop's state, 0.14 TB now.
    """
    written, write = [], checkpoint.save_state

    def counted(nest: dict, file: Path) -> None:
        write(nest, file)
        written.append(file.stat().st_size)

    monkeypatch.setattr(checkpoint, "save_state", counted)
    kept = Snapshots(job_in(tmp_path), 20, 40)
    for step in range(1, 41):
        kept.offer(step, lambda: state(step))  # noqa: B023
        kept.save()
    assert len(written) == 20 and 20 * SIZE <= sum(written) < 22 * SIZE
    before = sum(step // 2 for step in range(1, 41)) * SIZE
    assert before == 400 * SIZE > 18 * sum(written)


def test_they_go_on_after_a_kill_if_all_are_there(tmp_path: Path) -> None:
    job = job_in(tmp_path)
    kept = Snapshots(job, 4, 8)
    for step in (2, 4):
        kept.offer(step, lambda: state(step))  # noqa: B023
        kept.save()
    again = Snapshots(job, 4, 8)
    assert again.load(5, FORM)
    for step in (6, 8):
        again.offer(step, lambda: state(step))  # noqa: B023
    again.write()
    assert [s["poster"].max() for s in read_snapshots(job.out).values()] == [2, 4, 6, 8]
    assert not Snapshots(job, 4, 8).load(6, FORM)  # the third was not saved
    assert not Snapshots(job, 4, 8).load(4, FORM | {"more": torch.zeros(1)})
    Checkpoint(job, "snapshot-4").file.write_bytes(b"half")
    assert Snapshots(job, 4, 8).load(3, FORM) and not Snapshots(job, 4, 8).load(4, FORM)
