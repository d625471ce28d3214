"""CE, LA, SCL, BCL, ProCo, PaCo and GPaCo: model + memory + losses = one training step.

A method is an ``nn.Module`` whose ``forward(views, targets)`` returns the loss of one step. The
loss is always that of the global batch: outputs are gathered over processes first. Everything a
method remembers is in buffers, so ``state_dict`` is all there is to save.
"""

from collections.abc import Sequence
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from ltlib.config import (
    BalancedContrastConfig,
    CrossEntropyConfig,
    ExperimentConfig,
    GeneralizedParametricContrastConfig,
    LogitAdjustmentConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    ProjectorConfig,
    SupervisedContrastConfig,
)
from ltlib.data import class_prior
from ltlib.distributed import gather
from ltlib.losses import (
    balanced_contrastive_loss,
    logit_adjusted_cross_entropy,
    parametric_contrastive_loss,
    probabilistic_contrastive_logits,
    supervised_contrastive_loss,
)
from ltlib.memory import ClassStatistics, FeatureQueue, MomentumEncoder
from ltlib.models import Projector, build_backbone, build_classifier


class StepOutput(NamedTuple):
    """What one training step returns."""

    loss: Tensor
    """Scalar, of the global batch."""
    logits: Tensor
    """Classifier logits of the first view, (B, C)."""
    terms: dict[str, Tensor]
    """Parts of the loss by name, scalars, for the log."""


class Method(nn.Module):
    """Backbone and classifier, and one training step on top.

    Args:
        config: The experiment; ``config.method`` belongs to the subclass.
        class_counts: Training images per class, (C,).
    """

    num_views: ClassVar[int] = 1
    prior: Tensor

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__()
        self.backbone, self.feature_dim = build_backbone(config.model.backbone)
        self.num_classes = len(class_counts)
        self.classifier = build_classifier(
            config.model.classifier,
            self.feature_dim,
            self.num_classes,
            scale=config.model.classifier_scale,
        )
        self.projector: nn.Module | None = None
        self.register_buffer("prior", class_prior(class_counts).float())

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        """Compute one step's loss.

        Args:
            views: V augmented copies of this process's images, each (B, 3, H, W).
            targets: (B,), int64 in [0, C).
        """
        raise NotImplementedError

    def predict(self, images: Tensor) -> Tensor:
        """Return the logits of test images, (B, 3, H, W) -> (B, C); argmax is the prediction."""
        return self.classifier(self.backbone(images))

    def embed(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, F) and unit-length embeddings (B, D).

        A method without projector has the normalised features as embeddings.
        """
        features = self.backbone(images)
        if self.projector is None:
            return features, nn.functional.normalize(features.float(), dim=1)
        return features, self.projector(features)

    def class_vectors(self) -> Tensor | None:
        """Return the method's own unit direction of each class in embedding space, (C, D)."""
        return None

    def on_epoch_start(self, epoch: int) -> None:
        """Prepare for an epoch; called before its first step, not on resume within it."""


class CrossEntropy(Method):
    """Plain cross entropy."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, CrossEntropyConfig)

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        logits, targets = gather(self.predict(views[0])), gather(targets)
        loss = nn.functional.cross_entropy(logits.float(), targets)
        return StepOutput(loss, logits, {"ce": loss})


class LogitAdjustment(Method):
    """Cross entropy on logits + tau log prior; with tau = 1 also called balanced softmax."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, LogitAdjustmentConfig)
        self.tau = config.method.tau

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        logits, targets = gather(self.predict(views[0])), gather(targets)
        loss = logit_adjusted_cross_entropy(logits, targets, self.prior, self.tau)
        return StepOutput(loss, logits, {"ce": loss})


class _Contrast(Method):
    """Logit adjustment on view 0 and a contrastive loss on the embeddings of views 1 and 2."""

    num_views = 3

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(
            method, SupervisedContrastConfig | BalancedContrastConfig | ProbabilisticContrastConfig
        )
        self.temperature = method.temperature
        self.ce_weight, self.contrast_weight = method.ce_weight, method.contrast_weight
        self.projector = _projector(self.feature_dim, method.projector)

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


class BalancedContrast(_Contrast):
    """BCL: class averaging, and as class complement one prototype projected from each weight."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(method, BalancedContrastConfig)
        self.class_averaging = method.class_averaging
        self.class_complement = method.class_complement
        self.anchor_average = method.anchor_average
        # Faithful: the prototypes' own MLP, whose batch norm runs over the classes.
        self.prototype_projector = _projector(self.feature_dim, method.projector)

    def class_vectors(self) -> Tensor:
        """Return the prototypes, (C, D), unit length."""
        return self.prototype_projector(self.classifier.weight)

    def contrast(self, embeddings: Tensor, targets: Tensor) -> Tensor:
        return balanced_contrastive_loss(
            embeddings,
            targets.repeat(2),
            self.class_vectors(),
            self.temperature,
            class_averaging=self.class_averaging,
            class_complement=self.class_complement,
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


class _Parametric(Method):
    """What PaCo and GPaCo share: parametric class centers, a projector and a queue."""

    num_views = 2

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(method, ParametricContrastConfig | GeneralizedParametricContrastConfig)
        self.loss_options = {
            "alpha": method.alpha,
            "beta": method.beta,
            "gamma": method.gamma,
            "temperature": method.temperature,
            "center_temperature": method.center_temperature,
            "normalize_weights": method.normalize_weights,
        }
        self.projector = _projector(self.feature_dim, method.projector)
        self.queue = FeatureQueue(
            method.queue_size,
            method.projector.embedding_dim,
            num_classes=self.num_classes,
            init=method.queue_init,
        )


class ParametricContrast(_Parametric):
    """PaCo: queries contrast with class centers, momentum keys and a queue of earlier keys."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, ParametricContrastConfig)
        self.momentum_encoder = MomentumEncoder(self._encoder(), config.method.momentum)

    def _encoder(self) -> nn.Module:
        assert self.projector is not None
        return nn.Sequential(self.backbone, self.projector)

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        features, queries = self.embed(views[0])
        logits, queries = gather(self.classifier(features)), gather(queries)
        with torch.no_grad():
            self.momentum_encoder.update(self._encoder())
            keys = gather(self.momentum_encoder(views[1]))
        targets = gather(targets)
        loss = parametric_contrastive_loss(
            queries,
            targets,
            torch.cat([keys, self.queue.keys]),
            torch.cat([targets, self.queue.targets]),
            logits,
            self.prior,
            **self.loss_options,
        )
        self.queue.enqueue(keys, targets)
        return StepOutput(loss, logits, {"paco": loss})


class GeneralizedParametricContrast(_Parametric):
    """GPaCo: both views are anchors of one encoder; the queue holds the second view's past."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, GeneralizedParametricContrastConfig)
        self.label_smoothing = config.method.label_smoothing

    def forward(self, views: list[Tensor], targets: Tensor) -> StepOutput:
        # Faithful: one pass per view, so batch norm sees the views apart.
        features, embeddings = zip(*map(self.embed, views), strict=True)
        logits = gather(self.classifier(torch.cat(features)), num_views=2)
        anchors, targets = gather(torch.cat(embeddings), num_views=2), gather(targets)
        loss = parametric_contrastive_loss(
            anchors,
            targets.repeat(2),
            self.queue.keys,
            self.queue.targets,
            logits,
            self.prior,
            label_smoothing=self.label_smoothing,
            **self.loss_options,
        )
        batch = len(targets)
        self.queue.enqueue(anchors[batch:].detach(), targets)
        return StepOutput(loss, logits[:batch], {"gpaco": loss})


def build_method(config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> Method:
    """Build the method of an experiment.

    Args:
        config: The experiment.
        class_counts: Training images per class, (C,).

    Raises:
        ValueError: If ``config.data.views`` does not name one view per view of the method.
    """
    method = METHODS[config.method.name]
    if len(config.data.views) != method.num_views:
        raise ValueError(
            f"{config.method.name} takes {method.num_views} views, "
            f"data.views names {len(config.data.views)}: {', '.join(config.data.views)}"
        )
    return method(config, class_counts)


def _projector(feature_dim: int, config: ProjectorConfig) -> Projector:
    return Projector(
        feature_dim,
        config.hidden_dim,
        config.embedding_dim,
        num_layers=config.num_layers,
        batch_norm=config.batch_norm,
    )


METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "la": LogitAdjustment,
    "scl": SupervisedContrast,
    "bcl": BalancedContrast,
    "proco": ProbabilisticContrast,
    "paco": ParametricContrast,
    "gpaco": GeneralizedParametricContrast,
}
