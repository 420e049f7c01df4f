"""A remote that is damaged, incomplete, empty or out of reach: said, and nothing stale is used."""

import hashlib
import http.server
import json
import shutil
import threading
from pathlib import Path

import pytest

from helpers.lab import artefacts, attempt, clone_of, run, script

EDIT = ("evaluate: {}", "evaluate: {static: {training: {epochs: 4}}}")


def object_of(store: Path, file: Path) -> Path:
    """Where a cache or a remote keeps the content of a file."""
    md5 = hashlib.md5(file.read_bytes()).hexdigest()
    return store / "files/md5" / md5[:2] / md5[2:]


def damage(file: Path) -> None:
    """Flip a bit in the middle; size and permissions stay."""
    mode, content = file.stat().st_mode, bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(content)
    file.chmod(mode)


def stored(project: Path, stage: str, start: str, name: str) -> Path:
    (found,) = project.glob(f"results/store/{stage}/{start}*/{name}")
    return found


@pytest.fixture
def clone(lab, tmp_path, edit) -> Path:
    """A fresh clone with an edited evaluation: it needs the lab's sets and labels."""
    clone = clone_of(lab, tmp_path)
    edit(clone / "params.yaml", *EDIT)
    return clone


@pytest.fixture(scope="module")
def expected(lab, tmp_path_factory) -> bytes:
    """The table of that edit, from a copy that has all artefacts and needs no remote."""
    copy = shutil.copytree(lab, tmp_path_factory.mktemp("expected") / "copy", symlinks=True)
    text = (copy / "params.yaml").read_text()
    (copy / "params.yaml").write_text(text.replace(*EDIT))
    run(copy, "distillery", "make", "table2")
    return (copy / "results/table2.csv").read_bytes()


def test_damaged_and_missing_objects_are_made_again_and_the_rest_is_fetched(
    lab, clone, expected, tmp_path
):
    remote, cache = tmp_path / "remote", clone / ".dvc/cache"
    bad = stored(lab, "distill", "digits-infer", "distilled.safetensors")
    gone = stored(lab, "label", "digits-infer", "meta.json")
    damage(object_of(remote, bad))
    object_of(remote, gone).unlink()

    done = script(clone, "fetch", "table2")
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 2
    for file, words in ((bad, "is damaged"), (gone, "is missing on the remote")):
        (line,) = [line for line in lines if str(file.relative_to(lab)) in line]
        assert words in line and "will be made again" in line
    assert not object_of(cache, bad).exists()
    present = sorted(name.partition("-")[0] for name in artefacts(clone))
    # In place of the set and the labels: the teachers that make them.
    assert present == ["data/digits", *2 * ["evaluate/digits"], *2 * ["teacher/digits"]]

    run(clone, "distillery", "make", "table2")
    assert (clone / "results/table2.csv").read_bytes() == expected
    assert script(clone, "save").returncode == 0
    fresh = stored(clone, "distill", "digits-infer", "distilled.safetensors")
    assert fresh.read_bytes() == bad.read_bytes()
    place = object_of(remote, bad)
    assert str(place) in done.stderr
    place.unlink()  # as the message says
    run(clone, "dvc", "push")
    assert place.read_bytes() == bad.read_bytes()
    run(clone, "git", "commit", "--quiet", "--all", "--message", "made again")

    other = tmp_path / "other"
    run(clone, "git", "clone", "--quiet", str(clone), str(other))
    run(other, "dvc", "remote", "modify", "--local", "lab", "url", str(remote))
    (other / "results/table2.csv").unlink()
    done = script(other, "fetch", "table2")
    assert done.returncode == 0 and done.stderr == ""
    assert "nothing to be made" in run(other, "distillery", "plan", "table2")


def test_a_damaged_object_of_the_cache_is_fetched_again(lab, clone):
    run(clone, "dvc", "fetch")
    bad = stored(lab, "distill", "digits-infer", "distilled.safetensors")
    damage(object_of(clone / ".dvc/cache", bad))
    done = script(clone, "fetch", "table2")
    assert done.returncode == 0 and done.stderr == ""
    found = stored(clone, "distill", "digits-infer", "distilled.safetensors")
    assert found.read_bytes() == bad.read_bytes()
    assert object_of(clone / ".dvc/cache", bad).read_bytes() == bad.read_bytes()


@pytest.fixture
def denying():
    """The address of a server that denies everything."""

    class Denying(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(403)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Denying) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_a_remote_out_of_reach_is_one_line_and_nothing_is_computed(clone, tmp_path, denying):
    empty = str(tmp_path / "empty")

    def refused(url: str) -> str:
        run(clone, "dvc", "remote", "modify", "--local", "lab", "url", url)
        done = script(clone, "fetch", "table2") if url != empty else attempt(clone, "dvc", "repro")
        lines = [line for line in done.stderr.splitlines() if line.startswith("fetch: ")]
        assert done.returncode != 0 and len(lines) == 1 and "Traceback" not in done.stderr
        assert artefacts(clone) == set() and "Job stats" not in done.stdout + done.stderr
        assert "nothing was computed" in lines[0]
        return lines[0]

    Path(empty).mkdir()
    for place in (empty, str(tmp_path / "no mount")):
        assert "it holds nothing of this store" in refused(place)
    line = refused(denying)
    assert denying in line and "Forbidden" in line
    assert "dvc-s3" in refused("s3://bucket/lab")
    run(clone, "dvc", "remote", "remove", "lab")
    (clone / ".dvc/config.local").unlink()
    done = script(clone, "fetch", "table2")
    assert done.returncode == 1 and "there is no remote" in done.stderr


def test_a_damaged_listing_stops_before_anything_is_forgotten(lab, clone, tmp_path):
    listing = json.dumps({"of": "evaluate"})
    text = (clone / "results/store/evaluate.dvc").read_text()
    oid = text.split("md5: ")[1].split()[0]
    file = tmp_path / "remote/files/md5" / oid[:2] / oid[2:]
    file.chmod(0o644)
    file.write_text(listing)
    for name in ("fetch", "save"):
        done = script(clone, name, "table2")
        (line,) = done.stderr.splitlines()
        assert done.returncode == 1 and line.startswith(f"{name}: results/store/evaluate.dvc: ")
        assert oid in line and "damaged" in line
    assert (clone / "results/store/evaluate.dvc").read_text() == text


def test_an_artefact_that_is_not_what_it_says_is_not_saved(lab, tmp_path):
    copy = shutil.copytree(lab, tmp_path / "copy", symlinks=True)
    file = stored(copy, "distill", "digits-infer", "meta.json")
    metadata = json.loads(file.read_text())
    file.chmod(0o644)
    file.write_text(json.dumps(metadata | {"seconds": 1}))
    before = (copy / "results/store/distill.dvc").read_text()
    done = script(copy, "save")
    assert done.returncode == 1 and f"{file.parent.name}" in done.stderr
    assert (copy / "results/store/distill.dvc").read_text() == before
