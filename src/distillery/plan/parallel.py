"""Run jobs side by side, each a command of its own, within cores, memory and one GPU."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from distillery.errors import ArtefactError
from distillery.plan.nodes import Node
from distillery.warm.circumstances import PACKAGE
from distillery.warm.hold import Hold

LOGS = "results/logs"
SHARE = 0.9  # of the memory that jobs may take by their estimates, which are rough


@dataclass
class JobQueue:
    """Which of the missing jobs may start.

    A job starts when its inputs are made, a core is free, the estimates of the running jobs with
    its own keep within the memory, and the GPU is free where it takes it. One that alone is above
    the memory runs alone, since the estimate may be wrong.

    Attributes:
        waiting: jobs in the order of the plan.
        slots: jobs at a time.
        memory: bytes that they may take together; None: nobody says.
        need: bytes that a job takes by the estimate.
        on_gpu: whether a job takes the GPU.
        running: those that have started and not ended.
    """

    waiting: list[Node]
    slots: int
    memory: float | None
    need: Callable[[Node], float]
    on_gpu: Callable[[Node], bool]
    running: list[Node] = field(default_factory=list)

    def start(self) -> Node | None:
        """The first job that may start now, counted as running; None where none may."""
        if len(self.running) >= self.slots:
            return None
        unmade = {id(node) for node in (*self.waiting, *self.running)}
        for node in self.waiting:
            made = not any(id(up) in unmade for up in node.upstream())
            if made and self._fits(node):
                self.waiting.remove(node)
                self.running.append(node)
                return node
        return None

    def _fits(self, node: Node) -> bool:
        if self.on_gpu(node) and any(self.on_gpu(other) for other in self.running):
            return False
        together = sum(self.need(other) for other in (*self.running, node))
        return not self.running or self.memory is None or together <= self.memory


def run_side_by_side(
    schedule: JobQueue, root: Path, device: str, threads: int, said: Callable[[Node], None]
) -> None:
    """Run all jobs of a schedule; after a failure those that run end, and no other starts.

    Each job's output is in results/logs/<stage>/<id>.log, as Snakemake has it.

    Args:
        schedule: of the jobs.
        root: the project's folder.
        device: auto, cpu, cuda or cuda:N.
        threads: of each job.
        said: told of each job that starts.

    Raises:
        ArtefactError: jobs failed; what they said is on stderr.
    """
    commands = _Commands(root, device, threads)
    failed: list[Node] = []
    before = signal.signal(signal.SIGTERM, _leave)
    with Hold() as hold, ThreadPoolExecutor(schedule.slots) as threads_of_commands:
        if len(schedule.waiting) > 1:
            hold.start(root)
        try:
            futures: dict[Future[bool], Node] = {}
            while True:
                while not failed and (node := schedule.start()):
                    said(node)
                    futures[threads_of_commands.submit(commands.run, node)] = node
                if not futures:
                    break
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    schedule.running.remove(node := futures.pop(future))
                    failed += [] if future.result() else [node]
        finally:
            commands.stop()
            signal.signal(signal.SIGTERM, before)
    if failed:
        names = ", ".join(node.address for node in failed)
        raise ArtefactError(f"{names}: failed, see above; the same command continues")


def _leave(number: int, frame: object) -> NoReturn:
    sys.exit(128 + number)  # by way of `finally`, which ends the jobs


class _Commands:
    """Jobs as commands of their own, as `distillery plan --commands` prints them."""

    def __init__(self, root: Path, device: str, threads: int) -> None:
        self.root = root
        self._options = ["--root", str(root), "--device", device, "--threads", str(threads)]
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def run(self, node: Node) -> bool:
        """Run a job to its end; whether it went well. Of one that failed, show the log."""
        log = self.root / LOGS / node.spec.stage / f"{node.spec.id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", PACKAGE.name, node.spec.stage, *self._options]
        environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
        with open(log, "wb") as output:
            process = subprocess.Popen(
                [*command, "--spec", node.spec.dumps()],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=environment,
            )
            self._running.add(process)
            if self._stopped:
                process.terminate()
            code = process.wait()
            self._running.discard(process)
        if code:
            print(f"{node.address}:\n{log.read_text(errors='replace')}", file=sys.stderr)
        return code == 0

    def stop(self) -> None:
        """Tell the jobs that still run to end."""
        self._stopped = True
        for process in list(self._running):
            process.terminate()
