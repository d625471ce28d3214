"""CE, LA, Focal, CB, LDAM, their deferred re-weighting, and mixup: a classifier on one view."""

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ltlib.config import (
    ClassBalancedConfig,
    CrossEntropyConfig,
    DeferredLabelAwareMarginConfig,
    DeferredReweightingConfig,
    ExperimentConfig,
    FocalConfig,
    LabelAwareMarginConfig,
    LogitAdjustmentConfig,
    MixupConfig,
)
from ltlib.distributed import gather, rank
from ltlib.losses import (
    class_balanced_weights,
    focal_loss,
    ldam_loss,
    ldam_margins,
    logit_adjusted_cross_entropy,
    mixup_cross_entropy,
    weighted_cross_entropy,
)
from ltlib.methods.base import Method, StepOutput


class _Classification(Method):
    """One loss of the classifier's logits."""

    term: ClassVar[str] = "ce"

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        logits, targets = gather(self.predict(views[0])), gather(targets)
        loss = self.classify(logits, targets)
        return StepOutput(loss, logits, {self.term: loss})

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (B, C) with targets (B,)."""
        raise NotImplementedError


class CrossEntropy(_Classification):
    """Plain cross entropy."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, CrossEntropyConfig)

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.float(), targets)


class LogitAdjustment(_Classification):
    """Cross entropy on logits + tau log prior; with tau = 1 also called balanced softmax."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, LogitAdjustmentConfig)
        self.tau = config.method.tau

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logit_adjusted_cross_entropy(logits, targets, self.prior, self.tau)


class Focal(_Classification):
    """Focal loss: what is already right counts less."""

    term = "focal"

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, FocalConfig)
        self.focusing = config.method.focusing

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        return focal_loss(logits, targets, self.focusing)


class _Reweighted(_Classification):
    """A loss whose images weigh alike until some epoch, then as their class: CB and DRW."""

    weights: Tensor
    """Of each class in this epoch, (C,), mean 1; in ``state_dict``, for a resumed epoch."""
    late_weights: Tensor

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(
            method,
            ClassBalancedConfig
            | DeferredReweightingConfig
            | LabelAwareMarginConfig
            | DeferredLabelAwareMarginConfig,
        )
        self.reweight_epoch = round(method.reweight_from * config.optim.epochs)
        late_weights = class_balanced_weights(class_counts, method.beta).float()
        self.register_buffer("late_weights", late_weights, persistent=False)
        self.register_buffer("weights", torch.ones(self.num_classes))
        self.on_epoch_start(0)

    def on_epoch_start(self, epoch: int) -> None:
        if epoch >= self.reweight_epoch:
            self.weights.copy_(self.late_weights)


class ReweightedCrossEntropy(_Reweighted):
    """Class-balanced weights, from the start (CB) or late in training (CE-DRW)."""

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        return weighted_cross_entropy(logits, targets, self.weights)


class LabelAwareMargin(_Reweighted):
    """LDAM: margins on the cosines; with class-balanced weights late in training, LDAM-DRW."""

    term = "ldam"
    margins: Tensor

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, LabelAwareMarginConfig | DeferredLabelAwareMarginConfig)
        self.scale = config.model.classifier_scale
        margins = ldam_margins(class_counts, config.method.max_margin).float()
        self.register_buffer("margins", margins, persistent=False)

    def classify(self, logits: Tensor, targets: Tensor) -> Tensor:
        cosines = logits / self.scale
        return ldam_loss(cosines, targets, self.margins, self.scale, self.weights)


class Mixup(Method):
    """Cross entropy on convex combinations of images, and of their targets.

    One share and one permutation are drawn for the batch of all processes, by each alike, since
    all begin a step with the same seed; so the images are gathered as well.
    """

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, MixupConfig)
        self.shares = torch.distributions.Beta(config.method.alpha, config.method.alpha)

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        share = self.shares.sample().item()
        own = gather(torch.full_like(targets, rank())) == rank()  # rows of the batch (B,)
        images, targets = gather(views[0]), gather(targets)
        partners = torch.randperm(len(targets)).to(targets.device)
        mixed = share * views[0] + (1 - share) * images[partners[own]]
        logits = gather(self.predict(mixed))
        loss = mixup_cross_entropy(logits, targets, targets[partners], share)
        return StepOutput(loss, logits, {"mixup": loss})
