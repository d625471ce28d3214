"""The losses of ``ltlib.losses`` as functions of free vectors, and the sets that are compared."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib import geometry, vmf
from ltlib.config import (
    BalancedContrastConfig,
    GeneralizedParametricContrastConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    SupervisedContrastConfig,
)
from ltlib.losses import (
    balanced_contrastive_loss,
    logit_adjusted_cross_entropy,
    parametric_contrastive_loss,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)

Parametric = ParametricContrastConfig | GeneralizedParametricContrastConfig

Contrast = (
    SupervisedContrastConfig | BalancedContrastConfig | ProbabilisticContrastConfig | Parametric
)
"""Settings of a method whose loss acts on unit vectors."""

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Unit vectors (B, D), their targets (B,) and class vectors (C, D) of any length to a scalar."""

_CENTER_DECAY = 5e-4
"""Weight decay of the recipes. Without it the loss falls for ever as PaCo's centers grow."""


def objective(method: Contrast, class_counts: Sequence[int]) -> Objective:
    """Return a method's contrastive loss, its classifier's own term left out.

    Args:
        method: Its settings.
        class_counts: Vectors per class, (C,): the class prior.

    Raises:
        ValueError: If the method has no loss of unit vectors.
    """
    prior = torch.tensor(list(class_counts), dtype=torch.float64) / sum(class_counts)
    match method:
        case SupervisedContrastConfig():
            return lambda z, y, _: supervised_contrastive_loss(z, y, method.temperature)
        case BalancedContrastConfig():
            return lambda z, y, prototypes: balanced_contrastive_loss(
                z,
                y,
                F.normalize(prototypes, dim=1),
                method.temperature,
                class_averaging=method.class_averaging,
                class_complement=method.class_complement,
                anchor_average=method.anchor_average,
            )
        case ProbabilisticContrastConfig():
            return lambda z, y, _: logit_adjusted_cross_entropy(
                probabilistic_contrastive_logits(
                    z, *statistics(method, z, y, len(prior)), method.temperature
                ),
                y,
                prior,
            )
        case ParametricContrastConfig() | GeneralizedParametricContrastConfig():
            return lambda z, y, centers: _parametric_loss(method, z, y, centers, prior)
    raise ValueError(f"{method.name} has no loss of unit vectors; choose scl, bcl, proco or paco")


@torch.no_grad()
def statistics(
    method: ProbabilisticContrastConfig, embeddings: Tensor, targets: Tensor, num_classes: int
) -> tuple[Tensor, Tensor]:
    """Return ProCo's mean directions (C, D) and concentrations (C,) of the vectors as they are."""
    means = geometry.class_means(embeddings, targets, num_classes)
    kappa = vmf.concentration(means.norm(dim=1), means.shape[1], method.concentration)
    return F.normalize(means, dim=1), kappa


def lower_bound(num_classes: int, temperature: float) -> float:
    """Return BCL's lower bound, log(1 + (C-1) exp(-C / ((C-1) T))), in nats.

    It holds, and only the simplex meets it, where every class has anchors in the batch and these
    are averaged within each class and then over classes.
    """
    others = num_classes - 1
    return math.log1p(others * math.exp(-num_classes / (others * temperature)))


def ladder(temperature: float) -> dict[str, Contrast]:
    """Return the losses to compare, by display name: from SCL to BCL, then ProCo and PaCo."""
    steps = parts(temperature)
    return {
        **{name: steps[name] for name in LADDER_TO_BCL},
        "ProCo": ProbabilisticContrastConfig(temperature=temperature),
        "PaCo": ParametricContrastConfig(temperature=temperature),
    }


def parts(temperature: float) -> dict[str, Contrast]:
    """Return SCL and what each part of BCL makes of it, by display name.

    "Per sample" and "per class" say how anchors are averaged; the released BCL is per sample.
    """
    bcl = BalancedContrastConfig(temperature=temperature)
    changes: dict[str, dict[str, object]] = {
        "SCL + class complement": {"class_averaging": False},
        "SCL + class averaging": {"class_complement": False},
        "BCL, per sample": {},
        "SCL + class averaging, per class": {
            "class_complement": False,
            "anchor_average": "class",
        },
        "BCL, per class": {"anchor_average": "class"},
    }
    return {
        "SCL": SupervisedContrastConfig(temperature=temperature),
        **{name: bcl.model_copy(update=change) for name, change in changes.items()},
    }


LADDER_TO_BCL = ("SCL", "SCL + class averaging", "BCL, per sample", "BCL, per class")


def _parametric_loss(
    method: Parametric, embeddings: Tensor, targets: Tensor, centers: Tensor, prior: Tensor
) -> Tensor:
    loss = parametric_contrastive_loss(
        embeddings,
        targets,
        embeddings[:0],
        targets[:0],
        embeddings @ centers.T,
        prior,
        alpha=method.alpha,
        beta=method.beta,
        gamma=method.gamma,
        temperature=method.temperature,
        center_temperature=method.center_temperature,
        label_smoothing=getattr(method, "label_smoothing", 0.0),
        normalize_weights=method.normalize_weights,
    )
    return loss + _CENTER_DECAY / 2 * centers.square().sum()
