"""Names of libraries read off their files: what the libraries list, and what planning refuses."""

from __future__ import annotations

import subprocess
import sys
import warnings

import pytest

from distillery.errors import PlanError
from distillery.plan import library_names
from distillery.plan.library_names import (
    check_library_name,
    open_clip_models,
    open_clip_weights,
    timm_networks,
    timm_optimizers,
    torchvision_datasets,
    torchvision_networks,
    torchvision_weights,
)
from helpers.planning import planned

# --- what the libraries say themselves


def test_the_networks_and_weights_of_torchvision_are_its_own():
    from torchvision import datasets, models

    assert set(torchvision_networks()) == set(models.list_models(module=models))
    for name, enum in torchvision_networks().items():
        assert models.get_model_weights(name).__name__ == enum
    enums = {models.get_model_weights(name) for name in models.list_models(module=models)}
    whole = {(e, one) for e in enums for one, w in e.__members__.items() if w.meta["categories"]}
    own = {f"{enum.__name__}.{one}" for enum, one in whole}
    assert set(torchvision_weights()) == own
    assert all(models.get_weight(name) for name in torchvision_weights())
    classes = {len(enum[one].meta["categories"]) for enum, one in whole}
    assert classes == {library_names.IMAGENET_CLASSES}
    assert set(torchvision_datasets()) == set(datasets.__all__)


def test_the_networks_of_timm_are_its_own():
    import timm
    from timm.models import _registry

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = timm_networks()
        assert {name for name, now in known.items() if now == name} == set(timm.list_models())
        assert (
            all(map(timm.is_model, known)) and known.keys() == _registry._model_entrypoints.keys()
        )
    old = {name: now for name, now in known.items() if now != name}
    assert old == _registry._deprecated_models


def test_the_optimizers_of_timm_are_its_own():
    import timm.optim

    listed = set(timm.optim.list_optimizers())
    assert set(timm_optimizers()) == listed
    for name, (second_order, package) in timm_optimizers().items():
        info = timm.optim.get_optimizer_info(name)
        assert info.second_order == second_order
        of_another = isinstance(info.opt_class, str)
        assert package == (info.opt_class.partition(".")[0] if of_another else "")


def test_the_models_and_weights_of_open_clip_are_its_own():
    import open_clip
    from open_clip import factory, pretrained

    assert set(open_clip_models()) == set(open_clip.list_models())
    for model, quick in open_clip_models().items():
        assert factory.get_model_config(model).get("quick_gelu", False) == quick
    found = {(model, tag) for model, tags in open_clip_weights().items() for tag in tags}
    assert found == set(open_clip.list_pretrained())
    for model, tags in open_clip_weights().items():
        for tag, quick in tags.items():
            own = pretrained.get_pretrained_cfg(model, tag)
            assert own.get("quick_gelu", False) == quick


# --- what planning says

CASES = {
    "a network of timm": (
        {"networks": {"net-a": {"name": "timm:resnet26x"}}},
        ["net-a.name: timm has no network 'resnet26x': did you mean 'resnet26"],
    ),
    "a network that timm has no more": (
        {"networks": {"net-a": {"name": "timm:gone"}}},
        ["net-a.name: timm has no network 'gone' any more"],
    ),
    "a network of torchvision": (
        {"networks": {"net-b": {"name": "torchvision:vgg11bn"}}},
        ["net-b.name: torchvision has no classifier 'vgg11bn': did you mean 'vgg11_bn'"],
    ),
    "an optimizer": (
        {"evaluate": {"static": {"training": {"optimizer": {"name": "timm:lionn"}}}}},
        ["training.optimizer.name = 'timm:lionn': timm has no optimizer 'lionn': did you mean"],
    ),
    "an optimizer of second derivatives": (
        {"evaluate": {"static": {"training": {"optimizer": {"name": "timm:adahessian"}}}}},
        ["optimizer.name = 'timm:adahessian'", "second derivatives"],
    ),
    "an optimizer of a package": (
        {"evaluate": {"static": {"training": {"optimizer": {"name": "timm:fusedsgd"}}}}},
        ["optimizer.name = 'timm:fusedsgd'", "needs the package 'apex'"],
    ),
    "weights": (
        {"teacher": {"net-a": {"weights": "ResNet18_Weights.IMAGENET1K_V3"}}},
        [
            "teacher.net-a.weights = 'ResNet18_",
            "no such weights",
            "'ResNet18_Weights.IMAGENET1K_V1'",
        ],
    ),
    "weights by another name": (
        {"teacher": {"net-a": {"weights": "resnet18"}}},
        ["teacher.net-a.weights = 'resnet18'", "no such weights"],
    ),
    "weights that are no text": (
        {"teacher": {"net-a": {"weights": 3}}},
        ["teacher.net-a.weights = 3: expected the name"],
    ),
    "weights of another task": (
        {"teacher": {"net-a": {"weights": "FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1"}}},
        ["teacher.net-a.weights = 'FCN", "of a classifier"],
    ),
    "weights of other classes": (
        {"teacher": {"net-a": {"weights": "ResNet18_Weights.DEFAULT"}}},
        ["teacher.net-a.weights", "1000 classes, the data set has 10"],
    ),
    "weights of another network": (
        {
            "networks": {"net-a": {"name": "torchvision:resnet34"}},
            "teacher": {"net-a": {"weights": "ResNet18_Weights.DEFAULT"}},
        },
        ["teacher.net-a.weights", "network 'torchvision:resnet34'", "ResNet34_Weights.DEFAULT"],
    ),
    "weights of another library": (
        {
            "networks": {"net-a": {"name": "timm:resnet26"}},
            "teacher": {"net-a": {"weights": "ResNet18_Weights.DEFAULT"}},
        },
        ["teacher.net-a.weights", "do not fit network 'timm:resnet26'"],
    ),
    "a data set of torchvision": (
        {"datasets": {"digits": {"source": "torchvision:CIFAR11"}}},
        ["datasets.digits.source: torchvision has no data set 'CIFAR11'", "'CIFAR10'"],
    ),
    "a data set of scikit-learn": (
        {"datasets": {"digits": {"source": "sklearn:digit"}}},
        ["datasets.digits.source: 'sklearn:digit': no such data set: did you mean 'digits'"],
    ),
}


@pytest.mark.parametrize(("changes", "words"), CASES.values(), ids=CASES)
def test_a_wrong_name_is_said_while_planning_with_its_place(changes, words, project, monkeypatch):
    gone = {**timm_networks(), "gone": None}
    monkeypatch.setattr(library_names, "timm_networks", lambda: gone)
    with pytest.raises(PlanError) as error:
        planned(project, **changes).missing(["table2"])
    message = str(error.value)
    assert message.startswith("params.yaml.") and all(word in message for word in words), message
    assert len(message) < 600


CLIP = {
    "a model": ({"model": "ViT-B-33"}, ["model = 'ViT-B-33': open_clip has no such", "ViT-B-32"]),
    "weights": ({"weights": "openay"}, ["weights = 'openay'", "'ViT-B-32-quickgelu'", "'openai'"]),
    "weights of another model": (
        {"model": "ViT-B-32", "weights": "webli"},
        ["weights = 'webli'", "no such weights for model 'ViT-B-32'"],
    ),
    "weights of another activation": (
        {"model": "ViT-B-32"},
        ["weights = 'openai'", "another activation", "use model 'ViT-B-32-quickgelu'"],
    ),
    "a prompt of no name": ({"prompt": "a photo"}, ["prompt = 'a photo': has no {}"]),
}


@pytest.mark.parametrize(("fields", "words"), CLIP.values(), ids=CLIP)
def test_a_wrong_name_of_clip_is_said_while_planning(fields, words):
    from distillery.plan.types import component

    with pytest.raises(PlanError) as error:
        component("embedding", {"name": "clip"} | fields, "params.yaml.embed.clip")
    message = str(error.value)
    assert message.startswith("params.yaml.embed.clip.") and all(w in message for w in words), (
        message
    )


def test_right_names_pass(project):
    from distillery.plan.types import component

    component("embedding", {"name": "clip"}, "")
    component(
        "embedding", {"name": "clip", "weights": "LAION400M-e32"}, ""
    )  # as open_clip reads it
    component("embedding", {"name": "clip", "weights": "any", "path": "own.safetensors"}, "")
    for name in ("timm:resnet26", "timm:resnet26.bt_in1k", "torchvision:vgg11_bn", "convnet"):
        check_library_name("network", name)
    for name in ("timm:lion", "timm:lookahead_radam", "timm:nesterov", "sgd"):
        check_library_name("optimizer", name)
    networks = {"net-a": {"name": "torchvision:resnet18"}}
    teacher = {"net-a": {"weights": "ResNet18_Weights.DEFAULT"}}
    expected = {"expected": {"classes": 1000, "train": 5000}}
    planned(project, networks=networks, teacher=teacher, datasets={"digits": expected}).cells(
        "table2"
    )


def test_without_the_libraries_nothing_is_refused(project, monkeypatch):
    for name in dir(library_names):
        if hasattr(cached := getattr(library_names, name), "cache_clear"):
            cached.cache_clear()
    monkeypatch.setattr(library_names, "_folder", lambda library: None)
    known = [timm_networks(), torchvision_networks(), torchvision_weights(), timm_optimizers()]
    assert not any([*known, open_clip_models(), open_clip_weights(), torchvision_datasets()])
    for name in ("timm:nothing", "torchvision:nothing"):
        check_library_name("network", name)
    check_library_name("optimizer", "timm:nothing")
    check_library_name("source", "torchvision:nothing")
    teacher = {"net-a": {"weights": "Nothing.AT_ALL"}}
    planned(project, teacher=teacher).cells("table2")
    for name in dir(library_names):
        if hasattr(cached := getattr(library_names, name), "cache_clear"):
            cached.cache_clear()


def test_looking_names_up_imports_no_library():
    script = (
        "import sys; from distillery.plan.library_names import *;"
        "timm_networks(), torchvision_networks(), torchvision_weights(), timm_optimizers();"
        "open_clip_models(), open_clip_weights(), torchvision_datasets();"
        "print({'torch', 'timm', 'torchvision', 'open_clip'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
