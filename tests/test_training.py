"""The training loop: steps, schedules, what it leaves alone, and runs that were killed."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from distillery.errors import DistilleryError
from distillery.sets.distilled import Instances
from distillery.training.batches import ROLES, Batches, sizes
from distillery.training.loop import CHECKPOINT, Accuracies, History, accuracy, initialise, train
from distillery.training.recipe import Mix, Optimizer, Schedule, Training, batch_size
from distillery.training.samples import Samples
from helpers.kills import saving
from helpers.training import digits, network, samples

pytestmark = pytest.mark.usefixtures("one_thread")


def cross_entropy(logits, target):
    return F.cross_entropy(logits, target.mixed)


FILE = f"{CHECKPOINT}.pt"
RICH = Training(4, 32, augment=("crop:1", "flip"), mix=Mix("mixup"), test_every=3)


# ---- batches -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "size", "expected"),
    [
        (8, 4, [4, 4]),
        (10, 4, [4, 4, 2]),
        (9, 4, [4, 5]),
        (5, 4, [5]),
        (1, 4, [1]),
        (3, 1, [1, 2]),
    ],
)
def test_a_sample_left_over_joins_the_batch_before_it(count, size, expected):
    assert sizes(count, size) == expected


# ---- samples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("resident", "reads"), [(20 * 64, 1), (20 * 64 - 1, 2)])
def test_samples_are_pixels_over_255_resident_or_read_by_batch(resident, reads):
    images, indices, calls = digits(20), torch.tensor([3, 3, 19, 0]), []
    source = SimpleNamespace(
        **vars(images) | {"pixels": lambda i: calls.append(i) or images.pixels(i)}
    )
    found = Samples.from_images(source, "cpu", resident=resident)
    expected = torch.as_tensor(images.pixels(indices).astype(np.float32) / 255)
    assert torch.equal(found.take(indices), expected)
    assert torch.equal(found.take(indices), expected)
    assert len(calls) == reads
    torch.testing.assert_close(found.normalise(expected), (expected - 0.3) / 0.35)


def test_samples_take_the_normalisation_that_is_asked_for():
    found = Samples.from_images(digits(2), "cpu", mean=(0.5,), std=(0.25,))
    assert found.normalise(torch.ones(1, 1, 8, 8)).unique().item() == 2


@pytest.mark.parametrize(("resident", "built"), [(5 * 192, [1, 5]), (5 * 192 - 1, [1, 2, 5])])
def test_instances_keep_their_floats_and_are_built_by_batch_when_large(resident, built):
    images, calls = torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(0)), []
    instances = Instances(
        torch.arange(5), lambda indices: calls.append(len(indices)) or images[indices]
    )
    found = Samples.from_instances(
        instances, (0.1, 0.2, 0.3), (1.0, 2.0, 4.0), "cpu", resident=resident
    )
    assert found.take(torch.tensor([4, 1])).equal(images[[4, 1]])
    assert found.take(torch.arange(5)).equal(images)
    assert calls == built
    torch.testing.assert_close(found.normalise(images)[:, 2], (images[:, 2] - 0.3) / 4)


# ---- loop ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "sizes"), [(70, [32, 32, 6]), (64, [32, 32]), (5, [5]), (65, [32, 33])]
)
def test_an_epoch_sees_every_sample_once_last_batch_kept(job, count, sizes):
    seen = []

    def labeller(batch):
        seen.append(batch.indices.tolist())

    train(
        network(),
        samples(count),
        Training(2, 32),
        cross_entropy,
        job,
        test=samples(5),
        labeller=labeller,
    )
    assert [len(batch) for batch in seen] == sizes * 2
    first, second = (list(chain(*part)) for part in (seen[: len(sizes)], seen[len(sizes) :]))
    assert sorted(first) == sorted(second) == list(range(count))
    assert first != second


GIFT = ((10, 10), (500, 50), (20_000, 100))


@pytest.mark.parametrize(
    ("count", "batch"),
    [(1, 10), (10, 10), (11, 50), (500, 50), (501, 100), (20_000, 100), (20_001, 200)],
)
def test_batches_of_gifts_table_11(count, batch):
    assert batch_size(count, 200, GIFT) == batch_size(count, 200, GIFT[::-1]) == batch
    assert batch_size(count, 200, None) == batch_size(count, 200, ()) == 200


@pytest.mark.parametrize(
    ("count", "sizes"), [(20, [8, 8, 4]), (21, [16, 5]), (70, [16] * 4 + [6]), (71, [32, 32, 7])]
)
def test_the_size_of_the_training_set_chooses_the_batch(job, count, sizes):
    recipe, seen = Training(1, 32, batch_up_to=((20, 8), (70, 16))), []
    assert len(Batches(samples(count), recipe, {})) == len(sizes)
    train(
        network(),
        samples(count),
        recipe,
        cross_entropy,
        job,
        test=samples(5),
        labeller=lambda b: seen.append(len(b)),
    )
    assert seen == sizes


def test_the_same_streams_give_the_same_batches_and_each_knows_its_place():
    def drawn():
        streams = {role: torch.Generator().manual_seed(seed) for seed, role in enumerate(ROLES)}
        batches = Batches(samples(65), RICH, streams)
        assert len(batches) == 2
        return [batch for epoch in range(2) for batch in batches.epoch(epoch)]

    found = drawn()
    assert [(batch.epoch, batch.position, len(batch)) for batch in found] == [
        (0, 0, 32),
        (0, 32, 33),
        (1, 0, 32),
        (1, 32, 33),
    ]
    for one, again in zip(found, drawn(), strict=True):
        assert (
            one.indices.equal(again.indices)
            and one.images.equal(again.images)
            and one.mixing.lam == again.mixing.lam
        )
    assert not found[0].images.equal(found[2].images)


class Double(nn.Module):
    """A float64 network; `norm` gives it batch normalisation."""

    def __init__(self, norm):
        super().__init__()
        middle = [nn.BatchNorm1d(8)] if norm else []
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 8), *middle, nn.Tanh(), nn.Linear(8, 10)
        ).double()

    def forward(self, images):
        return self.layers(images.double())


@pytest.mark.parametrize("mix", ["none", "mixup", "cutmix"])
@pytest.mark.parametrize(
    "loss", [cross_entropy, lambda logits, target: F.mse_loss(logits, target.soft("test").double())]
)
def test_micro_batches_take_the_step_of_the_whole_batch(job, mix, loss):
    # 70 samples: batches of 32, 32 and 6, in parts of 5, 5, ... 2; 65: the last batch of 33 ends in
    # 8 + 9
    found, logits = {}, torch.randn(70, 10, generator=torch.Generator().manual_seed(0))

    def label(batch):
        return batch.mixing.labels(logits[batch.indices])

    for count, micro in ((70, None), (70, 5), (70, 32), (70, 100), (65, None), (65, 8)):
        model = initialise(lambda: Double(norm=False), 0)
        recipe = Training(2, 32, Optimizer("sgd", 0.1), mix=Mix(mix), micro_batch=micro)
        history = train(model, samples(count), recipe, loss, job, test=samples(5), labeller=label)
        whole, losses = found.setdefault(count, (model, history.loss))
        for one, other in zip(model.parameters(), whole.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-10)
        assert history.loss == pytest.approx(losses, rel=1e-6)


def test_batch_norm_takes_its_statistics_over_each_micro_batch(job):
    seen, model = [], initialise(lambda: Double(norm=True), 0)
    model.layers[2].register_forward_pre_hook(
        lambda module, args: seen.append(len(args[0])) if module.training else None
    )
    train(model, samples(65), Training(1, 32, micro_batch=8), cross_entropy, job, test=samples(5))
    assert seen == [8] * 4 + [8] * 3 + [9]
    assert model.layers[2].num_batches_tracked == 8


def test_the_loss_of_an_epoch_is_the_mean_over_its_samples(job):
    data, model = samples(70), network()
    history = train(
        model,
        data,
        Training(2, 32),
        lambda z, t: t.hard.float().mean() + 0 * z.sum(),
        job,
        test=data,
    )
    assert history.loss == pytest.approx([data.labels.float().mean().item()] * 2)


def test_labeller_and_loss_see_what_the_network_sees(job):
    data, calls, targets, inputs = samples(40), [], [], []
    logits = torch.randn(40, 10, generator=torch.Generator().manual_seed(0))

    def labeller(batch):
        calls.append(batch)
        return batch.mixing.labels(logits[batch.indices])

    def loss(student, target):
        targets.append(target)
        return F.mse_loss(student, target.soft("test"))

    model = network()
    model.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    train(model, data, Training(1, 16, mix=Mix("mixup")), loss, job, test=data, labeller=labeller)
    for batch, target, seen in zip(calls, targets, inputs, strict=False):
        indices, images, mixing = batch.indices, batch.images, batch.mixing
        clean = data.normalise(data.take(indices))
        assert seen.equal(images)
        torch.testing.assert_close(
            images, mixing.lam * clean + (1 - mixing.lam) * clean[mixing.permutation]
        )
        assert target.hard.equal(data.labels[indices])
        one_hot = F.one_hot(target.hard, 10).float()
        torch.testing.assert_close(
            target.mixed, mixing.lam * one_hot + (1 - mixing.lam) * one_hot[mixing.permutation]
        )
        assert target.logits.equal(mixing.labels(logits[indices]))


def test_a_network_in_eval_mode_is_trained_in_train_mode(job):
    model = network().eval()
    train(model, samples(40), Training(3, 40), cross_entropy, job, test=samples(40))
    assert model[1].num_batches_tracked == 3


def test_what_a_crop_pads_is_black_not_the_mean(job):
    lowest, zeros = [], []

    def labeller(batch):
        lowest.append(batch.images.amin((1, 2, 3)))
        zeros.append((batch.images == 0).any())

    train(
        network(),
        samples(40),
        Training(1, 40, augment=("crop:8",)),
        cross_entropy,
        job,
        test=samples(40),
        labeller=labeller,
    )
    torch.testing.assert_close(lowest[0], torch.full((40,), -0.3 / 0.35))
    assert not zeros[0]  # the mean, 0.3, is no multiple of 1/255


def test_static_and_dynamic_labels_agree_without_mixing_and_augmentation(job):
    teacher, data, apart = network().eval().requires_grad_(False), samples(40), []
    static = teacher(data.normalise(data.take(torch.arange(40))))

    def labeller(batch):
        apart.append(
            (teacher(batch.images) - batch.mixing.labels(static[batch.indices])).abs().max().item()
        )

    train(network(), data, Training(1, 16), cross_entropy, job, test=data, labeller=labeller)
    assert max(apart) < 1e-5


def test_accuracy_is_measured_every_so_often_and_at_the_end(job):
    data = samples(40)
    history = train(network(), data, Training(5, 40, test_every=2), cross_entropy, job, test=data)
    assert list(history.accuracy) == [2, 4, 5]
    assert len(history.loss) == 5
    assert history.last == history.accuracy[5]
    assert history.best == max(history.accuracy.values())


def test_the_accuracies_of_a_history():
    history = History({2: 60.0, 4: 70.0, 5: 65.0}, [1.0, 0.5, 0.4, 0.3, 0.2])
    curve = [(2, 60.0), (4, 70.0), (5, 65.0)]
    assert history.accuracies == Accuracies(last=65.0, best=70.0, curve=curve)
    assert History.of(42.0).accuracies == Accuracies(42.0, 42.0, [(0, 42.0)])


def test_accuracy_counts_by_hand_and_changes_nothing():
    model, data = network(), samples(50)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = accuracy(model, data, batch=16)
    assert model.training
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    model.eval()
    right = sum(
        model(data.normalise(data.take(torch.tensor([i])))).argmax().item() == data.labels[i].item()
        for i in range(50)
    )
    assert found == accuracy(model, data) == 2 * right
    assert not model.training


def test_the_loop_learns_digits(job):
    recipe = Training(4, 32, Optimizer("sgd", 0.1), test_every=4)
    history = train(
        network(), samples(1200), recipe, cross_entropy, job, test=samples(500, start=1200)
    )
    assert history.last > 85
    assert history.loss[-1] < history.loss[0] / 2


def test_same_job_same_bits_and_no_global_seed_is_touched(job):
    def run():
        model = network()
        history = train(model, samples(), RICH, cross_entropy, job, test=samples())
        return model.state_dict(), history

    before = torch.get_rng_state()
    (first, history), (second, again) = run(), run()
    assert torch.get_rng_state().equal(before)
    assert history == again
    assert all(value.equal(second[name]) for name, value in first.items())


def test_initialise_depends_on_its_seed_alone():
    def build(seed):
        return initialise(lambda: nn.Linear(3, 3), seed).weight

    first = build(5)
    torch.rand(1)
    assert first.equal(build(5))
    assert not first.equal(build(6))


@pytest.mark.parametrize(
    "optimizer",
    [
        Optimizer("sgd", 0.05, nesterov=True),
        Optimizer("adamw", decay="matrices"),
        Optimizer("timm:lookahead_lion", 1e-3),
    ],
)
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_killed_run_ends_with_the_bits_of_an_uninterrupted_one(job, optimizer, mix, precision):
    recipe = Training(
        5,
        32,
        optimizer,
        Schedule(warmup=1),
        ("crop:1", "resized-crop"),
        Mix(mix),
        precision,
        test_every=2,
    )
    whole = network()
    expected = train(whole, samples(), recipe, cross_entropy, job, test=samples())

    steps = iter(range(100))

    def killed(logits, target):
        if next(steps) == 7:  # within the third epoch
            raise KeyboardInterrupt
        return cross_entropy(logits, target)

    with saving(), pytest.raises(KeyboardInterrupt):
        train(network(), samples(), recipe, killed, job, test=samples())
    assert (job.scratch / FILE).is_file()
    resumed, count = network(), []
    history = train(
        resumed,
        samples(),
        recipe,
        lambda z, t: count.append(1) or cross_entropy(z, t),
        job,
        test=samples(),
    )
    assert len(count) == 8  # the second step of the third epoch and those after it
    assert history == expected
    assert all(
        value.equal(resumed.state_dict()[name]) for name, value in whole.state_dict().items()
    )
    assert not (job.scratch / FILE).exists()


def test_no_checkpoint_before_its_time_and_a_torn_one_counts_as_none(job):
    (job.scratch / FILE).write_bytes(b"PK\x03\x04 cut short")
    history = train(network(), samples(), RICH, cross_entropy, job, test=samples())
    assert len(history.loss) == 4
    assert not list(job.scratch.iterdir())


def test_divergence_names_the_epoch(job):
    recipe = Training(9, 32, Optimizer("sgd", 1e30))
    with pytest.raises(DistilleryError, match=r"diverged in epoch [12] of 9.*lower optimizer.lr"):
        train(network(), samples(), recipe, cross_entropy, job, test=samples())


def test_bf16_keeps_weights_and_loss_in_float32_and_stays_near(job):
    dtypes = set()

    def loss(logits, target):
        dtypes.update((logits.dtype, target.mixed.dtype))
        return cross_entropy(logits, target)

    losses = {}
    for precision in ("fp32", "bf16"):
        model = network()
        losses[precision] = train(
            model, samples(), Training(2, 32, precision=precision), loss, job, test=samples()
        ).loss
        dtypes.update(p.dtype for p in model.parameters())
    assert dtypes == {torch.float32}
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=0.02)
    assert losses["bf16"] != losses["fp32"]


def other_states(state: dict) -> dict[str, object]:
    """What is no checkpoint of this training, by what is wrong with it."""
    model, optimizer = dict(state["model"]), state["optimizer"]
    name = next(iter(model))
    wider = {key: value.repeat(2) if value.ndim == 1 else value for key, value in model.items()}
    moved = {
        key: {k: v.flatten().repeat(2) if v.ndim else v for k, v in kept.items()}
        for key, kept in optimizer["state"].items()
    }
    return {
        "a list": [state],
        "text": "a checkpoint",
        "nothing in it": {},
        "another device": state | {"of": state["of"] | {"device": "cuda"}},
        "another job": state | {"of": state["of"] | {"key": "other"}},
        "a weight less": state | {"model": {k: v for k, v in model.items() if k != name}},
        "another network": state | {"model": wider},
        "no streams": state | {"generators": {}},
        "an optimiser of nothing": state | {"optimizer": {"state": {}, "param_groups": []}},
        "moments of another network": state | {"optimizer": optimizer | {"state": moved}},
        "losses that are text": state | {"history": {"accuracy": {}, "loss": "ab"}},
        "more epochs than there are": state | {"history": {"accuracy": {}, "loss": [0.5] * 99}},
        "no history": state | {"history": None},
        "more steps than an epoch has": state | {"steps": 4},
        "fewer than none": state | {"steps": -1},
        "no sum": {key: value for key, value in state.items() if key != "total"},
        "a sum for each class": state | {"total": torch.zeros(10)},
    }


def test_a_checkpoint_that_is_anything_else_counts_as_none(job, monkeypatch):
    """The training starts from nothing and ends with the bits of one that was never stopped."""
    recipe = Training(3, 32, Optimizer("adamw"))
    whole = network()
    train(whole, samples(), recipe, cross_entropy, job, test=samples())
    monkeypatch.setattr(Path, "unlink", lambda path, **options: None)  # leave the checkpoint
    two = replace(recipe, epochs=2)  # an epoch is left to do with what the file holds
    with saving():
        train(network(), samples(), two, cross_entropy, job, test=samples())
    monkeypatch.undo()
    state = torch.load(job.scratch / FILE, weights_only=True)
    for what, content in other_states(state).items():
        torch.save(content, job.scratch / FILE)
        again = network()
        history = train(again, samples(), recipe, cross_entropy, job, test=samples())
        assert len(history.loss) == 3, what
        for name, value in whole.state_dict().items():
            assert value.equal(again.state_dict()[name]), what
