"""Warm jobs are the jobs they stand for: exit code, signals, streams, folder, bytes; else none."""

import contextlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from distillery.warm import circumstances as circumstances_module
from distillery.warm.circumstances import circumstances, source_stamp
from distillery.warm.hold import Hold
from distillery.warm.place import SOCKET, address, folder, make_folder, serving
from distillery.warm.wire import receive, send
from helpers.planning import planned
from helpers.project import ROOT
from helpers.warm import COLD, ask, environment, served, start, until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="warm jobs need Linux")


@pytest.fixture(scope="module", autouse=True)
def signals_as_in_a_terminal():
    """What runs these tests may ignore some (`nohup`), which their processes would inherit."""
    wanted = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in wanted.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A folder with a server, deeper than the address of a socket may be long."""
    deep = tmp_path_factory.mktemp("warm") / ("d" * 120)
    with served(deep):
        yield deep


# --- a job is as if it ran by itself -------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 70, 130])
def test_the_exit_code_is_the_jobs(root, code):
    assert ask(root, "exit", str(code)) == (code, "")


def test_a_bug_in_a_job_ends_it_alone(root):
    code, _ = ask(root, "fail", stderr=subprocess.DEVNULL)
    assert code == 1
    assert ask(root, "exit", "0") == (0, "")


def test_streams_are_the_commands(root, tmp_path):
    with open(tmp_path / "log", "w") as log:
        assert ask(root, "say", "a b", stderr=log) == (0, "out a b\n")
    assert (tmp_path / "log").read_text() == "err a b\n"
    process = start("job", str(root), "read", stdin=subprocess.PIPE)
    assert process.communicate("äß")[0] == "ÄSS\n"


def test_folder_environment_umask_and_words_are_the_commands(root, tmp_path):
    code, said = ask(
        root,
        *("where", "NEWS"),
        cwd=tmp_path,
        env=environment() | {"NEWS": "good"},
        preexec_fn=lambda: os.umask(0o027),
    )
    assert (code, said) == (0, f"{tmp_path.resolve()} good {0o027} ['where', 'NEWS']\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGKILL", "SIGSEGV"])
def test_a_command_dies_of_what_its_job_dies_of(root, name):
    assert ask(root, "kill", name) == (-getattr(signal, name), "")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [(signal.SIGTERM, -signal.SIGTERM, ""), (signal.SIGINT, 130, "interrupted\n")],
)
def test_signals_reach_the_job(root, number, code, said):
    process = start("job", str(root), "sleep", "60")
    job = int(process.stdout.readline())
    assert job != process.pid
    process.send_signal(number)
    assert process.communicate()[0] == said
    assert process.returncode == code
    until(lambda: not alive(job))


def test_a_job_dies_with_its_command(root):
    process = start("job", str(root), "sleep", "60")
    job = int(process.stdout.readline())
    process.kill()
    process.wait()
    until(lambda: not alive(job))


def test_a_stopped_command_stops_its_job_and_both_go_on(root):
    process = start("job", str(root), "sleep", "0.3")
    job = int(process.stdout.readline())
    process.send_signal(signal.SIGTSTP)
    until(lambda: state(process.pid) == "T" and state(job) == "T")
    process.send_signal(signal.SIGCONT)
    assert process.communicate()[0] == "slept\n"
    assert process.returncode == 0


def test_the_peak_of_memory_is_the_jobs_own(root):
    small, large = (int(ask(root, "peak", str(size))[1]) for size in (1, 200))
    assert 180 < large - small < 220
    assert abs(int(ask(root, "peak", "1")[1]) - small) < 20


def test_jobs_run_side_by_side(root):
    first, second = (start("job", str(root), "sleep", "60") for _ in range(2))
    jobs = [int(process.stdout.readline()) for process in (first, second)]
    assert all(alive(job) for job in jobs)
    for process in (first, second):
        process.terminate()
        process.wait()


def alive(process: int) -> bool:
    return state(process) not in ("", "Z")


def state(process: int) -> str:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


# --- where a job would differ it runs by itself --------------------------------------------------


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 30, 1 << 30))


def ignoring() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("change", [limited, ignoring, lambda: os.nice(1)])
def test_what_a_fork_cannot_take_on_is_not_served(root, change):
    assert ask(root, "exit", "0", preexec_fn=change) == (COLD, "")


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        ("OMP_NUM_THREADS", "2", COLD),
        ("PYTHONHASHSEED", "1", COLD),
        ("OMP_PROC_BIND", "true", COLD),
        ("DISTILLERY_WARM", "off", COLD),
        ("MKL_NUM_THREADS", "1", 0),
        ("CUDA_VISIBLE_DEVICES", "1", 0),
    ],
)
def test_variables_that_libraries_read_when_they_load_must_agree(root, name, value, code):
    changed = environment() | {name: value}
    assert ask(root, "exit", "0", env=changed)[0] == code


def test_without_a_server_a_command_runs_by_itself(tmp_path):
    assert ask(tmp_path, "exit", "0") == (COLD, "")


def test_two_folders_have_servers_of_their_own(root, tmp_path):
    with served(tmp_path) as other:
        assert ask(tmp_path, "exit", "3") == (3, "")
        other.terminate()
        assert other.wait() == 0
        assert ask(tmp_path, "exit", "3")[0] == COLD
    assert ask(root, "exit", "3")[0] == 3


def test_a_folder_has_one_server(root):
    second = start("serve", str(root), stderr=subprocess.PIPE)
    assert "has a server already" in second.communicate()[1]
    assert ask(root, "exit", "4")[0] == 4


def test_edited_code_is_not_served_and_its_server_ends(project):
    source = project / "src"
    with served(project, source=source) as server:
        assert ask(project, "exit", "5", source=source)[0] == 5
        (source / "distillery/errors.py").touch()
        assert ask(project, "exit", "5", source=source)[0] == COLD
        assert server.wait(timeout=60) == 0


def test_the_stamp_sees_edits_that_keep_size_and_time(tmp_path, monkeypatch):
    monkeypatch.setattr(circumstances_module, "PACKAGE", tmp_path)
    file = tmp_path / "part/a.py"
    file.parent.mkdir()
    file.write_text("a = 1\n")
    stamps = [source_stamp()]
    assert source_stamp() == stamps[0]
    times = file.stat()
    file.write_text("a = 2\n")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    stamps.append(source_stamp())
    (tmp_path / "part/b.py").write_text("")
    stamps.append(source_stamp())
    (tmp_path / "part/notes.txt").write_text("")
    assert source_stamp() == stamps[2]
    assert len(set(stamps)) == 3


def test_another_copy_of_the_package_is_another_circumstance(monkeypatch, tmp_path):
    ours = circumstances()
    assert circumstances() == ours
    monkeypatch.setattr(sys, "path", [sys.path[0], str(tmp_path), *sys.path[1:]])
    differing = [about for about, value in circumstances().items() if value != ours[about]]
    assert differing == ["the interpreter"]


# --- permissions, leftovers, deaths --------------------------------------------------------------


def test_the_socket_is_the_users_alone(root):
    place = folder(root)
    assert place.stat().st_mode & 0o777 == 0o700
    assert (place / SOCKET).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("kind", ["open", "link"])
def test_a_folder_that_others_could_have_written_is_not_used(tmp_path, kind):
    place = folder(tmp_path)
    place.parent.mkdir(parents=True)
    if kind == "link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        place.symlink_to(tmp_path / "elsewhere")
    else:
        place.mkdir()
        place.chmod(0o777)
    with pytest.raises(PermissionError):
        make_folder(tmp_path)
    hold = Hold()
    hold.start(tmp_path)  # says nothing: the run goes on without
    assert list(place.iterdir()) == []
    assert ask(tmp_path, "exit", "0")[0] == COLD


def test_what_a_killed_server_leaves_is_replaced(tmp_path):
    with served(tmp_path) as server:
        server.kill()
        server.wait()
    assert (folder(tmp_path) / SOCKET).exists()
    assert not serving(folder(tmp_path))
    assert ask(tmp_path, "exit", "6")[0] == COLD
    with served(tmp_path):
        until(lambda: ask(tmp_path, "exit", "6")[0] == 6)


def test_a_job_outlives_its_server(tmp_path):
    with served(tmp_path) as server:
        process = start("job", str(tmp_path), "sleep", "0.3")
        process.stdout.readline()
        server.kill()
        assert process.communicate()[0] == "slept\n"
        assert process.returncode == 0


def test_a_job_that_is_killed_with_its_server_has_failed(tmp_path):
    with served(tmp_path) as server:
        process = start("job", str(tmp_path), "sleep", "60", stderr=subprocess.PIPE)
        job = int(process.stdout.readline())
        server.kill()
        server.wait()
        os.kill(job, signal.SIGKILL)
        assert "was killed; the same command continues" in process.communicate()[1]
        assert process.returncode == 1


def test_a_server_that_is_told_to_end_lets_its_jobs_finish(tmp_path):
    with served(tmp_path) as server:
        process = start("job", str(tmp_path), "sleep", "0.3")
        process.stdout.readline()
        server.terminate()
        assert process.communicate()[0] == "slept\n"
        assert process.returncode == 0
        assert server.wait(timeout=60) == 0
        assert not (folder(tmp_path) / SOCKET).exists()


def test_a_held_server_ends_with_its_last_user(tmp_path, monkeypatch):
    monkeypatch.setattr("distillery.warm.hold._start", lambda root, place: None)
    with Hold() as first, Hold() as second:
        first.start(tmp_path)
        with served(tmp_path, "held") as server:
            second.start(tmp_path)
            first.end()
            with pytest.raises(subprocess.TimeoutExpired):
                server.wait(timeout=1.2)  # it looks every half second
            assert ask(tmp_path, "exit", "7")[0] == 7
            second.end()
            assert server.wait(timeout=60) == 0


def test_an_idle_server_ends(tmp_path):
    with served(tmp_path, "idle", "0.1") as server:
        assert server.wait(timeout=60) == 0
        assert not (folder(tmp_path) / SOCKET).exists()


def test_a_server_takes_no_nonsense(root):
    for sent in (b"", b"\xff" * 8, b"\0\0\0\2{}"):
        with socket.socket(socket.AF_UNIX) as connection, address(folder(root)) as name:
            connection.connect(name)
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):  # it left some of it unread
                assert connection.recv(1) == b""
    assert ask(root, "exit", "0")[0] == 0


def test_messages_arrive_whole_with_their_files(tmp_path):
    here, there = socket.socketpair(socket.AF_UNIX)
    with here, there, open(tmp_path / "file", "w") as file:
        here.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        send(here, {"text": "ä\udc80" * 1000}, (file.fileno(),))
        message, (handle,) = receive(there)
        assert message == {"text": "ä\udc80" * 1000}
        assert os.path.sameopenfile(handle, file.fileno())
        os.close(handle)
        here.close()
        assert receive(there) == (None, [])


# --- bytes ---------------------------------------------------------------------------------------


def test_warm_and_cold_jobs_make_the_same_bytes(project):
    """A teacher, which decodes, draws, trains and saves, and all that its meta.json says of it."""
    shutil.rmtree(project / "src")  # the code is that of this folder
    data, teacher = jobs(project, "data", "teacher")
    made(project, data, warm="off")
    path, cold, meta = made(project, teacher, warm="off")
    shutil.rmtree(path)
    with Hold() as hold:
        hold.start(project)
        again, warm, said = made(project, teacher, warm="on")
        assert children_seconds(hold.server) > 0, "it ran cold"
    assert (again, warm) == (path, cold)
    assert warm.keys() == {"weights.safetensors"}
    assert {key for key in meta if meta[key] != said[key]} <= VARYING
    assert meta.keys() == said.keys()


VARYING = {"seconds", "peak_memory_bytes", "created", "checksum"}


def children_seconds(process: subprocess.Popen) -> float:
    """CPU time of the children that a process has waited for; of a server: of its jobs."""
    until(lambda: children(process.pid) == [])
    numbers = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(number) for number in numbers[13:15]) / os.sysconf("SC_CLK_TCK")


def children(process: int) -> list[str]:
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


def jobs(project: Path, *stages: str) -> list[list[str]]:
    """The words of the first job of each stage."""
    plan = planned(project)
    nodes = {node.spec.stage: node for node in reversed(plan.missing(["table2"]))}
    return [[stage, "--device", "cpu", "--spec", nodes[stage].spec.dumps()] for stage in stages]


def made(project: Path, words: list[str], warm: str) -> tuple[Path, dict[str, bytes], dict]:
    """An artefact by its command: where it is, its files but meta.json, and what that says."""
    done = subprocess.run(
        [sys.executable, "-m", "distillery", *words],
        cwd=project,
        capture_output=True,
        text=True,
        env=environment() | {"PYTHONPATH": str(ROOT / "src"), "DISTILLERY_WARM": warm},
    )
    assert done.returncode == 0, done.stderr
    path = project / done.stdout.strip()
    files = {file.name: file.read_bytes() for file in sorted(path.iterdir())}
    return path, files, json.loads(files.pop("meta.json"))
