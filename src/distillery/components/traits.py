"""The traits of components: what the planner knows of each without importing it.

A component's file may assign one literal mapping, `TRAITS`. Its keys are the fields of the class of
its kind, below; what it leaves out has the default. The planner reads the mapping from the source
text (`plan.types.traits`), so that nothing is imported to plan.

Nothing that runs in a job imports this file: a new trait makes no artefact anew.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from distillery.components.parameters import PARAMETERS
from distillery.errors import PlanError, nearest

T = TypeVar("T", bound="Traits")


@dataclass(frozen=True)
class Traits:
    """Traits of a kind that has none."""

    # The values that a trait allows, where its type allows more.
    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @classmethod
    def read(cls: type[T], values: Any, where: str) -> T:
        """The traits of the literal mapping `values`, found at `where` (a file).

        Raises:
            PlanError: it is no mapping, has an unknown key, or a value of a wrong type or, in
                `ALLOWED`, one that does not exist.
        """
        if not isinstance(values, Mapping):
            raise PlanError(f"{where}: TRAITS = {values!r}: expected keys and values")
        hints = typing.get_type_hints(cls)
        fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
        for key, value in values.items():
            if key not in fields:
                raise PlanError(f"{where}: TRAITS['{key}']: unknown trait: {nearest(key, fields)}")
            _check(value, fields[key], cls.ALLOWED.get(key), f"{where}: TRAITS['{key}']")
        return cls(**values)

    @classmethod
    def check_stray(cls, names: Iterable[str], where: str) -> None:
        """Refuse a module constant of `names` that looks like a trait but stands outside TRAITS.

        Raises:
            PlanError: a constant is called like a trait, or nearly so.
        """
        traits = [field.name.upper() for field in dataclasses.fields(cls)]
        for name in names:
            if name not in READ and difflib.get_close_matches(name, READ, n=1, cutoff=0.82):
                raise PlanError(f"{where}: {name}: is read by nothing: {nearest(name, READ)}")
            if close := difflib.get_close_matches(name, traits, n=1, cutoff=0.8):
                trait = close[0].lower()
                raise PlanError(
                    f"{where}: {name}: is read by nothing; write TRAITS = {{'{trait}': ...}}"
                )


READ = ("NAMES", "TRAITS")  # the constants of a component that are read from its source text


def _check(value: Any, hint: Any, allowed: Sequence[str] | None, where: str) -> None:
    if not _is_of(value, hint):
        expected = hint.__name__ if isinstance(hint, type) else str(hint)
        raise PlanError(f"{where} = {value!r}: expected {expected}")
    if allowed is None:
        return
    for name in (value,) if isinstance(value, str) else value:
        if name not in allowed:
            raise PlanError(f"{where} = '{name}': does not exist: {nearest(name, allowed)}")


def _is_of(value: Any, hint: Any) -> bool:
    """Whether a literal is of a type as the traits have them; a whole number is no `bool`."""
    options = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_is_of(item, options[0]) for item in value)
    if isinstance(hint, types.UnionType):
        return any(_is_of(value, option) for option in options)
    return type(value) is hint


@dataclass(frozen=True)
class MethodTraits(Traits):
    """Of a method.

    Attributes:
        needs: "teachers": its recipe must name at least one.
        soft_labels: whether its sets hold soft labels; where the recipe decides, its property
            `soft` does.
        fractional_ipc: whether it takes fractions of an image per class.
        poster: whether its instances are patches of posters, in the order of their places and with
            labels of any number per class. Otherwise there are equally many of each class, class by
            class or one of each class in turn.
        compensators: whether its sets hold images and compensators that are added to them.
        free_pixels: whether pixels that are not whitened may lie outside [0, 1], being learned
            without bounds.
        whole_data: whether its sets are all training images, which they refer to and do not store;
            their budget is what the data have, whatever ipc is asked for.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {"needs": ("teachers",)}
    needs: tuple[str, ...] = ()
    soft_labels: bool = False
    fractional_ipc: bool = False
    poster: bool = False
    compensators: bool = False
    free_pixels: bool = False
    whole_data: bool = False


@dataclass(frozen=True)
class LabelTraits(Traits):
    """Of a kind of labels.

    Attributes:
        logits: whether it gives soft labels.
        stored: whether it writes files, an artefact of the label stage.
        stored_in_set: whether they are the labels that a distilled set holds itself.
        counted_as: the kind as which the papers' compression ratio counts it; None: as itself.
        replays: fields of the training recipe that its labels are made for.
    """

    logits: bool = False
    stored: bool = False
    stored_in_set: bool = False
    counted_as: str | None = None
    replays: tuple[str, ...] = ()


@dataclass(frozen=True)
class LossTraits(Traits):
    """Of a loss.

    Attributes:
        needs_soft_labels: whether it compares with a teacher's logits.
        mixed_images: whether it is defined where images are mixed.
    """

    needs_soft_labels: bool = False
    mixed_images: bool = True


@dataclass(frozen=True)
class RefinementTraits(Traits):
    """Of a refinement of labels.

    Attributes:
        needs_soft_labels: whether it changes a teacher's logits.
    """

    needs_soft_labels: bool = False


@dataclass(frozen=True)
class EmbeddingTraits(Traits):
    """Of a source of class embeddings.

    Attributes:
        needs: "teachers": its recipe must name at least one.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {"needs": ("teachers",)}
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class AnalysisTraits(Traits):
    """Of an analysis.

    Attributes:
        needs: what it looks at: the inputs of its job, and "protocol" where it trains students.
        of: the trait that a method must have for its sets to be looked at; None: any will do.
    """

    ALLOWED: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "needs": ("distilled", "label", "teachers", "embeddings", "student", "protocol"),
        "of": ("poster", "compensators"),
    }
    needs: tuple[str, ...] = ()
    of: str | None = None


@dataclass(frozen=True)
class SourceTraits(Traits):
    """Of a kind of data source.

    Attributes:
        on_disk: whether its place is a folder with content of its own, which identifies it.
        places: all that may stand behind its colon; empty: not known before it is opened.
    """

    on_disk: bool = False
    places: tuple[str, ...] = ()


@dataclass(frozen=True)
class AugmentationTraits(Traits):
    """Of the augmentations of a file.

    Attributes:
        normalised: whether they work on normalised images, where 0 is the mean, not on pixels.
        within_image: whether their parameter must be below the side of the images, in pixels.
        parameter: what stands behind the colon of a name: one of `parameters.PARAMETERS`, or the
            words to choose from; None: nothing may.
        default: the parameter where nothing stands there; None: something must.
    """

    normalised: bool = False
    within_image: bool = False
    parameter: str | tuple[str, ...] | None = None
    default: str | int | float | None = None

    @classmethod
    def read(cls: type[T], values: Any, where: str) -> T:
        """As of all traits; `parameter`, where it is one word, must be known."""
        traits = super().read(values, where)
        parameter = values.get("parameter")
        if isinstance(parameter, str) and parameter not in PARAMETERS:
            wrong = f"{where}: TRAITS['parameter'] = '{parameter}'"
            raise PlanError(f"{wrong}: does not exist: {nearest(parameter, PARAMETERS)}")
        return traits


TRAITS: dict[str, type[Traits]] = {
    "method": MethodTraits,
    "label": LabelTraits,
    "loss": LossTraits,
    "refinement": RefinementTraits,
    "network": Traits,
    "embedding": EmbeddingTraits,
    "analysis": AnalysisTraits,
    "figure": Traits,
    "source": SourceTraits,
    "augmentation": AugmentationTraits,
    "optimizer": Traits,
    "schedule": Traits,
    "mixing": Traits,
}
