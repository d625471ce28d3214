"""SCL, KCL, BCL and ProCo: a logit-adjusted classifier and a contrastive loss of two more views."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ltlib.config import (
    BalancedContrastConfig,
    ExperimentConfig,
    KPositiveContrastConfig,
    ProbabilisticContrastConfig,
    SupervisedContrastConfig,
)
from ltlib.distributed import gather
from ltlib.losses import (
    balanced_contrastive_loss,
    draw_positives,
    k_positive_contrastive_loss,
    logit_adjusted_cross_entropy,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)
from ltlib.memory import ClassStatistics
from ltlib.methods.base import Method, StepOutput, build_projector


class _Contrast(Method):
    """Logit adjustment on view 0 and a contrastive loss on the embeddings of views 1 and 2."""

    num_views = views_per_pass = 3

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(
            method,
            SupervisedContrastConfig
            | KPositiveContrastConfig
            | BalancedContrastConfig
            | ProbabilisticContrastConfig,
        )
        self.temperature = method.temperature
        self.ce_weight, self.contrast_weight = method.ce_weight, method.contrast_weight
        self.projector = self.build_projector(method.projector)

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        # Faithful: one pass over the views together, so batch norm sees all of them at once.
        features, embeddings = self.embed(torch.cat(views))  # (3b, F), (3b, D)
        local = len(targets)
        logits, targets = gather(self.classifier(features[:local])), gather(targets)
        embeddings = gather(embeddings[local:], num_views=2)  # (2B, D)
        ce = logit_adjusted_cross_entropy(logits, targets, self.prior)
        contrast = self.contrast(embeddings, targets)
        loss = self.ce_weight * ce + self.contrast_weight * contrast
        return StepOutput(loss, logits, {"ce": ce, "contrast": contrast})

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        """Return the contrastive loss of (2B, D) embeddings of images with (B,) targets."""
        raise NotImplementedError


class SupervisedContrast(_Contrast):
    """Logit adjustment + supervised contrast: the ladder's rung below BCL."""

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        return supervised_contrastive_loss(embeddings, targets.repeat(2), self.temperature)


class KPositiveContrast(_Contrast):
    """Logit adjustment + KCL: supervised contrast in which all anchors have as many positives."""

    # Differs: Kang et al. contrast first and fit a classifier afterwards. Here the classifier
    # learns beside, as in the other contrastive methods, so that a table compares the losses.

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, KPositiveContrastConfig)
        self.num_positives = config.method.num_positives

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        # All processes draw the same positives, since all begin a step with the same seed.
        positives = draw_positives(targets.repeat(2), self.num_positives)
        return k_positive_contrastive_loss(embeddings, positives, self.temperature)


class BalancedContrast(_Contrast):
    """BCL: class averaging, and as class complement one prototype projected from each weight."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(method, BalancedContrastConfig)
        self.class_averaging = method.class_averaging
        self.anchor_average = method.anchor_average
        # Faithful: the prototypes' own MLP, whose batch norm runs over the classes; it sees the
        # same rows in every process.
        self.prototype_projector = (
            build_projector(self.feature_dim, method.projector) if method.class_complement else None
        )

    def class_vectors(self) -> Tensor | None:
        """Return the prototypes, (C, D), unit length; None without class complement."""
        if self.prototype_projector is None:
            return None
        return self.prototype_projector(self.classifier.weight)

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        return balanced_contrastive_loss(
            embeddings,
            targets.repeat(2),
            self.class_vectors(),
            self.temperature,
            class_averaging=self.class_averaging,
            class_complement=self.prototype_projector is not None,
            anchor_average=self.anchor_average,
        )


class ProbabilisticContrast(_Contrast):
    """ProCo: contrast with one von Mises-Fisher distribution per class instead of with samples."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(method, ProbabilisticContrastConfig)
        self.statistics = ClassStatistics(
            self.num_classes,
            method.projector.embedding_dim,
            estimator=method.estimator,
            concentration=method.concentration,
            ema_decay=method.ema_decay,
        )

    def class_vectors(self) -> Tensor:
        """Return the mean directions, (C, D), unit length."""
        return self.statistics.mean_direction

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        return torch.stack(
            [self._contrast_view(view, targets) for view in embeddings.chunk(2)]
        ).mean()

    def _contrast_view(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        # Faithful: each view enters the statistics before its own logits are computed.
        self.statistics.update(embeddings, targets)
        logits = probabilistic_contrastive_logits(
            embeddings,
            self.statistics.mean_direction,
            self.statistics.concentration,
            self.temperature,
        )
        return logit_adjusted_cross_entropy(logits, targets, self.prior)

    def on_epoch_start(self, epoch: int) -> None:
        self.statistics.on_epoch_start()
