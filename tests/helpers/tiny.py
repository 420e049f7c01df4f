"""Tiny data sets, networks and teachers, and what their stages leave in the store."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from distillery.nets import convnet
from distillery.store.artefact import Artefact
from distillery.store.canonical import class_order_hash
from distillery.teacher.load import Teacher


@dataclass(frozen=True)
class TinySet:
    """Random images with the interface of data.images.ImageSet."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    mean: tuple[float, ...] = (0.5,)
    std: tuple[float, ...] = (0.25,)
    shape: tuple[int, int, int] = field(default=(1, 8, 8))
    keeps_originals: bool = False
    resident: bool = False

    @property
    def class_order(self) -> str:
        return class_order_hash(list(self.classes))

    def __len__(self) -> int:
        return len(self.labels)

    def pixels(self, indices: Tensor) -> Tensor:
        return self.images[indices]

    def of_class(self, label: int) -> Tensor:
        return (self.labels == label).nonzero()[:, 0]


def tiny_set(
    classes: int = 4, per_class: int = 12, channels: int = 1, size: int = 8, seed: int = 0
) -> TinySet:
    """Images that are all different, in shuffled label order."""
    stream = torch.Generator().manual_seed(seed)
    labels = torch.arange(classes).repeat(per_class)[
        torch.randperm(classes * per_class, generator=stream)
    ]
    images = torch.randint(
        0, 256, (len(labels), channels, size, size), generator=stream, dtype=torch.uint8
    )
    names = tuple(f"class {i}" for i in range(classes))
    return TinySet(
        images, labels, names, (0.5,) * channels, (0.25,) * channels, (channels, size, size)
    )


def tiny_net(train: TinySet, width: int = 8, seed: int = 0, norm: str = "batch") -> nn.Module:
    """A convnet whose running statistics have seen the images."""
    torch.manual_seed(seed)
    channels, size, _ = train.shape
    recipe = convnet.Recipe(width=width, depth=2, norm=norm)
    net = convnet.build("convnet", recipe, channels=channels, size=size, classes=len(train.classes))
    for _ in range(10):
        net((train.images[:64].float() / 255 - 0.5) / 0.25)
    return net.eval().requires_grad_(False)


def tiny_teacher(train: TinySet, width: int = 8, seed: int = 0, norm: str = "batch") -> Teacher:
    net = tiny_net(train, width, seed, norm)
    return Teacher(
        f"net-{seed}", net, train.mean, train.std, train.classes, train.class_order, 90.0
    )


def teacher_artefact(
    folder: Path, train: TinySet, width: int = 8, seed: int = 0, **metadata: object
) -> Artefact:
    """What the teacher stage leaves in the store."""
    folder.mkdir()
    save_file(tiny_net(train, width, seed).state_dict(), folder / "weights.safetensors")
    known = {
        "classes": list(train.classes),
        "class_order": train.class_order,
        "shape": list(train.shape),
    }
    network = {"name": "convnet", "width": width, "depth": 2, "norm": "batch"}
    normal = {"mean": list(train.mean), "std": list(train.std)}
    meta = {"id": folder.name, "files": {"weights.safetensors": {}}}
    return Artefact(
        folder,
        {
            **meta,
            "metadata": {
                "network": network,
                **known,
                **normal,
                "accuracy": {"last": 90.0, "best": 91.0},
                **metadata,
            },
        },
    )


def data_artefact(folder: Path, train: TinySet, **others: TinySet) -> Artefact:
    """What the data stage leaves in the store: grey PNG images in parquet, by split."""
    folder.mkdir()
    splits = {"train": train, **others}
    for split, images in splits.items():
        encoded = [io.BytesIO() for _ in images.labels]
        for file, image in zip(encoded, images.images, strict=True):
            Image.fromarray(image[0].numpy()).save(file, "png")
        columns = {
            "image": [file.getvalue() for file in encoded],
            "label": pa.array(images.labels.tolist(), pa.int32()),
        }
        pq.write_table(pa.table(columns), folder / f"{split}.parquet")
    metadata = {
        "classes": list(train.classes),
        "class_order": train.class_order,
        "shape": [1, 8, 8],
        "mean": [0.5],
        "std": [0.25],
        "raw_bytes": train.images.numel(),
        "counts": {split: len(images) for split, images in splits.items()},
    }
    return Artefact(
        folder,
        {
            "id": folder.name,
            "metadata": metadata,
            "files": {f"{split}.parquet": {} for split in splits},
        },
    )
