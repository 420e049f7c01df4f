"""Every component keeps the contract of its kind; what only looks like one is refused."""

import ast
import dataclasses
import inspect
import os
import subprocess
import sys
from typing import Annotated

import pytest

from distillery.components import contracts, registry
from distillery.components.contracts import CONTRACTS
from distillery.components.fields import Named, named_fields
from distillery.components.parameters import PARAMETERS, parse
from distillery.components.registry import KINDS, index, module_path
from distillery.components.traits import TRAITS
from distillery.errors import PlanError
from distillery.plan.types import component, traits
from helpers.components import package_copy
from helpers.planning import planned
from helpers.project import ROOT

COMPONENTS = [(kind, module) for kind in KINDS for module in sorted(set(index(kind).values()))]


def functions(contract):
    """The functions that a Protocol demands, by name."""
    return {
        name: value
        for base in contract.__mro__
        if issubclass(base, contracts.Protocol) and base is not contracts.Protocol
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("_")
    }


def parameters(function):
    """Names and kinds of the parameters, without self."""
    found = inspect.signature(function).parameters.values()
    return [(p.name, p.kind) for p in found if p.name != "self"]


def loaded(kind, module):
    """The module of a component."""
    name = next(name for name, home in index(kind).items() if home == module)
    return registry.load(kind, name.replace("*", "x"))


def contract(kind, module):
    """The contract of a component: that of its kind, or the larger one that its traits ask for."""
    name = next(name for name, home in index(kind).items() if home == module)
    found = traits(kind, name)
    if kind == "label" and found.replays:
        return contracts.ReplayedLabelModule
    if kind == "label" and found.stored:
        return contracts.StoredLabelModule
    if kind == "method" and hasattr(loaded(kind, module), "expand"):
        return contracts.ExpandingMethodModule
    return CONTRACTS[kind]


def test_every_kind_has_a_folder_a_contract_and_traits():
    assert KINDS.keys() == CONTRACTS.keys() == TRAITS.keys()
    for folder in KINDS.values():
        assert (registry.PACKAGE / folder).is_dir()
    larger = [contracts.ReplayedLabelModule, contracts.ExpandingMethodModule]
    assert [sorted(functions(kind)) for kind in larger] == [
        ["labeller", "make", "seeds"],
        ["distill", "expand"],
    ]


@pytest.mark.parametrize(("kind", "module"), COMPONENTS)
def test_a_component_defines_what_its_contract_says(kind, module):
    found, wanted = loaded(kind, module), contract(kind, module)
    for name, function in functions(wanted).items():
        assert parameters(getattr(found, name)) == parameters(function), name
    assert hasattr(found, "Recipe") == (kind in contracts.WITH_RECIPE)
    if kind in contracts.WITH_RECIPE:
        assert dataclasses.is_dataclass(found.Recipe)
        assert found.Recipe.__dataclass_params__.frozen


@pytest.mark.parametrize(("kind", "module"), COMPONENTS)
def test_names_and_traits_are_read_without_an_error(kind, module):
    names = registry.literal(module_path(module), "NAMES")
    assert isinstance(names, tuple) and names
    for name in names:
        found = traits(kind, name)
        stated = registry.literal(module_path(module), "TRAITS") or {}
        assert stated == {key: getattr(found, key) for key in stated}


@pytest.mark.parametrize("kind", KINDS)
def test_no_name_is_declared_twice(kind):
    files = sorted((registry.PACKAGE / KINDS[kind]).glob("*.py"))
    names = [name for file in files for name in registry.literal(file, "NAMES") or ()]
    assert len(names) == len(set(names)) == len(index(kind))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "source"])
def test_a_file_that_defines_what_the_contract_says_has_names(kind):
    wanted = functions(CONTRACTS[kind]).keys()
    for file in sorted((registry.PACKAGE / KINDS[kind]).glob("*.py")):
        defined = {node.name for node in ast.parse(file.read_text()).body if hasattr(node, "name")}
        assert (wanted <= defined) == (registry.literal(file, "NAMES") is not None), file


# --- by the type checker -------------------------------------------------------------------------


def checked(folder, lines):
    """What mypy says of a file with these lines; None when it finds nothing in it."""
    file = folder / "conformance.py"
    file.write_text("\n".join(["from distillery.components import contracts", *lines]) + "\n")
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", str(file)]
    environment = os.environ | {"MYPYPATH": "src"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    # By its name alone: of an unchanged file mypy repeats what it said of one in another folder.
    said = [line for line in done.stdout.splitlines() if f"{file.name}:" in line]
    return "\n".join(said) or None


def test_every_component_has_the_types_of_its_contract(tmp_path):
    lines = []
    for number, (kind, module) in enumerate(COMPONENTS):
        lines += [
            f"import {module} as module_{number}",
            f"component_{number}: contracts.{contract(kind, module).__name__} = module_{number}",
        ]
    assert checked(tmp_path, lines) is None


def test_the_type_checker_sees_a_wrong_type_and_a_missing_function(tmp_path):
    wrong = "from torch import Tensor\ndef factor(schedule: Tensor, epoch: int, epochs: int)"
    (tmp_path / "wrong_schedule.py").write_text(f"{wrong} -> float:\n    return 1.0\n")
    said = checked(
        tmp_path,
        [
            "import wrong_schedule",
            "from distillery.losses import kl",
            "one: contracts.ScheduleModule = wrong_schedule",
            "two: contracts.RefinementModule = kl",
        ],
    )
    assert said.count("error: Incompatible types in assignment") == 2
    assert "factor" in said and "refine" in said


# --- what is refused while planning --------------------------------------------------------------

LOSS = """
from dataclasses import dataclass
from torch.nn import functional as F
NAMES = ("mine",)
{constant}
@dataclass(frozen=True)
class Recipe:
    '''No fields.'''
def loss(logits, target, recipe):
    return F.cross_entropy(logits, target.mixed)
"""


@pytest.fixture
def package(tmp_path):
    with package_copy(tmp_path / "copy") as copy:
        yield copy


def plan_with(project, kind, file, text):
    """Plan a table whose rows use the component `mine` of a new file."""
    file.write_text(text)
    changes = {
        "loss": {"evaluate": {"hard": {"loss": {"name": "mine"}}}},
        "method": {"distill": {"infer": {"alpha": 1.0}}},
        **{
            kind: {"evaluate": {"hard": {"training": {field: value}}}}
            for kind, field, value in (
                ("augmentation", "augment", ["mine"]),
                ("optimizer", "optimizer", {"name": "mine"}),
                ("schedule", "schedule", {"name": "mine"}),
                ("mixing", "mix", {"name": "mine"}),
            )
        },
    }
    return planned(project, **changes[kind]).missing(["table2"])


@pytest.mark.parametrize(
    ("constant", "message"),
    [
        (
            "NEEDS_SOFT_LABEL = True",
            "losses/mine.py: NEEDS_SOFT_LABEL: is read by nothing; "
            "write TRAITS = {'needs_soft_labels': ...}",
        ),
        (
            "MIXED_IMAGES: bool = False",
            "losses/mine.py: MIXED_IMAGES: is read by nothing; "
            "write TRAITS = {'mixed_images': ...}",
        ),
        ("TRAIT = {}", "losses/mine.py: TRAIT: is read by nothing: did you mean 'TRAITS'?"),
        (
            "TRAITS = {'needs_soft_label': True}",
            "losses/mine.py: TRAITS['needs_soft_label']: unknown trait: "
            "did you mean 'needs_soft_labels'?",
        ),
        (
            "TRAITS = {'needs_soft_labels': 1}",
            "losses/mine.py: TRAITS['needs_soft_labels'] = 1: expected bool",
        ),
        ("TRAITS = ('mixed_images',)", "losses/mine.py: TRAITS = ('mixed_images',): expected keys"),
        ("TRAITS = dict(mixed_images=False)", "TRAITS is read without running the file"),
    ],
)
def test_a_wrong_trait_of_a_new_file_is_one_line_when_planned(package, project, constant, message):
    with pytest.raises(PlanError) as error:
        plan_with(project, "loss", package / "losses/mine.py", LOSS.format(constant=constant))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            'TRAITS = {"needs": ("teachers",), "compensators": True}',
            'NEEDS = ("teacher",)',
            "methods/infer.py: NEEDS: is read by nothing; write TRAITS = {'needs': ...}",
        ),
        (
            'TRAITS = {"needs": ("teachers",), "compensators": True}',
            "FRACTIONAL_ICP = True",
            "methods/infer.py: FRACTIONAL_ICP: is read by nothing; "
            "write TRAITS = {'fractional_ipc': ...}",
        ),
        (
            '{"needs": ("teachers",), "compensators": True}',
            '{"needs": ("teacher",)}',
            "methods/infer.py: TRAITS['needs'] = 'teacher': does not exist: "
            "did you mean 'teachers'?",
        ),
        (
            '{"needs": ("teachers",), "compensators": True}',
            '{"fractional_icp": True}',
            "methods/infer.py: TRAITS['fractional_icp']: unknown trait: "
            "did you mean 'fractional_ipc'?",
        ),
        (
            '{"needs": ("teachers",), "compensators": True}',
            '{"needs": "teachers"}',
            "methods/infer.py: TRAITS['needs'] = 'teachers': expected tuple[str, ...]",
        ),
    ],
)
def test_a_wrong_trait_of_a_method_is_one_line_when_planned(
    package, project, edit, old, new, message
):
    file = package / "methods/infer.py"
    edit(file, old, new)
    with pytest.raises(PlanError) as error:
        plan_with(project, "method", file, file.read_text())
    assert message in str(error.value)
    assert "\n" not in str(error.value)


AUGMENTATION = """
NAMES = ("mine",)
{constant}
def apply(name, images, generator, parameter):
    return images
"""


@pytest.mark.parametrize(
    ("kind", "folder", "constant", "message"),
    [
        (
            "augmentation",
            "augmentations",
            "TRAITS = {'parameter': 'naturl'}",
            "augment = 'mine': training/augmentations/mine.py: TRAITS['parameter'] = 'naturl': "
            "does not exist: did you mean 'natural'?",
        ),
        (
            "augmentation",
            "augmentations",
            "NORMALIZED = True",
            "NORMALIZED: is read by nothing; write TRAITS = {'normalised': ...}",
        ),
        (
            "augmentation",
            "augmentations",
            "TRAITS = {'default': [1]}",
            "TRAITS['default'] = [1]: expected str | int | float | None",
        ),
        ("optimizer", "optimizers", "TRAITS = {'a': 1}", "TRAITS['a']: unknown trait"),
        ("schedule", "schedules", "TRAITS = {'a': 1}", "TRAITS['a']: unknown trait"),
        ("mixing", "mixings", "TRAITS = {'a': 1}", "TRAITS['a']: unknown trait"),
    ],
)
def test_a_wrong_trait_of_a_training_component_is_one_line_when_planned(
    package, project, kind, folder, constant, message
):
    file = package / "training" / folder / "mine.py"
    with pytest.raises(PlanError) as error:
        plan_with(project, kind, file, AUGMENTATION.format(constant=constant))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_list_of_augmentations_that_is_plain_text_is_refused(package, project, edit):
    # The code of what it names would be no part of the artefact's.
    file = package / "methods/infer.py"
    edit(file, "    augment: NormalisedAugmentations", "    augment: tuple[str, ...]")
    with pytest.raises(PlanError, match=r"infer\.augment: .* the type Augmentations"):
        plan_with(project, "method", file, file.read_text())


@pytest.mark.parametrize(
    ("kind", "folder"),
    [
        ("augmentation", "augmentations"),
        ("optimizer", "optimizers"),
        ("schedule", "schedules"),
        ("mixing", "mixings"),
    ],
)
def test_a_new_file_is_planned_and_is_code_of_what_names_it(package, project, kind, folder):
    file = package / "training" / folder / "mine.py"
    nodes = plan_with(project, kind, file, AUGMENTATION.format(constant=""))
    module = f"distillery.training.{folder}.mine"
    holders = {node.spec.label for node in nodes if module in node.spec.roots}
    assert holders == {f"digits-random-ipc5-hard-net-a-d0-s{student}" for student in (0, 1)}


# --- names in the fields of a recipe --------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Inner:
    name: Annotated[str, Named("optimizer")] = "sgd"


@dataclasses.dataclass(frozen=True)
class Outer:
    one: Annotated[str, Named("loss")]
    many: Annotated[tuple[str, ...], Named("augmentation", any_order=True)] = ()
    maybe: Annotated[str, Named("schedule")] | None = None
    inner: Inner | None = None
    plain: str = "sgd"


def test_the_names_in_a_recipe_are_found_wherever_its_types_say_so():
    values = {"one": "kl", "many": ["flip"], "maybe": "cosine", "inner": {"name": "adam"}}
    found = list(named_fields(Outer, values | {"plain": "adamw"}))
    assert [(field.path, field.mark.kind, field.names) for field in found] == [
        ("one", "loss", ("kl",)),
        ("many", "augmentation", ("flip",)),
        ("maybe", "schedule", ("cosine",)),
        ("inner.name", "optimizer", ("adam",)),
    ]
    assert [field.mark.any_order for field in found] == [False, True, False, False]
    empty = list(named_fields(Outer, {"one": "kl", "maybe": None, "inner": None, "many": []}))
    assert [(field.path, field.names) for field in empty] == [("one", ("kl",)), ("many", ())]


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        ("augmentation", {"default": True}, r"\['default'\] = True: expected str \| int"),
        ("loss", {"mixed_images": 0}, r"\['mixed_images'\] = 0: expected bool"),
        ("label", {"replays": ("epochs", 1)}, r"\['replays'\] = .*: expected tuple"),
        ("label", {"counted_as": 1}, r"\['counted_as'\] = 1: expected str \| None"),
    ],
)
def test_a_trait_of_another_type_is_refused(kind, values, message):
    with pytest.raises(PlanError, match=f"^here: TRAITS{message}"):
        TRAITS[kind].read(values, "here")


# --- parameters behind a colon -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "text", "name", "parameter"),
    [
        ("augmentation", "crop:4", "crop", 4),
        ("augmentation", "flip", "flip", None),
        ("augmentation", "resized-crop", "resized-crop", 0.08),
        ("augmentation", "resized-crop:0.5", "resized-crop", 0.5),
        ("augmentation", "dsa", "dsa", "idc"),
        ("augmentation", "dsa:flip-rotate", "dsa", "flip-rotate"),
        ("optimizer", "timm:lion", "timm:lion", None),
        ("optimizer", "sgd", "sgd", None),
    ],
)
def test_a_name_is_parted_from_its_parameter(kind, text, name, parameter):
    found = parse(kind, text)
    assert (found.name, found.parameter) == (name, parameter)
    assert type(found.parameter) is type(parameter)


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ("crop", "augmentation 'crop' cannot be read: write a whole number from 0 behind it"),
        ("crop:x", "augmentation 'crop:x' cannot be read: write a whole number from 0 behind it"),
        ("crop:1.5", "augmentation 'crop:1.5' cannot be read"),
        ("patch-shuffle:0", "cannot be read: write a whole number from 1 behind it"),
        ("resized-crop:2", "cannot be read: write a number from 0 to 1 behind it"),
        ("resized-crop:nan", "cannot be read: write a number from 0 to 1 behind it"),
        ("flip:2", "augmentation 'flip:2' takes no parameter: write 'flip'"),
        ("dsa:typo", "augmentation 'dsa:typo' does not exist:"),
        ("dsa:ids", "augmentation 'dsa:ids' does not exist: did you mean 'idc'?"),
        ("cropp:4", "augmentation 'cropp' does not exist: did you mean 'crop'?"),
    ],
)
def test_a_wrong_parameter_is_one_line_when_planned(project, augment, message):
    changes = {"static": {"training": {"augment": ["flip", augment]}}}
    with pytest.raises(PlanError) as error:
        planned(project, evaluate=changes).missing(["table2"])
    where = f"params.yaml.evaluate.static.training.augment = '{augment}': "
    assert where in str(error.value) and message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("optimizer", "adamv", "optimizer 'adamv' does not exist: did you mean 'adam"),
        ("optimizer", "sgd:1", "optimizer 'sgd:1' takes no parameter: write 'sgd'"),
        ("schedule", "cosin", "schedule 'cosin' does not exist: did you mean 'cosine'?"),
        ("mix", "mixap", "mixing 'mixap' does not exist: did you mean 'mixup'?"),
    ],
)
def test_a_wrong_name_in_a_training_is_one_line_when_planned(project, field, value, message):
    changes = {"static": {"training": {field: {"name": value}}}}
    with pytest.raises(PlanError) as error:
        planned(project, evaluate=changes).missing(["table2"])
    assert f"static.training.{field}.name = '{value}': {message}" in str(error.value)


def test_the_fields_of_a_method_and_of_stored_labels_are_checked_alike():
    with pytest.raises(PlanError, match=r"^here\.augment = 'rol:4': .* did you mean 'roll'"):
        component("method", {"name": "sre2l", "teachers": ["a"], "augment": ["rol:4"]}, "here")
    labels = {"name": "fkd", "teachers": ["a"], "epochs": 1, "batch": 1}
    with pytest.raises(PlanError, match=r"^here\.mix\.name = 'mixupp': .* did you mean 'mixup'"):
        component("label", labels | {"mix": {"name": "mixupp"}}, "here")
    with pytest.raises(PlanError, match=r"^here\.augment = 'crop': .* cannot be read"):
        component("label", labels | {"augment": ["crop"]}, "here")


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("natural", {"0": 0, "12": 12}, ("-1", "0.5", "inf", "", "x")),
        ("count", {"1": 1}, ("0", "1.5", "")),
        ("fraction", {"0": 0.0, "1": 1.0, "0.25": 0.25}, ("-0.1", "1.1", "nan", "")),
        ("non-negative", {"0": 0.0, "7.5": 7.5}, ("-1", "inf", "nan", "")),
    ],
)
def test_the_numbers_that_a_parameter_may_be(package, kind, good, bad):
    text = AUGMENTATION.format(constant=f"TRAITS = {{'parameter': '{kind}'}}")
    (package / "training/augmentations/mine.py").write_text(text)
    assert {value: parse("augmentation", f"mine:{value}").parameter for value in good} == good
    for value in bad:
        with pytest.raises(PlanError, match=f"'mine:{value}' cannot be read"):
            parse("augmentation", f"mine:{value}")


@pytest.mark.parametrize("name", index("augmentation"))
def test_the_default_of_an_augmentation_is_one_that_it_takes(name):
    found = traits("augmentation", name)
    if found.default is not None:
        assert parse("augmentation", f"{name}:{found.default}").parameter == found.default
    assert found.parameter is None or isinstance(found.parameter, tuple | str)
    assert not isinstance(found.parameter, str) or found.parameter in PARAMETERS
