"""Jobs that run outside the store."""

from __future__ import annotations

from pathlib import Path

import torch

from distillery.store.job import Job


def job_in(folder: Path, key: str = "key", **fields: object) -> Job:
    for name in ("out", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Job(
        **{"recipe": {}, "inputs": {}, **fields},
        out=folder / "out",
        scratch=folder / "scratch",
        key=key,
        device=torch.device("cpu"),
    )
