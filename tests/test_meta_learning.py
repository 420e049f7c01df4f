"""The outer loop, and the methods that use it: BPTT, RaT-BPTT, PoDD."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from distillery.embeddings.distances import EMBEDDINGS_FILE
from distillery.errors import BudgetError, ClassOrderError, DistilleryError, PlanError
from distillery.methods import bptt, podd, rat_bptt
from distillery.methods.shared import meta_draws, meta_learning, snapshots
from distillery.methods.shared.image_space import ImageSpace
from distillery.methods.shared.meta_learning import (
    LearnedTensor,
    MetaLearner,
    MetaProblem,
    MetaState,
)
from distillery.nets.network import build_network
from distillery.poster import labels as poddl
from distillery.sets.distilled import DistilledSet
from distillery.store.artefact import Artefact
from distillery.training.augment import pipeline
from distillery.training.samples import Samples
from distillery.unroll.network import FlatNetwork
from distillery.unroll.optimizers import Adam
from helpers.jobs import job_in
from helpers.kills import saving
from helpers.methods import METHODS, NETWORK, SHORT, classes
from helpers.tiny import TinySet


def distilled(name: str, folder: Path, **changes: object) -> DistilledSet:
    method, recipe, ipc = METHODS[name]
    folder.mkdir(exist_ok=True)
    train = classes()
    return method.distill(
        train, replace(recipe, **changes), ipc=ipc, teachers=[], job=job_in(folder)
    )


@pytest.mark.parametrize("name", METHODS)
def test_a_killed_run_goes_on_to_the_same_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = distilled(name, tmp_path / "whole", snapshots=2)
    step, calls = MetaLearner.step, []

    def dying(self: MetaLearner, state: MetaState) -> None:
        calls.append(state.done)
        if len(calls) == 3:
            raise KeyboardInterrupt
        step(self, state)

    monkeypatch.setattr(MetaLearner, "step", dying)
    with saving(), pytest.raises(KeyboardInterrupt):
        distilled(name, tmp_path / "killed", snapshots=2)
    again = distilled(name, tmp_path / "killed", snapshots=2)
    assert calls == [0, 1, 2, 2, 3]
    assert all(torch.equal(whole[part], again[part]) for part in whole.parts)
    for file in (meta_learning.HISTORY, snapshots.SNAPSHOTS):
        one, other = (
            next((tmp_path / run).rglob(file)).read_bytes() for run in ("whole", "killed")
        )
        assert one == other


@pytest.mark.parametrize("name", METHODS)
def test_a_set_is_saved_read_and_expanded(name: str, tmp_path: Path) -> None:
    made = distilled(name, tmp_path)
    made.save(tmp_path)
    instances = DistilledSet.load(tmp_path).expand()
    assert (
        instances.images.shape == (len(instances), 1, 8, 8)
        and torch.isfinite(instances.images).all()
    )
    if instances.soft is not None:
        assert torch.allclose(instances.soft.softmax(1).sum(1), torch.ones(len(instances)))
        assert torch.equal(instances.soft.argmax(1), instances.labels)


@pytest.mark.parametrize("name", METHODS)
def test_a_student_sees_what_was_learned(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A set without whitening is learned in normalised pixels; a student normalises its images."""
    seen: dict = {}
    step = MetaLearner.step

    def watch(self: MetaLearner, state: MetaState) -> None:
        step(self, state)
        seen.update(images=self.problem.unfold(state.values)[0])

    monkeypatch.setattr(MetaLearner, "step", watch)
    method, recipe, ipc = METHODS[name]
    train = replace(classes(channels=2), mean=(0.2, 0.6), std=(0.25, 0.5))
    made = method.distill(train, recipe, ipc=ipc, teachers=[], job=job_in(tmp_path))
    samples = Samples.from_instances(made.expand(), made.mean, made.std, "cpu")
    found = samples.normalise(samples.take(torch.arange(len(samples))))
    torch.testing.assert_close(found, seen["images"], atol=1e-6, rtol=0)
    assert (made.mean, made.std) == (train.mean, train.std)


def by_hand(
    train: TinySet, recipe: podd.Recipe, state: dict[str, torch.Tensor], number: int, job
) -> tuple:
    """A meta-step's gradients a second time: slices, parameters in a list, Adam, one graph."""
    leaves = {name: value.clone().requires_grad_() for name, value in state.items()}
    poster, soft = leaves["poster"][0], leaves["soft"][0]
    _, height, width = poster.shape
    corners = [
        (round(x * (width - 8) / 3), round(y * (height - 8))) for x in range(4) for y in range(2)
    ]
    owner = soft[
        torch.arange(height)[:, None] * 2 // height, torch.arange(width) * 2 // width
    ]  # (H, W, n)
    patches = torch.stack([poster[:, y : y + 8, x : x + 8] for x, y in corners])
    labels = torch.stack([owner[y : y + 8, x : x + 8].mean((0, 1)) for x, y in corners])
    labels = labels / (labels.sum(1, keepdim=True) + 1e-8)
    torch.manual_seed(job.seed(f"network/{number}"))
    net = build_network(NETWORK, train.shape, 4)
    theta = {name: p.detach().requires_grad_() for name, p in net.named_parameters()}
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in theta.items()}
    augment, first = (
        pipeline(recipe.augment),
        int(torch.randint(4, (), generator=job.generator(f"offset/{number // 3}"))),
    )
    for t in range(first + 3):
        if t == first:  # what came before is a constant
            theta = {name: p.detach().requires_grad_() for name, p in theta.items()}
            moments = {name: (m.detach(), v.detach()) for name, (m, v) in moments.items()}
        chosen = torch.randperm(8, generator=job.generator(f"inner/{number}/{t}"))[:5].sort().values
        images = augment(patches[chosen], job.generator(f"augment/{number}/{t}"))
        logits = torch.func.functional_call(net, theta, (images,))
        loss = -(labels[chosen] * logits.log_softmax(1)).sum(1).mean()
        gradients = dict(
            zip(
                theta,
                torch.autograd.grad(loss, list(theta.values()), create_graph=True),
                strict=True,
            )
        )
        for name, g in gradients.items():
            if name in ("0.bias", "4.bias"):  # no effect, left out
                continue
            m, v = (
                b * old + (1 - b) * new
                for b, old, new in zip((0.9, 0.999), moments[name], (g, g * g), strict=True)
            )
            root = (v / (1 - 0.999 ** (t + 1))).clamp(min=1e-30).sqrt() + 1e-8
            moments[name], theta[name] = (
                (m, v),
                theta[name] - recipe.inner_lr * m / (1 - 0.9 ** (t + 1)) / root,
            )
    batch = torch.randperm(48, generator=job.generator(f"real/{number // 3}"))[20 * (number % 3) :][
        :20
    ]
    real = augment(
        (train.images[batch].float() / 255 - 0.5) / 0.25, job.generator(f"outer/{number}")
    )
    outer = F.cross_entropy(torch.func.functional_call(net, theta, (real,)), train.labels[batch])
    return (
        outer.item(),
        dict(zip(leaves, torch.autograd.grad(outer, list(leaves.values())), strict=True)),
        first,
    )


def test_meta_steps_are_those_by_hand(tmp_path: Path) -> None:
    """Four meta-steps, two passes over the data, against torch's Adam and a clip written out."""
    train, job, (_, recipe, ipc) = classes(), job_in(tmp_path), METHODS["podd"]
    recipe = replace(recipe, clip=0.5, label_lr=0.02)
    made = podd.distill(train, recipe, ipc=ipc, teachers=[], job=job)
    layout = podd.poster_layout(recipe, ipc, 4, 8)
    state = {
        "poster": podd.start(recipe, layout, 1, job.generator("poster/0"))[None],
        "soft": poddl.initial(torch.arange(4).view(2, 2), 4)[None],
    }
    tensors = {name: value.clone().requires_grad_() for name, value in state.items()}
    optimizer = torch.optim.Adam(
        [
            {"params": [tensors["poster"]], "lr": recipe.lr},
            {"params": [tensors["soft"]], "lr": 0.02},
        ]
    )
    rows, mean = [], None
    for number in range(4):
        loss, gradients, first = by_hand(
            train, recipe, {n: t.detach() for n, t in tensors.items()}, number, job
        )
        norm = gradients["poster"].norm().item()
        mean = norm if mean is None else 0.9 * mean + 0.1 * norm
        tensors["poster"].grad = gradients["poster"] * min(1.0, 0.5 * mean / norm)
        tensors["soft"].grad = gradients["soft"]
        optimizer.step()
        with torch.no_grad():
            tensors["soft"].clamp_(min=0)
        rows.append([number + 1, loss, norm, 0.5 * mean, first])
    with next(tmp_path.rglob(meta_learning.HISTORY)).open() as file:
        found = [[float(value) for value in row] for row in list(csv.reader(file))[1:]]
    assert {row[4] for row in found} != {0.0}
    torch.testing.assert_close(torch.tensor(found), torch.tensor(rows), rtol=2e-3, atol=1e-5)
    torch.testing.assert_close(
        (made["poster"] - 0.5) / 0.25, tensors["poster"].detach(), atol=2e-4, rtol=0
    )
    torch.testing.assert_close(made["soft"], tensors["soft"].detach(), atol=2e-3, rtol=0)


def test_an_unreadable_checkpoint_counts_for_nothing(tmp_path: Path) -> None:
    """A power cut can leave a file of rubbish."""
    whole = distilled("bptt", tmp_path / "whole")
    for place, rubbish in (
        ("empty", b""),
        ("zeros", bytes(500)),
        ("text", b"not a checkpoint"),
        ("half", b"PK\x03\x04half"),
    ):
        (tmp_path / place).mkdir()
        job = job_in(tmp_path / place)
        (job.scratch / f"{meta_learning.CHECKPOINT}.pt").write_bytes(rubbish)
        again = bptt.distill(classes(), METHODS["bptt"][1], ipc=1, teachers=[], job=job)
        assert torch.equal(again["images"], whole["images"])


def test_snapshots_are_the_states_on_the_way(tmp_path: Path) -> None:
    short = distilled("rat-bptt", tmp_path / "short", meta_steps=2)
    long = distilled("rat-bptt", tmp_path / "long", snapshots=2)
    states = snapshots.read_snapshots(next((tmp_path / "long").rglob(snapshots.SNAPSHOTS)).parent)
    assert list(states) == [2, 4]
    assert torch.equal(states[2]["images"], short["images"]) and torch.equal(
        states[4]["soft"], long["soft"]
    )


def test_explicit_layers_are_equal_to_rounding_and_kept_graphs_to_the_bit(tmp_path: Path) -> None:
    changes = {
        "torch": {},
        "explicit": {"layers": "explicit"},
        "kept": {"layers": "explicit", "graph_gb": 1.0},
    }
    made = {
        name: distilled("rat-bptt", tmp_path / name, **change) for name, change in changes.items()
    }
    histories = [next((tmp_path / name).rglob(meta_learning.HISTORY)) for name in changes]
    rows = [[float(x) for x in file.read_text().split("\n")[1].split(",")] for file in histories]
    # The first meta-step: the loss, and the norm, in which a ReLU on the other side of its kink
    # shows (0.4 % here); in float64 both agree to 1e-10 (tests of the unroll engine).
    assert rows[0][1] == pytest.approx(rows[1][1], rel=1e-5)
    assert rows[0][2] == pytest.approx(rows[1][2], rel=2e-2) and rows[0][2] != rows[1][2]
    assert histories[1].read_bytes() == histories[2].read_bytes()
    assert made["kept"]["images"].equal(made["explicit"]["images"])


def test_graphs_are_kept_with_explicit_layers_only() -> None:
    assert rat_bptt.Recipe(layers="explicit", graph_gb=2.0).mistake() is None
    field, why = podd.Recipe(order="given", graph_gb=2.0).mistake() or ("", "")
    assert field == "graph_gb" and why.startswith("2: needs layers = 'explicit'")


def test_the_limit_follows_the_running_mean_of_norms(tmp_path: Path) -> None:
    """Norms 1, 1, 10 have running means (0.9) 1, 1, 1.9; the limit is twice the mean."""
    running, limits = None, []
    for norm in (1.0, 1.0, 10.0):
        limit, running = meta_learning.clip_limit(rat_bptt.Recipe(), running, norm)
        limits.append(limit)
    assert limits == pytest.approx([2.0, 2.0, 3.8]) and running == pytest.approx(1.9)
    assert meta_learning.clip_limit(bptt.Recipe(), None, 10.0) == (2.0, None)


def test_a_poster_without_overlap_has_the_gradient_of_independent_images(tmp_path: Path) -> None:
    """K = 1, a patch per class: patches are tiles, hence PoDD is RaT-BPTT (paper, section 5.3)."""
    train, job = classes(), job_in(tmp_path)
    space = ImageSpace.of(train, job)
    recipe = podd.Recipe(**SHORT, order="given", patch_grid=(2, 2), labels="fixed")
    layout = podd.poster_layout(recipe, 1, 4, 8)
    placed = podd.arrange(recipe, layout, train, job)
    poster = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(3))
    unfold = podd.unfolding(layout, placed, 4, "cpu")
    patches, targets = unfold({"poster": poster})
    assert torch.equal(targets.argmax(1), torch.tensor([0, 2, 1, 3]))  # column by column
    common = {
        "draw": meta_draws.full_batch(4),
        "real": meta_draws.shuffled_passes(48, 20, job),
        "window_start": lambda step: 2,
        "inner": Adam(1e-3),
    }
    network = FlatNetwork(build_network(NETWORK, (1, 8, 8), 4))
    loops = {
        "poster": MetaProblem({"poster": LearnedTensor(poster, Adam(1e-3))}, unfold, **common),
        "images": MetaProblem(
            {"images": LearnedTensor(patches, Adam(1e-3))},
            lambda v: (v["images"], targets),
            **common,
        ),
    }
    found = {
        name: MetaLearner(problem, space, network, recipe, job).gradients(
            {name: problem.learned[name].start}, 0
        )
        for name, problem in loops.items()
    }
    assert found["poster"][0] == found["images"][0]
    pieces, _ = unfold({"poster": found["poster"][1]["poster"]})
    assert torch.equal(pieces, found["images"][1]["images"]) and pieces.abs().sum() > 0


def test_meta_steps_lower_the_outer_loss(tmp_path: Path) -> None:
    distilled(
        "podd",
        tmp_path,
        meta_steps=40,
        lr=0.01,
        batch=48,
        inner_lr=0.01,
        patches=None,
        order="given",
    )
    with next(tmp_path.rglob(meta_learning.HISTORY)).open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 40 and sum(losses[-10:]) < 0.95 * sum(losses[:10])


def test_learned_labels_stay_at_zero_or_above(tmp_path: Path) -> None:
    made = distilled("podd", tmp_path, label_lr=0.5)
    assert made["soft"].min() == 0 and made["soft"].max() > 1
    assert torch.isfinite(made.expand().soft).all()


def test_offsets_are_drawn_once_per_pass_or_per_meta_step_or_never(tmp_path: Path) -> None:
    job, recipe = job_in(tmp_path), rat_bptt.Recipe(batch=10, window=60, inner_steps=200)
    by_pass, by_step, fixed = (
        [
            meta_draws.window_starts(replace(recipe, window_start=kind), 100, job)(i)
            for i in range(400)
        ]
        for kind in ("epoch", "step", "fixed")
    )
    assert (
        all(len(set(by_pass[i : i + 10])) == 1 for i in range(0, 400, 10))
        and len(set(by_pass)) > 20
    )
    assert len(set(by_step)) > 100 and set(fixed) == {140}
    assert 0 <= min(by_step) < 10 and 130 < max(by_step) <= 140


def test_real_batches_are_passes_or_balanced(tmp_path: Path) -> None:
    job, train = job_in(tmp_path), classes()
    first = [meta_draws.shuffled_passes(48, 20, job)(i) for i in range(3)]
    assert [len(batch) for batch in first] == [20, 20, 8] and torch.cat(
        first
    ).sort().values.tolist() == list(range(48))
    drawn = meta_draws.balanced_batches(train.labels, 20, 4, job)(7)
    assert (
        torch.bincount(train.labels[drawn]).tolist() == [5, 5, 5, 5]
        and len(set(drawn.tolist())) == 20
    )


def test_an_inner_step_draws_images_by_class() -> None:
    drawn = meta_draws.class_subset(4, 3, 2, 3)(torch.Generator().manual_seed(0))
    of_class = torch.bincount(drawn // 3, minlength=4)
    assert sorted(of_class.tolist()) == [0, 2, 2, 2] and len(set(drawn.tolist())) == 6


def test_labels_of_the_authors_shape_expand_as_they_were_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A poster of ten classes whose array has other rows and columns than the classes."""
    seen: dict = {}
    step = MetaLearner.step

    def watch(self: MetaLearner, state: MetaState) -> None:
        if not state.done:
            seen.update(start=self.problem.unfold(state.values)[1])
        step(self, state)
        seen.update(end=self.problem.unfold(state.values)[1])

    monkeypatch.setattr(MetaLearner, "step", watch)
    train = classes(10)
    recipe = replace(
        METHODS["podd"][1], size=(30, 8), patches=None, label_lr=0.05, label_shape="reference"
    )
    podd.distill(train, recipe, ipc=0.4, teachers=[], job=job_in(tmp_path)).save(tmp_path)
    made = DistilledSet.load(tmp_path)
    shape = poddl.reference_shape(30, 8, 10)
    assert (
        made["soft"].shape == (1, *shape, 10)
        and shape != (2, 5)
        and made["order"].shape == (1, 2, 5)
    )
    cells = made["soft"][0].flatten(0, 1)
    copied = made.expand().soft.exp()
    torch.testing.assert_close(copied, seen["end"], atol=1e-6, rtol=0)
    for label in copied:  # each patch copies one cell
        assert (label - cells / cells.sum(1, keepdim=True)).abs().amax(1).min() < 1e-5
    assert (seen["start"].sum(0) == 0).any(), "classes without labels, as in the authors' code"
    paper = podd.distill(
        train, replace(recipe, label_shape="paper"), ipc=0.4, teachers=[], job=job_in(tmp_path)
    )
    assert paper["soft"].shape == (1, 2, 5, 10) and not paper.layout["reference"]


@pytest.mark.parametrize(
    ("ipc", "classes", "side", "grid"), [(2.55, 200, 32, (20, 10)), (2.03, 100, 8, (20, 5))]
)
def test_a_poster_may_fill_its_budget_to_the_pixel(
    ipc: float, classes: int, side: int, grid: tuple[int, int]
) -> None:
    """In floating point these products are a little less than the whole numbers that they are."""
    recipe = podd.Recipe(class_grid=grid)
    layout = podd.poster_layout(recipe, ipc, classes, side)
    assert 100 * layout.width * layout.height == round(100 * ipc) * classes * side**2
    with pytest.raises(BudgetError, match="size = "):
        podd.poster_layout(
            replace(recipe, size=(layout.width + 1, layout.height)), ipc, classes, side
        )


def test_posters_per_class_hold_their_class(tmp_path: Path) -> None:
    recipe = replace(
        METHODS["podd"][1], posters="per-class", patch_grid=(3, 3), patches=None, labels="fixed"
    )
    made = podd.distill(classes(), recipe, ipc=4, teachers=[], job=job_in(tmp_path))
    assert made["poster"].shape == (4, 1, 16, 16) and "soft" not in made
    assert made.expand().labels.tolist() == [c for c in range(4) for _ in range(9)]


@pytest.mark.parametrize(
    ("changes", "ipc", "error", "words"),
    [
        ({"size": (60, 60)}, 1, BudgetError, "size = .60, 60."),
        ({}, 0.1, BudgetError, "0.1"),
        ({"class_grid": (3, 1)}, 1, PlanError, "class_grid"),
        ({"order": "poco"}, 1, PlanError, "embedding"),
        ({"order": "pocco"}, 1, PlanError, "poco"),
        ({"order": "random:x"}, 1, PlanError, "random:0"),
        ({"order": "given:3"}, 1, PlanError, "order = 'given:3'"),
        ({"label_shape": "reference", "cyclic": True}, 1, PlanError, "label_shape"),
        ({"window": 7}, 1, PlanError, "window = 7.*inner_steps = 6"),
        ({"lr": 1e30}, 1, DistilleryError, "meta-step"),
    ],
)
def test_errors_name_the_field(
    changes: dict, ipc: float, error: type, words: str, tmp_path: Path
) -> None:
    recipe = replace(METHODS["podd"][1], **changes)
    with pytest.raises(error, match=words) as caught:
        podd.distill(classes(), recipe, ipc=ipc, teachers=[], job=job_in(tmp_path))
    assert "\n" not in str(caught.value)


OTHER_STATES = {
    "another tensor": {"values": {"poster": torch.ones(2)}},
    "another shape": {"values": {"images": torch.ones(3)}},
    "another type": {"values": {"images": torch.ones(2, dtype=torch.float64)}},
    "no moments": {"moments": {"images": ()}},
    "a norm that is text": {"running": "1.0"},
    "history of other rows": {"history": [(1, 2.0)]},
    "history that is text": {"history": "abc"},
    "a key more": {"colour": 1},
}


@pytest.mark.parametrize("change", OTHER_STATES.values(), ids=OTHER_STATES)
def test_a_checkpoint_of_something_else_counts_as_none(change) -> None:
    start = MetaState({"images": torch.zeros(2)}, {"images": (torch.zeros(2),)})
    later = MetaState(
        *({"images": torch.ones(2)}, {"images": (torch.ones(2),)}),
        *(1.5, [(1, 2.0, 1.0, 2.0, 0)]),
    )
    assert start.continued_by(vars(later))
    assert not start.continued_by(vars(later) | change)
    less = {key: value for key, value in vars(later).items() if key != "history"}
    assert not start.continued_by(less)


def test_class_distances_of_another_class_order_are_refused(tmp_path: Path) -> None:
    train = classes()
    # 0 is like 3, 1 is like 2: down the first anti-diagonal 0, then 3 below it
    distances = torch.tensor([[0, 5, 6, 1], [5, 0, 2, 7], [6, 2, 0, 8], [1, 7, 8, 0.0]])
    save_file({"distances": distances}, tmp_path / EMBEDDINGS_FILE)
    metadata = {"class_order": train.class_order}
    stored = Artefact(tmp_path, {"id": "e", "metadata": metadata, "files": {EMBEDDINGS_FILE: {}}})
    recipe = replace(METHODS["podd"][1], order="poco")
    job = job_in(tmp_path / "job", inputs={"embeddings": stored})
    made = podd.distill(train, recipe, ipc=1, teachers=[], job=job)
    assert made["order"].tolist() == [[[0, 1], [3, 2]]]
    other = replace(train, classes=train.classes[::-1])
    with pytest.raises(ClassOrderError, match="embeddings e have class order"):
        podd.distill(other, recipe, ipc=1, teachers=[], job=job)


@pytest.mark.parametrize(
    "changes",
    [{}, {"cyclic": True}, {"label_shape": "reference"}, {"posters": "per-class"}],
    ids=str,
)
def test_a_stored_poster_has_the_layout_that_was_learned(changes: dict, tmp_path: Path) -> None:
    recipe = replace(METHODS["podd"][1], meta_steps=1, **changes)
    podd.distill(classes(), recipe, ipc=1, teachers=[], job=job_in(tmp_path)).save(tmp_path)
    stored = podd.PosterLayout.stored(DistilledSet.load(tmp_path))
    assert stored == podd.poster_layout(recipe, 1, 4, 8)
