"""The loss of PaCo and GPaCo: embeddings and learnable class centers in one softmax."""

import math

import torch
from torch import Tensor

from ltlib.losses.parts import (
    check_positive,
    check_shape,
    check_targets,
    in_full_precision,
    masked,
    pair_masks,
)


@in_full_precision
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
    check_positive("temperature", temperature)
    check_positive("center_temperature", center_temperature)
    check_shape("anchors", anchors, None, None)
    check_shape("contrast", contrast, None, anchors.shape[1])
    check_shape("contrast_targets", contrast_targets, len(contrast))
    check_shape("center_logits", center_logits, len(anchors), None)
    num_classes = center_logits.shape[1]
    check_targets(targets, len(anchors), num_classes)
    if prior is not None:
        check_shape("prior", prior, num_classes)
        center_logits = center_logits + (prior + 1e-9).log()  # Faithful: the authors' constant.

    centers = center_logits / center_temperature  # (A, C)
    pairs = anchors @ torch.cat([anchors, contrast]).T / temperature  # (A, A + K)
    _, itself, positive = pair_masks(targets, torch.cat([targets, contrast_targets]))
    terms = centers
    if gamma > 0:
        terms = torch.cat([centers, masked(pairs + math.log(gamma), itself)], dim=1)
    log_denominator = terms.logsumexp(1)

    off_target = label_smoothing / max(num_classes - 1, 1)
    on_target = centers.gather(1, targets[:, None]).squeeze(1)
    center = (1 - label_smoothing - off_target) * on_target + off_target * centers.sum(1)
    weight = beta + alpha * positive.sum(1, dtype=pairs.dtype)
    losses = weight * log_denominator - beta * center - alpha * (pairs * positive).sum(1)
    if normalize_weights:
        losses = losses / weight.clamp_min(1e-12)  # zero only where there is nothing to divide
    return losses.mean()
