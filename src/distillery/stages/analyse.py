"""The analyse stage: what a figure of a paper says of a distilled set, its labels or a student."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.torch import load_file, save_file

from distillery.analyses.inputs import AnalysisInputs
from distillery.components import registry
from distillery.data.images import load_images
from distillery.embeddings.distances import read_distances
from distillery.errors import ArtefactError, PlanError
from distillery.nets.network import load_network
from distillery.sets.distilled import DistilledSet
from distillery.sets.load import load_set
from distillery.sets.sizes import sizes_of
from distillery.sets.whitening import matching_whitening
from distillery.store.files import (
    ANALYSIS_ARRAYS,
    ANALYSIS_VALUES,
    STORED_LABELS,
    STUDENT_WEIGHTS,
)
from distillery.teacher.load import load_teachers

if TYPE_CHECKING:
    from torch import Tensor, nn

    from distillery.components.contracts import AnalysisModule
    from distillery.components.registry import Reference
    from distillery.data.images import ImageSet
    from distillery.store.job import Job


def make(job: Job) -> dict[str, Any]:
    """Write values.parquet (tidy rows) and, where the analysis has any, arrays.safetensors.

    Args:
        job: its recipe has analysis, a component reference, and student (network reference or
            None) and labels (component reference or None) where the analysis reads them.
            inputs: data, and what the analysis names under `needs` of distilled, label (stored
            labels), teachers (list), embeddings and student (an evaluation that kept its weights);
            the set's whitening where it has one. An analysis
            that needs a protocol trains students itself: recipe and inputs are then also those of
            an evaluation, as `training.protocol.evaluation_protocol` reads them.

    Returns:
        value, the name of the analysis, what it says of itself, and sizes (`sets.sizes`).

    Raises:
        PlanError: a needed input is missing.
        ClassOrderError: inputs know other classes, or in another order.
        TeacherError: a teacher does not know the data.
        ArtefactError: the stored labels or the whitening are not those of the set.
    """
    reference: Reference = job.recipe["analysis"]
    analysis: AnalysisModule
    analysis, recipe = registry.build("analysis", reference)
    _check_inputs(reference["name"], registry.trait(analysis, "needs", ()), job)
    result = analysis.analyse(_inputs(job), recipe, job)
    pq.write_table(pa.table(dict(result.values)), job.out / ANALYSIS_VALUES)
    if result.arrays:
        arrays = {name: array.cpu().contiguous() for name, array in result.arrays.items()}
        save_file(arrays, job.out / ANALYSIS_ARRAYS)
    said = {"value": result.value, "analysis": reference["name"], **result.metadata}
    return said | {"sizes": sizes_of(job)}


def _check_inputs(name: str, needs: Sequence[str], job: Job) -> None:
    given = {**job.inputs, "protocol": job.recipe.get("training")}
    missing = [role for role in needs if not given.get(role)]
    if missing:
        raise PlanError(
            f"analysis '{name}' needs {', '.join(missing)}: name a row of the table that has them"
        )


def _inputs(job: Job) -> AnalysisInputs:
    data = job.input("data")
    train, test = (load_images(data, split) for split in ("train", "test"))
    distilled = _distilled(job, train)
    mean, std = (distilled or train).mean, (distilled or train).std
    teachers = load_teachers(
        job.inputs_of("teachers"),
        job.device,
        class_order=train.class_order,
        mean=mean,
        std=std,
        owner=f"data {data.id}",
    )
    whitening = matching_whitening(
        job.find_input("whitening"),
        distilled.whitening if distilled else None,
        f"the distilled set of data {data.id}",
        job.device,
    )
    return AnalysisInputs(
        train,
        test,
        distilled,
        _stored(job, distilled) if distilled else None,
        teachers,
        _student(job, train.shape, len(train.classes)),
        mean,
        std,
        whitening,
        _distances(job, train),
        _distilled_with(job),
    )


def _distilled(job: Job, train: ImageSet) -> DistilledSet | None:
    artefact = job.find_input("distilled")
    if artefact is None:
        return None
    distilled = load_set(artefact.path, job.input("data"))
    distilled.check_classes(train.class_order, f"data {job.input('data').id}")
    return distilled


def _distilled_with(job: Job) -> tuple[str, ...]:
    artefact = job.find_input("distilled")
    return tuple(artefact.meta["spec"]["recipe"]["method"].get("teachers", ())) if artefact else ()


def _stored(job: Job, distilled: DistilledSet) -> Tensor | None:
    label = job.find_input("label")
    if label is None:
        return None
    distilled.check_classes(label.metadata["class_order"], f"labels {label.id}")
    logits, count = load_file(label.file(STORED_LABELS))["logits"], len(distilled.expand())
    if len(logits) != count:
        raise ArtefactError(
            f"labels {label.id}: {len(logits)} for {count} instances; make them again"
        )
    return logits.to(job.device)


def _student(job: Job, shape: Sequence[int], classes: int) -> nn.Module | None:
    evaluation = job.find_input("student")
    if evaluation is None:
        return None
    weights = evaluation.file(STUDENT_WEIGHTS)
    return load_network(evaluation.metadata["student"], shape, classes, weights, job.device)


def _distances(job: Job, train: ImageSet) -> Tensor | None:
    artefact = job.find_input("embeddings")
    return read_distances(artefact, train.class_order) if artefact else None
