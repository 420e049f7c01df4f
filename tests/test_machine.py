"""What a machine has, read off folders that look like those of other machines."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from distillery.errors import PlanError
from distillery.plan import machine
from distillery.plan.machine import (
    check_device_name,
    gpu_count,
    gpu_memory,
    lacking_device,
)
from distillery.store import memory as store_memory
from distillery.store.memory import fits, memory_left, memory_limit


@pytest.fixture(autouse=True)
def cuda(monkeypatch):
    """A torch that is built for CUDA, whatever is installed."""
    monkeypatch.setattr(machine, "_built_for", lambda: "cuda")


def linux(root: Path, *files: str, gpus: int = 0) -> Path:
    """A root with /proc and /dev, with these files and so many GPUs in NVIDIA's list."""
    listed = [f"proc/driver/nvidia/gpus/0000:0{i}:00.0/information" for i in range(gpus)]
    for name in ("proc/cpuinfo", "dev/null", *files, *listed):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("")
    return root


def test_a_machine_without_driver_and_device_files_has_no_gpu(tmp_path):
    assert gpu_count(linux(tmp_path), {}) == 0


@pytest.mark.parametrize(
    "file",
    [
        "dev/kfd",
        "dev/dxg",
        "dev/nvidia0",
        "dev/nvidiactl",
        "dev/nvhost-gpu",
        "dev/nvgpu",
        "dev/nvmap",
    ],
)
def test_a_device_file_without_nvidias_list_says_nothing(file, tmp_path):
    assert gpu_count(linux(tmp_path, file), {}) is None


def test_where_there_is_no_proc_nothing_is_known(tmp_path):
    assert gpu_count(tmp_path, {}) is None


VISIBLE = {  # with two GPUs, as CUDA's guide has it: what stands behind a wrong one is not seen
    None: 2,
    "": 0,
    "-1": 0,
    "0": 1,
    "1,0": 2,
    "0,1,2": 2,
    "2": 0,
    "0,-1,1": 1,
    "0,7": 1,
    "GPU-8932f937": 1,
    "GPU-8932f937,GPU-99": 2,
    "none": 0,
    "MIG-GPU-8932f937/1/2": None,
}


@pytest.mark.parametrize(("visible", "count"), VISIBLE.items())
def test_what_cuda_visible_devices_leaves_of_two(visible, count, tmp_path):
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert gpu_count(linux(tmp_path, "dev/nvidia0", gpus=2), environment) == count


def test_what_torch_counts_is_never_more(monkeypatch):
    """torch's own reading of the variable, where it is one of numbers."""
    from torch.cuda import _parse_visible_devices

    for visible in ["", "-1", "0", "1,0", "0,1,2", "2", "0,-1,1", "0,7", " 1", "+1", "1x"]:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        numbers = [number for number in _parse_visible_devices() if isinstance(number, int)]
        seen = next((i for i, number in enumerate(numbers) if number >= 2), len(numbers))
        assert machine._visible(visible, 2) >= seen


def test_parts_of_a_gpu_are_not_counted(tmp_path):
    mig = "proc/driver/nvidia/capabilities/gpu0/mig/gi1/access"
    assert gpu_count(linux(tmp_path, "dev/nvidia0", mig, gpus=1), {}) is None


def test_an_empty_list_of_nvidias_says_nothing(tmp_path):
    (linux(tmp_path) / "proc/driver/nvidia/gpus").mkdir(parents=True)
    assert gpu_count(tmp_path, {}) is None


def test_a_torch_for_amd_is_never_refused_and_one_for_the_cpu_always(tmp_path, monkeypatch):
    root = linux(tmp_path)
    monkeypatch.setattr(machine, "_built_for", lambda: "rocm")
    assert gpu_count(root, {}) is None
    monkeypatch.setattr(machine, "_built_for", lambda: "cpu")
    assert gpu_count(linux(tmp_path, "dev/nvidia0", gpus=2), {}) == 0
    assert "without CUDA" in str(lacking_device("cuda")) and lacking_device("cpu") is None
    monkeypatch.setattr(machine, "_built_for", lambda: None)  # none is installed here
    assert gpu_count(root, {}) == 2


def test_what_the_installed_torch_is_built_for_is_what_it_says(monkeypatch):
    import torch

    monkeypatch.undo()
    said = {"cuda": torch.version.cuda, "rocm": torch.version.hip}
    expected = next((name for name, version in said.items() if version), "cpu")
    machine._built_for.cache_clear()
    assert machine._built_for() == expected


TORCHES = {
    "cuda: Optional[str] = '13.2'\nhip: Optional[str] = None\n": "cuda",
    "cuda = None\nhip = '6.2'\n": "rocm",
    "cuda: Optional[str] = None\nhip: Optional[str] = None\n": "cpu",
    "__version__ = '9'\n": None,
}


@pytest.mark.parametrize(("text", "built"), TORCHES.items())
def test_what_a_torch_is_built_for(text, built, tmp_path, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch/__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "torch/version.py").write_text(text)
    loaded = sys.modules.pop("torch", None)
    monkeypatch.syspath_prepend(tmp_path)
    machine._built_for.cache_clear()
    try:
        assert machine._built_for() == built
    finally:
        machine._built_for.cache_clear()
        if loaded:
            sys.modules["torch"] = loaded


@pytest.mark.parametrize(
    ("count", "refused"),
    [
        (0, ["cuda", "cuda:0", "cuda:1", "cuda:4", "cuda:99"]),
        (1, ["cuda:1", "cuda:4", "cuda:99"]),
        (4, ["cuda:4", "cuda:99"]),
        (None, []),
    ],
)
def test_a_device_beyond_the_count_is_lacking(count, refused, monkeypatch):
    monkeypatch.setattr(machine, "gpu_count", lambda: count)
    devices = ["auto", "cpu", "cuda", "cuda:0", "cuda:1", "cuda:4", "cuda:99"]
    assert [device for device in devices if lacking_device(device)] == refused


@pytest.mark.parametrize(
    "name", ["tpu", "cuda:", "cuda:x", "CUDA", "cuda:1.5", "", "cpu:0", "auto "]
)
def test_a_name_of_no_device(name):
    with pytest.raises(PlanError, match=r"^--device = '.*': no such device; use auto, cpu, cuda"):
        check_device_name(name, "--device")


# --- memory

KB, MB, GB = 1 << 10, 1 << 20, 1 << 30


def memory(root: Path, cgroup: str, limits: dict[str, object]) -> Path:
    """A root of 8 GB, the text of /proc/self/cgroup, and files of limits."""
    files = {"proc/meminfo": f"MemTotal: {8 << 20} kB\nMemFree: 1 kB\n", "proc/self/cgroup": cgroup}
    for name, value in {**files, **{f"sys/fs/cgroup/{k}": v for k, v in limits.items()}}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{value}\n")
    return root


V2, V1 = "0::/user/job", "4:memory:/job\n3:cpu:/other\n0::/"
LIMITS = {
    "none": (V2, {}, 8 * GB),
    "its own": (V2, {"user/job/memory.max": 2 * GB}, 2 * GB),
    "of one above it": (V2, {"user/job/memory.max": "max", "user/memory.max": 3 * GB}, 3 * GB),
    "of a container, which sees its own as the root": ("0::/", {"memory.max": GB}, GB),
    "the least counts": (V2, {"user/job/memory.max": 2 * GB, "user/memory.max": GB}, GB),
    "above the machine's": (V2, {"user/job/memory.max": 64 * GB}, 8 * GB),
    "of another process": (V2, {"other/memory.max": GB}, 8 * GB),
    "the first kind": (V1, {"memory/job/memory.limit_in_bytes": 5 * GB}, 5 * GB),
    "the first kind, none set": (V1, {"memory/job/memory.limit_in_bytes": 2**63 - 4096}, 8 * GB),
    "of the first kind for another controller": (
        V1,
        {"cpu/other/memory.limit_in_bytes": GB},
        8 * GB,
    ),
    "no number": (V2, {"user/job/memory.max": "plenty"}, 8 * GB),
}


@pytest.mark.parametrize(("cgroup", "limits", "found"), LIMITS.values(), ids=LIMITS)
def test_the_limit_of_memory(cgroup, limits, found, tmp_path):
    limit = memory_limit(memory(tmp_path, cgroup, limits))
    assert limit is not None and limit[0] == found
    assert limit[1].startswith("this machine" if found == 8 * GB else "the cgroup")


def test_where_nobody_says_there_is_no_limit(tmp_path):
    assert memory_limit(tmp_path) is None


def test_what_is_left_of_a_limit_is_less_what_the_process_has(tmp_path):
    root = memory(tmp_path, *LIMITS["its own"][:2])
    assert memory_left(root) == 2 * GB
    (root / "proc/self/status").write_text(f"VmPeak: 9 kB\nVmRSS:\t {1 << 19} kB\n")
    assert memory_left(root) == 2 * GB - GB // 2
    with (root / "proc/meminfo").open("a") as file:
        file.write(f"MemAvailable: {1 << 18} kB\n")
    assert memory_left(root) == GB // 4  # others have the rest
    assert memory_left(tmp_path / "nothing") is None


def test_what_fits_is_below_the_limit_and_leaves_a_fifth(monkeypatch):
    monkeypatch.setattr(store_memory, "memory_left", lambda: 100 * GB)
    assert fits(8 * GB) and not fits(8 * GB + 1)
    monkeypatch.setattr(store_memory, "memory_left", lambda: 5 * GB)
    assert fits(4 * GB) and not fits(4 * GB + 1)
    monkeypatch.setattr(store_memory, "memory_left", lambda: None)
    assert fits(8 * GB) and not fits(8 * GB + 1)


def test_on_a_device_an_eighth_of_what_is_free_is_taken(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "torch.cuda.mem_get_info", lambda device: asked.append(device) or (32 * GB, 48 * GB)
    )
    assert fits(4 * GB, "cuda:1") and not fits(4 * GB + 1, "cuda:1")
    assert asked == ["cuda:1", "cuda:1"]


def test_this_machine_has_no_more_than_the_system_says():
    import os

    limit = memory_limit()
    assert limit is not None
    assert 0 < limit[0] <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ("echo 24576; echo 81920", 81920 * MB),
        ("echo '[N/A]'", None),
        ("echo NVIDIA-SMI has failed; exit 9", None),
        (None, None),
    ],
)
def test_the_memory_of_the_largest_gpu(script, found, tmp_path, monkeypatch):
    if script:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin" if script else str(tmp_path))
    gpu_memory.cache_clear()
    assert gpu_memory() == found
    gpu_memory.cache_clear()
