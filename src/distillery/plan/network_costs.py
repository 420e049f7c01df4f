"""What a pass of one image through a network takes: from workflow/costs.yaml, or measured.

A network that the file does not name is measured once, in a process of its own, since the planner
imports no torch. What was measured is kept below results/scratch.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from distillery.components.registry import PACKAGE, module_name
from distillery.errors import PlanError
from distillery.plan.models import Costs, checked
from distillery.plan.yaml_files import read_yaml
from distillery.store.canonical import digest, loads, read_json
from distillery.store.fingerprint import code_digest

FILE = "workflow/costs.yaml"
MEASURED = "results/scratch/network_costs"
PROGRAM = "distillery.nets.costs"
LIMIT_S = 300  # of a measurement
Shape = tuple[int, ...]


class NetworkCost(NamedTuple):
    """What one image costs.

    Attributes:
        work: multiply-adds of a forward pass.
        kept: bytes that a forward pass keeps for its backward pass, float32.
        widest: bytes that go into and come out of a layer together, at most, float32.
        parameters: of the network.
    """

    work: float
    kept: float
    widest: float
    parameters: float


class NetworkCosts:
    """The costs of networks, each looked up or measured once.

    Attributes:
        rates: multiply-adds per second, by scale.
    """

    def __init__(self, root: Path) -> None:
        """Read the known costs of the project at `root`."""
        table: Costs = checked(Costs, read_yaml(root / FILE), FILE)
        self.rates = table.multiply_adds_per_second
        self._known = table.networks
        self._folder = root / MEASURED
        self._found: dict[str, NetworkCost | None] = {}

    def of(self, network: Mapping[str, Any], shape: Shape) -> NetworkCost | None:
        """The cost of a network on images of a shape; None where it cannot be measured.

        Args:
            network: a resolved reference.
            shape: (C, H, W).
        """
        key = digest([dict(network), list(shape)])
        if key not in self._found:
            known = network["name"] in self._known
            self._found[key] = self._scaled(network, shape) if known else self._kept(network, shape)
        return self._found[key]

    def _scaled(self, network: Mapping[str, Any], shape: Shape) -> NetworkCost:
        """The cost at the nearest counted size, scaled by area and width."""
        entry, size = self._known[network["name"]], shape[1]
        nearest = min(entry, key=lambda counted: abs(counted - size))
        row, area = entry[nearest], (size / nearest) ** 2
        counted_width = row.width
        width = network.get("width", counted_width) / counted_width
        return NetworkCost(
            row.multiply_adds * area * width**2,
            row.kept * 4 * area * width,
            row.widest * 4 * area * width,
            row.parameters * width**2,
        )

    def _kept(self, network: Mapping[str, Any], shape: Shape) -> NetworkCost | None:
        """The measured cost, from the file of an earlier plan if there is one."""
        try:
            code = code_digest([module_name("network", network["name"])])
        except PlanError:
            return None
        file = self._folder / f"{digest([dict(network), list(shape), code])}.json"
        row = _read(file)
        if row is None and (row := _measure(network, shape)) is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            aside = file.with_name(f".{file.name}.{os.getpid()}")
            aside.write_text(json.dumps(row))
            os.replace(aside, file)
        if row is None:
            return None
        return NetworkCost(
            row["multiply_adds"], 4 * row["kept"], 4 * row["widest"], row["parameters"]
        )


def _read(file: Path) -> dict[str, float] | None:
    try:
        row: dict[str, float] = read_json(file)
    except (OSError, ValueError):
        return None
    return row


def _measure(network: Mapping[str, Any], shape: Shape) -> dict[str, float] | None:
    """Run the counting program; None when it fails, such as without the library of a network."""
    path = os.pathsep.join([str(PACKAGE.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", PROGRAM, json.dumps(dict(network)), json.dumps(list(shape))]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            env=os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""},
        )
        row: dict[str, float] = loads(done.stdout)
    except (subprocess.TimeoutExpired, OSError, ValueError):
        return None
    return row
