"""Check and measure the project on a GPU, in commands of a few minutes that go on from each other.

python benchmarks/gpu/run.py --out DIR --minutes 9 [--data FOLDER] [--vectors FILE]

README.md beside this file has the commands in order and what each gives.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "src"), str(HERE)]

from record import Records, Step, chosen, may_match  # noqa: E402

PARTS = ("check", "measure", "cells")  # in order of worth
LEAST = 15.0  # seconds left that are worth a start of Python
TRIES = 2  # of a step that does not resume, before it counts as failed
POISONED = 3  # exit code of a worker whose device answers no more
STOPPED = 4  # exit code of a worker that had steps left and no time


def main() -> int:
    """0: all steps are done and well. 1: some failed. 2: no such device. 4: some are left."""
    options = _options()
    if options.worker:
        return _work(options)
    if options.device == "cuda" and not (options.list or _has_cuda()):
        print("no CUDA device here; for a rehearsal: --tiny --device cpu", file=sys.stderr)
        return 2
    until = time.time() + 60 * options.minutes
    if options.retry_failed:
        for part in PARTS:
            Records(options.out, part).retry_failed()
    asked = [part for part in PARTS if may_match(part, options.only)]
    if "cells" in asked and not (options.data or options.tiny):
        print("cells: left out; they need CIFAR-10: --data FOLDER", file=sys.stderr)
        asked.remove("cells")
    codes = {part: _part(part, until) for part in asked}
    if options.list:
        return 0
    return _said(options.out, codes)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    add = parser.add_argument
    add("--out", type=Path, required=True, help="what is known and made; kept between commands")
    add("--minutes", type=float, default=9.0, help="this command ends after so many (default 9)")
    add("--data", type=Path, help="folder of CIFAR-10: train.parquet, test.parquet, classes.json")
    add("--vectors", type=Path, help="parquet of class embeddings, for PoDD's order of classes")
    add("--device", default="cuda", choices=("cuda", "cpu"))
    add("--threads", type=int, default=min(os.cpu_count() or 1, 8), help="of the CPU's side")
    add("--tiny", action="store_true", help="all parts at a size that takes a CPU a minute or two")
    add("--only", action="append", default=[], metavar="GLOB", help="steps, such as 'check/set *'")
    add("--list", action="store_true", help="print the steps and whether they are done")
    add("--retry-failed", action="store_true", help="do steps again that ended with an error")
    add("--teacher-epochs", type=int, default=20, help="of INFER's teachers (the paper: 200)")
    add("--podd-minutes", type=float, default=4.0, help="for the meta-steps of each poster")
    add("--podd-steps", type=int, help="meta-steps (default: by --podd-minutes, as measured)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of the cells")
    add("--worker", choices=PARTS, help=argparse.SUPPRESS)
    add("--until", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out = options.out.resolve()
    return options


def _has_cuda() -> bool:
    import torch

    return torch.cuda.is_available()


def _part(part: str, until: float) -> int:
    """Do the steps of a part in processes of their own, until all are done or the time is up."""
    command = [sys.executable, __file__, *sys.argv[1:], "--worker", part, "--until", str(until)]
    while (left := until - time.time()) > LEAST:
        try:
            code = subprocess.run(command, timeout=left).returncode
        except subprocess.TimeoutExpired:
            return STOPPED
        if code in (0, 1, STOPPED):
            return code
    return STOPPED


def _said(out: Path, codes: dict[str, int]) -> int:
    for part, code in codes.items():
        records = Records(out, part)
        records.report()
        rows = records.rows()
        bad = [row for row in rows if row.get("error") or row.get("ok") is False]
        left = "some are left" if code == STOPPED else "all done"
        print(f"{part}: {len(records.read())} steps done, {left}; {len(bad)} rows not well")
        for row in bad:
            print(f"  {row['step']}: {row.get('error') or row}")
    print(f"reports in {out / 'report'}")
    if STOPPED in codes.values():
        return STOPPED
    return max(codes.values(), default=0)


def _work(options: argparse.Namespace) -> int:
    """A worker: the steps of one part, one after another."""
    os.environ.setdefault("DISTILLERY_CHECKPOINT_SECONDS", "20")  # a command may end at any moment
    from importlib import import_module

    from distillery.store.runtime import prepare_torch

    prepare_torch(options.device, options.threads)
    records = Records(options.out, options.worker)
    steps: list[Step] = import_module(options.worker).steps(options)
    steps = [step for step in steps if chosen(f"{options.worker}/{step.name}", options.only)]
    if options.list:
        for step in steps:
            state = "done" if records.done(step.name) else "to do"
            print(f"{state}  {options.worker}/{step.name}")
        return 0
    _machine(options)
    for step in steps:
        if records.done(step.name):
            continue
        if time.time() + LEAST > options.until:
            return STOPPED
        if not _step(step, records):
            return POISONED
    return int(any(record["error"] for record in records.read()))


def _step(step: Step, records: Records) -> bool:
    """Do a step and record it; False: the process is to be left, as its device is out of order."""
    if records.tries.get(step.name, 0) >= TRIES and not step.resumes:
        records.write(step.name, 0.0, [], f"was not finished by {TRIES} processes")
        return True
    records.begin(step.name)
    started, rows, error = time.time(), [], ""
    print(f"{records.part}/{step.name}", file=sys.stderr, flush=True)
    try:
        rows = step.run()
    except Exception as caught:  # whatever it is, the other steps are of use
        traceback.print_exc()
        error = f"{type(caught).__name__}: {str(caught).partition(chr(10))[0]}"
    records.write(step.name, time.time() - started, rows, error)
    return "CUDA error" not in error


def _machine(options: argparse.Namespace) -> None:
    """Write what the numbers were measured on."""
    import platform

    import torch

    from distillery.store.atomic import write_text
    from distillery.store.job import device_name, versions

    known = {
        "device": device_name(torch.device(options.device)),
        "cuda": torch.version.cuda if options.device == "cuda" else None,
        "python": platform.python_version(),
        "versions": versions(),
        "threads": options.threads,
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "tiny": options.tiny,
    }
    write_text(options.out / "report" / "machine.json", json.dumps(known, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
