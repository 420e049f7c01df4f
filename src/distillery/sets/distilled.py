"""The one thing that flows through the stages: a distilled set.

It holds what a method stores, not what that expands to, and a sidecar file that says how to read
it: what each part is, the method's layout, the budget, the classes in order, the normalisation.
`expand()` turns it into instances for a student; `bytes` counts what is stored.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.components.registry import load
from distillery.errors import ArtefactError, ClassOrderError
from distillery.sets.jpeg import decoder
from distillery.sets.parts import PARTS, SIDECAR, Kind, Part, check_lengths
from distillery.store.canonical import class_order_hash, read_json
from distillery.store.memory import fits

if TYPE_CHECKING:
    from distillery.data.images import ImageSet

TRAINING_IMAGES = "training images"  # the part that a set refers to, in its sizes


@dataclass(frozen=True)
class Instances:
    """What a student trains on, all of it on one device.

    Images are built when asked for: ImageNet's instances would fill 100 GB, what they are made of a
    tenth. The order of the instances is a function of the distilled set alone; soft labels are
    stored in the same order.

    Attributes:
        labels: (N,) int64, hard.
        take: from indices (B,) int64 to images (B, C, H, W) float32 in [0, 1], or whitened ones.
        soft: what the set itself says of each instance, (N, classes) float32 logits: of
            probabilities p it is log(p + 1e-8). None where it stores hard labels.
        levels: as `take`, but uint8, of which `take` gives 255ths; None where images are no levels.
    """

    labels: Tensor
    take: Callable[[Tensor], Tensor]
    soft: Tensor | None = None
    levels: Callable[[Tensor], Tensor] | None = None

    @classmethod
    def of_levels(cls, labels: Tensor, levels: Callable[[Tensor], Tensor]) -> Instances:
        """Instances whose images are 8-bit levels."""
        return cls(labels, lambda indices: levels(indices).to(torch.float32) / 255, levels=levels)

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """All instances at once: (N, C, H, W) float32 in [0, 1]."""
        return self.take(torch.arange(len(self), device=self.labels.device))


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set; `set["name"]` is the tensor of a part, `"name" in set` whether it has one.

    Attributes:
        method: the method that made it; its module's `expand(set)` builds the instances when it
            defines one, otherwise the parts must be those of `stored_images`.
        ipc: budget, images per class.
        classes: names in label order.
        mean: per channel, of pixels in [0, 1]; with `std` the normalisation of the teachers that
            made the set and of every student.
        std: per channel.
        parts: exactly what is stored, by name.
        layout: the method's own settings that its `expand` reads, JSON values.
        value_range: smallest and largest pixel value.
        whitening: the digest of the `whitening.Whitening` of a set whose instances are whitened;
            mean and std are then 0 and 1.
        train: the training images, of a set that refers to them (trait `whole_data`); not stored.
    """

    method: str
    ipc: float
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parts: dict[str, Part]
    layout: dict[str, Any] = field(default_factory=dict)
    value_range: tuple[float, float] = (0.0, 1.0)
    whitening: str | None = None
    train: ImageSet | None = field(default=None, compare=False, repr=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.parts[name].tensor

    def __contains__(self, name: str) -> bool:
        return name in self.parts

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The stored tensors by name."""
        return {name: part.tensor for name, part in self.parts.items()}

    @property
    def class_order(self) -> str:
        """Hash of the classes in label order."""
        return class_order_hash(list(self.classes))

    @property
    def _counted(self) -> dict[str, Part]:
        return {name: part for name, part in self.parts.items() if not part.derived}

    @property
    def kinds(self) -> dict[str, str]:
        """Kind of each part that `bytes` counts."""
        kinds = {name: str(part.kind) for name, part in self._counted.items()}
        return kinds if self.train is None else kinds | {TRAINING_IMAGES: str(Kind.IMAGE)}

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of each stored part, without what follows from the others.

        Training images that the set refers to count as decoded pixels, a byte each.
        """
        stored = {name: part.tensor.nbytes for name, part in self._counted.items()}
        return stored | self._referred

    @property
    def numbers(self) -> dict[str, int]:
        """How many numbers each part holds that `bytes` counts; a file's bytes are numbers."""
        stored = {name: part.tensor.numel() for name, part in self._counted.items()}
        return stored | self._referred

    @property
    def _referred(self) -> dict[str, int]:
        train = self.train
        return {} if train is None else {TRAINING_IMAGES: len(train) * math.prod(train.shape)}

    def with_tensors(self, tensors: Mapping[str, Tensor]) -> DistilledSet:
        """This set with other tensors in the parts that `tensors` names."""
        changed = {name: replace(self.parts[name], tensor=t) for name, t in tensors.items()}
        return replace(self, parts=self.parts | changed)

    def to(self, device: torch.device | str) -> DistilledSet:
        """This set with all tensors on `device`."""
        return self.with_tensors({name: t.to(device) for name, t in self.tensors.items()})

    def expand(self, device: torch.device | str = "cpu") -> Instances:
        """The instances in stored order, as the method's `expand` builds them.

        They are on `device` where the parts fit there (`store.memory`), else where the parts are.
        """
        build = getattr(self.module, "expand", stored_images)
        size = sum(tensor.nbytes for tensor in self.tensors.values())
        return build(self.to(device) if fits(size, device) else self)

    @property
    def module(self) -> Any:
        """The module of the method, which knows how to expand the set, and its traits."""
        return load("method", self.method)

    def check_classes(self, class_order: str, owner: str) -> None:
        """Raise ClassOrderError unless `owner` (for the message) has these classes in order."""
        if class_order != self.class_order:
            raise ClassOrderError(
                f"{owner} has class order {class_order}, the distilled set has {self.class_order}: "
                f"rebuild one of them from the same data source"
            )

    def save(self, folder: Path) -> None:
        """Write the parts and the sidecar into `folder`."""
        tensors = {name: t.detach().cpu().contiguous() for name, t in self.tensors.items()}
        save_file(tensors, folder / PARTS)
        text = json.dumps(self._sidecar(), indent=1, sort_keys=True, allow_nan=False)
        (folder / SIDECAR).write_text(text + "\n")

    def _sidecar(self) -> dict[str, Any]:
        names = ("method", "ipc", "classes", "mean", "std", "layout", "value_range", "whitening")
        stated = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return stated | {
            "class_order": self.class_order,
            "parts": {
                name: {"kind": part.kind, "derived": part.derived}
                for name, part in self.parts.items()
            },
        }

    @classmethod
    def load(cls, folder: Path) -> DistilledSet:
        """Read a distilled set as it stands in its files; `sets.load.load_set` checks it too.

        Raises:
            ArtefactError: a file is missing or corrupt, or one holds other parts than the other.
            ClassOrderError: the sidecar's hash is not that of its classes.
        """
        try:
            sidecar = read_json(folder / SIDECAR)
            order, stated = sidecar.pop("class_order"), sidecar.pop("parts")
            for name in ("classes", "mean", "std", "value_range"):
                sidecar[name] = tuple(sidecar[name])
            loaded = cls(parts=_parts(load_file(folder / PARTS), stated), **sidecar)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ArtefactError(
                f"{folder}: not a readable distilled set ({type(error).__name__}: {error})"
            ) from None
        loaded.check_classes(order, f"{folder / SIDECAR}")
        return loaded


def _parts(tensors: dict[str, Tensor], stated: dict[str, dict[str, Any]]) -> dict[str, Part]:
    if tensors.keys() != stated.keys():
        raise ValueError(f"{SIDECAR} names {sorted(stated)}, {PARTS} holds {sorted(tensors)}")
    return {
        name: Part(tensors[name], Kind(part["kind"]), part["derived"])
        for name, part in stated.items()
    }


def stored_images(distilled: DistilledSet) -> Instances:
    """Instances of a set whose parts are the images.

    Args:
        distilled: with the parts `images` (N, C, H, W) uint8, or the JPEG files of `jpeg.encode`,
            decoded when they are taken; and `labels` (N,) int64.

    Raises:
        SetError: there are more labels than images, or fewer.
    """
    check_lengths(distilled.tensors, "images", "jpeg_ends", "labels")
    if "jpeg" in distilled:
        read = decoder(distilled["jpeg"], distilled["jpeg_ends"])
    else:
        read = distilled["images"].__getitem__
    return Instances.of_levels(distilled["labels"], read)
