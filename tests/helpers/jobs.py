"""Jobs that run outside the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from distillery.store.job import Job


class QuietJob(Job):
    """Shows no progress."""

    def progress(self, work: Any, label: str) -> tqdm:
        return tqdm(total=work, disable=True)


def quiet_job_in(folder: Path, **fields: object) -> Job:
    return QuietJob(**vars(job_in(folder, **fields)))


def job_in(folder: Path, key: str = "key", **fields: object) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job(
        **{"recipe": {}, "inputs": {}, **fields},
        out=folder / "out",
        scratch=folder / "scratch",
        streams=key,
        key=key,
        device=torch.device("cpu"),
    )
