"""Accuracies of teachers, handed on from stage to stage."""

from distillery.store.artefact import Artefact
from distillery.teacher.lineage import plain_name, teachers_behind
from helpers.jobs import job_in


def artefact(identity, **metadata):
    return Artefact(None, {"id": identity, "metadata": metadata})


def test_teachers_of_the_set_of_its_labels_and_of_the_job_itself(tmp_path):
    inputs = {
        "distilled": artefact("s-1", teachers_behind={"d-a": 90.0}),
        "label": artefact("l-1", teachers_behind={"d-a": 90.0, "d-b": 80.0}),
        "teachers": [artefact("d-c-0123456789ab", accuracy={"last": 70.0, "best": 75.0})],
    }
    job = job_in(tmp_path, inputs=inputs)
    assert teachers_behind(job) == {"d-a": 90.0, "d-b": 80.0, "d-c": 70.0}


def test_a_set_without_teachers_has_none_behind_it(tmp_path):
    job = job_in(tmp_path, inputs={"distilled": artefact("s-1"), "data": artefact("d-1")})
    assert teachers_behind(job) == {}


def test_a_name_without_the_hash():
    assert plain_name("cifar10-resnet10-w16-b8c8bfb83d32") == "cifar10-resnet10-w16"
    assert plain_name("net") == "net"
