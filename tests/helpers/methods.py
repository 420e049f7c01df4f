"""Short recipes of methods, and running them."""

from __future__ import annotations

from dataclasses import replace

from distillery.components import registry
from distillery.methods import bptt, podd, rat_bptt
from distillery.sets.distilled import DistilledSet
from distillery.store.job import Job
from distillery.teacher.load import Teacher
from helpers.tiny import TinySet, tiny_set, tiny_teacher


def distil(
    reference: dict, train: TinySet, ipc: int, job: Job, teachers: list[Teacher] | None = None
) -> DistilledSet:
    method, recipe = registry.build("method", reference)
    return method.distill(train, recipe, ipc=ipc, teachers=teachers or [], job=job)


SRE2L = {
    "name": "sre2l",
    "teachers": ["net"],
    "iterations": 4,
    "lr": 0.1,
    "r_bn": 0.5,
    "augment": [],
}
INFER = {
    "name": "infer",
    "teachers": ["a", "b"],
    "iterations": 5,
    "lr": 0.1,
    "alpha": 0.5,
    "augment": [],
}


def two_teachers(train: TinySet) -> list[Teacher]:
    return [tiny_teacher(train, 8, 0), tiny_teacher(train, 6, 1)]


NETWORK = {"name": "convnet", "width": 6, "depth": 2, "norm": "instance"}
SHORT = {
    "network": NETWORK,
    "meta_steps": 4,
    "batch": 20,
    "window": 3,
    "inner_steps": 6,
    "whitening": "none",
}
METHODS = {
    "bptt": (bptt, bptt.Recipe(**SHORT | {"inner_steps": 3}), 1),
    "rat-bptt": (
        rat_bptt,
        rat_bptt.Recipe(**SHORT, labels="learned", step_ipc=1, step_classes=3),
        2,
    ),
    "podd": (podd, podd.Recipe(**SHORT, order="given", patch_grid=(4, 2), patches=5), 0.9),
}


def classes(count: int = 4, channels: int = 1) -> TinySet:
    """Images that a network can tell apart: each class is bright in a place of its own."""
    train = tiny_set(count, 12, channels)
    images = train.images // 3
    for label in range(count):
        images[train.labels == label, :, label * 8 // count] += 150
    return replace(train, images=images)
