"""Random trees of good and bad files end in a data artefact or one line, without a hang."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distillery.data.digest import folder_digest
from distillery.errors import DataError
from helpers.sources import encoded, parquet, picture, rows, run, write

PNG, JPEG = encoded(picture(0)), encoded(picture(0, 16, 16), "JPEG")

Put = Callable[[Path], object]
# What may lie at the place of an image.
FILES: dict[str, Put] = {
    "empty": lambda file: write(file, b""),
    "text": lambda file: write(file, b"<html>404</html>"),
    "truncated": lambda file: write(file, JPEG[:-150]),
    "header": lambda file: write(file, PNG[:20]),
    "larger": lambda file: write(file, picture(3, 9, 8)),
    "grey": lambda file: write(file, picture(3, mode="L")),
    "transparent": lambda file: write(file, picture(3, mode="RGBA")),
    "bomb": lambda file: write(file, PNG[:16] + b"\x00\x01\x00\x00" * 2 + PNG[24:]),
    "folder": lambda file: file.mkdir(),
    "pipe": os.mkfifo,
    "device": lambda file: file.symlink_to("/dev/zero"),
    "nothing": lambda file: file.symlink_to("no such file"),
    "itself": lambda file: file.symlink_to(file.name),
    "folder link": lambda file: file.symlink_to("."),
    "unreadable suffix": lambda file: write(file.with_suffix(".heic"), PNG),
}
GOOD = st.just(None)
SPLITS = st.sampled_from(["train", "test", "val", "valid", "testing"])
CLASSES = st.sampled_from([b"cat", b"dog", b"c\xe9t", b"a b", b".hidden", "\u00e9".encode(), b"\t"])
NAMES = st.sampled_from([b"0.png", b"1.JPG", b"\xff.png", b"line\nfeed.png", b"x.txt", b".y.png"])
CONTENT = st.one_of(GOOD, GOOD, GOOD, st.sampled_from(sorted(FILES)))
TREES = st.dictionaries(st.tuples(SPLITS, CLASSES, NAMES), CONTENT, max_size=8)
WHOLE = st.sampled_from(
    [{}, {(s, c, b"a.png"): None for s in ("train", "test") for c in (b"cat", b"dog")}]
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "size": st.sampled_from([8, 5]),
        "channels": st.sampled_from([1, 3]),
        "orientation": st.sampled_from(["obey", "ignore"]),
        "transparency": st.sampled_from(["black", "drop", "refuse"]),
    },
)


def attempt(source: str, place: Path, **options: object) -> bool:
    """Whether the data stage made an artefact that can be read; otherwise it said why in a line."""
    try:
        made = run(source, digest=folder_digest(place), **options)
    except DataError as error:
        assert "\n" not in str(error) and str(place) in str(error)
        return False
    for split in ("train", "test"):
        images, labels = rows(made, split)
        assert len(images) == made.metadata["counts"][split]
        assert set(labels) == set(range(len(made.metadata["classes"])))
    assert all("\n" not in line for line in made.metadata["warnings"])
    return True


@pytest.fixture(autouse=True)
def _temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@given(WHOLE, TREES, OPTIONS)
def test_random_folders(whole: dict, tree: dict, options: dict) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        for i, ((split, name, file), kind) in enumerate((whole | tree).items()):
            path = Path(os.fsdecode(os.path.join(os.fsencode(root / split), name, file)))
            path.parent.mkdir(parents=True, exist_ok=True)
            FILES[kind](path) if kind else write(path, picture(i))
        made = attempt(f"folder:{root}", root, **options)
        assert made or tree or not whole
    finally:
        shutil.rmtree(root)


LABELS = st.lists(st.integers(-1, 3) | st.none(), max_size=5)
IMAGES = st.sampled_from([PNG, PNG, PNG, b"", JPEG[:-150], b"text", None])
NAMED = st.sampled_from(
    [None, b'["a", "b"]', b'["a"]', b'["a", "a"]', b'["", "b"]', b"[]", b"{", b"\xff", b'{"a": 1}']
)
TABLE_NAMES = st.sampled_from(
    [
        "train.parquet",
        "test.parquet",
        "valid.parquet",
        "train-00000-of-00002.parquet",
        "train-1.parquet",
    ]
)


@given(st.data(), st.dictionaries(TABLE_NAMES, LABELS, max_size=4), NAMED, OPTIONS)
def test_random_tables(
    data: st.DataObject, tables: dict, named: bytes | None, options: dict
) -> None:
    root = Path(tempfile.mkdtemp())
    try:
        for name, labels in tables.items():
            images = [data.draw(IMAGES) for _ in labels]
            parquet(root / name, images, labels)
            if data.draw(st.integers(0, 5)) == 0:
                content = (root / name).read_bytes()
                (root / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
        if named is not None:
            (root / "classes.json").write_bytes(named)
        attempt(f"parquet:{root}", root, **options)
    finally:
        shutil.rmtree(root)
