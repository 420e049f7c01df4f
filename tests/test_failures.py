"""What the system and libraries raise is one line that says what to do; the rest is a bug."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from distillery import cli
from distillery.errors import DistilleryError
from distillery.store.failures import bug, explained


def of_system(number: int, *paths: str) -> OSError:
    return OSError(number, os.strerror(number), *paths)


def batch_norm_of_one() -> None:
    torch.nn.BatchNorm1d(2)(torch.zeros(1, 2))


def too_much_memory() -> None:
    torch.empty(1 << 60, dtype=torch.uint8)


def raised_by(action) -> BaseException:
    with pytest.raises(BaseException) as caught:
        action()
    return caught.value


CASES = [
    (of_system(errno.EACCES, "/store/a"), ["/store/a", "permission denied"]),
    (of_system(errno.EROFS, "/store/a"), ["/store/a", "read-only"]),
    (of_system(errno.ENOTDIR, "/store/a"), ["/store/a", "where a folder is expected"]),
    (of_system(errno.EISDIR, "/store/a"), ["/store/a", "where a file is expected"]),
    (of_system(errno.ENODEV, "/dev/x"), ["/dev/x", "no such device"]),
    (of_system(errno.ENXIO, "/dev/x"), ["/dev/x", "no such device"]),
    (of_system(errno.ENOENT, "/a"), ["/a", "no such file"]),
    (of_system(errno.ENOSPC, "/a"), ["/a", "the disk is full", "run the same command again"]),
    (of_system(errno.EXDEV, "/a", None, "/b"), ["/a -> /b", os.strerror(errno.EXDEV)]),
    (MemoryError(), ["out of memory", "micro_batch"]),
    (torch.OutOfMemoryError("CUDA out of memory. Tried"), ["on the GPU", "micro_batch"]),
]


@pytest.mark.parametrize(("error", "words"), CASES, ids=lambda value: type(value).__name__)
def test_failures_of_the_machine(error, words):
    text = explained(error)
    assert text is not None and "\n" not in text
    assert all(word in text for word in words), text


def test_torch_says_that_memory_is_short_as_we_expect_it():
    assert "out of memory" in explained(raised_by(too_much_memory))


def test_a_batch_of_one_under_batch_norm_names_what_to_change():
    assert "batch of one sample" in explained(raised_by(batch_norm_of_one))


def test_unreadable_files_of_libraries(tmp_path):
    import pyarrow.parquet as pq

    (tmp_path / "x").write_text("no such format")
    error = raised_by(lambda: load_file(tmp_path / "x"))
    assert isinstance(error, SafetensorError)
    assert "safetensors file cannot be read" in explained(error)
    assert "parquet file cannot be read" in explained(
        raised_by(lambda: pq.read_table(tmp_path / "x"))
    )


@pytest.mark.parametrize(
    ("message", "line"),
    [
        ("a\n b\u2028c\td", "a b c d"),
        ("a\x00b", "a\\x00b"),
        (f"no {'x' * 1000}: b", f"no {'x' * 200}...{'x' * 49}: b"),
        (f"no {'x' * 999}: b", f"no {'x' * 999}: b"),
        ("no " + "\x00" * 300 + " b", "no " + "\\x00" * 50 + "..." + "00" + "\\x00" * 12 + " b"),
    ],
)
def test_an_error_is_one_printable_line_of_words_that_can_be_read(message, line):
    assert str(DistilleryError(message)) == line


def test_a_bug_is_no_failure_and_says_where_it_is():
    error = raised_by(lambda: {}["key"])
    assert explained(error) is None
    assert "test_failures.py:" in bug(error) and "KeyError: 'key'" in bug(error)


def test_the_command_line_tells_them_apart(monkeypatch, capsys):
    def fail(error):
        def run(arguments):
            raise error

        monkeypatch.setattr(cli, "_show", run)
        code = cli.main(["show", "table2"])
        return code, capsys.readouterr().err

    code, printed = fail(of_system(errno.EACCES, "/store/a"))
    assert code == 1 and printed.count("\n") == 1 and printed.startswith("distillery: /store/a")
    code, printed = fail(RuntimeError("unforeseen"))
    assert code == cli.BUG and "Traceback" in printed
    assert "a bug of ours" in printed.splitlines()[-1]
