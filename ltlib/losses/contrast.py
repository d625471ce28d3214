"""Losses of embeddings: supervised, k-positive, balanced and probabilistic contrast."""

from typing import Literal

import torch
from torch import Tensor

from ltlib import vmf
from ltlib.losses.parts import (
    check_positive,
    check_shape,
    check_targets,
    in_full_precision,
    masked,
    pair_masks,
)


@in_full_precision
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


@in_full_precision
def k_positive_contrastive_loss(
    embeddings: Tensor, positives: Tensor, temperature: float
) -> Tensor:
    """Contrast each view with all others; only drawn ones of its class are positives.

    KCL, Kang et al. 2021 (ICLR, OpenReview OqtLIabPTit): as ``supervised_contrastive_loss``, but
    the mean is over the other view of the same image and k further samples of its class, so that
    a sample of the head does not have more positives than one of the tail.

    Args:
        embeddings: Unit vectors of all views, (V*B, D), view-major.
        positives: Positives (columns) of each anchor (row), (V*B, V*B), bool, from
            ``draw_positives``.
        temperature: Divides cosines; > 0.

    Returns:
        Mean over the V*B anchors, scalar, in nats. An anchor without positives adds zero.

    Raises:
        ValueError: If a shape disagrees or temperature <= 0.
    """
    check_positive("temperature", temperature)
    check_shape("embeddings", embeddings, None, None)
    check_shape("positives", positives, len(embeddings), len(embeddings))
    logits = embeddings @ embeddings.T / temperature  # (V*B, V*B)
    itself = torch.eye(len(logits), dtype=torch.bool, device=logits.device)
    log_denominator = masked(logits, itself).logsumexp(1)
    return _mean_over_positives(logits, positives, log_denominator).mean()


def draw_positives(
    targets: Tensor,
    num_positives: int,
    num_views: int = 2,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Draw the positives of ``k_positive_contrastive_loss``, without replacement.

    Args:
        targets: Class of each row, (V*B,), int64, view-major.
        num_positives: k, drawn for each anchor from the other images of its class; all of them
            where there are fewer.
        num_views: V; the other views of an anchor's own image are positives always.
        generator: Of the targets' device; the global one by default.

    Returns:
        Positives (columns) of each anchor (row), (V*B, V*B), bool.

    Raises:
        ValueError: If num_positives < 0 or the rows are not V views.
    """
    rows = len(targets)
    if num_positives < 0:
        raise ValueError(f"num_positives must be >= 0, got {num_positives}")
    if not rows or rows % num_views:
        raise ValueError(f"targets must have a row for each of {num_views} views, got {rows}")
    image = torch.arange(rows, device=targets.device) % (rows // num_views)
    _, _, own = pair_masks(image, image)
    _, _, candidates = pair_masks(targets, targets)
    lots = torch.rand(rows, rows, generator=generator, device=targets.device)
    lots = lots.masked_fill(~candidates, -1).masked_fill(own, 2)
    drawn = lots.topk(min(num_views - 1 + num_positives, rows), dim=1)
    return torch.zeros_like(own).scatter(1, drawn.indices, drawn.values >= 0)


@in_full_precision
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
    check_positive("temperature", temperature)
    check_shape("embeddings", embeddings, None, None)
    check_targets(targets, len(embeddings), None if prototypes is None else len(prototypes))
    columns, column_targets = embeddings, targets
    if prototypes is not None:
        check_shape("prototypes", prototypes, None, embeddings.shape[1])
        columns = torch.cat([embeddings, prototypes])
        classes = torch.arange(len(prototypes), device=targets.device)
        column_targets = torch.cat([targets, classes])

    logits = embeddings @ columns.T / temperature  # (V*B, V*B + C)
    same, itself, positive = pair_masks(targets, column_targets)
    others = logits
    if class_averaging:
        # The anchor's own class has a term fewer, the anchor itself, and then perhaps none.
        terms = same.sum(0, dtype=logits.dtype) + (prototypes is not None)
        others = logits - torch.where(same, (terms - 1).clamp_min(1).log(), terms.log())
    log_denominator = masked(others, itself).logsumexp(1)
    losses = _mean_over_positives(logits, positive, log_denominator)
    if not average_by_class:
        return losses.mean()
    share = 1 / same[:, : len(targets)].sum(1, dtype=logits.dtype)
    return (losses * share).sum() / share.sum()


def _mean_over_positives(logits: Tensor, positive: Tensor, log_denominator: Tensor) -> Tensor:
    """Average -log(exp(s_ip) / D_i) over the positives p of each anchor i, (V*B,)."""
    num_positives = positive.sum(1, dtype=logits.dtype)
    mean_positive = (logits * positive).sum(1) / num_positives.clamp_min(1)
    # Differs: the authors divide 0 by 0 for an anchor without positives; here it adds zero, as in
    # the reference code of supervised contrast.
    return torch.where(num_positives > 0, log_denominator - mean_positive, 0)


@in_full_precision
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
    check_positive("temperature", temperature)
    check_shape("embeddings", embeddings, None, None)
    check_shape("mean_direction", mean_direction, None, embeddings.shape[1])
    check_shape("concentration", concentration, len(mean_direction))
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
