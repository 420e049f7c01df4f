"""A distilled set, its teachers, its labels, and jobs that use them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from distillery.sets.distilled import DistilledSet
from distillery.sets.parts import Kind, Part
from distillery.stages import evaluate
from distillery.stages import label as label_stage
from distillery.store.artefact import Artefact
from distillery.training.batches import Batch, Mixing
from helpers.jobs import job_in
from helpers.tiny import data_artefact, teacher_artefact, tiny_set, tiny_teacher

TRAIN = tiny_set()
TEACHERS = [tiny_teacher(TRAIN, 8, 0), tiny_teacher(TRAIN, 6, 1)]


def infer_set() -> DistilledSet:
    """An INFER set of random parts: K = 3, C = 4, M = 2."""
    stream = torch.Generator().manual_seed(5)
    natural = torch.randint(0, 256, (3, 4, 1, 8, 8), generator=stream, dtype=torch.uint8)
    compensators = (0.2 * torch.randn(2, 3, 1, 8, 8, generator=stream)).half()
    return DistilledSet(
        "infer",
        5,
        TRAIN.classes,
        (0.5,),
        (0.25,),
        {"natural": Part(natural, Kind.IMAGE), "compensators": Part(compensators, Kind.IMAGE)},
        layout={"natural_instances": True},
    )


def batch(indices: Tensor, images: Tensor, mixing: Mixing | None = None) -> Batch:
    return Batch(0, 0, indices, images, mixing or Mixing(1.0, torch.arange(len(indices))))


def stage_inputs(folder: Path, distilled: DistilledSet) -> dict:
    (folder / "set").mkdir()
    distilled.save(folder / "set")
    teachers = [
        teacher_artefact(folder / f"teacher-{seed}", TRAIN, width, seed)
        for width, seed in ((8, 0), (6, 1))
    ]
    return {
        "distilled": Artefact(folder / "set", {"id": "set", "metadata": {}, "files": {}}),
        "teachers": teachers,
    }


def logits_artefact(folder: Path, logits: Tensor, class_order: str = TRAIN.class_order) -> Artefact:
    folder.mkdir()
    save_file({"logits": logits}, folder / "labels.safetensors")
    return Artefact(
        folder,
        {
            "id": "static",
            "metadata": {"class_order": class_order},
            "files": {"labels.safetensors": {}},
        },
    )


def label_artefact(folder: Path, inputs: dict, reference: dict) -> Artefact:
    job = job_in(folder, recipe=reference, inputs=inputs)
    metadata = label_stage.make(job)
    files = {file.name: {} for file in job.out.iterdir()}
    return Artefact(
        job.out,
        {"id": "labels", "metadata": metadata, "files": files, "spec": {"recipe": reference}},
    )


def fkd_job(folder: Path, **training: object) -> evaluate.Job:
    """The job of a student whose labels were stored for 2 epochs of batches of 8."""
    (folder / "inputs").mkdir()
    made = {
        "epochs": 2,
        "batch": 8,
        "augment": ["flip"],
        "mix": {"name": "mixup", "alpha": 0.8},
        "precision": "fp32",
    }
    labels = {"name": "fkd", "teachers": ["a", "b"], "dtype": "float16", **made}
    inputs = stage_inputs(folder / "inputs", infer_set())
    label, data = (
        label_artefact(folder / "label", inputs, labels),
        data_artefact(folder / "data", TRAIN),
    )
    shutil.copy(data.path / "train.parquet", data.path / "test.parquet")
    data = replace(data, meta={**data.meta, "files": {"train.parquet": {}, "test.parquet": {}}})
    student = {"name": "convnet", "width": 4, "depth": 2, "norm": "batch"}
    recipe = {
        "student": student,
        "labels": labels,
        "loss": {"name": "kl"},
        "training": {**made, **training},
    }
    return job_in(
        folder / "job",
        key="another key: the streams must come from the labels",
        recipe=recipe,
        inputs={"data": data, "distilled": inputs["distilled"], "label": label},
    )
