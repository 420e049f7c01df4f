"""What a user should know of a data set: equal images, orientation, transparency, and its size."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from distillery.data.digest import folder_digest
from distillery.errors import DataError, PlanError
from distillery.plan.plan import Plan
from distillery.plan.settings import merge
from distillery.store.job import run as run_job
from helpers.planning import planned
from helpers.sources import arrays, encoded, folders, parquets, picture, rows, run, write


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def turned(seed: int, orientation: int = 6) -> bytes:
    """A picture whose EXIF tag says that it is to be turned."""
    tags, file = Image.Exif(), io.BytesIO()
    tags[0x0112] = orientation
    picture(seed).save(file, "PNG", exif=tags)
    return file.getvalue()


def test_a_plain_set_has_no_warnings(tmp_path: Path) -> None:
    assert run(f"folder:{folders(tmp_path / 'set')}").metadata["warnings"] == []


def test_equal_images_are_counted_and_the_first_pair_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = folders(tmp_path / "set")
    shutil.copy(root / "train/cat/1.png", root / "test/cat/8.png")
    # Equal pixels in other bytes, and as another class.
    write(root / "test/dog/8.bmp", encoded(picture(100), "BMP"))
    write(root / "test/cat/9.bmp", encoded(picture(100), "BMP"))
    found = run(f"folder:{root}").metadata["warnings"]
    assert found == [
        "test: 3 of 9 images are in train too, 1 of them as another class "
        "(first: test/cat/8.png is train/cat/1.png); accuracies count them as test images"
    ]
    logged = capsys.readouterr().err
    assert f"warning: folder:{root}: test: 3 of 9 images" in logged and "\n" not in logged[:-1]


def test_equal_rows_of_tables_are_named(tmp_path: Path) -> None:
    root = parquets(tmp_path / "set", test=(0, 0, 1, 1))
    shutil.copy(root / "train.parquet", root / "test.parquet")
    (line,) = run(f"parquet:{root}").metadata["warnings"]
    assert "test: 4 of 4 images" in line and "test.parquet row 0 is train.parquet row 0" in line


@pytest.mark.parametrize("orientation", [2, 3, 4, 5, 6, 7, 8])
def test_orientation_is_warned_of_obeyed_or_ignored(tmp_path: Path, orientation: int) -> None:
    root = folders(tmp_path / "set")
    content = turned(7, orientation)
    write(root / "train/cat/0.png", content)
    plain = run(f"folder:{root}")
    (line,) = plain.metadata["warnings"]
    assert line.startswith("train: 1 images have an EXIF orientation, which is not obeyed; set")
    assert line.endswith("(first: train/cat/0.png)")
    assert rows(plain, "train")[0][0] == content
    ignored = run(f"folder:{root}", orientation="ignore")
    assert ignored.metadata["warnings"] == [] and rows(ignored, "train") == rows(plain, "train")
    obeyed = run(f"folder:{root}", orientation="obey")
    assert obeyed.metadata["warnings"] == []
    pixels = np.asarray(picture(7))
    by_tag = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.transpose(1, 0, 2),
        6: pixels.transpose(1, 0, 2)[:, ::-1],
        7: pixels.transpose(1, 0, 2)[::-1, ::-1],
        8: pixels.transpose(1, 0, 2)[::-1],
    }
    assert (arrays(obeyed, "train")[0] == by_tag[orientation]).all()
    assert rows(obeyed, "train")[0][1:] == rows(plain, "train")[0][1:]


def test_upright_or_senseless_tags_are_nothing(tmp_path: Path) -> None:
    root = folders(tmp_path / "set")
    for i, tag in enumerate((1, 0, 9)):
        write(root / f"train/cat/{i}.png", turned(i, tag))
    assert run(f"folder:{root}").metadata["warnings"] == []


def test_transparency_is_warned_of_flattened_dropped_or_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "set")
    pixels = np.asarray(picture(7, mode="RGBA")).copy()
    pixels[..., 3] = 255
    pixels[2, 3, 3], pixels[5, 5, 3] = 0, 51
    write(root / "train/cat/0.png", Image.fromarray(pixels))
    plain = run(f"folder:{root}")
    (line,) = plain.metadata["warnings"]
    assert line.startswith("train: 1 images are partly transparent, and the colours stored behind")
    assert (arrays(plain, "train")[0] == pixels[..., :3]).all()
    dropped = run(f"folder:{root}", transparency="drop")
    assert dropped.metadata["warnings"] == [] and rows(dropped, "train") == rows(plain, "train")
    for colour, level in (("white", 255), ("black", 0)):
        shown = arrays(run(f"folder:{root}", transparency=colour), "train")[0]
        expected = pixels[..., :3].astype(float)
        expected[2, 3] = level
        expected[5, 5] = 0.2 * expected[5, 5] + 0.8 * level
        assert np.abs(shown - expected).max() <= 1
    with pytest.raises(DataError, match=r"cat/0\.png: is partly transparent; replace it, or set"):
        run(f"folder:{root}", transparency="refuse")


def test_an_opaque_alpha_channel_is_nothing(tmp_path: Path) -> None:
    root = folders(tmp_path / "set")
    pixels = np.asarray(picture(7, mode="RGBA")).copy()
    pixels[..., 3] = 255
    write(root / "train/cat/0.png", Image.fromarray(pixels))
    assert run(f"folder:{root}", transparency="refuse").metadata["warnings"] == []


def test_transparent_grey_images_stay_grey(tmp_path: Path) -> None:
    root = folders(tmp_path / "set", mode="L")
    grey, alpha = Image.new("L", (8, 8), 10), Image.new("L", (8, 8), 0)
    write(root / "train/cat/0.png", Image.merge("LA", (grey, alpha)))
    made = run(f"folder:{root}", transparency="white")
    assert made.metadata["shape"] == [1, 8, 8] and (arrays(made, "train")[0] == 255).all()


def test_several_frames_are_warned_of(tmp_path: Path) -> None:
    root, file = folders(tmp_path / "set"), io.BytesIO()
    picture(501).save(file, "PNG", save_all=True, append_images=[picture(502)])
    write(root / "test/dog/9.png", file.getvalue())
    (line,) = run(f"folder:{root}").metadata["warnings"]
    assert line.startswith("test: 1 images have several frames, of which the first is taken")


EXPECTED = {"classes": 2, "train": 6, "test": 6, "shape": [3, 8, 8]}


@pytest.mark.parametrize(
    ("changed", "found"),
    [({"classes": 3}, 2), ({"train": 7}, 6), ({"test": 5}, 6), ({"shape": [1, 8, 8]}, [3, 8, 8])],
)
def test_the_job_holds_the_scale_against_the_data(
    tmp_path: Path, changed: dict, found: object
) -> None:
    stated = {name: [value, f"a.yaml.expected.{name}"] for name, value in EXPECTED.items()}
    ((name, value),) = changed.items()
    source = f"folder:{folders(tmp_path / 'set')}"
    assert run(source, expected=stated).metadata["shape"] == [3, 8, 8]
    with pytest.raises(DataError) as caught:
        run(source, expected=stated | {name: [value, f"a.yaml.expected.{name}"]})
    message = f"a.yaml.expected.{name} = {value}: the data has {found}; correct the one that is"
    assert str(caught.value).startswith(message)


def test_planning_holds_the_scale_against_finished_data(project: Path) -> None:
    data = planned(project).missing(["table2"])[0]
    assert data.spec.stage == "data"
    run_job(data.spec, project / "results/store")
    assert planned(project).missing(["table2"])
    scale = project / "workflow/scales/tiny.yaml"
    scale.write_text(scale.read_text().replace("train: 1437", "train: 1438"))
    with pytest.raises(PlanError, match=r"tiny\.yaml\..*train = 1438: the data has 1437; correct"):
        planned(project).missing(["table2"])


def test_what_a_scale_expects_is_no_part_of_the_identity(project: Path) -> None:
    before = planned(project).missing(["table2"])[0].spec
    scale = project / "workflow/scales/tiny.yaml"
    scale.write_text(scale.read_text().replace("train: 1437", "train: 1438"))
    after = planned(project).missing(["table2"])[0].spec
    assert before.id == after.id and before.local != after.local


def test_new_options_change_the_identity_only_where_they_are_stated(project: Path) -> None:
    def data(**fields: str) -> tuple[str, dict]:
        plan: Plan = planned(project, datasets={"digits": fields})
        node = plan.missing(["table2"])[0]
        return node.key, node.spec.recipe

    plain, turned, flat = data(), data(orientation="obey"), data(transparency="white")
    assert not {"orientation", "transparency"} & plain[1].keys()
    assert turned[1] == merge(plain[1], {"orientation": "obey"})
    assert len({plain[0], turned[0], flat[0]}) == 3
    with pytest.raises(PlanError, match="orientation = 'turn'"):
        data(orientation="turn")


def test_digests_do_not_open_what_is_no_file(tmp_path: Path) -> None:
    root = folders(tmp_path / "set")
    (tmp_path / "set.dvc").write_bytes(b"outs:\n- md5: \xff\n")
    assert run(f"folder:{root}", digest=folder_digest(root)).metadata["counts"]["train"] == 6
