"""The papers' losses as pure functions of already gathered tensors.

No state, no communication, no device calls: each works alone in anybody's loop. All of them
compute in float32 or better, whatever autocast says and whatever half precision they are given,
and none makes a B x C x D tensor.

Logit adjustment (Menon et al. 2021, arXiv:2007.07314), supervised contrast (Khosla et al. 2020,
arXiv:2004.11362), BCL (Zhu et al. 2022, arXiv:2207.09052), ProCo (Du et al. 2024,
arXiv:2403.06726), PaCo (Cui et al. 2021, arXiv:2107.12028), GPaCo (Cui et al. 2023,
arXiv:2209.12400).
"""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Literal, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib import vmf

P = ParamSpec("P")


def _in_full_precision(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Run without autocast, every floating tensor in the dtype of the first, float32 at least."""
    signature = inspect.signature(loss)

    @functools.wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        bound = signature.bind(*args, **kwargs)
        first = next(iter(bound.arguments.values()))
        dtype = torch.promote_types(first.dtype, torch.float32)
        for name, value in bound.arguments.items():
            if isinstance(value, Tensor) and value.is_floating_point():
                bound.arguments[name] = value.to(dtype)
        with torch.autocast(first.device.type, enabled=False):
            return loss(*bound.args, **bound.kwargs)

    return wrapper


@_in_full_precision
def logit_adjusted_cross_entropy(
    logits: Tensor, targets: Tensor, prior: Tensor, tau: float = 1.0
) -> Tensor:
    """Cross entropy of logits + tau log prior.

    Menon et al. 2021 (arXiv:2007.07314); with tau = 1 it is also known as balanced softmax. Used
    in training only: predictions are the argmax of the logits themselves.

    Args:
        logits: Scores, (B, C).
        targets: Class of each row, (B,), int64 in [0, C).
        prior: Share of each class in the training set, (C,).
        tau: Strength of the adjustment; 0 is plain cross entropy.

    Returns:
        Mean over the batch, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees.
    """
    _check_shape("logits", logits, None, None)
    _check_targets(targets, *logits.shape)
    _check_shape("prior", prior, logits.shape[1])
    return F.cross_entropy(logits + torch.xlogy(tau, prior), targets)


@_in_full_precision
def supervised_contrastive_loss(embeddings: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Contrast each view with all others; those of its class are positives.

    Khosla et al. 2020 (arXiv:2004.11362), the form with the sum over positives outside the log:
    -mean_{p in P(i)} log(exp(s_ip) / sum_{k != i} exp(s_ik)), s = cosine / temperature.

    Args:
        embeddings: Unit vectors of all views, (V*B, D), view-major.
        targets: Class of each row, (V*B,), int64.
        temperature: Divides cosines; > 0.

    Returns:
        Mean over the V*B anchors, scalar, in nats. An anchor without positives adds zero.

    Raises:
        ValueError: If a shape disagrees or temperature <= 0.
    """
    return _class_contrast(embeddings, targets, None, temperature)


@_in_full_precision
def balanced_contrastive_loss(
    embeddings: Tensor,
    targets: Tensor,
    prototypes: Tensor | None,
    temperature: float,
    *,
    class_averaging: bool = True,
    class_complement: bool = True,
    anchor_average: Literal["sample", "class"] = "sample",
) -> Tensor:
    """Contrast each view with all others, every class weighing the same.

    Zhu et al. 2022 (arXiv:2207.09052). Class-averaging divides each class's share of the
    denominator by its number of terms in the batch; class-complement adds one prototype per
    class, so that no class is ever absent. With both off this is the supervised contrastive loss.

    Args:
        embeddings: Unit vectors of all views of all ranks, (V*B, D), view-major.
        targets: Class of each row, (V*B,), int64 in [0, C).
        prototypes: Unit vectors, one per class, (C, D); contrasted with, never anchors. May be
            None without class-complement.
        temperature: Divides cosines; > 0.
        class_averaging: Average the exponentials of a class instead of summing them.
        class_complement: Let the prototypes take part.
        anchor_average: Mean over anchors ("sample", the authors' code) or over anchors within
            each class and then over the classes of the batch ("class", for which the regular
            simplex is the minimiser).

    Returns:
        Mean loss, scalar, in nats. An anchor without positives adds zero.

    Raises:
        ValueError: If a shape disagrees, temperature <= 0 or a switch is unknown.
    """
    if anchor_average not in ("sample", "class"):
        raise ValueError(f"anchor_average must be 'sample' or 'class', got {anchor_average!r}")
    if class_complement and prototypes is None:
        raise ValueError("class_complement needs prototypes, got None")
    return _class_contrast(
        embeddings,
        targets,
        prototypes if class_complement else None,
        temperature,
        class_averaging=class_averaging,
        average_by_class=anchor_average == "class",
    )


def _class_contrast(
    embeddings: Tensor,
    targets: Tensor,
    prototypes: Tensor | None,
    temperature: float,
    *,
    class_averaging: bool = False,
    average_by_class: bool = False,
) -> Tensor:
    """Contrast every row with all other rows and, if given, one prototype per class."""
    _check_temperature(temperature)
    _check_shape("embeddings", embeddings, None, None)
    _check_targets(targets, len(embeddings), None if prototypes is None else len(prototypes))
    columns, column_targets = embeddings, targets
    if prototypes is not None:
        _check_shape("prototypes", prototypes, None, embeddings.shape[1])
        columns = torch.cat([embeddings, prototypes])
        classes = torch.arange(len(prototypes), device=targets.device)
        column_targets = torch.cat([targets, classes])

    logits = embeddings @ columns.T / temperature  # (V*B, V*B + C)
    same, itself, positive = _pairs(targets, column_targets)
    others = logits
    if class_averaging:
        # The anchor's own class has a term fewer, the anchor itself, and then perhaps none.
        terms = same.sum(0, dtype=logits.dtype) + (prototypes is not None)
        others = logits - torch.where(same, (terms - 1).clamp_min(1).log(), terms.log())
    log_denominator = _masked(others, itself).logsumexp(1)
    num_positives = positive.sum(1, dtype=logits.dtype)
    mean_positive = (logits * positive).sum(1) / num_positives.clamp_min(1)
    # Differs: the authors divide 0 by 0 for an anchor without positives; here it adds zero, as in
    # the reference code of supervised contrast.
    losses = torch.where(num_positives > 0, log_denominator - mean_positive, 0)
    if not average_by_class:
        return losses.mean()
    share = 1 / same[:, : len(targets)].sum(1, dtype=logits.dtype)
    return (losses * share).sum() / share.sum()


@_in_full_precision
def probabilistic_contrastive_logits(
    embeddings: Tensor, mean_direction: Tensor, concentration: Tensor, temperature: float
) -> Tensor:
    """Score each class by its expected exponential similarity under a von Mises-Fisher law.

    Du et al. 2024 (arXiv:2403.06726): log E exp(z.z'/T) over z' ~ vMF(mu_c, kappa_c), that is
    log C_D(|kappa_c mu_c + z/T|) - log C_D(kappa_c). ProCo's loss is
    ``logit_adjusted_cross_entropy`` on these logits.

    Args:
        embeddings: Unit vectors, (B, D). Their length enters, as in the authors' code.
        mean_direction: Unit vectors, (C, D); a constant, no gradient.
        concentration: In [0, 1e5], (C,); a constant, no gradient.
        temperature: T, divides cosines; > 0.

    Returns:
        Logits, (B, C), in nats, at most 1/T for unit vectors.

    Raises:
        ValueError: If a shape disagrees or temperature <= 0.
    """
    _check_temperature(temperature)
    _check_shape("embeddings", embeddings, None, None)
    _check_shape("mean_direction", mean_direction, None, embeddings.shape[1])
    _check_shape("concentration", concentration, len(mean_direction))
    # float64 from the cosines on: |kappa mu + z/T| exceeds kappa by 1/T at most, and kappa reaches
    # 1e5. The law of cosines spares the B x C x D tensor.
    cosines = (embeddings @ mean_direction.detach().T).double()  # (B, C)
    kappa = concentration.detach().double()
    lengths = embeddings.square().sum(1, keepdim=True).double()  # (B, 1), squared
    square = kappa**2 + 2 * kappa / temperature * cosines + lengths / temperature**2
    tilted = square.clamp_min(1e-30).sqrt()  # sqrt has no gradient at 0; here z/T = -kappa mu
    dim = embeddings.shape[1]
    logits = vmf.log_normalizer(tilted, dim) - vmf.log_normalizer(kappa, dim)
    return logits.to(embeddings.dtype)


@_in_full_precision
def parametric_contrastive_loss(
    anchors: Tensor,
    targets: Tensor,
    contrast: Tensor,
    contrast_targets: Tensor,
    center_logits: Tensor,
    prior: Tensor | None = None,
    *,
    alpha: float,
    beta: float = 1.0,
    gamma: float = 1.0,
    temperature: float,
    center_temperature: float = 1.0,
    label_smoothing: float = 0.0,
    normalize_weights: bool = True,
) -> Tensor:
    """Contrast each anchor with samples and with learnable class centers.

    PaCo (Cui et al. 2021, arXiv:2107.12028) and GPaCo (Cui et al. 2023, arXiv:2209.12400). With
    D_i = sum_c exp(x_ic) + gamma sum_k exp(s_ik), x the center logits and s the cosines over the
    temperature, it is -beta log(exp(x_iy) / D_i) - alpha sum_{p in P(i)} log(exp(s_ip) / D_i).

    Args:
        anchors: Unit vectors, (A, D): the queries (PaCo) or both views (GPaCo).
        targets: Class of each anchor, (A,), int64 in [0, C).
        contrast: Further unit vectors, (K, D): keys, then queue; may be empty. The anchors
            themselves are contrasted with as well. Detach what should take no gradient.
        contrast_targets: Class of each, (K,), int64; -1 is nobody's positive.
        center_logits: Scores of the anchors' features, (A, C).
        prior: Share of each class in the training set, (C,), whose log is added to the center
            logits; None for balanced data.
        alpha: Weight of each positive sample.
        beta: Weight of the class center.
        gamma: Weight of the samples in the denominator.
        temperature: Divides cosines; > 0.
        center_temperature: Divides center logits; > 0.
        label_smoothing: Share of beta spread evenly over the other centers, in [0, 1).
        normalize_weights: Divide by beta + alpha |P(i)| (the authors' code) or not (the paper).

    Returns:
        Mean over the anchors, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees or a temperature <= 0.
    """
    _check_temperature(temperature)
    _check_temperature(center_temperature, "center_temperature")
    _check_shape("anchors", anchors, None, None)
    _check_shape("contrast", contrast, None, anchors.shape[1])
    _check_shape("contrast_targets", contrast_targets, len(contrast))
    _check_shape("center_logits", center_logits, len(anchors), None)
    num_classes = center_logits.shape[1]
    _check_targets(targets, len(anchors), num_classes)
    if prior is not None:
        _check_shape("prior", prior, num_classes)
        center_logits = center_logits + (prior + 1e-9).log()  # Faithful: the authors' constant.

    centers = center_logits / center_temperature  # (A, C)
    pairs = anchors @ torch.cat([anchors, contrast]).T / temperature  # (A, A + K)
    _, itself, positive = _pairs(targets, torch.cat([targets, contrast_targets]))
    terms = centers
    if gamma > 0:
        terms = torch.cat([centers, _masked(pairs + math.log(gamma), itself)], dim=1)
    log_denominator = terms.logsumexp(1)

    off_target = label_smoothing / max(num_classes - 1, 1)
    on_target = centers.gather(1, targets[:, None]).squeeze(1)
    center = (1 - label_smoothing - off_target) * on_target + off_target * centers.sum(1)
    weight = beta + alpha * positive.sum(1, dtype=pairs.dtype)
    losses = weight * log_denominator - beta * center - alpha * (pairs * positive).sum(1)
    if normalize_weights:
        losses = losses / weight.clamp_min(1e-12)  # zero only where there is nothing to divide
    return losses.mean()


def _pairs(targets: Tensor, column_targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Masks (rows, columns): same class, the row itself (columns start with the rows), positive."""
    same = targets[:, None] == column_targets
    itself = torch.eye(*same.shape, dtype=torch.bool, device=same.device)
    return same, itself, same & ~itself


def _masked(logits: Tensor, mask: Tensor) -> Tensor:
    """Take entries out of a logsumexp; finite, so that a row with no entry left has a gradient."""
    return logits.masked_fill(mask, torch.finfo(logits.dtype).min)


def _check_shape(name: str, tensor: Tensor, *expected: int | None) -> None:
    """Raise unless the sizes are as expected; None stands for any."""
    shape = tuple(tensor.shape)
    if len(shape) != len(expected) or any(
        want not in (None, size) for want, size in zip(expected, shape, strict=True)
    ):
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} must have shape ({wanted}), got {shape}")


def _check_targets(targets: Tensor, num_rows: int, num_classes: int | None = None) -> None:
    _check_shape("targets", targets, num_rows)
    if not num_rows:
        raise ValueError("targets must have at least one row, got an empty batch")
    # On a GPU this would make the host wait; indexing with a wrong target fails there by itself.
    if num_classes is not None and targets.device.type == "cpu":
        low, high = (int(bound) for bound in targets.aminmax())
        if low < 0 or high >= num_classes:
            raise ValueError(f"targets must be in [0, {num_classes}), got {low} to {high}")


def _check_temperature(temperature: float, name: str = "temperature") -> None:
    if not temperature > 0:
        raise ValueError(f"{name} must be > 0, got {temperature}")
