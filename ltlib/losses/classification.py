"""Losses of logits: one score per class."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ltlib.losses.parts import check_shape, check_targets, in_full_precision


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
    check_shape("logits", logits, None, None)
    check_targets(targets, *logits.shape)
    check_shape("prior", prior, logits.shape[1])
    return F.cross_entropy(logits + torch.xlogy(tau, prior), targets)
