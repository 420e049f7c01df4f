"""Make a sample of the adoptable artefacts again, aside, and adopt only what turns out the same.

Adoption trusts that a change of code changed no result; this tests it.
"""

from __future__ import annotations

import math
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from distillery.errors import ArtefactError, DistilleryError, PlanError
from distillery.plan.explain import changes
from distillery.plan.nodes import Node
from distillery.plan.plan import Plan
from distillery.plan.upkeep import Adoptable, adopt, adoptable
from distillery.store.artefact import META, Meta, is_whole, read_meta
from distillery.store.atomic import copier, write_file
from distillery.store.fingerprint import module_digests
from distillery.store.job import device_name, run, versions
from distillery.store.runtime import prepare_torch
from distillery.store.spec import folder

ASIDE = "results/scratch/verify"


class Changed(NamedTuple):
    """What a change of code can change alike.

    Attributes:
        stage: of the artefacts.
        changed: modules whose code, as far as it counts, is another than when they were made.
    """

    stage: str
    changed: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What may be adopted.

    Attributes:
        same: those of the artefacts that were made again and are the same.
        refused: what is not adopted, each with the reason.
    """

    same: list[Adoptable]
    refused: dict[Adoptable, str]


def adopt_tables(plan: Plan, tables: list[str], amount: float | None, device: str) -> Iterator[str]:
    """Adopt the artefacts of tables, all or those that a sample speaks for.

    Args:
        plan: of the scale whose artefacts are wanted.
        tables: names of the tables that need them.
        amount: of the sample, as for `verified`; None: adopt without a test.
        device: on which the sample is made.

    Yields:
        What was the same and what was adopted, a line each, and how many.

    Raises:
        ArtefactError: an artefact is corrupt; or, after the rest was adopted, some are refused.
        PlanError: there is no such device, or the amount is none.
    """
    if amount is not None and not (0 < amount < 1 or (amount >= 1 and amount == int(amount))):
        raise PlanError(f"--verify {amount:g}: write a whole number, or a share below 1")
    found = adoptable(plan, tables)
    refused: Mapping[Adoptable, str] = {}
    if amount is not None and found:
        verdict = verified(plan, found, amount, device)
        refused = verdict.refused
        for one in verdict.same:
            yield f"same      {_address(one)}"
    for one in found:
        if one not in refused:
            adopt(plan.store, one)
            yield f"{one.node.spec.stage:<9} {one.meta['id']} -> {one.node.spec.id}"
    yield f"{len(found) - len(refused)} artefacts adopted under the present code"
    if refused:
        raise ArtefactError(_refusal(refused))


def _refusal(refused: Mapping[Adoptable, str]) -> str:
    """What is not adopted, in one line: how many for each reason that is not that of an input."""
    reasons = Counter(why for why in refused.values() if not why.startswith(_FOLLOWS))
    listed = "; ".join(f"{why} ({count} of its kind)" for why, count in reasons.items())
    rest = len(refused) - reasons.total()
    follow = f"; {rest} have inputs that are not adopted" if rest else ""
    return f"{len(refused)} artefacts not adopted: {listed}{follow}"


def verified(plan: Plan, found: list[Adoptable], amount: float, device: str) -> Verdict:
    """Make a sample of `found` again with the present code, and judge all of it.

    What differs is refused, with all that the same stage made with the same changed modules, and
    what has any of these as an input. Artefacts are compared only where the same libraries on the
    same device made them; of a stage with a set of modules that has none such all are refused. The
    store is left alone, and a run that was stopped continues where it was.

    Args:
        plan: of which they are missing.
        found: as `adoptable` gives them, inputs first.
        amount: how many of each stage with each set of modules; below 1: the share of them, at
            least one.
        device: auto, cpu, cuda or cuda:N.

    Returns:
        What was the same, and what is refused; all else may be adopted.

    Raises:
        ArtefactError: an artefact in the store is corrupt.
        PlanError: there is no such device.
    """
    check = _Check(plan, found, device)
    sample = [one for one in found if one in check.sample(amount)]
    same = []
    for number, one in enumerate(sample, 1):
        if one in check.refused():
            continue
        print(f"verifying {number} of {len(sample)}: {one.node.address}", file=sys.stderr)
        if why := check.difference(one):
            check.wrong[check.kind(one)] = f"{_address(one)}: {why}"
        else:
            same.append(one)
    shutil.rmtree(check.aside, ignore_errors=True)
    return Verdict(same, check.refused())


_FOLLOWS = "its input"
_WORDS = {(True, True): "differs", (True, False): "is missing", (False, True): "is new"}
Group = tuple[str, tuple[str, ...]]  # a stage, and the roots of the code


class _Check:
    """Adoptable artefacts under test.

    Attributes:
        aside: the folder that this works in.
        wrong: how an artefact of a kind differed.
    """

    def __init__(self, plan: Plan, found: list[Adoptable], device: str) -> None:
        self.plan, self.found, self.device = plan, found, device
        self.aside = plan.root / ASIDE
        self.wrong: dict[Changed, str] = {}
        self._known = {one.node: one for one in found}
        self._absent = {
            up for one in found for up in one.node.upstream() if not plan.have(up)
        } - self._known.keys()
        self._incomparable: dict[Group, str] = {}

    def kind(self, one: Adoptable) -> Changed:
        now, then = module_digests(one.node.spec.roots), one.meta["modules"]
        changed = (name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
        return Changed(one.node.spec.stage, tuple(sorted(changed)))

    def sample(self, amount: float) -> set[Adoptable]:
        """Some of each group that can be compared; which, follows from their keys."""
        groups: dict[Group, list[Adoptable]] = {}
        for one in sorted(self.found, key=lambda one: one.node.key):
            groups.setdefault(_group(one), []).append(one)
        chosen: set[Adoptable] = set()
        for group, members in groups.items():
            wanted = math.ceil(amount * len(members)) if amount < 1 else int(amount)
            random.Random(members[0].node.key).shuffle(members)
            fitting = (one for one in members if self.hindrance(one) is None)
            taken = list(islice(fitting, wanted))
            chosen.update(taken)
            if not taken:
                self._incomparable[group] = (
                    f"{members[0].node.address}: not verified: {self.hindrance(members[0])}"
                )
        return chosen

    @cached_property
    def _here(self) -> tuple[str, dict[str, str | None]]:
        return device_name(prepare_torch(self.device, 1)), versions()

    def hindrance(self, one: Adoptable) -> str | None:
        """Why making an artefact again would prove nothing, or could not be done."""
        for up in one.node.upstream():
            if up in self._absent:
                return f"{up.address}, which it reads, is not in the store"
        device, libraries = self._here
        if one.meta.get("device") != device:
            return f"it was made on '{one.meta.get('device')}', this is '{device}'"
        made_with = one.meta.get("versions", {})
        other = [
            f"{name} {made_with.get(name)} (here {libraries.get(name)})"
            for name in sorted(made_with.keys() | libraries.keys())
            if made_with.get(name) != libraries.get(name)
        ]
        return f"it was made with {', '.join(other)}" if other else None

    def refused(self) -> dict[Adoptable, str]:
        """What may not be adopted, as far as is known now, each with the reason."""
        refused: dict[Adoptable, str] = {}
        for one in self.found:
            why = self.wrong.get(self.kind(one)) or self._incomparable.get(_group(one))
            for up in one.node.upstream():
                if up in self._absent:
                    why = why or self.hindrance(one)
                elif self._known.get(up) in refused:
                    why = why or f"{_FOLLOWS} {up.address} is not adopted"
            if why:
                refused[one] = why
        return refused

    def difference(self, one: Adoptable) -> str | None:
        """Make an artefact again: the first thing in which it differs, or None."""
        made, kept = self.aside / "store", self.aside / "kept"
        for up in one.node.upstream():
            for store in (made, kept):
                self._provide(up, store)
        adopt(self.plan.store, one, kept)
        try:
            again = run(one.node.spec, made, self.device, int(one.meta.get("threads", 1)))
        except DistilleryError as error:
            return f"cannot be made again: {error}"
        earlier = read_meta(folder(kept, one.node.address))
        return next(_differences(earlier, read_meta(again)), None)

    def _provide(self, node: Node, store: Path) -> None:
        """Put an input into another store, adopted where it is to be."""
        source, target = folder(self.plan.store, node.address), folder(store, node.address)
        if is_whole(target):
            return
        if node in self._known:
            adopt(self.plan.store, self._known[node], store)
            return
        for name in (*read_meta(source)["files"], META):
            write_file(target / name, copier(source / name))


def _address(one: Adoptable) -> str:
    """Of the artefact that there is, as `stage/id`."""
    return f"{one.meta['stage']}/{one.meta['id']}"


def _group(one: Adoptable) -> Group:
    return one.node.spec.stage, tuple(one.node.spec.roots)


def _differences(earlier: Meta, again: Meta) -> Iterator[str]:
    """In what two makings of an artefact differ, files first."""
    before, after = earlier["files"], again["files"]
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            there = (name in before, name in after)
            yield f"{name} {_WORDS[there]}"
    for change in changes(earlier["metadata"], again["metadata"]):
        yield f"metadata differ: {change}"
