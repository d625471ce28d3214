"""The learning rate of each epoch."""

import math

from ltlib.config import OptimConfig


def learning_rate(optim: OptimConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, as the authors' code has it.

    Warm-up is linear, lr (e + 1) / w for e < w. After it either lr decay^(milestones passed), or
    lr/2 (1 + cos(pi (e - w + 1) / (E - w + 1))), which starts below lr and ends above 0.

    Args:
        optim: The schedule; E is ``epochs``, w ``warmup_epochs``.
        epoch: e, 0-based.
    """
    late = int(optim.late_boundaries)
    if optim.warmup_epochs and epoch < optim.warmup_epochs + late:
        return optim.lr * (epoch + 1) / optim.warmup_epochs
    if optim.schedule == "cosine":
        share = (epoch - optim.warmup_epochs + 1) / (optim.epochs - optim.warmup_epochs + 1)
        return optim.lr * 0.5 * (1 + math.cos(math.pi * share))
    passed = sum(epoch >= round(share * optim.epochs) + late for share in optim.milestones)
    return optim.lr * optim.decay**passed
