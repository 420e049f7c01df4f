"""The one thing that flows through the house: a distilled set.

It holds what a method stores (parts), not what that expands to, and a sidecar that says how to read it: the method, the budget,
the classes in order, the normalisation. `expand()` turns it into instances for a student; `bytes` counts what is stored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from distillery.components.registry import load
from distillery.errors import ArtefactError, ClassOrderError
from distillery.sets.jpeg import decoder
from distillery.store.canonical import class_order_hash

PARTS, SIDECAR = "distilled.safetensors", "distilled.json"


@dataclass(frozen=True)
class Instances:
    """What a student trains on, built when asked for: ImageNet's instances would fill 100 GB, what they are made of a tenth.

    labels: (N,) int64, hard. take: indices (B,) int64 -> images (B, C, H, W) float32 in [0, 1], or whitened ones; everything on
    one device. soft: what the set itself says of each instance, (N, classes) float32 logits: of probabilities p it is
    log(p + 1e-8). None where it stores hard labels. The order of the instances is a function of the distilled set alone; soft
    labels are stored in the same order.
    """

    labels: Tensor
    take: Callable[[Tensor], Tensor]
    soft: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def images(self) -> Tensor:
        """All instances at once: (N, C, H, W) float32 in [0, 1]."""
        return self.take(torch.arange(len(self), device=self.labels.device))


@dataclass(frozen=True)
class DistilledSet:
    """A distilled set.

    method: name of the method that made it; its module's `expand(parts)` builds the instances when it defines one, otherwise
        the parts must be those of `stored_images`.
    parts: name -> tensor, exactly what is stored.
    ipc: budget, images per class. classes: names in label order. mean, std: per channel, of pixels in [0, 1]; the normalisation
        of the teachers that made the set and of every student.
    whitening: the digest of the `whitening.Whitening` of a set whose instances are whitened; mean and std are then 0 and 1.
    """

    method: str
    ipc: float
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    parts: dict[str, Tensor] = field(repr=False)
    value_range: tuple[float, float] = (0.0, 1.0)
    whitening: str | None = None

    @property
    def class_order(self) -> str:
        """Hash of the classes in label order."""
        return class_order_hash(list(self.classes))

    @property
    def bytes(self) -> dict[str, int]:
        """Bytes of each stored part, without what follows from the rest: hard labels from the order of the classes, the ends of
        JPEG files from the marks in them."""
        return {
            name: t.numel() * t.element_size()
            for name, t in self.parts.items()
            if name not in ("labels", "jpeg_ends")
        }

    @property
    def numbers(self) -> dict[str, int]:
        """Numbers of each stored part, of the parts that `bytes` counts; a file's bytes are numbers."""
        return {name: self.parts[name].numel() for name in self.bytes}

    def expand(self, device: torch.device | str = "cpu") -> Instances:
        """The instances on `device`, in their stored order, as the method's `expand` builds them."""
        build = getattr(load("method", self.method), "expand", stored_images)
        return build({name: part.to(device) for name, part in self.parts.items()})

    def check_classes(self, class_order: str, owner: str) -> None:
        """Raise ClassOrderError unless `owner` (named in the message) has this set's classes in this order."""
        if class_order != self.class_order:
            raise ClassOrderError(
                f"{owner} has class order {class_order}, the distilled set has {self.class_order}: "
                f"rebuild one of them from the same data source"
            )

    def save(self, folder: Path) -> None:
        """Write the parts and the sidecar into `folder`."""
        save_file({k: v.detach().cpu().contiguous() for k, v in self.parts.items()}, folder / PARTS)
        stated = {
            key: value
            for key, value in asdict(replace(self, parts={})).items()
            if key != "parts" and value is not None
        }
        sidecar = stated | {"class_order": self.class_order}
        (folder / SIDECAR).write_text(json.dumps(sidecar, indent=1, sort_keys=True) + "\n")

    @classmethod
    def load(cls, folder: Path) -> DistilledSet:
        """Read a distilled set. Raises ArtefactError when a file is missing or corrupt, ClassOrderError when the sidecar's hash
        is not that of its classes."""
        try:
            sidecar = json.loads((folder / SIDECAR).read_text())
            order = sidecar.pop("class_order")
            parts = load_file(folder / PARTS)
            loaded = cls(
                parts=parts,
                **{k: tuple(v) if isinstance(v, list) else v for k, v in sidecar.items()},
            )
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise ArtefactError(
                f"{folder}: not a readable distilled set ({type(error).__name__}: {error})"
            ) from None
        loaded.check_classes(order, f"{folder / SIDECAR}")
        return loaded


def stored_images(parts: dict[str, Tensor]) -> Instances:
    """Instances of parts that are the images: `images` (N, C, H, W) uint8, or the JPEG files of `methods.encoded`, decoded when
    they are taken; and `labels` (N,) int64."""
    read = decoder(parts) if "jpeg" in parts else parts["images"].__getitem__
    return Instances(parts["labels"], lambda indices: read(indices).to(torch.float32) / 255)
