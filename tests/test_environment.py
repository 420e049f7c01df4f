"""pyproject.toml, requirements.lock and environment.yml say the same; the package stands alone."""

import os
import re
import subprocess
import sys
import tomllib
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers.project import ROOT

LOCK = (ROOT / "requirements.lock").read_text()
PINS = {
    canonicalize_name(name): version
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, re.M)
}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def required() -> list[Requirement]:
    extras = PROJECT["optional-dependencies"]
    names = [*PROJECT["dependencies"], *extras["workflow"], *extras["networks"], *extras["dev"]]
    return [r for r in map(Requirement, names) if r.name != "distillery"]


def test_lock_pins_every_requirement_within_its_range():
    for requirement in required():
        assert requirement.specifier.contains(PINS[canonicalize_name(requirement.name)]), (
            requirement
        )


def test_lock_has_hashes_and_no_addresses():
    assert "://" not in LOCK
    assert "--index" not in LOCK and "--find-links" not in LOCK
    entries = re.split(r"^(?=[A-Za-z0-9._-]+==)", LOCK, flags=re.M)[1:]
    assert entries and all("--hash=sha256:" in entry for entry in entries)


def test_lock_holds_torch_and_the_torchvision_made_for_it():
    torch = Version(PINS["torch"])
    # 2.11 goes with 0.26, 2.15 with 0.29 or 0.30: torchvision's own requirement, checked on what is
    # installed.
    needs = next(Requirement(r) for r in metadata.requires("torchvision") if r.startswith("torch"))
    assert torch >= Version("2.11")
    assert metadata.version("torchvision") != PINS["torchvision"] or needs.specifier.contains(torch)


def test_environment_yml_uses_the_same_lock_and_python():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python = next(
        d for d in environment["dependencies"] if isinstance(d, str) and d.startswith("python")
    )
    pip = next(d for d in environment["dependencies"] if isinstance(d, dict))["pip"]
    assert pip == ["-r requirements.lock"]
    assert python == "python=3.11"
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains("3.11")


def test_src_imports_no_engine_and_jobs_no_planner_libraries():
    for file in (ROOT / "src").rglob("*.py"):
        engines = "snakemake|dvc" + ("" if "plan" in file.parts else "|pydantic|yaml")
        assert not re.search(rf"^\s*(import|from) ({engines})\b", file.read_text(), re.M), file


BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'{{name}} is not installed here')
sys.meta_path.insert(0, Blocked())
"""


@pytest.mark.parametrize("blocked", [{"snakemake", "dvc"}])
def test_one_cell_runs_without_the_engines(project, tmp_path, blocked):
    """Each stage from its own command line; jobs do without pydantic and PyYAML too."""
    for name, hidden in (("plan", blocked), ("job", blocked | {"pydantic", "yaml"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(BLOCK.format(blocked=hidden))

    def run(kind: str, command: str) -> str:
        env = os.environ | {
            "PYTHONPATH": f"{tmp_path / kind}:{project / 'src'}",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }
        done = subprocess.run(
            command, shell=True, cwd=project, capture_output=True, text=True, env=env
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    (project / "params.yaml").write_text(
        (project / "params.yaml").read_text().replace("students: 2", "students: 1")
    )
    commands = run("plan", "python -m distillery plan table2 --commands").splitlines()
    assert commands[0] == "set -e"
    stages = Counter(command.split()[3] for command in commands[1:])
    assert stages == {"data": 1, "teacher": 2, "distill": 2, "label": 1, "evaluate": 2, "table": 1}
    for command in commands[1:-1]:
        run("job", command)
    run("plan", commands[-1])
    assert (project / "results/table2.csv").is_file()
    assert "INFER" in run("plan", "python -m distillery show table2")
