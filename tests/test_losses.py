"""Losses against loops written from the equations, the authors' numbers, laws and edges."""

import functools
import json
import math
from pathlib import Path

import mpmath as mp
import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from ltlib.losses import (
    balanced_contrastive_loss,
    logit_adjusted_cross_entropy,
    parametric_contrastive_loss,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)
from ltlib.memory import ClassStatistics

GOLDEN = Path(__file__).parent / "golden"


def unit(rows, cols, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(rows, cols, generator=generator, dtype=torch.float64), dim=1).to(
        dtype
    )


def normal(*shape, seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def assert_same_with_gradients(ours, oracle, tensors, tolerance=1e-9):
    """Compare two functions of the same tensors in value and in every gradient."""
    results = []
    for function in (ours, oracle):
        leaves = [tensor.clone().requires_grad_() for tensor in tensors]
        value = function(*leaves)
        gradients = torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)
        results.append((value, *gradients))
    for one, other in zip(*results, strict=True):
        scale = max([1.0, *other.abs().flatten().tolist()])
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance * scale)


# --- oracles: loops over anchors, positives and terms ---


def naive_adjusted_cross_entropy(logits, targets, prior, tau):
    total = 0
    for row, target in zip(logits, targets.tolist(), strict=True):
        adjusted = [row[c] + tau * math.log(prior[c]) for c in range(len(row))]
        total = total - adjusted[target] + sum(value.exp() for value in adjusted).log()
    return total / len(logits)


def naive_class_contrast(
    embeddings, targets, prototypes, temperature, averaging, complement, average
):
    members = list(zip(embeddings, targets.tolist(), strict=True))
    if complement:
        members += [(prototype, c) for c, prototype in enumerate(prototypes)]
    per_class = {}
    for i, target in enumerate(targets.tolist()):
        terms = {}
        for k, (vector, c) in enumerate(members):
            if k != i:
                similarity = embeddings[i] @ vector / temperature
                terms.setdefault(c, []).append(similarity)
        denominator = 0
        for values in terms.values():
            share = sum(value.exp() for value in values)
            denominator = denominator + (share / len(values) if averaging else share)
        positives = terms.get(target, [])
        log_ratios = [value - denominator.log() for value in positives]
        loss = -sum(log_ratios) / len(log_ratios) if log_ratios else 0 * embeddings.sum()
        per_class.setdefault(target, []).append(loss)
    if average == "class":
        return sum(sum(losses) / len(losses) for losses in per_class.values()) / len(per_class)
    return sum(sum(losses) for losses in per_class.values()) / len(targets)


def naive_parametric_contrast(
    anchors,
    contrast,
    centers,
    targets,
    contrast_targets,
    prior,
    *,
    alpha,
    beta,
    gamma,
    temperature,
    center_temperature,
    label_smoothing,
    normalize_weights,
):
    num_classes = centers.shape[1]
    samples = [*anchors, *contrast]
    sample_targets = [*targets.tolist(), *contrast_targets.tolist()]
    total = 0
    for i, target in enumerate(targets.tolist()):
        center_scores = [
            (centers[i, c] + (0 if prior is None else math.log(prior[c] + 1e-9)))
            / center_temperature
            for c in range(num_classes)
        ]
        pair_scores = {
            k: anchors[i] @ sample / temperature for k, sample in enumerate(samples) if k != i
        }
        denominator = sum(score.exp() for score in center_scores)
        denominator = denominator + gamma * sum(score.exp() for score in pair_scores.values())
        loss, weights = 0, 0
        for c, score in enumerate(center_scores):
            smooth = 1 - label_smoothing if c == target else label_smoothing / (num_classes - 1)
            loss = loss - beta * smooth * (score - denominator.log())
            weights += beta * smooth
        for k, score in pair_scores.items():
            if sample_targets[k] == target:
                loss = loss - alpha * (score - denominator.log())
                weights += alpha
        total = total + (loss / weights if normalize_weights else loss)
    return total / len(anchors)


def exact_probabilistic_logit(embedding, direction, kappa, temperature):
    """Logit and its gradient by the embedding, with 40 digits, from the vectors themselves."""
    with mp.workdps(40):
        order = mp.mpf(len(embedding)) / 2 - 1

        def log_c(k):
            if k == 0:
                return -order * mp.log(2) - mp.loggamma(order + 1)
            return mp.log(mp.besseli(order, k, maxterms=10**6)) - order * mp.log(k)

        kappa = mp.mpf(kappa)
        tilted = [
            kappa * mp.mpf(m) + mp.mpf(z) / temperature
            for m, z in zip(direction, embedding, strict=True)
        ]
        length = mp.sqrt(sum(x**2 for x in tilted))
        ratio = mp.besseli(order + 1, length, maxterms=10**6)
        ratio /= mp.besseli(order, length, maxterms=10**6)
        gradient = [float(ratio * x / length / temperature) for x in tilted]
        return float(log_c(length) - log_c(kappa)), gradient


# --- oracle tests ---

TARGETS = torch.tensor([0, 0, 0, 1, 1, 2, 0, 0, 0, 1, 1, 4])  # 3 is absent, 2 and 4 are alone


@pytest.mark.parametrize("tau", [0.0, 0.7, 1.0])
def test_logit_adjustment_is_the_sum_over_classes(tau):
    prior = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01], dtype=torch.float64)
    assert_same_with_gradients(
        lambda x: logit_adjusted_cross_entropy(x, TARGETS, prior, tau),
        lambda x: naive_adjusted_cross_entropy(x, TARGETS, prior.tolist(), tau),
        [3 * normal(12, 5)],
    )


@pytest.mark.parametrize("temperature", [0.05, 0.1, 1.0])
def test_supervised_contrast_is_the_sum_over_positives(temperature):
    assert_same_with_gradients(
        lambda z: supervised_contrastive_loss(z, TARGETS, temperature),
        lambda z: naive_class_contrast(z, TARGETS, None, temperature, False, False, "sample"),
        [unit(12, 6)],
    )


@pytest.mark.parametrize("average", ["sample", "class"])
@pytest.mark.parametrize("complement", [True, False])
@pytest.mark.parametrize("averaging", [True, False])
@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_balanced_contrast_is_the_sum_over_classes(temperature, averaging, complement, average):
    assert_same_with_gradients(
        lambda z, c: balanced_contrastive_loss(
            z,
            TARGETS,
            c,
            temperature,
            class_averaging=averaging,
            class_complement=complement,
            anchor_average=average,
        ),
        lambda z, c: naive_class_contrast(
            z, TARGETS, c, temperature, averaging, complement, average
        ),
        [unit(12, 6), unit(5, 6, seed=1)],
    )


@pytest.mark.parametrize(
    "options",
    [
        {"alpha": 0.05},
        {"alpha": 0.05, "normalize_weights": False},
        {"alpha": 0.3, "beta": 0.7, "gamma": 0.4, "center_temperature": 1.7},
        {"alpha": 0.05, "label_smoothing": 0.1},
        {"alpha": 0.05, "label_smoothing": 0.2, "normalize_weights": False, "beta": 2.0},
        {"alpha": 0.5, "gamma": 0.0},
        {"alpha": 0.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("queue", [0, 7])
@pytest.mark.parametrize("adjusted", [True, False])
def test_parametric_contrast_is_the_sum_over_centers_and_samples(options, queue, adjusted):
    prior = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01], dtype=torch.float64)
    prior = prior if adjusted else None
    contrast_targets = torch.tensor([0, 1, 2, 3, 4, -1, 0])[:queue]
    defaults = {
        "beta": 1.0,
        "gamma": 1.0,
        "temperature": 0.1,
        "center_temperature": 1.0,
        "label_smoothing": 0.0,
        "normalize_weights": True,
    }
    assert_same_with_gradients(
        lambda a, k, x: parametric_contrastive_loss(
            a, TARGETS, k, contrast_targets, x, prior, temperature=0.1, **options
        ),
        lambda a, k, x: naive_parametric_contrast(
            a,
            k,
            x,
            TARGETS,
            contrast_targets,
            None if prior is None else prior.tolist(),
            **(defaults | options),
        ),
        [unit(12, 6), unit(queue, 6, seed=1), 3 * normal(12, 5, seed=2)],
    )


@pytest.mark.parametrize("temperature", [0.05, 0.1])
@pytest.mark.parametrize("dim", [2, 5, 128, 1024])
def test_probabilistic_logits_agree_with_forty_digits(dim, temperature):
    embeddings, directions = unit(3, dim), unit(5, dim, seed=1)
    embeddings[0] = directions[2]
    kappa = torch.tensor([0.0, 3.0, 606.0, 1e4, 1e5], dtype=torch.float64)
    embeddings.requires_grad_()
    logits = probabilistic_contrastive_logits(embeddings, directions, kappa, temperature)
    for i in range(3):
        for j in range(5):
            expected, gradient = exact_probabilistic_logit(
                embeddings[i].tolist(), directions[j].tolist(), kappa[j].item(), temperature
            )
            torch.testing.assert_close(logits[i, j].item(), expected, rtol=1e-9, atol=1e-9)
            (ours,) = torch.autograd.grad(logits[i, j], embeddings, retain_graph=True)
            gradient = torch.tensor(gradient, dtype=torch.float64)
            torch.testing.assert_close(ours[i], gradient, rtol=1e-9, atol=1e-9)
            assert not ours[torch.arange(3) != i].any()


# --- the authors' code ---


def waves(rows, cols, phase):
    """Numbers between -1 and 1 by rule, the same in every version of every library."""
    i = torch.arange(rows, dtype=torch.float64)[:, None]
    j = torch.arange(cols, dtype=torch.float64)
    return torch.sin(phase + 1.7 * i + 2.3 * j + 0.37 * i * j).float()


def unit_waves(rows, cols, phase):
    return F.normalize(waves(rows, cols, phase), dim=1)


def golden_inputs(num_logits=6):
    counts = torch.tensor([50.0, 20, 10, 5, 2])
    targets = torch.tensor([0, 0, 0, 1, 1, 2])
    features = unit_waves(12 + 10, 8, 0.3).requires_grad_()  # two views, then ten of a queue
    prototypes = unit_waves(5, 8, 0.9).requires_grad_()
    logits = (3 * waves(num_logits, 5, 0.5)).requires_grad_()
    return counts / counts.sum(), targets, features, prototypes, logits


def golden_cases(kind):
    cases = json.loads((GOLDEN / "losses.json").read_text())["cases"]
    return [pytest.param(n, case, id=n) for n, case in cases.items() if n.startswith(kind + ",")]


def option(name, key):
    return next(part.removeprefix(key + " ") for part in name.split(", ") if key in part)


def assert_relative(ours, theirs, tolerance=1e-5):
    theirs = torch.tensor(theirs).view_as(ours)
    assert (ours - theirs).norm() <= tolerance * theirs.norm()


@pytest.mark.parametrize(("name", "case"), golden_cases("bcl"))
def test_balanced_contrast_equals_the_authors_code(name, case):
    _, targets, features, prototypes, _ = golden_inputs()
    loss = balanced_contrastive_loss(
        features[:12], targets.repeat(2), prototypes, float(option(name, "temperature"))
    )
    loss.backward()
    assert_relative(loss.detach(), case["loss"])
    assert_relative(features.grad[:12], case["embeddings_grad"])
    assert_relative(prototypes.grad, case["prototypes_grad"])


@pytest.mark.parametrize(("name", "case"), golden_cases("scl"))
def test_supervised_contrast_equals_the_authors_code(name, case):
    _, targets, features, _, _ = golden_inputs()
    temperature = float(option(name, "temperature"))
    loss = supervised_contrastive_loss(features[:12], targets.repeat(2), temperature)
    loss.backward()
    assert_relative(loss.detach(), case["loss"])
    assert_relative(features.grad[:12], case["embeddings_grad"])


@pytest.mark.parametrize(("name", "case"), golden_cases("la"))
def test_logit_adjustment_equals_the_authors_code(name, case):
    prior, targets, _, _, logits = golden_inputs()
    loss = logit_adjusted_cross_entropy(logits, targets, prior)
    loss.backward()
    assert_relative(loss.detach(), case["loss"])
    assert_relative(logits.grad, case["logits_grad"])


@pytest.mark.parametrize(("name", "case"), golden_cases("paco") + golden_cases("gpaco"))
def test_parametric_contrast_equals_the_authors_code(name, case):
    num_anchors = 6 if name.startswith("paco") else 12  # PaCo's second view is keys, not anchors
    prior, targets, features, _, logits = golden_inputs(num_anchors)
    targets = torch.cat([targets, targets, torch.arange(10) % 5])
    loss = parametric_contrastive_loss(
        features[:num_anchors],
        targets[:num_anchors],
        features[num_anchors:],
        targets[num_anchors:],
        logits,
        prior if option(name, "prior") == "True" else None,
        alpha=float(option(name, "alpha")),
        temperature=float(option(name, "temperature")),
        label_smoothing=float(option(name, "smoothing")),
    )
    loss.backward()
    assert_relative(loss.detach(), case["loss"])
    assert_relative(features.grad, case["features_grad"])
    assert_relative(logits.grad, case["logits_grad"])


def golden_proco_steps():
    """Three epochs of four steps: is it the first, embeddings, targets; class 5 never comes."""
    targets = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 3])
    for step in range(12):
        if step == 8:
            targets[-2:] = 4
        noise = 0.6 * waves(12, 128, 10.0 + step) / 8
        centers = unit_waves(1, 128, 8.0) + 0.4 * unit_waves(6, 128, 9.0)
        yield step % 4 == 0, F.normalize(centers[targets] + noise, dim=1), targets.clone()


def test_probabilistic_contrast_follows_the_authors_code_over_three_epochs():
    golden = json.loads((GOLDEN / "proco.json").read_text())
    prior = torch.tensor([50.0, 20, 10, 5, 2, 1])
    prior /= prior.sum()
    statistics = ClassStatistics(6, 128)
    statistics.epoch_mean.copy_(0.9 * unit_waves(6, 128, 2.0))
    epoch = 0
    for (first, embeddings, targets), expected in zip(
        golden_proco_steps(), golden["steps"], strict=True
    ):
        if first:
            statistics.on_epoch_start()
            statistics.epoch_mean.copy_(0.9 * unit_waves(6, 128, 3.0 + epoch))
            epoch += 1
        embeddings.requires_grad_()
        statistics.update(embeddings, targets)
        logits = probabilistic_contrastive_logits(
            embeddings, statistics.mean_direction, statistics.concentration, 0.1
        )
        loss = logit_adjusted_cross_entropy(logits, targets, prior)
        (gradient,) = torch.autograd.grad(loss, embeddings)
        radial = (gradient * embeddings).sum(1, keepdim=True) * embeddings
        probed = (gradient - radial) @ unit_waves(4, 128, 7.0).T
        assert loss.item() == pytest.approx(expected["loss"], rel=2e-3)
        assert_relative(probed.detach(), expected["grad_on_probes"], 2e-3)
    assert_relative(statistics.concentration, golden["kappa_after"])


# --- laws ---


def test_balanced_prior_makes_logit_adjustment_equal_cross_entropy():
    logits = normal(12, 5)
    adjusted = logit_adjusted_cross_entropy(logits, TARGETS, torch.full((5,), 0.2))
    torch.testing.assert_close(adjusted, F.cross_entropy(logits, TARGETS))


def test_without_its_two_corrections_balanced_contrast_is_supervised_contrast():
    embeddings = unit(12, 6)
    plain = balanced_contrastive_loss(
        embeddings, TARGETS, None, 0.1, class_averaging=False, class_complement=False
    )
    torch.testing.assert_close(plain, supervised_contrastive_loss(embeddings, TARGETS, 0.1))


def test_contrast_does_not_depend_on_the_order_of_the_rows():
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))
    embeddings, prototypes = unit(12, 6), unit(5, 6, seed=1)
    for loss in (
        lambda z, y: supervised_contrastive_loss(z, y, 0.1),
        lambda z, y: balanced_contrastive_loss(z, y, prototypes, 0.1),
        lambda z, y: balanced_contrastive_loss(z, y, prototypes, 0.1, anchor_average="class"),
    ):
        torch.testing.assert_close(
            loss(embeddings, TARGETS), loss(embeddings[order], TARGETS[order])
        )


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_the_simplex_attains_the_lower_bound_of_balanced_contrast(temperature):
    num_classes = 5
    simplex = torch.eye(num_classes, dtype=torch.float64) - 1 / num_classes
    simplex = F.normalize(simplex, dim=1).requires_grad_()
    targets = torch.tensor([0] * 8 + [1] * 4 + [2] * 2 + [3])  # class 4 is absent
    loss = balanced_contrastive_loss(
        simplex[targets], targets, simplex, temperature, anchor_average="class"
    )
    exponent = -num_classes / ((num_classes - 1) * temperature)
    bound = math.log1p((num_classes - 1) * math.exp(exponent))
    assert loss.item() == pytest.approx(bound, rel=1e-10)


def test_averaging_by_class_ignores_how_often_a_class_is_repeated():
    """All anchors of a class being equal, only class averages are left."""
    vectors = unit(3, 6)
    few, many = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0] * 7 + [1] * 3 + [2] * 2)
    losses = [
        balanced_contrastive_loss(vectors[y], y, vectors, 0.3, anchor_average="class")
        for y in (few, many)
    ]
    torch.testing.assert_close(*losses)


def test_without_samples_parametric_contrast_is_logit_adjustment():
    prior = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01], dtype=torch.float64)
    logits = normal(12, 5)
    loss = parametric_contrastive_loss(
        unit(12, 6), TARGETS, unit(3, 6), TARGETS[:3], logits, prior,
        alpha=0.0, gamma=0.0, temperature=0.1,
    )  # fmt: skip
    adjusted = logit_adjusted_cross_entropy(logits, TARGETS, prior)
    torch.testing.assert_close(loss, adjusted, rtol=1e-7, atol=1e-7)


def test_concentrated_classes_make_probabilistic_logits_cosines_over_temperature():
    embeddings, directions = unit(4, 16), unit(5, 16, seed=1)
    logits = probabilistic_contrastive_logits(embeddings, directions, torch.full((5,), 1e5), 0.1)
    torch.testing.assert_close(logits, embeddings @ directions.T / 0.1, rtol=0, atol=5e-3)


def test_classes_without_concentration_have_one_logit():
    logits = probabilistic_contrastive_logits(unit(4, 16), unit(5, 16, seed=1), torch.zeros(5), 0.1)
    torch.testing.assert_close(logits, logits[:1, :1].expand(4, 5))


def test_statistics_are_constants_of_the_probabilistic_logits():
    directions, kappa = unit(5, 16).requires_grad_(), torch.full((5,), 50.0).requires_grad_()
    embeddings = unit(4, 16, seed=1).requires_grad_()
    probabilistic_contrastive_logits(embeddings, directions, kappa, 0.1).sum().backward()
    assert embeddings.grad is not None
    assert directions.grad is None
    assert kappa.grad is None


# --- edges ---

C, D = 5, 6
PRIOR = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01])


def supervised(embeddings, targets, **changes):
    return supervised_contrastive_loss(embeddings, targets, **({"temperature": 0.1} | changes))


def balanced(embeddings, targets, **changes):
    prototypes = unit(C, embeddings.shape[1], seed=7, dtype=embeddings.dtype)
    arguments = {"prototypes": prototypes, "temperature": 0.1} | changes
    return balanced_contrastive_loss(embeddings, targets, **arguments)


def probabilistic(embeddings, targets, **changes):
    width = embeddings.shape[1]
    arguments = {
        "mean_direction": unit(C, width, seed=7, dtype=torch.float32),
        "concentration": torch.tensor([0.0, 10.0, 300.0, 1e4, 1e5]),
        "temperature": 0.1,
    }
    logits = probabilistic_contrastive_logits(embeddings, **(arguments | changes))
    return logit_adjusted_cross_entropy(logits, targets, PRIOR)


def parametric(embeddings, targets, **changes):
    arguments = {
        "contrast": unit(7, embeddings.shape[1], seed=7, dtype=embeddings.dtype),
        "contrast_targets": torch.arange(7) % C,
        "center_logits": normal(len(embeddings), C, dtype=embeddings.dtype),
        "prior": PRIOR,
        "alpha": 0.05,
        "temperature": 0.1,
    }
    return parametric_contrastive_loss(embeddings, targets, **(arguments | changes))


every_loss = pytest.mark.parametrize(
    "loss",
    [
        supervised,
        balanced,
        functools.partial(balanced, class_complement=False),
        functools.partial(balanced, class_complement=False, anchor_average="class"),
        probabilistic,
        parametric,
        functools.partial(parametric, label_smoothing=0.1, normalize_weights=False),
    ],
    ids=["scl", "bcl", "bcl-plain", "bcl-by-class", "proco", "paco", "gpaco"],
)


def assert_finite(loss, embeddings, targets, **changes):
    embeddings = embeddings.clone().requires_grad_()
    value = loss(embeddings, targets, **changes)
    value.backward()
    assert value.isfinite()
    assert embeddings.grad.isfinite().all()
    return value


@every_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_hard_batches_have_finite_losses_and_gradients(loss, dtype):
    embeddings = unit(4, D, dtype=dtype)
    assert_finite(loss, embeddings[:1], torch.tensor([3]))
    assert_finite(loss, embeddings, torch.full((4,), 2))
    assert_finite(loss, embeddings, torch.tensor([0, 1, 2, 4]))
    assert_finite(loss, embeddings[:1].expand(4, D), torch.tensor([0, 0, 1, 2]))
    assert_finite(loss, -embeddings[:1].expand(4, D), torch.tensor([0, 0, 1, 2]))
    assert_finite(loss, embeddings, torch.tensor([0, 0, 1, 2]), temperature=0.05)
    assert_finite(loss, embeddings, torch.tensor([0, 0, 1, 2]), temperature=1e-3)


@pytest.mark.parametrize("scale", [1e4, 1e30])
def test_extreme_logits_stay_finite_and_keep_their_order(scale):
    logits = torch.tensor([[scale, -scale, 0.0], [0.0, scale, -scale]], requires_grad=True)
    prior = torch.tensor([0.9, 0.1, 0.0])
    right, wrong = torch.tensor([0, 1]), torch.tensor([1, 0])
    assert logit_adjusted_cross_entropy(logits, right, prior).item() == 0
    assert_finite(lambda x, y: logit_adjusted_cross_entropy(x, y, prior), logits.detach(), wrong)
    for smoothing in (0.0, 0.1):
        assert_finite(
            lambda x, y, s=smoothing: parametric_contrastive_loss(
                unit(2, D, dtype=torch.float32), y, torch.zeros(0, D),
                torch.zeros(0, dtype=torch.int64), x, prior,
                alpha=0.05, temperature=0.05, label_smoothing=s,
            ),
            logits.detach(),
            wrong,
        )  # fmt: skip


def test_a_class_without_training_images_does_not_spoil_unadjusted_cross_entropy():
    logits = normal(3, 2, dtype=torch.float32)
    targets = torch.tensor([0, 1, 0])
    loss = logit_adjusted_cross_entropy(logits, targets, torch.tensor([1.0, 0.0]), tau=0.0)
    torch.testing.assert_close(loss, F.cross_entropy(logits, targets))


def test_an_anchor_without_positives_adds_zero_but_is_counted():
    embeddings = unit(5, D)
    targets = torch.tensor([0, 0, 1, 1, 2])
    with_lonely = supervised_contrastive_loss(embeddings, targets, 0.1)
    denominators = (embeddings @ embeddings.T / 0.1).fill_diagonal_(-math.inf).logsumexp(1)
    pairs = [(0, 1), (1, 0), (2, 3), (3, 2)]
    expected = sum(denominators[i] - embeddings[i] @ embeddings[k] / 0.1 for i, k in pairs) / 5
    torch.testing.assert_close(with_lonely, expected)


def test_a_class_opposite_to_the_embedding_has_a_finite_gradient():
    direction = torch.tensor([[1.0, 0.0]])
    embedding = -direction.clone().requires_grad_()
    leaf = embedding.detach().requires_grad_()
    # kappa mu + z / T is the zero vector.
    logits = probabilistic_contrastive_logits(leaf, direction, torch.tensor([10.0]), 0.1)
    logits.sum().backward()
    assert leaf.grad.isfinite().all()


@every_loss
def test_strides_do_not_matter(loss):
    embeddings = unit(12, D, dtype=torch.float32)
    strided = torch.stack([embeddings, embeddings], dim=2)[..., 0].T.contiguous().T
    targets = torch.stack([TARGETS, TARGETS], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert not targets.is_contiguous()
    torch.testing.assert_close(loss(strided, targets), loss(embeddings, TARGETS))


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_input_is_computed_in_float32(loss, dtype):
    half = unit(12, D).to(dtype).requires_grad_()
    value = loss(half, TARGETS)
    assert value.dtype == torch.float32
    value.backward()
    assert half.grad.dtype == dtype
    assert half.grad.isfinite().all()
    # Same numbers in float32, the other arguments rounded alike.
    extra = {}
    if getattr(loss, "func", loss) is balanced:
        extra["prototypes"] = unit(C, D, seed=7, dtype=dtype).float()
    if getattr(loss, "func", loss) is parametric:
        extra["contrast"] = unit(7, D, seed=7, dtype=dtype).float()
        extra["center_logits"] = normal(12, C, dtype=dtype).float()
    torch.testing.assert_close(value, loss(half.detach().float(), TARGETS, **extra))


@every_loss
def test_autocast_changes_nothing(loss):
    embeddings = unit(12, D, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        inside = loss(embeddings, TARGETS)
    torch.testing.assert_close(inside, loss(embeddings, TARGETS), rtol=0, atol=0)


def test_logit_adjustment_takes_a_prior_and_logits_of_any_precision():
    logits, prior = normal(12, 5), PRIOR.double()
    expected = logit_adjusted_cross_entropy(logits.float(), TARGETS, prior.float())
    for dtype in (torch.float16, torch.float32, torch.float64):
        value = logit_adjusted_cross_entropy(logits.float(), TARGETS, prior.to(dtype))
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected, rtol=1e-3, atol=1e-3)
    assert logit_adjusted_cross_entropy(logits, TARGETS, PRIOR).dtype == torch.float64


def test_keyword_arguments_in_any_order_are_the_same_call():
    embeddings, prototypes = unit(12, D, dtype=torch.float32), unit(C, D)
    by_name = balanced_contrastive_loss(
        temperature=0.1, prototypes=prototypes, targets=TARGETS, embeddings=embeddings
    )
    by_place = balanced_contrastive_loss(embeddings, TARGETS, prototypes, 0.1)
    assert by_name.dtype == torch.float32
    torch.testing.assert_close(by_name, by_place)


class Watch(TorchDispatchMode):
    """Count operations and remember the largest tensor they made."""

    def __init__(self):
        super().__init__()
        self.operations = self.largest = 0

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        result = operation(*args, **(kwargs or {}))
        self.operations += 1
        outputs = result if isinstance(result, tuple | list) else (result,)
        sizes = [tensor.numel() for tensor in outputs if isinstance(tensor, torch.Tensor)]
        self.largest = max([self.largest, *sizes])
        return result


def watch_step(kind, num_classes, batch=32, width=64):
    """Run one forward and backward pass, and the update of the statistics, under watch."""
    torch.manual_seed(0)
    embeddings = unit(batch, width, dtype=torch.float32).requires_grad_()
    targets = torch.arange(batch) % num_classes
    rows = unit(num_classes, width, dtype=torch.float32).requires_grad_()
    prior = torch.full((num_classes,), 1 / num_classes)
    statistics = ClassStatistics(num_classes, width)
    probabilistic_contrastive_logits(embeddings, rows, torch.ones(num_classes), 0.1)
    with Watch() as watch:
        if kind == "proco":
            statistics.update(embeddings, targets)
            logits = probabilistic_contrastive_logits(
                embeddings, statistics.mean_direction, statistics.concentration, 0.1
            )
            loss = logit_adjusted_cross_entropy(logits, targets, prior)
        elif kind == "bcl":
            loss = balanced_contrastive_loss(embeddings, targets, rows, 0.1)
        else:
            loss = parametric_contrastive_loss(
                embeddings, targets, rows, torch.arange(num_classes), embeddings @ rows.T, prior,
                alpha=0.05, temperature=0.1, label_smoothing=0.1,
            )  # fmt: skip
        loss.backward()
    assert loss.isfinite()
    return watch


@pytest.mark.parametrize("kind", ["proco", "bcl", "paco"])
def test_no_tensor_and_no_loop_grows_with_batch_times_classes_times_width(kind):
    few, many = watch_step(kind, 50), watch_step(kind, 8142)
    assert many.operations == few.operations
    # Vectors or logits of batch, classes and, for PaCo, as many samples of a queue.
    assert many.largest <= max((8142 + 32) * 64, 32 * (32 + 2 * 8142))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z, y: supervised(z, y[:5]), r"targets must have shape \(12\), got \(5,\)"),
        (lambda z, y: supervised(z[0], y), r"embeddings must have shape \(any, any\)"),
        (lambda z, y: supervised(z, y, temperature=0.0), "temperature must be > 0, got 0.0"),
        (lambda z, y: supervised(z[:0], y[:0]), "empty batch"),
        (lambda z, y: balanced(z, y, temperature=-1.0), "temperature must be > 0"),
        (lambda z, y: balanced(z, y, temperature=math.nan), "temperature must be > 0"),
        (lambda z, y: balanced(z, y, prototypes=unit(C, D + 1)), "prototypes must have shape"),
        (lambda z, y: balanced(z, y, prototypes=None), "class_complement needs prototypes"),
        (lambda z, y: balanced(z, y, anchor_average="batch"), "anchor_average must be"),
        (lambda z, y: balanced(z, y + 2), r"targets must be in \[0, 5\), got 2 to 6"),
        (lambda z, y: probabilistic(z, y, temperature=0), "temperature must be > 0"),
        (lambda z, y: probabilistic(z, y, mean_direction=unit(C, 2)), "mean_direction must have"),
        (lambda z, y: probabilistic(z, y, concentration=torch.ones(4)), "concentration must have"),
        (lambda z, y: parametric(z, y, center_temperature=0), "center_temperature must be > 0"),
        (lambda z, y: parametric(z, y, contrast=unit(7, 2)), "contrast must have shape"),
        (lambda z, y: parametric(z, y, contrast_targets=y), "contrast_targets must have shape"),
        (lambda z, y: parametric(z, y, center_logits=normal(3, C)), "center_logits must have"),
        (lambda z, y: parametric(z, y, prior=PRIOR[:3]), r"prior must have shape \(5\)"),
        (lambda z, y: parametric(z, y - 1), r"targets must be in \[0, 5\), got -1 to 3"),
        (lambda z, y: logit_adjusted_cross_entropy(z, y, PRIOR), r"prior must have shape \(6\)"),
    ],
)  # fmt: skip
def test_wrong_arguments_are_refused_by_name(call, message):
    with pytest.raises(ValueError, match=message):
        call(unit(12, D, dtype=torch.float32), TARGETS)
