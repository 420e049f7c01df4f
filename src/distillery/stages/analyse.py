"""The analyse stage: look at a distilled set, its labels or a student, and say what a figure of a paper says about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from distillery.analyses.inputs import AnalysisInputs
from distillery.components import registry
from distillery.data.images import load_images
from distillery.embeddings.distances import read_distances
from distillery.errors import ArtefactError, PlanError
from distillery.nets.network import load_network
from distillery.sets.distilled import DistilledSet
from distillery.sets.whitening import fitting
from distillery.store.files import ANALYSIS_ARRAYS, ANALYSIS_VALUES, STORED_LABELS, STUDENT_WEIGHTS
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Write values.parquet (tidy rows) and, where the analysis has any, arrays.safetensors; return its value and metadata.

    recipe: analysis (component reference), student (network reference or None), labels (component reference or None), repeat
    (enters the seeds). inputs: data, and what the analysis NEEDS of distilled, label (stored labels), teachers (list),
    embeddings and student (an evaluation that kept its weights); the set's whitening where it has one. One that NEEDS a
    protocol trains students itself: recipe and inputs are then also those of an evaluation, as `training.protocol.protocol` reads
    them. Raises PlanError when a needed input is missing, ClassOrderError, TeacherError and ArtefactError when the inputs do
    not fit each other.
    """
    reference = job.recipe["analysis"]
    analysis, recipe = registry.build("analysis", reference)
    _check_inputs(reference["name"], registry.trait(analysis, "needs", ()), job)
    result = analysis.analyse(_inputs(job), recipe, job)
    pq.write_table(pa.table(result.values), job.out / ANALYSIS_VALUES)
    if result.arrays:
        save_file(
            {name: array.cpu().contiguous() for name, array in result.arrays.items()},
            job.out / ANALYSIS_ARRAYS,
        )
    return {"value": result.value, "analysis": reference["name"], **result.metadata}


def _check_inputs(name: str, needs: Sequence[str], job: Job) -> None:
    given = job.inputs | {"protocol": job.recipe.get("training")}
    missing = [role for role in needs if not given.get(role)]
    if missing:
        raise PlanError(
            f"analysis '{name}' needs {', '.join(missing)}: name a row of the table that has them"
        )


def _inputs(job: Job) -> AnalysisInputs:
    data, distilled = job.input("data"), None
    train, test = (load_images(data, split) for split in ("train", "test"))
    if job.find_input("distilled"):
        distilled = DistilledSet.load(job.input("distilled").path)
        distilled.check_classes(train.class_order, f"data {data.id}")
    normal = distilled or train
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=train.class_order,
        mean=normal.mean,
        std=normal.std,
        owner=f"data {data.id}",
    )
    stored = _stored(job, distilled) if distilled and job.find_input("label") else None
    student = _student(job, train.shape, len(train.classes)) if job.find_input("student") else None
    distances = (
        read_distances(job.input("embeddings"), train.class_order)
        if job.find_input("embeddings")
        else None
    )
    whitened = distilled.whitening if distilled else None
    whitening = fitting(
        job.find_input("whitening"), whitened, f"the distilled set of data {data.id}", job.device
    )
    return AnalysisInputs(
        train,
        test,
        distilled,
        stored,
        teachers,
        student,
        normal.mean,
        normal.std,
        whitening,
        distances,
    )


def _stored(job: Job, distilled: DistilledSet) -> Tensor:
    label = job.input("label")
    distilled.check_classes(label.metadata["class_order"], f"labels {label.id}")
    logits = load_file(label.file(STORED_LABELS))["logits"]
    if len(logits) != len(distilled.expand()):
        raise ArtefactError(
            f"labels {label.id}: {len(logits)} for {len(distilled.expand())} instances; make them again"
        )
    return logits.to(job.device)


def _student(job: Job, shape: Sequence[int], classes: int) -> nn.Module:
    evaluation = job.input("student")
    return load_network(
        evaluation.metadata["student"], shape, classes, evaluation.file(STUDENT_WEIGHTS), job.device
    )
