"""What jobs will lack, said before the first of them runs: by plan, make, Snakemake and a stage."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from distillery.cli import main
from distillery.data.digest import folder_digest
from distillery.plan import preflight
from distillery.plan.cost import BASE_MEMORY, Cost, Estimator
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.preflight import Finding, Preflight, judge, over_limits
from helpers.planning import planned
from helpers.sources import folders

GB = 1 << 30


@pytest.fixture(autouse=True)
def plenty(monkeypatch):
    """A machine with memory, and without a GPU."""
    monkeypatch.setattr(preflight, "memory_limit", lambda: (64 * GB, "this machine has"))
    monkeypatch.setattr(preflight, "gpu_count", lambda: 0)
    monkeypatch.setattr(preflight, "gpu_memory", lambda: None)


def look(plan: Plan) -> Preflight:
    return Preflight(plan.settings, Estimator(plan.settings, plan.store))


def findings(plan: Plan, **options: str) -> list[Finding]:
    return look(plan).findings(plan.missing(["table2"]), **options)


def run(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *words],
        cwd=root,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(root / "src")} | environment,
    )


# No driver's list of GPUs shows this many, and none is installed where there are no GPUs at all.
NO_DEVICE = "cuda:9999"
NOBODY_SEES = {"CUDA_VISIBLE_DEVICES": "-1"}


def test_nothing_is_said_of_jobs_that_lack_nothing(project):
    assert findings(planned(project)) == []


# --- a device


def test_a_device_that_is_not_there_is_said_with_the_layer_that_asks(project, monkeypatch):
    monkeypatch.setattr(preflight, "lacking_device", lambda device: f"no {device} here")
    (found,) = findings(planned(project, device="cuda:3"))
    assert found == Finding("params.yaml.device = 'cuda:3': no cuda:3 here", certain=True)
    (found,) = findings(planned(project, scales={"tiny": {"device": "cuda"}}))
    assert found.text.startswith("params.yaml.scales.tiny.device = 'cuda': ")
    (found,) = findings(planned(project), device="cuda:1")
    assert found.text.startswith("--device = 'cuda:1': ")


def test_jobs_that_use_no_gpu_need_none(project, monkeypatch):
    monkeypatch.setattr(preflight, "lacking_device", lambda device: "none here")
    plan = planned(project, device="cuda")
    data = [node for node in plan.missing(["table2"]) if node.spec.stage == "data"]
    assert look(plan).findings(data) == [] == look(plan).findings([])


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="counts GPUs as Linux shows them")
class TestEngines:
    """Each command, where the device cannot be."""

    def test_plan_warns_and_make_and_snakemake_stop_before_the_first_job(self, project, edit):
        edit(project / "params.yaml", "students: 2", f"students: 1\ndevice: {NO_DEVICE}")
        said = f"params.yaml.device = '{NO_DEVICE}': "
        plan = run(project, "distillery", "plan", **NOBODY_SEES)
        assert plan.returncode == 0 and f"warning: {said}" in plan.stdout, plan
        make = run(project, "distillery", "make", **NOBODY_SEES)
        assert make.returncode == 1 and make.stderr.startswith(f"distillery: {said}"), make
        dry = run(project, "snakemake", "-n", "results/table2.csv", **NOBODY_SEES)
        assert dry.returncode == 0 and f"warning: {said}" in dry.stderr + dry.stdout, dry
        real = run(project, "snakemake", "-c1", "results/table2.csv", **NOBODY_SEES)
        assert real.returncode == 1 and said in real.stderr + real.stdout, real
        assert not list((project / "results/store").glob("*/*/meta.json"))

    def test_a_device_on_the_command_line(self, project):
        make = run(project, "distillery", "make", "--device", NO_DEVICE, **NOBODY_SEES)
        assert make.stderr.startswith(f"distillery: --device = '{NO_DEVICE}': "), make
        for command in ("make", "data"):
            wrong = run(project, "distillery", command, "--device", "tpu")
            assert wrong.stderr.startswith("distillery: --device = 'tpu': no such device"), wrong

    def test_a_stage_stops_without_importing_torch(self, project):
        node = next(n for n in Plan(project).missing(["table2"]) if n.spec.stage == "teacher")
        words = ["teacher", "--root", str(project), "--spec", node.spec.dumps()]
        script = (
            "import sys; from distillery.cli import main;"
            f"code = main({[*words, '--device', NO_DEVICE]!r});"
            "assert 'torch' not in sys.modules; sys.exit(code)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            env=os.environ | NOBODY_SEES,
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith(f"distillery: device '{NO_DEVICE}': "), done.stderr


# --- memory


def fixed(monkeypatch, **by_stage: Cost) -> None:
    small = Cost(1, BASE_MEMORY, 0, 0, 1)
    monkeypatch.setattr(Estimator, "cost", lambda self, node: by_stage.get(node.spec.stage, small))


def test_the_largest_job_of_a_stage_is_named_with_what_is_there_and_what_to_lower(
    project, monkeypatch
):
    plan = planned(project)
    sizes = iter([70e9, 90e9, 80e9, 65e9])
    costs: dict[Node, Cost] = {}

    def cost(self: Estimator, node: Node) -> Cost:
        memory = next(sizes) if node.spec.stage == "evaluate" else BASE_MEMORY
        return costs.setdefault(node, Cost(1, memory, 0, 0, 1))

    monkeypatch.setattr(Estimator, "cost", cost)
    (found,) = findings(plan)
    evaluations = [n for n in plan.missing(["table2"]) if n.spec.stage == "evaluate"]
    assert not found.certain and found.text == (
        f"evaluate {evaluations[1].spec.id}, and 2 more of this stage: about 90 GB of memory by "
        "the estimate, this machine has 68.7 GB; lower evaluate training.batch, or set "
        "training.micro_batch"
    )


def test_a_limit_is_not_exceeded_by_what_is_as_large(project, monkeypatch):
    fixed(monkeypatch, teacher=Cost(1, 58 * GB, 2 * GB, 4 * GB, 1))
    assert findings(planned(project)) == []  # 64 on the host, where there is no GPU
    fixed(monkeypatch, teacher=Cost(1, 58 * GB, 2 * GB, 4 * GB + 1, 1))
    (found,) = findings(planned(project))
    assert "lower teacher training.batch" in found.text and "1 more" in found.text


@pytest.mark.parametrize(
    ("device", "count", "on_host"),
    [("auto", 0, True), ("auto", 2, False), ("auto", None, False), ("cpu", 2, True)],
)
def test_activations_count_where_the_job_computes(device, count, on_host, project, monkeypatch):
    monkeypatch.setattr(preflight, "gpu_count", lambda: count)
    monkeypatch.setattr(preflight, "lacking_device", lambda device: None)
    fixed(monkeypatch, teacher=Cost(1, GB, GB, 70 * GB, 1))
    assert len(findings(planned(project, device=device))) == on_host


def test_the_memory_of_a_gpu_counts_where_it_is_known(project, monkeypatch):
    monkeypatch.setattr(preflight, "gpu_count", lambda: 1)
    monkeypatch.setattr(preflight, "gpu_memory", lambda: 24 * GB)
    fixed(
        monkeypatch,
        distill=Cost(1, GB, 2 * GB, 25 * GB, 1),
        teacher=Cost(1, GB, 2 * GB, 24 * GB, 1),
    )
    (found,) = findings(planned(project))
    assert not found.certain and found.text.startswith("distill ")
    assert "about 26.8 GB of GPU memory by the estimate, the GPU has 25.8 GB; " in found.text
    assert findings(planned(project, device="cpu")) == []


def test_data_that_compute_on_no_gpu_take_the_hosts_memory(project, monkeypatch):
    monkeypatch.setattr(preflight, "gpu_count", lambda: 1)
    fixed(monkeypatch, data=Cost(1, 40 * GB, 0, 30 * GB, 1))
    (found,) = findings(planned(project))
    assert found.text.endswith("this machine has 68.7 GB; lower `size` of data set 'digits'")


def test_plan_says_it_and_make_goes_on(project, monkeypatch, capsys):
    monkeypatch.setattr(preflight, "memory_limit", lambda: (600 << 20, "this machine has"))
    assert main(["plan", "--root", str(project)]) == 0
    lines = capsys.readouterr().out.splitlines()
    warned = [line for line in lines if line.startswith("warning: ")]
    stages = {"data", "teacher", "distill", "label", "evaluate"}
    assert len(warned) == 5 and {line.split()[1] for line in warned} == stages
    assert main(["make", "--root", str(project)]) == 0
    assert capsys.readouterr().err.count("distillery: warning: ") == 5
    assert main(["make", "--root", str(project)]) == 0
    assert capsys.readouterr().err == ""


def test_a_limit_of_snakemakes_is_an_error_before_the_first_job(project):
    words = ["snakemake", "results/table2.csv", "--resources", "mem_mb=500"]
    real = run(project, *words, "-c1")
    assert real.returncode == 1 and "resources: mem_mb = 500 allows 500 MB" in real.stderr, real
    assert not list((project / "results/store").glob("*/*/meta.json"))
    dry = run(project, *words, "-n")
    assert dry.returncode == 0 and "resources: mem_mb = 500" in dry.stderr + dry.stdout, dry
    enough = run(project, "snakemake", "results/table2.csv", "-n", "--resources", "mem_mb=5000")
    assert enough.returncode == 0 and "warning" not in enough.stderr + enough.stdout, enough


def test_limits_of_snakemake_by_hand(project):
    first, second, third = planned(project).missing(["table2"])[:3]
    (found,) = over_limits({first: 100, second: 300, third: 200}, 150, {}, None)
    assert found.certain and found.anywhere
    assert found.text.startswith(f"{second.spec.stage} {second.spec.id}, and 1 more")
    assert "about 300 MB" in found.text and "mem_mb = 150 allows 150 MB: raise it, or" in found.text
    assert list(over_limits({first: 150}, 150, {first: 1}, 1)) == []
    assert list(over_limits({first: 150}, None, {first: 1}, None)) == []
    (found,) = over_limits({}, None, {first: 0, second: 1, third: 1}, 0)
    job = f"{second.spec.stage} {second.spec.id}"
    assert found.text.startswith(f"resources: gpu = 0: 2 jobs compute on a GPU, such as {job}; ")


# --- folders and files


def with_folder(project: Path, **changes: object) -> Plan:
    expected = {"classes": 2, "train": 6, "test": 6, "shape": [1, 8, 8]}
    data = {"source": "folder:data/pets", "size": 8, "channels": 1, "expected": expected} | changes
    grid = {"table2": {"dataset": ["pets"], "ipc": [2]}}
    params = yaml.safe_load((project / "params.yaml").read_text())
    params |= {"datasets": {"pets": data}, "grid": grid, "students": 1}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    return Plan(project)


def test_a_folder_that_is_not_there_is_said_and_stops_what_reads_it(project, capsys):
    with_folder(project)
    text = "params.yaml.datasets.pets.source: "
    assert main(["plan", "--root", str(project)]) == 0
    assert f"warning: {text}" in capsys.readouterr().out
    assert main(["make", "--root", str(project)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"distillery: {text}") and "data/pets: no such folder; put the" in error
    real = run(project, "snakemake", "-c1", "results/table2.csv")
    assert real.returncode == 1 and text in real.stderr, real
    dry = run(project, "snakemake", "-n", "results/table2.csv")
    assert dry.returncode == 0 and f"warning: {text}" in dry.stderr + dry.stdout, dry


def test_a_folder_is_not_needed_once_its_data_are_stored(project, monkeypatch):
    folders(project / "data/pets")
    digest = folder_digest(project / "data/pets")
    plan = with_folder(project)
    assert findings(plan) == []
    (data,) = [node for node in plan.missing(["table2"]) if node.spec.stage == "data"]
    (project / "data/pets").rename(project / "elsewhere")
    tracked = f"outs:\n- md5: {digest}\n  size: 3\n  hash: md5\n  path: pets\n"
    (project / "data/pets.dvc").write_text(tracked)
    plan = with_folder(project)
    (found,) = findings(plan)
    assert found.certain and not found.anywhere and "`dvc pull " in found.text
    assert data.address in {node.address for node in plan.missing(["table2"])}
    stored = project / "results/store" / data.address / "meta.json"
    stored.parent.mkdir(parents=True)
    stored.write_text("{}")
    monkeypatch.setattr(Estimator, "cost", lambda self, node: None)
    assert findings(with_folder(project)) == []


def test_a_clone_without_data_but_with_its_table_lacks_nothing(project, monkeypatch):
    with_folder(project)
    monkeypatch.setattr(Plan, "fresh", lambda self, table: True)
    assert findings(Plan(project)) == []
    assert main(["make", "--root", str(project)]) == 0


def test_a_data_set_that_no_table_reads_is_not_missed(project):
    with_folder(project)
    params = yaml.safe_load((project / "params.yaml").read_text()) | {"grid": {}}
    (project / "params.yaml").write_text(yaml.safe_dump(params))
    assert findings(Plan(project)) == []


def test_a_stated_digest_does_not_stand_for_the_folder(project):
    (found,) = findings(with_folder(project, digest="0" * 32 + ".dir"))
    assert found.certain and "data/pets: no such folder" in found.text


def test_a_file_of_embeddings_that_is_not_there(project):
    plan = planned(project)
    data = next(node for node in plan.missing(["table2"]) if node.spec.stage == "data")
    file = str(project / "vectors.csv")
    node = plan.context.node(
        "embed",
        "digits-file",
        {"source": {"name": "file"}, "digest": "absent"},
        inputs={"data": data},
        dataset="digits",
        local={"source": {"name": "file", "path": file}},
    )
    (found,) = look(plan).findings([node])
    assert found.certain and found.anywhere and f"{file}: no such file" in found.text


# --- what stops


A, B = Finding("a", certain=True), Finding("b", certain=True, anywhere=True)
C = Finding("c", certain=False)


@pytest.mark.parametrize(
    ("here", "running", "stop", "said"),
    [
        (True, True, "a", ["c"]),
        (True, False, None, ["a", "b", "c"]),
        (False, True, "b", []),
        (False, False, None, ["b"]),
    ],
)
def test_what_stops_and_what_is_said(here, running, stop, said):
    assert judge([A, B, C], here=here, running=running) == (stop, said)
    assert judge([C], running=True) == (None, ["c"])
