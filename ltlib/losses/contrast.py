"""Losses of embeddings: supervised, balanced and probabilistic contrast."""

from typing import Literal

import torch
from torch import Tensor

from ltlib import vmf
from ltlib.losses.parts import (
    check_shape,
    check_targets,
    check_temperature,
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
    check_temperature(temperature)
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
    num_positives = positive.sum(1, dtype=logits.dtype)
    mean_positive = (logits * positive).sum(1) / num_positives.clamp_min(1)
    # Differs: the authors divide 0 by 0 for an anchor without positives; here it adds zero, as in
    # the reference code of supervised contrast.
    losses = torch.where(num_positives > 0, log_denominator - mean_positive, 0)
    if not average_by_class:
        return losses.mean()
    share = 1 / same[:, : len(targets)].sum(1, dtype=logits.dtype)
    return (losses * share).sum() / share.sum()


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
    check_temperature(temperature)
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
