"""What the pages say of the project: links and files exist, the commands of the habits are run."""

import re
from pathlib import Path

import pytest
import yaml

from helpers.project import ROOT

PAGES = sorted(
    path
    for folder in (".", "docs", "docs/results", "workflow/published", "results")
    for path in (ROOT / folder).glob("*.md")
)
PACKAGE = ROOT / "src/distillery"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_of_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)", page.read_text())
    files = [link for link in links if "://" not in link]
    assert [link for link in files if not (page.parent / link).exists()] == []


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.name != "CHANGELOG.md"],  # which names what is gone
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_files_that_pages_name_exist(page):
    names = re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|smk|yaml|md|sh|toml))`", page.read_text())
    known = [name for name in names if not name.startswith(("results/", "data/"))]
    missing = [
        name for name in known if not any((root / name).exists() for root in (ROOT, PACKAGE))
    ]
    assert missing == []


def test_continuous_integration_runs_the_checks_and_the_tests():
    run = (ROOT / ".ci/run").read_text().splitlines()
    assert run[-2:] == ["make check", "make test"]
    page = (ROOT / "README.md").read_text()
    assert "\nmake test " in page


def test_hooks_before_a_commit_need_no_network():
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}
    assert {hook["language"] for hook in hooks} == {"system"}
    tools = {Path(hook["entry"].split()[0]).name for hook in hooks}
    assert tools == {"ruff", "snakefmt", "mypy"}
