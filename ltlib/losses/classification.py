"""Losses of logits: one score per class; and the weights and margins that counts imply."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib.losses.parts import (
    check_positive,
    check_shape,
    check_targets,
    in_full_precision,
)


@in_full_precision
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
    _check_scores(logits, targets)
    check_shape("prior", prior, logits.shape[1])
    return F.cross_entropy(logits + torch.xlogy(tau, prior), targets)


@in_full_precision
def focal_loss(logits: Tensor, targets: Tensor, focusing: float = 1.0) -> Tensor:
    """Cross entropy in which what is already right counts less.

    Lin et al. 2017 (arXiv:1708.02002): -(1 - p_y)^gamma log p_y, p the softmax of the logits.

    Args:
        logits: Scores, (B, C).
        targets: Class of each row, (B,), int64 in [0, C).
        focusing: Gamma, >= 0; 0 is plain cross entropy.

    Returns:
        Mean over the batch, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees or focusing < 0.
    """
    if not focusing >= 0:
        raise ValueError(f"focusing must be >= 0, got {focusing}")
    _check_scores(logits, targets)
    cross_entropy = F.cross_entropy(logits, targets, reduction="none")  # (B,), -log p_y
    # A power below 1 has no gradient at 0.
    wrong = -torch.expm1(-cross_entropy)  # 1 - p_y without cancellation
    return (wrong.clamp_min(torch.finfo(wrong.dtype).tiny) ** focusing * cross_entropy).mean()


def class_balanced_weights(
    counts: Sequence[int] | np.ndarray | Tensor, beta: float = 0.9999
) -> Tensor:
    """Weigh each class by the inverse of its effective number of images.

    Cui et al. 2019 (arXiv:1901.05555): w_c = (1 - beta) / (1 - beta^n_c), scaled to a mean of 1.

    Args:
        counts: Training images per class, (C,), >= 1.
        beta: In [0, 1); 0 weighs all classes alike, towards 1 the weights go like 1 / n_c.

    Returns:
        Weights, (C,), float64, of mean 1.

    Raises:
        ValueError: If beta is out of range or a class is empty.
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")
    weights = (1 - beta) / (1 - beta ** _positive_counts(counts))
    return weights / weights.mean()


@in_full_precision
def weighted_cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Cross entropy in which each image weighs as its class: sum w_y (-log p_y) / sum w_y.

    With ``class_balanced_weights`` it is the class-balanced loss (Cui et al. 2019,
    arXiv:1901.05555), divided by the weights of the batch as in the code of Cao et al. 2019.

    Args:
        logits: Scores, (B, C).
        targets: Class of each row, (B,), int64 in [0, C).
        weights: Of each class, (C,), > 0.

    Returns:
        Weighted mean over the batch, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees.
    """
    _check_scores(logits, targets)
    check_shape("weights", weights, logits.shape[1])
    return F.cross_entropy(logits, targets, weights)


def ldam_margins(counts: Sequence[int] | np.ndarray | Tensor, max_margin: float = 0.5) -> Tensor:
    """Give the smaller class the larger margin.

    Cao et al. 2019 (arXiv:1906.07413): m_c = K / n_c^(1/4), K such that the largest is
    ``max_margin``.

    Args:
        counts: Training images per class, (C,), >= 1.
        max_margin: Margin of the smallest class, a difference of cosines.

    Returns:
        Margins, (C,), float64.

    Raises:
        ValueError: If a class is empty.
    """
    margins = _positive_counts(counts) ** -0.25
    return max_margin * margins / margins.max()


@in_full_precision
def ldam_loss(
    cosines: Tensor,
    targets: Tensor,
    margins: Tensor,
    scale: float = 30.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Cross entropy in which the true class must win by a margin, larger for smaller classes.

    LDAM, Cao et al. 2019 (arXiv:1906.07413):
    -log( exp(s (x_y - m_y)) / (exp(s (x_y - m_y)) + sum_{c != y} exp(s x_c)) ).

    Args:
        cosines: Between feature and class weight, (B, C).
        targets: Class of each row, (B,), int64 in [0, C).
        margins: Of each class, (C,), from ``ldam_margins``.
        scale: s, multiplies the cosines; > 0.
        weights: Of each class, (C,), for a weighted mean; None weighs all images alike.

    Returns:
        Mean over the batch, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees or scale <= 0.
    """
    check_positive("scale", scale)
    _check_scores(cosines, targets, "cosines")
    check_shape("margins", margins, cosines.shape[1])
    if weights is not None:
        check_shape("weights", weights, cosines.shape[1])
    rows = targets[:, None]
    lowered = cosines.scatter_add(1, rows, -margins[rows])
    return F.cross_entropy(scale * lowered, targets, weights)


@in_full_precision
def mixup_cross_entropy(
    logits: Tensor, targets: Tensor, partner_targets: Tensor, share: float
) -> Tensor:
    """Cross entropy of mixed images towards both their classes.

    Zhang et al. 2018 (arXiv:1710.09412): the network saw lambda x + (1 - lambda) x', and its
    target is lambda y + (1 - lambda) y'.

    Args:
        logits: Scores of the mixed images, (B, C).
        targets: Class y of the first image of each mix, (B,), int64 in [0, C).
        partner_targets: Class y' of the second, (B,), int64 in [0, C).
        share: Lambda, in [0, 1].

    Returns:
        Mean over the batch, scalar, in nats.

    Raises:
        ValueError: If a shape disagrees or share is out of range.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share must be in [0, 1], got {share}")
    _check_scores(logits, targets)
    check_targets(partner_targets, *logits.shape)
    first, second = F.cross_entropy(logits, targets), F.cross_entropy(logits, partner_targets)
    return share * first + (1 - share) * second


def _check_scores(scores: Tensor, targets: Tensor, name: str = "logits") -> None:
    check_shape(name, scores, None, None)
    check_targets(targets, *scores.shape)


def _positive_counts(counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if not (counts > 0).all():
        raise ValueError(f"class {int(counts.argmin())} has no training image")
    return counts
