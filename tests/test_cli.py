"""The command line: a user's mistakes give one line, exit code 1 and nothing in the store."""

import json
import os
import shlex
import shutil
import subprocess
import sys

import pytest
from PIL import Image

from distillery.cli import main


@pytest.fixture
def own_data(project, edit):
    """The tiny project with a folder of images in place of the digits: its root, that folder."""
    folder = project / "flowers"
    for split, count in (("train", 6), ("test", 2)):
        for name in ("iris", "rose"):
            (folder / split / name).mkdir(parents=True)
            for i in range(count):
                Image.new("L", (8, 8), 20 * i + len(name)).save(folder / split / name / f"{i}.png")
    edit(project / "workflow/scales/tiny.yaml", "ipc: [5]", "ipc: [3]")
    edit(project / "workflow/scales/tiny.yaml", "dataset: [digits]", "dataset: [flowers]")
    edit(project / "params.yaml", "datasets: {}", "datasets: {flowers: {source: 'folder:flowers'}}")
    return project, folder


def fails(capsys, *arguments: str) -> str:
    """Run a command that must fail; its only line on stderr that is no progress bar."""
    assert main(list(arguments)) == 1
    lines = [
        line for line in capsys.readouterr().err.splitlines() if line.startswith("distillery: ")
    ]
    assert len(lines) == 1
    return lines[0]


def leftovers(root) -> list:
    return [
        path
        for path in (root / "results/store").rglob("*")
        if path.is_file() and path.name != ".gitignore" and ".locks" not in path.parts
    ]


def test_a_table_that_does_not_exist(project, capsys):
    message = fails(capsys, "plan", "tabel2", "--root", str(project))
    assert "table 'infer/tabel2' does not exist: did you mean 'infer/table2'?" in message


def test_make_gives_the_bytes_of_jobs_of_their_own(project, capsys):
    assert main(["make", "table2", "--root", str(project)]) == 0
    assert (
        "10 of 10: evaluate/" in capsys.readouterr().err
        and (project / "results/table2.csv").is_file()
    )
    last = max((project / "results/store/evaluate").iterdir())
    before = (last / "student.safetensors").read_bytes()
    shutil.rmtree(last)
    alone = [sys.executable, "-m", "distillery", "evaluate", last.name, "--root", str(project)]
    subprocess.run(
        alone,
        check=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(project / "src")},
    )
    assert (last / "student.safetensors").read_bytes() == before
    assert (
        main(["make", "table2", "--root", str(project)]) == 0
        and "evaluate/" not in capsys.readouterr().err
    )


def test_an_artefact_that_is_not_planned(project, capsys):
    message = fails(capsys, "teacher", "digits-net-c", "--root", str(project))
    assert (
        "teacher 'digits-net-c': 0 planned artefacts of that name: did you mean 'digits-net-"
        in message
    )


def test_a_table_before_its_cells(project, capsys):
    assert "not in the store" in fails(capsys, "table", "table2", "--root", str(project))
    assert "not made yet" in fails(capsys, "show", "table2", "--root", str(project))


def test_a_spec_that_is_no_json(project, capsys):
    assert "--spec: no job specification" in fails(
        capsys, "data", "--spec", "{", "--root", str(project)
    )


def test_an_input_that_is_missing(project, capsys):
    assert "results/store/data/digits-" in fails(
        capsys, "teacher", "digits-net-a", "--root", str(project)
    )
    assert leftovers(project) == []


def test_own_folder_becomes_a_data_set(own_data, capsys):
    root, _ = own_data
    assert main(["data", "flowers", "--root", str(root)]) == 0
    (meta,) = root.glob("results/store/data/*/meta.json")
    capsys.readouterr()
    main(["plan", "table2", "--root", str(root)])
    assert "without an estimate" not in capsys.readouterr().out
    metadata = json.loads(meta.read_text())["metadata"]
    assert (metadata["classes"], metadata["counts"], metadata["shape"]) == (
        ["iris", "rose"],
        {"train": 12, "test": 4},
        [1, 8, 8],
    )


def test_the_same_files_elsewhere_have_the_same_identity(own_data, edit, capsys):
    root, folder = own_data
    main(["plan", "table2", "--root", str(root)])
    before = capsys.readouterr().out
    folder.rename(root / "moved")
    edit(root / "params.yaml", "folder:flowers", "folder:moved")
    main(["plan", "table2", "--root", str(root)])
    assert capsys.readouterr().out == before
    assert "flowers-" in before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("gone")), "no such folder"),
        (
            lambda folder: (folder / "train/iris/0.png").write_bytes(b"\x89PNG broken"),
            "train/iris/0.png: not an image",
        ),
        (
            lambda folder: (folder / "train/rose").rename(folder / "rose"),
            "class 'rose' is not among those of train",
        ),
        (
            lambda folder: Image.new("L", (9, 9)).save(folder / "train/rose/1.png"),
            "is 9x9 pixels, the images before it are 8x8",
        ),
    ],
)
def test_bad_data_is_one_line_and_leaves_nothing(own_data, capsys, damage, message):
    root, folder = own_data
    damage(folder)
    assert message in fails(capsys, "data", "flowers", "--root", str(root))
    assert leftovers(root) == []


def test_data_changed_between_plan_and_job(own_data, capsys):
    root, folder = own_data
    main(["plan", "table2", "--commands", "--root", str(root)])
    command = next(
        line for line in capsys.readouterr().out.splitlines() if "distillery data" in line
    )
    Image.new("L", (8, 8), 9).save(folder / "train/rose/0.png")
    spec = shlex.split(command)[-1]
    assert "content changed since planning" in fails(
        capsys, "data", "--spec", spec, "--root", str(root)
    )
    assert leftovers(root) == []


def test_more_images_per_class_than_there_are(own_data, edit, capsys):
    root, _ = own_data
    edit(root / "workflow/scales/tiny.yaml", "ipc: [3]", "ipc: [7]")
    assert main(["data", "flowers", "--root", str(root)]) == 0
    message = fails(capsys, "distill", "flowers-random-ipc7-d0", "--root", str(root))
    assert "7 images per class asked for, class 'iris' has 6; lower ipc to 6 or less" in message
    assert not list(root.glob("results/store/distill/*/*"))
