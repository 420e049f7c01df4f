"""A store that was tampered with never gives a number, and a finished project wants nothing."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

from distillery.cli import main
from distillery.errors import ArtefactError
from distillery.store.artefact import META, open_artefact, read_meta
from distillery.store.spec import Spec
from helpers.commands import run_as_ordinary_user
from helpers.project import make_project


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """The tiny project with its table made."""
    root = make_project(tmp_path_factory.mktemp("built"))
    assert main(["make", "table2", "--root", str(root)]) == 0
    return root


@pytest.fixture
def finished(built, tmp_path) -> Path:
    """A copy of the finished project."""
    root = tmp_path / "copy"
    shutil.copytree(built, root)
    return root


def artefacts(root: Path, stage: str) -> list[Path]:
    return sorted(p.parent for p in (root / "results/store" / stage).glob(f"*/{META}"))


def edited(folder: Path, change) -> None:
    """Change the meta.json of an artefact as an editor would."""
    meta = json.loads((folder / META).read_text())
    (folder / META).write_text(json.dumps(change(meta), indent=1, sort_keys=True) + "\n")


def swapped(first: Path, second: Path) -> None:
    aside = first.with_name("aside")
    first.rename(aside)
    second.rename(first)
    aside.rename(second)


def with_accuracy(value):
    def change(meta):
        meta["metadata"]["accuracy"]["last"] = value
        return meta

    return change


META_CASES = {
    "an accuracy edited": (with_accuracy(99.9), "was changed since it was written"),
    "an accuracy that is no number": (with_accuracy(float("nan")), "holds NaN"),
    "null": (lambda meta: None, "not keys and values"),
    "a number": (lambda meta: 3, "not keys and values"),
    "a list": (lambda meta: [meta], "not keys and values"),
    "a key less": (lambda meta: {k: v for k, v in meta.items() if k != "files"}, "lacks files"),
    "a type": (lambda meta: meta | {"metadata": []}, "metadata = []: is no dict"),
    "files as a list": (lambda meta: meta | {"files": ["a"]}, "files = ['a']: is no dict"),
    "a file of no size": (
        lambda meta: meta | {"files": {"a": {"sha256": ""}}},
        "files.a = {'sha25",
    ),
    "a file that is none": (lambda meta: meta | {"files": {"a": 3}}, "files.a = 3"),
    "no format": (lambda meta: {k: v for k, v in meta.items() if k != "format"}, "lacks format"),
    "an old one": (
        lambda meta: {k: v for k, v in meta.items() if k not in ("format", "checksum")},
        "earlier format",
    ),
    "a newer format": (lambda meta: meta | {"format": 99}, "newer version"),
}


@pytest.mark.parametrize(("change", "words"), META_CASES.values(), ids=META_CASES)
def test_a_changed_meta_json_never_reaches_a_table(change, words, finished, capsys):
    folder = artefacts(finished, "evaluate")[0]
    edited(folder, change)
    (finished / "results/table2.csv").unlink()
    assert main(["make", "table2", "--root", str(finished)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith("distillery: ") and str(folder / META) in message
    assert words in message
    assert not (finished / "results/table2.csv").exists()


@pytest.mark.parametrize("content", ["", "{", "\x00\x00", "[1", '"'], ids=repr)
def test_a_torn_meta_json_is_named(content, finished):
    folder = artefacts(finished, "evaluate")[0]
    (folder / META).write_text(content)
    with pytest.raises(ArtefactError, match=f"{META}: (unreadable|holds)"):
        read_meta(folder)


def test_a_meta_json_that_is_a_folder_is_named(finished):
    folder = artefacts(finished, "evaluate")[0]
    (folder / META).unlink()
    (folder / META).mkdir()
    with pytest.raises(ArtefactError, match="unreadable"):
        read_meta(folder)


@pytest.mark.timeout(60)
def test_a_meta_json_that_is_a_pipe_is_not_waited_for(finished, capsys):
    pipe = artefacts(finished, "evaluate")[0] / META
    pipe.unlink()
    os.mkfifo(pipe)
    with pytest.raises(ArtefactError, match=r"unreadable .*no regular file"):
        read_meta(pipe.parent)
    (finished / "results/table2.csv").unlink()
    assert main(["plan", "table2", "--root", str(finished)]) == 0
    assert main(["make", "table2", "--root", str(finished)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert str(pipe) in said and "no regular file" in said and "delete the folder" in said


@pytest.mark.parametrize("stage", ["distill", "evaluate", "teacher"])
def test_two_artefacts_that_changed_places_are_refused(stage, finished):
    first, second = artefacts(finished, stage)[:2]
    swapped(first, second)
    with pytest.raises(ArtefactError, match="holds another artefact"):
        open_artefact(first)
    with pytest.raises(ArtefactError, match="holds another artefact"):
        read_meta(second)


def test_sets_that_changed_places_are_evaluated_by_no_one(finished, capsys):
    """The evaluations would be stored under the right names with the wrong numbers."""
    swapped(*artefacts(finished, "distill"))
    shutil.rmtree(finished / "results/store/evaluate")
    (finished / "results/table2.csv").unlink()
    assert main(["make", "table2", "--root", str(finished)]) == 1
    assert "holds another artefact" in capsys.readouterr().err
    assert not artefacts(finished, "evaluate")


def test_an_artefact_under_a_name_that_its_recipe_does_not_give(finished):
    """A folder renamed with its meta.json, checksum mended: the spec gives it away."""
    from distillery.store.artefact import meta_writer

    folder = artefacts(finished, "distill")[0]
    other = folder.with_name("digits-forged-000000000000")
    folder.rename(other)
    meta = json.loads((other / META).read_text())
    meta_writer(meta | {"id": other.name})(other / META)
    assert read_meta(other)["id"] == other.name
    with pytest.raises(ArtefactError, match="its spec is that of"):
        open_artefact(other)


def test_a_finished_project_with_a_partial_store_does_nothing(finished, capsys):
    shutil.rmtree(finished / "results/store/evaluate")
    shutil.rmtree(finished / "results/store/distill")
    before = (finished / "results/table2.csv").stat().st_mtime_ns
    assert main(["make", "table2", "--root", str(finished)]) == 0
    assert capsys.readouterr().err == ""
    assert (finished / "results/table2.csv").stat().st_mtime_ns == before


def test_a_finished_project_writes_nothing(finished):
    times = {f: f.stat().st_mtime_ns for f in (finished / "results").rglob("*")}
    assert main(["make", "table2", "--root", str(finished)]) == 0
    assert {f: f.stat().st_mtime_ns for f in (finished / "results").rglob("*")} == times


@pytest.fixture
def read_only():
    """Take the permission to write away from folders and all in them; it is given back at the end.

    That it binds a process of `run_as_ordinary_user` is tried out each time: where it does not, as
    on a file system without modes, the test fails and says so.
    """
    changed: dict[Path, int] = {}

    def take(folder: Path) -> None:
        for path in (folder, *folder.rglob("*")):
            changed.setdefault(path, path.stat().st_mode)
            path.chmod(changed[path] & ~0o222)
        tried = run_as_ordinary_user(folder, "-c", "open('new', 'w')")
        assert "PermissionError" in tried.stderr, f"can be written for all that: {tried.stderr}"

    yield take
    for path, mode in changed.items():
        if path.exists():
            path.chmod(mode)


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights as Linux names them")
@pytest.mark.parametrize("folder", ["results/store", "results"])
def test_a_finished_project_needs_no_permission_to_write(folder, finished, read_only):
    read_only(finished / folder)
    before = files(finished)
    done = run_as_ordinary_user(finished, "-m", "distillery", "make", "table2")
    assert (done.returncode, done.stderr) == (0, "")
    assert files(finished) == before


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights as Linux names them")
def test_what_is_missing_from_a_read_only_store_is_one_line(finished, read_only):
    missing = artefacts(finished, "evaluate")[0]
    shutil.rmtree(missing)
    (finished / "results/table2.csv").unlink()
    read_only(finished / "results/store")
    before = files(finished)
    done = run_as_ordinary_user(finished, "-m", "distillery", "make", "table2")
    (line,) = [text for text in done.stderr.splitlines() if " of " not in text]
    assert done.returncode == 1 and line.startswith("distillery: "), done.stderr
    assert "results/store/" in line and missing.name in line and "permission denied; let" in line
    assert files(finished) == before, "nothing is half-written"


@pytest.mark.skipif(sys.platform != "linux", reason="gives up root's rights as Linux names them")
def test_snakemake_says_in_one_line_that_it_cannot_write(finished, read_only):
    (finished / "results/table2.csv").unlink()
    read_only(finished / "results")
    done = run_as_ordinary_user(finished, "-m", "snakemake", "--cores", "1", "results/table2.csv")
    said = done.stderr.splitlines()
    assert done.returncode == 1 and "Traceback (most recent call last)" not in said, done.stderr
    (line,) = [line for line in said if "ermission denied" in line]
    assert "results/" in line and "let" in line


def test_make_finishes_the_first_table_before_it_starts_the_second(project, edit, capsys):
    tables = project / "workflow/tables/infer"
    (tables / "table9.yaml").write_text((tables / "table2.yaml").read_text())
    other = "tables:\n  infer/table9: {dataset: [digits], student: [net-b], ipc: [5]}\n"
    edit(project / "workflow/scales/tiny.yaml", "tables:\n", other)
    assert main(["make", "table2", "table9", "--root", str(project)]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if " of " in line]
    names = [line.partition(":")[0] for line in lines]
    assert names == sorted(names) and set(names) == {"table2", "table9"}
    first, second = (project / f"results/{name}.csv" for name in ("table2", "table9"))
    jobs = (project / "results/store/evaluate").glob("*net-b*/meta.json")
    assert first.stat().st_mtime_ns < min(job.stat().st_mtime_ns for job in jobs)
    assert second.is_file()


def test_a_wrong_table_behind_a_right_one_is_said_before_any_job(project, capsys):
    assert main(["make", "table2", "infer/tabel3", "--root", str(project)]) == 1
    assert "did you mean" in capsys.readouterr().err.splitlines()[-1]
    assert not list((project / "results/store").glob("*/*/meta.json"))


SPEC = Spec(
    "data", "digits", {"source": "sklearn:digits"}, {}, ["distillery.stages.data"], "0" * 12
)
BAD_SPECS = {
    "no JSON": ("{", "no job specification"),
    "a list": ("[]", "no job specification"),
    "an unknown stage": ({"stage": "daat"}, "did you mean 'data'"),
    "a stage that is a path": ({"stage": "../data"}, "stage = '../data'"),
    "a label that leaves the store": ({"label": "../../../x"}, "label = '../../../x'"),
    "a hidden label": ({"label": ".x"}, "label = '.x'"),
    "an empty label": ({"label": ""}, "label = ''"),
    "a label of another type": ({"label": 3}, "label = 3"),
    "a recipe that is a list": ({"recipe": []}, "recipe = []: is no dict"),
    "a number that is none": ('{"recipe": {"lr": NaN}}', "holds NaN"),
    "inputs that leave the store": ({"inputs": {"data": "../data/x"}}, "inputs.data = '../data/x'"),
    "inputs without a stage": ({"inputs": {"data": "x"}}, "inputs.data = 'x'"),
    "inputs in a list": ({"inputs": {"teachers": ["teacher/../x"]}}, "inputs.teachers"),
    "inputs of another type": ({"inputs": {"data": 3}}, "inputs.data = 3"),
    "foreign modules": ({"roots": ["os"]}, "'os' is no module of this package"),
    "code of another type": ({"code": None}, "code = None: is no str"),
    "an environment": ({"environment": True}, "environment = True"),
    "an unknown key": ({"colour": 1}, "no job specification"),
}


@pytest.mark.parametrize(("change", "words"), BAD_SPECS.values(), ids=BAD_SPECS)
def test_a_wrong_spec_is_one_line_and_writes_nothing(change, words, tmp_path, capsys):
    if isinstance(change, dict):
        change = json.dumps(json.loads(SPEC.dumps()) | change)
    (tmp_path / "results").mkdir()
    assert main(["data", "--spec", change, "--root", str(tmp_path)]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1 and words in message
    assert not [f for f in tmp_path.rglob("*") if f.is_file()]


def test_a_spec_of_another_stage(tmp_path, capsys):
    assert main(["evaluate", "--spec", SPEC.dumps(), "--root", str(tmp_path)]) == 1
    assert "is a job of stage data" in capsys.readouterr().err


def test_a_store_that_cannot_be_written_keeps_the_finished_work(project, capsys, monkeypatch):
    """As on a disk that went read-only meanwhile: nothing is lost, and the next run goes on."""
    link = os.link

    def refuse(source, target, **options):
        if "/store/" in str(target):
            raise PermissionError(13, "Permission denied", str(target))
        return link(source, target, **options)

    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", refuse)
    assert main(["make", "table2", "--root", str(project)]) == 1
    message = capsys.readouterr().err.splitlines()[-1]
    assert "Permission denied" in message and "waits in" in message
    waiting = list((project / "results/scratch").rglob(f"out/{META}"))
    assert len(waiting) == 1
    monkeypatch.undo()
    made = waiting[0].stat().st_mtime_ns
    assert main(["make", "table2", "--root", str(project)]) == 0
    moved = (
        project
        / "results/store"
        / waiting[0].parent.parent.relative_to(project / "results/scratch")
    )
    assert (moved / META).stat().st_mtime_ns == made, "it was moved, not made again"
