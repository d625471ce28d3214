import pytest
import torch
from conftest import BASELINE_NAMES, METHOD_NAMES, tiny
from torch import nn

from ltlib.losses import (
    balanced_contrastive_loss,
    class_balanced_weights,
    draw_positives,
    focal_loss,
    k_positive_contrastive_loss,
    ldam_loss,
    ldam_margins,
    logit_adjusted_cross_entropy,
    parametric_contrastive_loss,
    supervised_contrastive_loss,
    weighted_cross_entropy,
)
from ltlib.methods import METHODS, build_method

COUNTS = [40, 20, 10, 5, 3, 2, 2, 1, 1, 1]
BATCH = 12
ALL_NAMES = METHOD_NAMES + BASELINE_NAMES


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    views = [torch.randn(BATCH, 3, 32, 32, generator=generator) for _ in range(3)]
    return views, torch.arange(BATCH) % 10


def build(method, **changes):
    torch.manual_seed(0)
    return build_method(tiny(method, **changes), COUNTS)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_step_returns_finite_loss_logits_and_terms_that_explain_it(name, batch):
    method = build(name)
    views, targets = batch
    output = method(views[: method.num_views], targets)
    assert output.loss.ndim == 0
    assert output.loss.isfinite()
    assert output.logits.shape == (BATCH, 10)
    two = {"scl": (2, 0.6), "kcl": (2, 0.6), "bcl": (2, 0.6), "proco": (1, 1)}
    weights = two.get(name, (1,))
    terms = sum(w * term for w, term in zip(weights, output.terms.values(), strict=True))
    torch.testing.assert_close(output.loss, terms)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_step_gives_every_parameter_a_gradient(name, batch):
    method = build(name)
    views, targets = batch
    method(views[: method.num_views], targets).loss.backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.parametrize("name", ALL_NAMES)
def test_state_dict_is_all_there_is(name, batch):
    views, targets = batch
    first = build(name)
    views = views[: first.num_views]
    first.on_epoch_start(0)
    first(views, targets)
    torch.manual_seed(99)
    second = build_method(tiny(name), COUNTS)
    second.load_state_dict(first.state_dict())
    losses = []
    for method in (first, second):
        torch.manual_seed(5)  # as the trainer does before each step
        losses.append(method(views, targets).loss)
    torch.testing.assert_close(*losses)
    for (key, ours), theirs in zip(
        first.state_dict().items(), second.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(ours, theirs, msg=key)


@pytest.mark.parametrize("name", ALL_NAMES)
def test_predict_is_the_classifier_on_the_backbone(name, batch):
    method = build(name).eval()
    images = batch[0][0]
    features, embeddings = method.embed(images)
    torch.testing.assert_close(method.predict(images), method.classifier(features))
    torch.testing.assert_close(embeddings.norm(dim=1), torch.ones(BATCH))


def test_cross_entropy_is_torchs(batch):
    method = build("ce")
    views, targets = batch
    expected = nn.functional.cross_entropy(method.predict(views[0]), targets)
    torch.testing.assert_close(method(views[:1], targets).loss, expected)


def test_logit_adjustment_adds_the_log_prior(batch):
    method = build("la", method__tau=1.5)
    views, targets = batch
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    expected = nn.functional.cross_entropy(method.predict(views[0]) + 1.5 * prior.log(), targets)
    torch.testing.assert_close(method(views[:1], targets).loss, expected)


def test_focal_takes_its_focusing_from_the_config(batch):
    method = build("focal", method__focusing=2.0)
    views, targets = batch
    expected = focal_loss(method.predict(views[0]), targets, 2.0)
    torch.testing.assert_close(method(views[:1], targets).loss, expected)


def test_class_balanced_weights_act_from_the_first_step(batch):
    method = build("cb", method__beta=0.99)
    views, targets = batch
    weights = class_balanced_weights(COUNTS, 0.99)
    expected = weighted_cross_entropy(method.predict(views[0]), targets, weights)
    torch.testing.assert_close(method(views[:1], targets).loss, expected)


@pytest.mark.parametrize(
    ("name", "epochs", "first"), [("ce_drw", 200, 160), ("ldam_drw", 10, 8), ("ldam_drw", 2, 2)]
)
def test_deferred_weights_switch_at_their_share_of_the_epochs(name, epochs, first):
    method = build(name, optim__epochs=epochs, method__beta=0.9)
    for epoch in range(epochs):
        method.on_epoch_start(epoch)
        equal = torch.equal(method.weights, torch.ones(10))
        assert equal == (epoch < first), epoch
    if first < epochs:
        torch.testing.assert_close(method.weights, class_balanced_weights(COUNTS, 0.9).float())


def test_ldam_never_reweights(batch):
    method = build("ldam")
    method.on_epoch_start(1)
    views, targets = batch
    cosines = method.predict(views[0]) / 30
    expected = ldam_loss(cosines, targets, ldam_margins(COUNTS, 0.5), 30.0)
    torch.testing.assert_close(method(views[:1], targets).loss, expected)


def test_ldam_without_cosines_is_refused():
    with pytest.raises(ValueError, match="ldam needs model.classifier cosine, got 'linear'"):
        build("ldam", model__classifier="linear")


def test_mixup_trains_on_the_mix_of_its_batch(batch):
    method = build("mixup")
    views, targets = batch
    torch.manual_seed(3)
    loss = method(views[:1], targets).loss
    torch.manual_seed(3)
    share = torch.distributions.Beta(1.0, 1.0).sample()
    partners = torch.randperm(BATCH)
    logits = method.predict(share * views[0] + (1 - share) * views[0][partners])
    soft = share * nn.functional.one_hot(targets, 10)
    soft = soft + (1 - share) * nn.functional.one_hot(targets[partners], 10)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(logits, soft))


def test_kcl_draws_the_same_positives_from_the_same_seed(batch):
    method = build("kcl", method__num_positives=1)
    views, targets = batch
    targets = targets % 3
    losses = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        losses.append(method(views, targets).terms["contrast"])
    assert losses[0] == losses[1] != losses[2]
    torch.manual_seed(3)
    positives = draw_positives(targets.repeat(2), 1)
    _, embeddings = method.embed(torch.cat(views))
    expected = k_positive_contrastive_loss(embeddings[BATCH:], positives, 0.1)
    torch.testing.assert_close(losses[0], expected)


@pytest.mark.parametrize("name", ["scl", "bcl"])
def test_contrast_takes_views_one_and_two_and_the_classifier_view_zero(name, batch):
    method = build(name)
    views, targets = batch
    output = method(views, targets)
    features, embeddings = method.embed(torch.cat(views))
    logits, embeddings = method.classifier(features[:BATCH]), embeddings[BATCH:]
    prior = torch.tensor(COUNTS) / sum(COUNTS)
    ce = logit_adjusted_cross_entropy(logits, targets, prior)
    contrast = (
        supervised_contrastive_loss(embeddings, targets.repeat(2), 0.1)
        if name == "scl"
        else balanced_contrastive_loss(embeddings, targets.repeat(2), method.class_vectors(), 0.1)
    )
    torch.testing.assert_close(output.terms["ce"], ce)
    torch.testing.assert_close(output.terms["contrast"], contrast)


def test_bcl_switches_reach_the_loss(batch):
    views, targets = batch
    switches = [
        {},
        {"method__class_averaging": False},
        {"method__class_complement": False},
        {"method__anchor_average": "class"},
    ]
    losses = [build("bcl", **switch)(views, targets).loss.item() for switch in switches]
    assert len(set(losses)) == len(losses)


def test_proco_counts_each_view_and_starts_anew_each_epoch(batch):
    method = build("proco")
    views, targets = batch
    method.on_epoch_start(0)
    method(views, targets)
    assert method.statistics.epoch_count.sum() == 2 * BATCH
    method.on_epoch_start(1)
    assert method.statistics.epoch_count.sum() == 0
    assert method.statistics.count.sum() == 2 * BATCH


def test_paco_keys_come_from_the_momentum_encoder_and_enter_the_queue(batch):
    method = build("paco")
    views, targets = batch
    method.eval()  # batch norm by running statistics, so that the step can be repeated
    weight = method.backbone.conv1.weight
    average = method.momentum_encoder.encoder[0].conv1.weight.clone()
    with torch.no_grad():
        weight += 1
    keys_before, targets_before = method.queue.keys.clone(), method.queue.targets.clone()
    output = method(views[:2], targets)
    expected = 0.999 * average + 0.001 * weight
    torch.testing.assert_close(method.momentum_encoder.encoder[0].conv1.weight, expected)
    keys = method.momentum_encoder(views[1])
    torch.testing.assert_close(method.queue.keys[:BATCH], keys)
    assert torch.equal(method.queue.targets[:BATCH], targets)
    features, queries = method.embed(views[0])
    loss = parametric_contrastive_loss(
        queries,
        targets,
        torch.cat([keys, keys_before]),
        torch.cat([targets, targets_before]),
        method.classifier(features),
        method.prior,
        alpha=0.01,
        temperature=0.05,
    )
    torch.testing.assert_close(output.loss, loss)
    assert not any(p.requires_grad for p in method.momentum_encoder.parameters())


def test_gpaco_anchors_both_views_and_queues_the_second(batch):
    method = build("gpaco").eval()
    views, targets = batch
    keys, labels = method.queue.keys.clone(), method.queue.targets.clone()
    output = method(views[:2], targets)
    features, embeddings = method.embed(torch.cat(views[:2]))
    loss = parametric_contrastive_loss(
        embeddings,
        targets.repeat(2),
        keys,
        labels,
        method.classifier(features),
        method.prior,
        alpha=0.01,
        temperature=0.07,
    )
    torch.testing.assert_close(output.loss, loss)
    torch.testing.assert_close(method.queue.keys[:BATCH], embeddings[BATCH:])


@pytest.mark.parametrize("name", ["paco", "gpaco"])
def test_without_logit_adjustment_the_prior_does_not_matter(name, batch):
    views, targets = batch
    losses = {}
    for adjusted in (True, False):
        for counts in (COUNTS, [7] * 10):
            torch.manual_seed(0)
            method = build_method(tiny(name, method__logit_adjustment=adjusted), counts)
            losses[adjusted, sum(counts)] = method(views[:2], targets).loss.item()
    assert losses[False, sum(COUNTS)] == losses[False, 70]
    # Against samples in the same softmax even a uniform prior counts.
    assert len({round(loss, 5) for loss in losses.values()}) == 3


@pytest.mark.parametrize("name", ["bcl", "paco"])
def test_pretrained_weights_reach_the_backbone_and_its_copy(name):
    other, method = build("ce").backbone, build(name)
    torch.nn.init.normal_(other.conv1.weight)
    method.start_from(other.state_dict())
    copies = [method.backbone]
    if name == "paco":
        copies.append(method.momentum_encoder.encoder[0])
    for backbone in copies:
        torch.testing.assert_close(backbone.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_only_the_last_blocks_convolutions_learn_where_asked(batch):
    views, targets = batch
    method = build("paco", model__trainable_convolutions="last_block")
    method(views[:2], targets).loss.backward()
    learning = {key for key, p in method.backbone.named_parameters() if p.grad is not None}
    assert "layer3.0.conv1.weight" in learning
    assert not {"conv1.weight", "layer2.0.conv2.weight"} & learning
    assert {"bn1.weight", "layer1.0.bn2.bias"} <= learning
    assert method.classifier.weight.grad is not None


def test_wrong_number_of_views_is_one_sentence():
    with pytest.raises(ValueError, match="bcl takes 3 views, data.views names 1: digits"):
        build("bcl", data__views=("digits",))


def test_every_config_has_its_method():
    assert set(METHODS) == set(ALL_NAMES)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_bf16_autocast_keeps_the_loss_in_float32_and_near(name, batch):
    views, targets = batch
    full, half = build(name), build(name)
    views = views[: full.num_views]
    expected = full(views, targets).loss
    with torch.autocast("cpu", torch.bfloat16):
        output = half(views, targets)
    assert output.loss.dtype == torch.float32
    torch.testing.assert_close(output.loss, expected, rtol=0.05, atol=0.05)
    output.loss.backward()
    assert all(p.grad.isfinite().all() for p in half.parameters() if p.grad is not None)
