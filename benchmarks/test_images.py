"""Seconds of a pass over test images: decoded at each pass, read ahead, and decoded once.

python benchmarks/test_images.py [--images 1000 --size 224 --passes 3 --rounds 3]

The images are made up, noise on a slope; the network does next to nothing.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from compare import main
from PIL import Image
from torch import nn

from distillery.data.images import ImageSet
from distillery.store.job import keep_freed_memory
from distillery.training.loop import predictions
from distillery.training.samples import Samples

CLASSES = 10
NOWHERE = 0  # bytes that are kept


def pictures(folder: Path, options: argparse.Namespace) -> Path:
    """A parquet file as the data stage writes it, of PNG files."""
    random, size = np.random.default_rng(0), options.size
    slope = np.linspace(0, 200, size)[:, None, None]
    files = []
    for _ in range(options.images):
        levels = (slope + random.integers(0, 50, (size, size, 3))).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(levels).save(file, "PNG")
        files.append(file.getvalue())
    labels = np.arange(options.images, dtype=np.int32) % CLASSES
    pq.write_table(pa.table({"image": files, "label": labels}), folder / "test.parquet")
    return folder / "test.parquet"


def seconds(options: argparse.Namespace, kept: int | None, threads: int) -> float:
    """Of a pass, the first one left out."""
    torch.set_num_threads(threads)
    shape = [3, options.size, options.size]
    stated = {"classes": [str(i) for i in range(CLASSES)], "class_order": "", "shape": shape}
    with tempfile.TemporaryDirectory() as folder:
        file = pictures(Path(folder), options)
        images = ImageSet(file, stated | {"mean": [0.5] * 3, "std": [0.25] * 3}, kept)
        samples = Samples.from_images(images, "cpu", resident=kept)
        keep_freed_memory()
        model = nn.Sequential(nn.AvgPool2d(16), nn.Flatten(), nn.LazyLinear(CLASSES))
        predictions(model, samples)
        start = time.perf_counter()
        for _ in range(options.passes):
            predictions(model, samples)
        return (time.perf_counter() - start) / options.passes


if __name__ == "__main__":
    variants = {
        "decoded at each pass, one thread": lambda options: seconds(options, NOWHERE, 1),
        "decoded at each pass, read ahead, two threads": lambda o: seconds(o, NOWHERE, 2),
        "decoded once, one thread": lambda options: seconds(options, None, 1),
        "decoded once, two threads": lambda options: seconds(options, None, 2),
    }
    main(variants, "s / pass", name="test-images", images=1000, size=224, passes=3)
