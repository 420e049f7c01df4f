"""Small data sources on disk, and the data stage run on them, for the tests."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from distillery.data.digest import folder_digest
from distillery.stages.data import make
from distillery.store.artefact import Artefact
from helpers.jobs import quiet_job_in

CHANNELS = {"L": (), "RGB": (3,), "RGBA": (4,)}


def picture(seed: int, width: int = 8, height: int = 8, mode: str = "RGB") -> Image.Image:
    """Noise: what no resizing, reordering or re-encoding leaves as it was."""
    pixels = np.random.default_rng(seed).integers(
        0, 256, (height, width, *CHANNELS[mode]), np.uint8
    )
    return Image.fromarray(pixels)


def encoded(image: Image.Image, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    image.save(file, format)
    return file.getvalue()


def write(file: Path, content: bytes | Image.Image) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else encoded(content))
    return file


def folders(root: Path, classes: tuple[str, ...] = ("cat", "dog"), count: int = 3, **kind) -> Path:
    """`root` with train and test folders of `count` PNGs per class; no two images are equal."""
    for s, split in enumerate(("train", "test")):
        for c, name in enumerate(classes):
            for i in range(count):
                write(root / split / name / f"{i}.png", picture(1000 * s + 100 * c + i, **kind))
    return root


def parquet(
    file: Path,
    images: list,
    labels: list,
    *,
    struct: bool = False,
    metadata: dict | None = None,
    rows: int | None = None,
) -> Path:
    """A parquet file as people have it; `struct` is Hugging Face's way to hold an image."""
    file.parent.mkdir(parents=True, exist_ok=True)
    column = pa.array(
        [{"bytes": image, "path": None} for image in images],
        pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    )
    table = pa.table(
        {"image": column if struct else pa.array(images, pa.binary()), "label": pa.array(labels)}
    )
    pq.write_table(table.replace_schema_metadata(metadata), file, row_group_size=rows)
    return file


def parquets(
    root: Path, train: tuple[int, ...] = (0, 0, 1, 1), test: tuple[int, ...] = (0, 1), **options
) -> Path:
    """`root` with train.parquet and test.parquet of 8x8 RGB noise with these labels."""
    for s, (split, labels) in enumerate((("train", train), ("test", test))):
        images = [encoded(picture(100 * s + i)) for i in range(len(labels))]
        parquet(root / f"{split}.parquet", images, list(labels), **options)
    return root


def run(source: str, digest: str | None = None, **recipe) -> Artefact:
    """The artefact that the data stage makes of a source, in a folder of its own."""
    return run_in(Path(tempfile.mkdtemp(prefix="data-")), source, digest, **recipe)


def run_in(folder: Path, source: str, digest: str | None = None, **recipe) -> Artefact:
    """As `run`, in a folder that may hold what an earlier, killed run left."""
    kind, _, place = source.partition(":")
    if digest is None:
        digest = (
            folder_digest(Path(place))
            if place and kind in ("parquet", "folder") and Path(place).is_dir()
            else source
        )
    job = quiet_job_in(folder, recipe={"source": source, "digest": digest, **recipe})
    metadata = json.loads(json.dumps(make(job)))
    files = {file.name: {} for file in job.out.iterdir()}
    return Artefact(job.out, {"metadata": metadata, "files": files})


def rows(artefact: Artefact, split: str) -> tuple[list[bytes], list[int]]:
    """Encoded images and labels, as stored."""
    table = pq.read_table(artefact.file(f"{split}.parquet"))
    return table["image"].to_pylist(), table["label"].to_pylist()


def arrays(artefact: Artefact, split: str) -> np.ndarray:
    """Decoded pixels (N, H, W[, C]) of a split."""
    return np.stack(
        [np.asarray(Image.open(io.BytesIO(image))) for image in rows(artefact, split)[0]]
    )
