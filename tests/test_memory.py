"""Memories against lists and loops, and what a resumed run needs of them."""

import collections
import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ltlib import vmf
from ltlib.memory import ClassStatistics, FeatureQueue, MomentumEncoder


def batches(steps, size=12, num_classes=5, dim=8, seed=0):
    """Unit vectors and long-tailed targets; the last class never comes."""
    generator = torch.Generator().manual_seed(seed)
    shares = torch.tensor([8.0, 4, 2, 1, 0])[:num_classes]
    for _ in range(steps):
        embeddings = F.normalize(torch.randn(size, dim, generator=generator), dim=1)
        targets = torch.multinomial(shares, size, replacement=True, generator=generator)
        yield embeddings, targets


# --- class statistics ---


def means_of(seen, initial):
    """Plain mean of everything seen, class by class; the initial mean where nothing was."""
    means = initial.double().clone()
    for c in range(len(initial)):
        rows = [row.double() for embeddings, targets in seen for row in embeddings[targets == c]]
        if rows:
            means[c] = sum(rows) / len(rows)
    return means.float()


def counts_of(seen, num_classes=5):
    return torch.stack([targets.bincount(minlength=num_classes) for _, targets in seen]).sum(0)


def test_online_statistics_are_the_means_of_the_last_epoch_and_this_one():
    statistics = ClassStatistics(5, 8)
    epochs = [list(batches(4, seed=epoch)) for epoch in range(3)]
    for epoch, steps in enumerate(epochs):
        statistics.on_epoch_start()
        initial = statistics.mean.clone()
        for step, (embeddings, targets) in enumerate(steps):
            statistics.update(embeddings, targets)
            seen = (epochs[epoch - 1] if epoch else []) + steps[: step + 1]
            torch.testing.assert_close(statistics.mean, means_of(seen, initial))
            assert statistics.count.tolist() == counts_of(seen).tolist()


def test_frozen_statistics_are_the_means_of_the_last_epoch():
    statistics = ClassStatistics(5, 8, estimator="frozen")
    statistics.on_epoch_start()
    initial = statistics.mean.clone()
    first, second = list(batches(3, seed=0)), list(batches(3, seed=1))
    for embeddings, targets in first:
        statistics.update(embeddings, targets)
        assert torch.equal(statistics.mean, initial)
        assert not statistics.count.any()
    fresh = statistics.epoch_mean.clone()
    statistics.on_epoch_start()
    for embeddings, targets in second:
        statistics.update(embeddings, targets)
        torch.testing.assert_close(statistics.mean, means_of(first, fresh))
        assert statistics.count.tolist() == counts_of(first).tolist()


def test_ema_statistics_begin_as_a_mean_and_go_on_as_an_exponential_average():
    statistics = ClassStatistics(2, 4, estimator="ema", ema_decay=0.75)
    initial = statistics.mean.clone()
    expected, count = initial[0].clone(), 0
    for step, (embeddings, _) in enumerate(batches(6, size=2, dim=4)):
        if step == 3:
            statistics.on_epoch_start()  # means nothing to an average over steps
        statistics.update(embeddings, torch.zeros(2, dtype=torch.int64))
        count += 2
        share = max(2 / count, 0.25)
        expected = (1 - share) * expected + share * embeddings.mean(0)
        torch.testing.assert_close(statistics.mean[0], expected)
    assert torch.equal(statistics.mean[1], initial[1])
    assert statistics.count.tolist() == [12, 0]


def test_the_first_embeddings_of_a_class_replace_its_random_direction():
    for estimator in ("online", "ema"):
        statistics = ClassStatistics(3, 4, estimator=estimator)
        embedding = F.normalize(torch.tensor([[1.0, 2, 3, 4]]), dim=1)
        statistics.update(embedding, torch.tensor([1]))
        torch.testing.assert_close(statistics.mean[1:2], embedding)


def test_how_a_stream_is_cut_into_batches_does_not_matter_online():
    embeddings, targets = (torch.cat(parts) for parts in zip(*batches(4), strict=True))
    torch.manual_seed(0)
    whole = ClassStatistics(5, 8)
    pieces = copy.deepcopy(whole)
    whole.update(embeddings, targets)
    for size in (1, 5, 17, 25):
        rows, embeddings = embeddings.split([size, len(embeddings) - size])
        classes, targets = targets.split([size, len(targets) - size])
        pieces.update(rows, classes)
    torch.testing.assert_close(whole.mean, pieces.mean)
    assert torch.equal(whole.count, pieces.count)


def test_a_new_memory_has_random_directions_of_length_nine_tenths():
    statistics = ClassStatistics(7, 128)
    torch.testing.assert_close(statistics.mean.norm(dim=1), torch.full((7,), 0.9))
    torch.testing.assert_close(statistics.mean_direction.norm(dim=1), torch.ones(7))
    torch.testing.assert_close(statistics.concentration, torch.full((7,), 128 * 90 / 19))
    assert not statistics.count.any()


@pytest.mark.parametrize("method", ["authors", "banerjee", "exact"])
def test_concentration_follows_from_the_length_of_the_mean(method):
    statistics = ClassStatistics(5, 8, concentration=method)
    for embeddings, targets in batches(3):
        statistics.update(embeddings, targets)
    expected = vmf.concentration(statistics.mean.double().norm(dim=1), 8, method).float()
    torch.testing.assert_close(statistics.concentration, expected)


def test_a_class_seen_once_has_the_largest_concentration():
    statistics = ClassStatistics(3, 128)
    embedding = F.normalize(torch.ones(1, 128), dim=1)
    statistics.update(embedding, torch.tensor([2]))
    assert statistics.concentration[2] == vmf.MAX_CONCENTRATION


def test_a_class_whose_embeddings_cancel_is_finite():
    statistics = ClassStatistics(1, 2)
    statistics.update(torch.tensor([[1.0, 0], [-1, 0]]), torch.tensor([0, 0]))
    assert statistics.concentration.item() == pytest.approx(0, abs=1e-6)
    assert statistics.mean_direction.isfinite().all()


def test_the_seed_decides_every_random_direction():
    def directions(seed):
        torch.manual_seed(seed)
        statistics = ClassStatistics(3, 4)
        drawn = [statistics.mean.clone(), statistics.epoch_mean.clone()]
        for _ in range(2):
            torch.rand(5)  # whatever else the training draws
            statistics.on_epoch_start()
            drawn.append(statistics.epoch_mean.clone())
        return torch.stack(drawn)

    one = directions(1)
    assert torch.equal(one, directions(1))
    assert not torch.equal(one, directions(2))
    assert len(one.flatten().unique()) == one.numel()


@pytest.mark.parametrize("estimator", ["online", "frozen", "ema"])
def test_statistics_resume_exactly_from_their_state(estimator):
    torch.manual_seed(0)
    original = ClassStatistics(5, 8, estimator=estimator)
    original.on_epoch_start()
    for embeddings, targets in batches(3):
        original.update(embeddings, targets)
    torch.manual_seed(99)
    resumed = ClassStatistics(5, 8, estimator=estimator)
    resumed.load_state_dict(original.state_dict())
    for statistics in (original, resumed):
        torch.rand(3)
        statistics.on_epoch_start()
        for embeddings, targets in batches(3, seed=5):
            statistics.update(embeddings, targets)
        statistics.on_epoch_start()
    for name, value in original.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_statistics_take_half_precision_and_keep_no_graph():
    statistics = ClassStatistics(5, 8)
    embeddings, targets = next(batches(1))
    half = embeddings.bfloat16().requires_grad_()
    statistics.update(half, targets)
    assert statistics.mean.dtype == torch.float32
    assert not statistics.mean.requires_grad
    torch.testing.assert_close(statistics.mean[0], half.detach().float()[targets == 0].mean(0))


# --- queue ---


@settings(max_examples=60, deadline=None)
@given(size=st.integers(0, 7), lengths=st.lists(st.integers(0, 17), max_size=8))
def test_queue_holds_the_last_keys_like_a_deque(size, lengths):
    queue = FeatureQueue(size, 2)
    oracle = collections.deque(zip(queue.keys.tolist(), queue.targets.tolist(), strict=True), size)
    number = 0
    for length in lengths:
        keys = torch.arange(number, number + length).float()[:, None].expand(-1, 2)
        queue.enqueue(keys, torch.arange(number, number + length))
        oracle.extend(([float(n), float(n)], n) for n in range(number, number + length))
        number += length
        start = int(queue.pointer)  # the oldest
        order = [(start + i) % size for i in range(size)]
        found = zip(queue.keys[order].tolist(), queue.targets[order].tolist(), strict=True)
        assert list(found) == list(oracle)


def test_queue_starts_normalised_along_itself_as_the_authors_do():
    queue = FeatureQueue(1024, 32, num_classes=10)
    torch.testing.assert_close(queue.keys.norm(dim=0), torch.ones(32))
    assert queue.keys.norm(dim=1).mean().item() == pytest.approx((32 / 1024) ** 0.5, rel=0.05)
    assert queue.targets.unique().tolist() == list(range(10))


def test_queue_can_start_with_unit_keys_that_match_nobody():
    queue = FeatureQueue(64, 8, init="unit")
    torch.testing.assert_close(queue.keys.norm(dim=1), torch.ones(64))
    assert (queue.targets == -1).all()


def test_empty_queue_takes_and_gives_nothing():
    queue = FeatureQueue(0, 4, num_classes=3)
    queue.enqueue(torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    assert queue.keys.shape == (0, 4)
    assert queue.targets.shape == (0,)


def test_queue_resumes_exactly_from_its_state():
    original, resumed = FeatureQueue(5, 2), FeatureQueue(5, 2)
    original.enqueue(torch.ones(3, 2), torch.arange(3))
    resumed.load_state_dict(original.state_dict())
    for queue in (original, resumed):
        queue.enqueue(torch.zeros(4, 2), torch.arange(4))
    assert torch.equal(original.keys, resumed.keys)
    assert torch.equal(original.targets, resumed.targets)
    assert resumed.pointer == 2


def test_queue_takes_keys_with_a_graph_and_in_half_precision():
    queue = FeatureQueue(4, 2)
    queue.enqueue(torch.ones(2, 2, dtype=torch.bfloat16).requires_grad_(), torch.arange(2))
    assert queue.keys.dtype == torch.float32
    assert not queue.keys.requires_grad


# --- momentum encoder ---


def network():
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def test_momentum_encoder_follows_every_parameter_by_the_recurrence():
    online = network()
    encoder = MomentumEncoder(online, 0.9)
    expected = [p.detach().clone() for p in online.parameters()]
    for step in range(4):
        with torch.no_grad():
            for p in online.parameters():
                p.add_(step + 1.0)
        encoder.update(online)
        expected = [
            0.9 * old + 0.1 * new.detach()
            for old, new in zip(expected, online.parameters(), strict=True)
        ]
    for ours, theirs in zip(encoder.parameters(), expected, strict=True):
        torch.testing.assert_close(ours.detach(), theirs)


def test_batch_norm_of_the_momentum_encoder_runs_on_what_it_sees_itself():
    torch.manual_seed(0)
    online = network()
    encoder = MomentumEncoder(online, 0.999)
    online(torch.randn(16, 3) + 5)
    encoder.update(online)
    assert not encoder.encoder[1].running_mean.any()  # not averaged
    images = torch.randn(16, 3)
    encoder(images)
    seen = encoder.encoder[0](images).mean(0)
    torch.testing.assert_close(encoder.encoder[1].running_mean, 0.1 * seen)


def test_momentum_encoder_takes_no_gradient_and_registers_only_its_copy():
    online = network()
    encoder = MomentumEncoder(online, 0.999)
    assert not any(p.requires_grad for p in encoder.parameters())
    assert not encoder(torch.randn(4, 3, requires_grad=True)).requires_grad
    assert not {id(p) for p in online.parameters()} & {id(p) for p in encoder.parameters()}
    assert len(encoder.state_dict()) == len(online.state_dict())
    assert all(p.requires_grad for p in online.parameters())


@pytest.mark.parametrize("momentum", [0.0, 1.0])
def test_momentum_at_its_ends_copies_or_keeps(momentum):
    torch.manual_seed(0)
    online, encoder = network(), MomentumEncoder(network(), momentum)
    before = encoder.encoder[0].weight.clone()
    encoder.update(online)
    assert torch.equal(encoder.encoder[0].weight, before if momentum else online[0].weight)


# --- refusals ---


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ClassStatistics(3, 4, estimator="new"), "estimator must be .*, got 'new'"),
        (lambda: ClassStatistics(3, 4, concentration="mle"), "concentration must be .*'mle'"),
        (lambda: ClassStatistics(3, 4, ema_decay=1.0), "ema_decay must be in"),
        (lambda: ClassStatistics(3, 4).update(torch.ones(2, 5), torch.ones(2)), r"\(B, 4\)"),
        (lambda: ClassStatistics(3, 4).update(torch.ones(2, 4), torch.ones(3)), r"\(3,\)"),
        (lambda: FeatureQueue(-1, 4), "size must be >= 0, got -1"),
        (lambda: FeatureQueue(3, 4, init="zeros"), "init must be"),
        (lambda: FeatureQueue(3, 4).enqueue(torch.ones(2, 5), torch.ones(2)), r"\(B, 4\)"),
        (lambda: MomentumEncoder(network(), 1.5), "momentum must be in"),
    ],
)
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call()
