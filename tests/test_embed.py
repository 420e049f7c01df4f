"""Class embeddings: each source against the computation by hand, their stage, a CLIP of width 8."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cosine_similarity

from distillery.components import registry
from distillery.embeddings import clip
from distillery.embeddings.distances import ClassDistances, cosine_distances, read_distances
from distillery.embeddings.file import completed
from distillery.errors import ArtefactError, ClassOrderError, DataError, PlanError
from distillery.nets.features import penultimate
from distillery.stages import embed as stage
from distillery.store.artefact import Artefact
from distillery.store.canonical import file_sha256
from helpers.jobs import job_in
from helpers.tiny import data_artefact, teacher_artefact, tiny_set, tiny_teacher

TRAIN = tiny_set(classes=5)
TEACHER = tiny_teacher(TRAIN, 8, 0)
FEATURES = {"name": "features", "teachers": ["a"]}


def written_out(vectors: Tensor) -> Tensor:
    return torch.stack(
        [torch.stack([1 - cosine_similarity(a, b, dim=0) for b in vectors]) for a in vectors]
    )


def embed(
    folder: Path, reference: dict, teachers: list | None = None, train: object = TRAIN
) -> ClassDistances:
    source, recipe = registry.build("embedding", reference)
    return source.embed(
        train.classes, recipe, train=train, teachers=teachers or [], job=job_in(folder)
    )


def class_means() -> Tensor:
    images = (TRAIN.images.float() / 255 - 0.5) / 0.25
    return torch.stack(
        [penultimate(TEACHER.model, images[TRAIN.labels == label]).mean(0) for label in range(5)]
    )


def table(file: Path, labels: list[int], **columns: list) -> tuple[str, np.ndarray]:
    vectors = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)[labels]
    content = {
        "class": [TRAIN.classes[label] for label in labels],
        "embedding": vectors.tolist(),
    } | columns
    pq.write_table(pa.table({name: column for name, column in content.items() if column}), file)
    return str(file), vectors


def test_distances_are_one_minus_cosine_symmetric_and_zero_at_home():
    vectors = torch.randn(6, 9, generator=torch.Generator().manual_seed(0))
    found = cosine_distances(vectors)
    torch.testing.assert_close(found.float(), written_out(vectors), atol=1e-6, rtol=0)
    assert torch.equal(found, found.T) and not found.diagonal().any()
    assert cosine_distances(torch.tensor([[1.0, 0], [3, 0], [0, 2], [-1, 0]]))[0].tolist() == [
        0,
        0,
        1,
        2,
    ]


def test_features_are_class_means_of_the_first_teacher(tmp_path):
    found = embed(tmp_path, FEATURES, [TEACHER, tiny_teacher(TRAIN, 6, 1)])
    torch.testing.assert_close(found.embeddings.float(), class_means())
    torch.testing.assert_close(
        found.distances.float(), written_out(class_means()), atol=1e-6, rtol=0
    )
    with pytest.raises(PlanError, match="need a teacher"):
        embed(tmp_path, FEATURES)


@pytest.mark.parametrize("key", ["class", "label"])
def test_a_file_is_read_by_class_or_label_whatever_its_order(key, tmp_path):
    shuffled = [3, 0, 4, 1, 2]
    columns = {"prompt": [f"a {i}" for i in shuffled]} | (
        {"class": [], "label": shuffled} if key == "label" else {}
    )
    path, vectors = table(tmp_path / "a.parquet", shuffled, **columns)
    found = embed(tmp_path, {"name": "file", "path": path})
    in_order = torch.from_numpy(vectors)[torch.tensor(shuffled).argsort()]
    assert torch.equal(found.embeddings, in_order) and found.provenance[4] == "file, prompt 'a 4'"
    torch.testing.assert_close(found.distances.float(), written_out(in_order), atol=1e-6, rtol=0)


def test_missing_classes_are_an_error_or_take_features_of_the_same_spread(tmp_path):
    path, vectors = table(tmp_path / "a.parquet", [0, 1, 2, 4])
    reference = {"name": "file", "path": path}
    with pytest.raises(DataError, match=r"lacks 1 of 5 classes \(class 3\).*missing: features"):
        embed(tmp_path, reference)
    found = embed(tmp_path, reference | {"missing": "features", "teachers": ["a"]}, [TEACHER])
    known, stated, features = (
        [0, 1, 2, 4],
        written_out(torch.from_numpy(vectors)),
        written_out(class_means()),
    )
    assert (
        found.embeddings is None
        and found.provenance[3] == "not in the file: features of net-0"
        and found.provenance[0] == "file"
    )
    torch.testing.assert_close(found.distances[known][:, known].float(), stated, atol=1e-6, rtol=0)
    pairs = [(i, j) for i in range(4) for j in range(i)]
    goal = np.array([stated[i, j] for i, j in pairs], np.float64)
    given = np.array([features[known[i], known[j]] for i, j in pairs], np.float64)
    line = (features[3, known].numpy() - given.mean()) / given.std() * goal.std() + goal.mean()
    np.testing.assert_allclose(found.distances[3, known], np.maximum(line, 0), rtol=1e-3)
    assert torch.equal(found.distances, found.distances.T) and not found.distances.diagonal().any()


def test_completed_distances_agree_where_both_are_known():
    """All pairs from the other distances: the known pairs have the stated mean and deviation."""
    others = cosine_distances(torch.randn(8, 4, generator=torch.Generator().manual_seed(1)))
    known = torch.tensor([1, 3, 4, 6, 7])
    stated = 0.1 + 0.5 * others[known][:, known].fill_diagonal_(-0.2)
    torch.testing.assert_close(
        completed(stated, known, others), (0.1 + 0.5 * others).fill_diagonal_(0)
    )


def labels(*found: object) -> Callable[[Path], object]:
    """A table of classes by label, which are these."""
    return lambda file: table(file, [0, 1, 2, 3, 4], **{"class": [], "label": list(found)})


def test_completed_distances_are_not_negative():
    # stated: mean 0.5, deviation 0.4; others: 0.6 and 0.1; so 0.1 would become 0.5 + 4 (0.1 - 0.6)
    stated = torch.tensor([[0, 0.1, 0.5], [0.1, 0, 0.9], [0.5, 0.9, 0]])
    others = torch.tensor([[0, 0.5, 0.6, 0.1], [0.5, 0, 0.7, 0.6], [0.6, 0.7, 0, 0.7]])
    others = torch.cat((others, torch.tensor([[0.1, 0.6, 0.7, 0]])))
    found = completed(stated, torch.arange(3), others)
    torch.testing.assert_close(found[3], torch.tensor([0, 0.5, 0.9, 0]))
    assert torch.equal(found[:3, :3], stated) and torch.equal(found, found.T)


def test_completed_distances_are_the_mean_where_the_others_are_all_equal():
    stated = torch.tensor([[0, 0.1, 0.5], [0.1, 0, 0.9], [0.5, 0.9, 0]])
    found = completed(stated, torch.arange(3), 1 - torch.eye(4))
    torch.testing.assert_close(found[3], torch.tensor([0.5, 0.5, 0.5, 0]))


FAULTS = {
    "has 2 of 5 classes, 3 needed": lambda file: table(file, [0, 1]),
    "names class 'class 1' twice": lambda file: table(file, [0, 1, 2, 1, 4, 3]),
    "no table of class": lambda file: table(file, [0, 1, 2, 3, 4], embedding=[]),
    "no table of class .*ArrowInvalid": lambda file: file.write_text("no parquet file"),
    "no table of class .*no file": lambda file: os.mkfifo(file),
    r"row 4: label = -1: expected a whole number from 0 to 4": labels(0, 1, 2, 3, -1),
    r"row 2: label = 5: expected": labels(0, 1, 5, 3, 4),
    r"row 0: label = 0\.0: expected": labels(0.0, 1.0, 2.0, 3.0, 4.0),
    r"row 0: label = True: expected": labels(*[True] * 5),
    r"row 3: label = None: expected": labels(0, 1, 2, None, 4),
    r"row 1: class = None: is no name": lambda file: table(
        file, [0, 1, 2, 3, 4], **{"class": ["class 0", None, "class 2", "class 3", "class 4"]}
    ),
    r"row 2: the embedding of class 'class 2' is not all finite, or all 0": lambda file: table(
        file, [0, 1, 2, 3, 4], embedding=[[1.0, 2.0]] * 2 + [[0.0, 0.0]] * 3
    ),
    r"row 0: the embedding of class 'class 0' is not all finite": lambda file: table(
        file, [0, 1, 2, 3, 4], embedding=[[1.0, float("inf")]] * 5
    ),
}


@pytest.mark.parametrize("named", FAULTS)
def test_file_errors_name_the_cause(named, tmp_path):
    FAULTS[named](tmp_path / "a.parquet")
    with pytest.raises(DataError, match=named):
        embed(
            tmp_path,
            {"name": "file", "path": str(tmp_path / "a.parquet"), "missing": "features"},
            [TEACHER],
        )


def stage_job(folder: Path, source: dict, digest: str | None = None, teacher: object = None):
    folder.mkdir(exist_ok=True)
    inputs = {"data": data_artefact(folder / "data", TRAIN)} | (
        {"teachers": [teacher]} if teacher else {}
    )
    return job_in(folder, recipe={"source": source, "digest": digest}, inputs=inputs)


def artefact_of(job, metadata: dict) -> Artefact:
    return Artefact(
        job.out,
        {
            "id": "embeddings",
            "metadata": metadata,
            "files": {file.name: {} for file in job.out.iterdir()},
        },
    )


def test_stage_writes_distances_and_embeddings_and_says_where_from(tmp_path):
    path, vectors = table(tmp_path / "a.parquet", list(range(5)))
    job = stage_job(tmp_path / "job", {"name": "file", "path": path}, file_sha256(Path(path)))
    metadata = stage.make(job)
    assert metadata == json.loads(json.dumps(metadata)) and str(tmp_path) not in json.dumps(
        metadata
    )
    assert (
        metadata["provenance"] == ["file"] * 5
        and metadata["class_order"] == TRAIN.class_order
        and metadata["dimension"] == 7
    )
    tensors = load_file(job.out / "embeddings.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32}
    assert torch.equal(tensors["embeddings"], torch.from_numpy(vectors))
    assert torch.equal(
        read_distances(artefact_of(job, metadata), TRAIN.class_order), tensors["distances"]
    )
    with pytest.raises(ClassOrderError, match="make them from the same data source"):
        read_distances(artefact_of(job, metadata), "another")
    with pytest.raises(ArtefactError, match="has no file"):
        read_distances(
            replace(artefact_of(job, metadata), meta={"id": "", "metadata": metadata, "files": {}}),
            TRAIN.class_order,
        )


def test_stage_hands_teachers_on(tmp_path):
    teacher = teacher_artefact(tmp_path / "teacher", TRAIN)
    job = stage_job(tmp_path / "job", FEATURES, teacher=teacher)
    assert stage.make(job)["provenance"] == ["features of convnet"] * 5
    torch.testing.assert_close(
        load_file(job.out / "embeddings.safetensors")["embeddings"], class_means()
    )


def test_stage_refuses_changed_missing_and_infinite_files(tmp_path):
    path, _ = table(tmp_path / "a.parquet", list(range(5)))
    digest = file_sha256(Path(path))
    table(tmp_path / "a.parquet", list(range(5)), embedding=[[float("nan"), 1.0]] * 5)
    with pytest.raises(DataError, match=rf"a\.parquet: changed since planning.*was {digest}"):
        stage.make(stage_job(tmp_path / "changed", {"name": "file", "path": path}, digest))
    with pytest.raises(DataError, match="not all finite"):
        stage.make(
            stage_job(tmp_path / "nan", {"name": "file", "path": path}, file_sha256(Path(path)))
        )
    with pytest.raises(DataError, match="no such file"):
        stage.make(stage_job(tmp_path / "none", {"name": "file", "path": path + "x"}, digest))


TEXT = {"context_length": 77, "vocab_size": 49408, "width": 8, "heads": 2, "layers": 2}
VISION = {"image_size": 8, "layers": 1, "width": 8, "head_width": 4, "patch_size": 8}
NAMED = replace(TRAIN, classes=("airplane", "lawn_mower", "ship", "cat", "maple_tree"))


@pytest.fixture(scope="module")
def tiny_clip(tmp_path_factory):
    """open_clip's text model with random weights, registered as `tiny-clip`; its checkpoints."""
    import open_clip

    folder = tmp_path_factory.mktemp("clip")
    (folder / "tiny-clip.json").write_text(
        json.dumps({"embed_dim": 6, "vision_cfg": VISION, "text_cfg": TEXT})
    )
    open_clip.add_model_config(folder / "tiny-clip.json")
    torch.manual_seed(0)
    model = open_clip.create_model("tiny-clip").eval()
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()},
        folder / "a.safetensors",
    )
    torch.save(model.state_dict(), folder / "a.pt")
    yield model, open_clip.get_tokenizer("tiny-clip"), folder
    # Other tests ask which models open_clip has of itself.
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder / "tiny-clip.json")
    del open_clip.factory._MODEL_CONFIGS["tiny-clip"]


def by_hand(model: torch.nn.Module, tokens: Tensor) -> Tensor:
    """Final hidden states (n, 77, 8) through the parts of the model."""
    states = model.token_embedding(tokens) + model.positional_embedding
    return model.ln_final(model.transformer(states, attn_mask=model.attn_mask))


PROMPTS = ["airplane", "lawn mower", "boat", "cat", "maple tree"]


@pytest.mark.parametrize("file", ["a.safetensors", "a.pt"])
@torch.no_grad()
def test_clip_reads_names_as_the_model_called_by_hand(file, tiny_clip, tmp_path):
    model, tokenizer, folder = tiny_clip
    reference = {
        "name": "clip",
        "model": "tiny-clip",
        "path": str(folder / file),
        "names": {"ship": "boat"},
    }
    pooled = embed(tmp_path, reference | {"tokens": "pooled"}, train=NAMED)
    torch.testing.assert_close(pooled.embeddings, model.encode_text(tokenizer(PROMPTS)))
    every = embed(tmp_path, reference, train=NAMED)
    tokens = tokenizer(PROMPTS)
    for row in tokens:
        end = row.tolist().index(49407)
        row[end:] = 49407
    assert every.embeddings.shape == (5, 77 * 8)
    torch.testing.assert_close(every.embeddings, by_hand(model, tokens).flatten(1))
    torch.testing.assert_close(
        every.distances.float(), written_out(every.embeddings), atol=1e-6, rtol=0
    )
    assert every.provenance[1:3] == [
        f"tiny-clip, all tokens, prompt {prompt!r}" for prompt in ("lawn mower", "boat")
    ]
    words = tmp_path / "words.txt"  # of a data set whose folders are named by numbers
    lines = [
        f"{name}\t{text}, other words" for name, text in zip(NAMED.classes, PROMPTS, strict=True)
    ]
    words.write_text("n0\tentity\n" + "\n".join(lines))
    read = embed(tmp_path, reference | {"names": {}, "words_path": str(words)}, train=NAMED)
    assert torch.equal(read.embeddings, every.embeddings)
    words.write_text("\n".join(lines[1:]))
    with pytest.raises(DataError, match=f"has no words for '{NAMED.classes[0]}'"):
        embed(tmp_path, reference | {"names": {}, "words_path": str(words)}, train=NAMED)
    said = embed(tmp_path, reference | {"tokens": "pooled", "prompt": "a {}"}, train=NAMED)
    torch.testing.assert_close(
        said.embeddings, model.encode_text(tokenizer([f"a {prompt}" for prompt in PROMPTS]))
    )


def test_padding_starts_after_the_end_token():
    tokens = torch.tensor([[8, 1, 9, 0, 0], [8, 1, 2, 3, 9]])
    assert clip._padded(tokens, 9).tolist() == [[8, 1, 9, 9, 9], [8, 1, 2, 3, 9]] and torch.equal(
        clip._padded(tokens, None), tokens
    )


class Trap:
    """Runs code when it is unpickled."""

    def __reduce__(self):
        return Path.touch, (Path("trapped"),)


def test_clip_errors_name_the_cause_and_unpickle_nothing(tiny_clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reference = {"name": "clip", "model": "tiny-clip", "path": str(tmp_path / "bad.pt")}
    for content, named in (
        ({"a": Trap()}, "bad.pt"),
        ({"a": torch.zeros(1)}, "Error.* loading state_dict"),
    ):
        torch.save(content, tmp_path / "bad.pt")
        with pytest.raises(DataError, match=named):
            embed(tmp_path, reference, train=NAMED)
    assert not Path("trapped").exists()
    with pytest.raises(PlanError, match="'shop', which is no class: did you mean 'ship'"):
        embed(tmp_path, reference | {"names": {"shop": "boat"}}, train=NAMED)
    with pytest.raises(PlanError, match=r"prompt 'a name' has no \{\}"):
        embed(tmp_path, reference | {"prompt": "a name"}, train=NAMED)
    with pytest.raises(PlanError, match="no model 'tiny-klip': did you mean 'tiny-clip'"):
        embed(tmp_path, reference | {"model": "tiny-klip"}, train=NAMED)
    with pytest.raises(DataError, match="weights 'nowhere' for 'tiny-clip'"):
        embed(tmp_path, {"name": "clip", "model": "tiny-clip", "weights": "nowhere"}, train=NAMED)


def test_clip_refuses_weights_of_another_activation(tmp_path, monkeypatch):
    import open_clip

    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    monkeypatch.setattr(
        "open_clip.factory.download_pretrained",
        lambda *args, **options: str(tmp_path / "a.safetensors"),
    )
    with pytest.raises(DataError, match="QuickGELU mismatch"):
        embed(tmp_path, {"name": "clip", "model": "ViT-B-32", "weights": "openai"}, train=NAMED)
    assert open_clip.get_model_config(clip.Recipe().model)["quick_gelu"]
