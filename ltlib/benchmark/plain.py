"""The losses written straight from their equations, for comparison; nothing trains with these.

They have the signatures of ``ltlib.losses`` and ``ClassStatistics.update`` and return the same
numbers. ProCo makes B x C x D tensors, BCL looks class sizes up column by column, PaCo multiplies
masks, as the authors' releases do (LeapLabTHU/ProCo, FlamieZhu/Balanced-Contrastive-Learning,
dvlab-research/Parametric-Contrastive-Learning). ProCo has the suite's von Mises-Fisher functions
instead of its authors' recurrence, so that only the algebra around them differs.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib import vmf
from ltlib.memory import ClassStatistics


@torch.no_grad()
def update_statistics(statistics: ClassStatistics, embeddings: Tensor, targets: Tensor) -> None:
    """Add a batch, (B, D) and (B,), to the means behind the logits and to those of the epoch."""
    for mean, count in (
        (statistics.epoch_mean, statistics.epoch_count),
        (statistics.mean, statistics.count),
    ):
        one_hot = F.one_hot(targets, len(mean)).to(embeddings.dtype)  # (B, C)
        in_batch = one_hot.sum(0)
        total = (embeddings[:, None] * one_hot[:, :, None]).sum(0)  # (C, D), of (B, C, D)
        count += in_batch.long()
        share = (in_batch / count.clamp_min(1))[:, None]
        mean.mul_(1 - share).add_(share * total / in_batch.clamp_min(1)[:, None])


def probabilistic_contrastive_logits(
    embeddings: Tensor, mean_direction: Tensor, concentration: Tensor, temperature: float
) -> Tensor:
    """log C_D(|kappa_c mu_c + z/T|) - log C_D(kappa_c), the norm over all of (B, C, D)."""
    dim = embeddings.shape[1]
    centers = concentration[:, None] * mean_direction
    tilted = (centers + embeddings[:, None] / temperature).norm(dim=2)  # (B, C)
    log_c = vmf.log_normalizer(tilted.double(), dim)
    return (log_c - vmf.log_normalizer(concentration.double(), dim)).to(embeddings.dtype)


def balanced_contrastive_loss(
    embeddings: Tensor, targets: Tensor, prototypes: Tensor, temperature: float
) -> Tensor:
    """BCL: an identity matrix counts the classes, a list over columns spreads the counts."""
    num_classes = len(prototypes)
    device, dtype = embeddings.device, embeddings.dtype
    classes = torch.cat([targets, torch.arange(num_classes, device=device)])
    terms = torch.eye(num_classes, device=device, dtype=dtype)[classes].sum(0)  # (C,)
    terms = torch.stack([terms[column] for column in classes])  # (V*B + C,)

    logits = embeddings @ torch.cat([embeddings, prototypes]).T / temperature  # (V*B, V*B + C)
    logits = logits - logits.max(1, keepdim=True).values.detach()
    others = 1 - torch.eye(*logits.shape, device=device, dtype=dtype)
    positive = (targets[:, None] == classes).to(dtype) * others
    denominator = (logits.exp() * others / (terms - positive)).sum(1, keepdim=True)
    log_share = logits - denominator.log()
    return -((positive * log_share).sum(1) / positive.sum(1)).mean()


def parametric_contrastive_loss(
    anchors: Tensor,
    targets: Tensor,
    contrast: Tensor,
    contrast_targets: Tensor,
    center_logits: Tensor,
    prior: Tensor,
    *,
    alpha: float,
    temperature: float,
) -> Tensor:
    """PaCo: class centers and samples side by side, masks multiplied over all of them."""
    dtype = anchors.dtype
    pairs = anchors @ torch.cat([anchors, contrast]).T / temperature  # (A, A + K)
    logits = torch.cat([center_logits + (prior + 1e-9).log(), pairs], dim=1)  # (A, C + A + K)
    logits = logits - logits.max(1, keepdim=True).values.detach()
    others = 1 - torch.eye(*pairs.shape, device=pairs.device, dtype=dtype)
    same = (targets[:, None] == torch.cat([targets, contrast_targets])).to(dtype)
    one_hot = F.one_hot(targets, center_logits.shape[1]).to(dtype)
    weights = torch.cat([one_hot, alpha * same * others], dim=1)
    taking_part = torch.cat([torch.ones_like(center_logits), others], dim=1)
    log_share = logits - (logits.exp() * taking_part).sum(1, keepdim=True).log()
    return -((weights * log_share).sum(1) / weights.sum(1)).mean()
