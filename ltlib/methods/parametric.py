"""PaCo and GPaCo: learnable class centers, samples and a queue in one softmax."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ltlib.config import (
    ExperimentConfig,
    GeneralizedParametricContrastConfig,
    ParametricContrastConfig,
)
from ltlib.distributed import gather
from ltlib.losses import parametric_contrastive_loss
from ltlib.memory import FeatureQueue, MomentumEncoder
from ltlib.methods.base import Method, StepOutput


class _Parametric(Method):
    """What PaCo and GPaCo share: parametric class centers, a projector and a queue."""

    num_views = 2

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        method = config.method
        assert isinstance(method, ParametricContrastConfig | GeneralizedParametricContrastConfig)
        self.contrast = partial(
            parametric_contrastive_loss,
            alpha=method.alpha,
            beta=method.beta,
            gamma=method.gamma,
            temperature=method.temperature,
            center_temperature=method.center_temperature,
            normalize_weights=method.normalize_weights,
        )
        self.logit_adjustment = method.logit_adjustment
        self.projector = self.build_projector(method.projector)
        self.queue = FeatureQueue(
            method.queue_size,
            method.projector.embedding_dim,
            num_classes=self.num_classes,
            init=method.queue_init,
        )

    @property
    def center_prior(self) -> Tensor | None:
        """Share of each class whose log is added to the center logits, (C,), or None."""
        return self.prior if self.logit_adjustment else None


class ParametricContrast(_Parametric):
    """PaCo: queries contrast with class centers, momentum keys and a queue of earlier keys."""

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__(config, class_counts)
        assert isinstance(config.method, ParametricContrastConfig)
        self.momentum_encoder = MomentumEncoder(self._encoder(), config.method.momentum)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        super().start_from(weights)
        self.momentum_encoder.encoder.load_state_dict(self._encoder().state_dict())

    def compile_backbones(self) -> None:
        super().compile_backbones()
        self.momentum_encoder.encoder.compile(dynamic=False)

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
        loss = self.contrast(
            queries,
            targets,
            torch.cat([keys, self.queue.keys]),
            torch.cat([targets, self.queue.targets]),
            logits,
            self.center_prior,
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
        loss = self.contrast(
            anchors,
            targets.repeat(2),
            self.queue.keys,
            self.queue.targets,
            logits,
            self.center_prior,
            label_smoothing=self.label_smoothing,
        )
        batch = len(targets)
        self.queue.enqueue(anchors[batch:].detach(), targets)
        return StepOutput(loss, logits[:batch], {"gpaco": loss})
