"""Shared by all tests: one thread, a project folder to plan in, and a job for the training loop."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from helpers.lab import make_lab
from helpers.project import make_project

os.environ["OMP_NUM_THREADS"] = "1"

# Examples of each property: "ci" always the same ones, "long" new ones with every run. Chosen by
# HYPOTHESIS_PROFILE; the long ones take half an hour on an idle core, a test a quarter of one and
# more: `--timeout 0`.
EXAMPLES = {"ci": 60, "long": 5000}
for name, examples in EXAMPLES.items():
    settings.register_profile(
        name,
        max_examples=examples,
        derandomize=name == "ci",
        deadline=None,  # no test asserts a time
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return make_project(tmp_path)


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab's repository, which tests copy or clone and leave as it is."""
    return make_lab(tmp_path_factory.mktemp("lab"))


@pytest.fixture
def edit():
    """Replace text in a file; fails when the text is not there, so that no test edits nothing."""

    def replace(path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text, f"{path} does not contain {old!r}"
        path.write_text(text.replace(old, new))

    return replace


@pytest.fixture
def one_thread() -> None:
    """PyTorch on one thread, whatever an earlier test asked for."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture
def job(tmp_path: Path):
    """What the training loop needs of a job: streams by role, no progress bar, a scratch folder."""
    from helpers.training import loop_job

    return loop_job(tmp_path)
