"""The baselines' losses against loops written from the equations, laws and edges."""

import functools
import math

import pytest
import torch
import torch.nn.functional as F
from test_losses import assert_finite, assert_same_with_gradients, normal, unit

from ltlib.losses import (
    class_balanced_weights,
    draw_positives,
    focal_loss,
    k_positive_contrastive_loss,
    ldam_loss,
    ldam_margins,
    mixup_cross_entropy,
    supervised_contrastive_loss,
    weighted_cross_entropy,
)

C = 5
COUNTS = [500, 120, 30, 8, 1]
TARGETS = torch.tensor([0, 0, 0, 1, 1, 2, 4])
WEIGHTS = torch.tensor([0.2, 0.5, 1.0, 1.3, 2.0], dtype=torch.float64)
MARGINS = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5], dtype=torch.float64)

# --- oracles: loops over images, classes and positives ---


def naive_log_probability(scores, target):
    return scores[target] - sum(score.exp() for score in scores).log()


def naive_focal(logits, targets, focusing):
    total = 0
    for row, target in zip(logits, targets.tolist(), strict=True):
        log_p = naive_log_probability(row, target)
        total = total - (1 - log_p.exp()) ** focusing * log_p
    return total / len(logits)


def naive_weighted(logits, targets, weights):
    total, whole = 0, 0
    for row, target in zip(logits, targets.tolist(), strict=True):
        total = total - weights[target] * naive_log_probability(row, target)
        whole = whole + weights[target]
    return total / whole


def naive_ldam(cosines, targets, margins, scale, weights):
    scores = []
    for row, target in zip(cosines, targets.tolist(), strict=True):
        entries = [scale * (row[c] - (margins[c] if c == target else 0)) for c in range(len(row))]
        scores.append(torch.stack(entries))
    return naive_weighted(scores, targets, torch.ones(C) if weights is None else weights)


def naive_mixup(logits, targets, partners, share):
    total = 0
    for row, first, second in zip(logits, targets.tolist(), partners.tolist(), strict=True):
        total = total - share * naive_log_probability(row, first)
        total = total - (1 - share) * naive_log_probability(row, second)
    return total / len(logits)


def naive_k_positive(embeddings, positives, temperature):
    total = 0
    for i, anchor in enumerate(embeddings):
        others = [k for k in range(len(embeddings)) if k != i]
        scores = {k: anchor @ embeddings[k] / temperature for k in others}
        log_denominator = sum(score.exp() for score in scores.values()).log()
        chosen = [k for k in others if positives[i, k]]
        terms = [scores[k] - log_denominator for k in chosen]
        total = total - sum(terms) / max(len(terms), 1)
    return total / len(embeddings)


@pytest.mark.parametrize("focusing", [0.0, 0.5, 1.0, 2.0])
def test_focal_is_the_sum_over_images(focusing):
    assert_same_with_gradients(
        lambda x: focal_loss(x, TARGETS, focusing),
        lambda x: naive_focal(x, TARGETS, focusing),
        [normal(7, C)],
    )


def test_weighted_cross_entropy_is_the_weighted_mean_over_images():
    assert_same_with_gradients(
        lambda x: weighted_cross_entropy(x, TARGETS, WEIGHTS),
        lambda x: naive_weighted(x, TARGETS, WEIGHTS),
        [normal(7, C)],
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("scale", [1.0, 30.0])
def test_ldam_is_the_sum_over_classes(scale, weights):
    assert_same_with_gradients(
        lambda x: ldam_loss(x, TARGETS, MARGINS, scale, weights),
        lambda x: naive_ldam(x, TARGETS, MARGINS, scale, weights),
        [unit(7, C)],
    )


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_mixup_is_the_sum_over_both_targets(share):
    partners = TARGETS.roll(2)
    assert_same_with_gradients(
        lambda x: mixup_cross_entropy(x, TARGETS, partners, share),
        lambda x: naive_mixup(x, TARGETS, partners, share),
        [normal(7, C)],
    )


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
@pytest.mark.parametrize("k", [0, 1, 6])
def test_k_positive_contrast_is_the_sum_over_the_drawn(k, temperature):
    generator = torch.Generator().manual_seed(0)
    positives = draw_positives(TARGETS.repeat(2), k, generator=generator)
    assert_same_with_gradients(
        lambda z: k_positive_contrastive_loss(z, positives, temperature),
        lambda z: naive_k_positive(z, positives, temperature),
        [unit(14, 6)],
    )


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.9999])
def test_class_balanced_weights_follow_the_effective_number(beta):
    effective = [sum(beta**i for i in range(n)) for n in COUNTS]  # a geometric series
    inverse = torch.tensor([1 / number for number in effective], dtype=torch.float64)
    expected = inverse * C / inverse.sum()
    torch.testing.assert_close(class_balanced_weights(COUNTS, beta), expected, rtol=1e-9, atol=0)


def test_ldam_margins_go_like_the_fourth_root():
    margins = ldam_margins([16, 1, 81], 0.5)
    expected = torch.tensor([0.5 / 2, 0.5, 0.5 / 3], dtype=torch.float64)
    torch.testing.assert_close(margins, expected, rtol=1e-12, atol=0)


# --- laws ---


def test_without_focusing_focal_is_cross_entropy():
    logits = normal(7, C)
    torch.testing.assert_close(focal_loss(logits, TARGETS, 0.0), F.cross_entropy(logits, TARGETS))


def test_focusing_never_raises_the_loss():
    logits = 5 * normal(7, C)
    losses = [focal_loss(logits, TARGETS, focusing) for focusing in (0.0, 0.5, 1.0, 2.0, 5.0)]
    assert losses == sorted(losses, reverse=True)


def test_without_beta_class_balanced_is_cross_entropy():
    logits, weights = normal(7, C), class_balanced_weights(COUNTS, 0.0)
    assert torch.equal(weights, torch.ones(C, dtype=torch.float64))
    loss = weighted_cross_entropy(logits, TARGETS, weights)
    torch.testing.assert_close(loss, F.cross_entropy(logits, TARGETS))


def test_towards_beta_one_the_weights_are_inverse_counts():
    weights = class_balanced_weights(COUNTS, 1 - 1e-9)
    products = weights * torch.tensor(COUNTS)
    torch.testing.assert_close(products, products[:1].expand(C), rtol=1e-5, atol=0)


@pytest.mark.parametrize("beta", [0.0, 0.9, 0.999, 0.9999])
def test_class_balanced_weights_have_mean_one_and_favour_the_tail(beta):
    weights = class_balanced_weights(COUNTS, beta)
    assert weights.mean().item() == pytest.approx(1)
    assert weights.tolist() == sorted(weights.tolist())


def test_the_scale_of_the_weights_does_not_matter():
    logits = normal(7, C)
    one, other = (weighted_cross_entropy(logits, TARGETS, WEIGHTS * scale) for scale in (1, 7))
    torch.testing.assert_close(one, other)


def test_without_margins_ldam_is_scaled_cross_entropy():
    cosines = unit(7, C)
    loss = ldam_loss(cosines, TARGETS, torch.zeros(C), 30.0)
    torch.testing.assert_close(loss, F.cross_entropy(30 * cosines, TARGETS))


def test_one_margin_for_all_classes_is_a_shift_of_the_target():
    cosines = unit(7, C)
    shifted = cosines - 0.2 * F.one_hot(TARGETS, C)
    loss = ldam_loss(cosines, TARGETS, torch.full((C,), 0.2, dtype=torch.float64), 30.0)
    torch.testing.assert_close(loss, F.cross_entropy(30 * shifted, TARGETS))


def test_ldam_leaves_its_input_alone():
    cosines = unit(7, C)
    before = cosines.clone()
    ldam_loss(cosines, TARGETS, MARGINS, 30.0)
    assert torch.equal(cosines, before)


def test_a_share_of_one_makes_mixup_cross_entropy():
    logits, partners = normal(7, C), TARGETS.roll(1)
    loss = mixup_cross_entropy(logits, TARGETS, partners, 1.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, TARGETS))


def test_mixup_is_the_same_from_both_sides():
    logits, partners = normal(7, C), TARGETS.roll(1)
    one = mixup_cross_entropy(logits, TARGETS, partners, 0.3)
    torch.testing.assert_close(one, mixup_cross_entropy(logits, partners, TARGETS, 0.7))


@pytest.mark.parametrize("k", [4, 6, 100])
def test_drawing_all_positives_makes_k_positive_contrast_supervised_contrast(k):
    embeddings, targets = unit(14, 6), TARGETS.repeat(2)
    loss = k_positive_contrastive_loss(embeddings, draw_positives(targets, k), 0.1)
    torch.testing.assert_close(loss, supervised_contrastive_loss(embeddings, targets, 0.1))


def test_drawing_none_leaves_the_other_view():
    positives = draw_positives(TARGETS.repeat(2), 0)
    assert torch.equal(
        positives, torch.eye(7, dtype=torch.bool).repeat(2, 2) ^ torch.eye(14).bool()
    )


@pytest.mark.parametrize("num_views", [2, 3])
@pytest.mark.parametrize("k", [0, 1, 2, 6])
def test_drawn_positives_are_the_own_views_and_k_others_of_the_class(k, num_views):
    targets = TARGETS.repeat(num_views)
    positives = draw_positives(targets, k, num_views)
    image = torch.arange(len(targets)) % len(TARGETS)
    for i in range(len(targets)):
        own = (image == image[i]) & (torch.arange(len(targets)) != i)
        others = (targets == targets[i]) & (image != image[i])
        assert (positives[i] <= (own | others)).all()
        assert positives[i][own].all()
        assert positives[i][others].sum() == min(k, others.sum())


def test_every_candidate_is_drawn_equally_often():
    targets = torch.zeros(8, dtype=torch.int64)
    generator = torch.Generator().manual_seed(0)
    drawn = sum(draw_positives(targets, 2, generator=generator).double() for _ in range(2000))
    others = drawn[0, [1, 2, 3, 5, 6, 7]] / 2000
    torch.testing.assert_close(others, torch.full_like(others, 2 / 6), rtol=0, atol=0.05)


def test_positives_follow_the_generator_and_the_global_seed():
    targets = TARGETS.repeat(2)
    torch.manual_seed(3)
    first = draw_positives(targets, 1)
    torch.manual_seed(3)
    assert torch.equal(first, draw_positives(targets, 1))
    assert torch.equal(
        first, draw_positives(targets, 1, generator=torch.Generator().manual_seed(3))
    )
    assert not torch.equal(first, draw_positives(targets, 1))


# --- edges ---


def margins(logits, targets):
    return ldam_loss(logits, targets, torch.full((logits.shape[1],), 0.3), 30.0)


def weighted(logits, targets):
    return weighted_cross_entropy(logits, targets, torch.linspace(0.1, 2, logits.shape[1]))


def mixed(logits, targets):
    return mixup_cross_entropy(logits, targets, targets.roll(1), 0.3)


def contrasted(embeddings, targets):
    generator = torch.Generator().manual_seed(0)
    positives = draw_positives(targets, 1, 1, generator)
    return k_positive_contrastive_loss(embeddings, positives, 0.1)


every_loss = pytest.mark.parametrize(
    "loss",
    [
        *(functools.partial(focal_loss, focusing=focusing) for focusing in (0.0, 0.5, 1.0, 2.0)),
        weighted,
        margins,
        mixed,
        contrasted,
    ],
    ids=["focal-0", "focal-0.5", "focal-1", "focal-2", "cb", "ldam", "mixup", "kcl"],
)


@every_loss
@pytest.mark.parametrize("scale", [1, 1e4, 1e30])
def test_extreme_scores_have_finite_losses_and_gradients(loss, scale):
    scores = scale * torch.tensor([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0]])
    if loss is not contrasted:  # its embeddings are unit vectors
        assert_finite(loss, scores, torch.tensor([0, 1]))
        assert_finite(loss, scores, torch.tensor([1, 0]))
    assert_finite(loss, F.normalize(scores), torch.tensor([1, 1]))


@every_loss
def test_one_image_is_a_batch(loss):
    assert_finite(loss, unit(1, C, dtype=torch.float32), torch.tensor([2]))


@every_loss
def test_many_classes_most_of_them_absent(loss):
    assert_finite(loss, unit(4, 8142, dtype=torch.float32), torch.tensor([0, 8141, 17, 17]))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(loss, dtype):
    half = unit(7, C).to(dtype).requires_grad_()
    value = loss(half, TARGETS)
    value.backward()
    assert value.dtype == torch.float32
    assert half.grad.dtype == dtype
    torch.testing.assert_close(value, loss(half.detach().float(), TARGETS))


@every_loss
def test_autocast_changes_nothing(loss):
    scores = unit(7, C, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(scores, TARGETS)
    torch.testing.assert_close(inside, loss(scores, TARGETS), rtol=0, atol=0)


def test_counts_of_a_large_data_set_give_finite_weights_and_margins():
    counts = torch.linspace(1000, 2, 8142)
    for values in (class_balanced_weights(counts), ldam_margins(counts)):
        assert values.shape == (8142,)
        assert values.isfinite().all()
        assert (values > 0).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda x: focal_loss(x, TARGETS, -1), "focusing must be >= 0, got -1"),
        (lambda x: focal_loss(x, TARGETS, math.nan), "focusing must be >= 0"),
        (lambda x: focal_loss(x, TARGETS[:3]), r"targets must have shape \(7\)"),
        (lambda x: focal_loss(x, TARGETS + 1), r"targets must be in \[0, 5\), got 1 to 5"),
        (lambda x: weighted_cross_entropy(x, TARGETS, torch.ones(4)), "weights must have shape"),
        (lambda x: ldam_loss(x, TARGETS, torch.ones(4)), "margins must have shape"),
        (lambda x: ldam_loss(x[0], TARGETS, MARGINS), "cosines must have shape"),
        (lambda x: ldam_loss(x, TARGETS, MARGINS, 0.0), "scale must be > 0, got 0.0"),
        (lambda x: ldam_loss(x, TARGETS, MARGINS, 1.0, torch.ones(4)), "weights must have shape"),
        (lambda x: mixup_cross_entropy(x, TARGETS, TARGETS, 1.5), r"share must be in \[0, 1\]"),
        (lambda x: mixup_cross_entropy(x, TARGETS, TARGETS[:2], 0.5), "targets must have shape"),
        (lambda x: class_balanced_weights(COUNTS, 1.0), r"beta must be in \[0, 1\), got 1.0"),
        (lambda x: class_balanced_weights([3, 0]), "class 1 has no training image"),
        (lambda x: ldam_margins([3, 0]), "class 1 has no training image"),
        (lambda x: draw_positives(TARGETS, 1), "a row for each of 2 views, got 7"),
        (lambda x: draw_positives(TARGETS, -1, 1), "num_positives must be >= 0, got -1"),
        (lambda x: contrasted(x, TARGETS[:3]), "positives must have shape"),
        (lambda x: k_positive_contrastive_loss(x, torch.ones(7, 7).bool(), 0), "temperature must"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(normal(7, C))
