"""What every method is: a network and one training step on top."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

from torch import Tensor, nn

from ltlib.config import ExperimentConfig, ProjectorConfig
from ltlib.data import class_prior
from ltlib.models import Projector, build_backbone, build_classifier, freeze_convolutions
from ltlib.normalization import with_batch_norm


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
    views_per_pass: ClassVar[int] = 1
    """Views that go through backbone and projector together."""
    prior: Tensor

    def __init__(self, config: ExperimentConfig, class_counts: Sequence[int] | Tensor) -> None:
        super().__init__()
        backbone, self.feature_dim = build_backbone(config.model.backbone)
        self.batch_norm = config.model.batch_norm
        self.backbone = with_batch_norm(backbone, self.batch_norm, self.views_per_pass)
        if config.model.trainable_convolutions == "last_block":
            freeze_convolutions(self.backbone)
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

    def build_projector(self, config: ProjectorConfig) -> nn.Module:
        """Build the MLP from features (B, F) to embeddings (B, D)."""
        projector = build_projector(self.feature_dim, config)
        return with_batch_norm(projector, self.batch_norm, self.views_per_pass)

    def start_from(self, weights: Mapping[str, Tensor]) -> None:
        """Copy pre-trained weights to the backbone, and to what is a copy of it."""
        self.backbone.load_state_dict(weights)

    def compile_backbones(self) -> None:
        """Compile what large batches of images go through, once for each shape of a batch.

        One graph for all shapes would depend on which came first, and a resumed run with it.
        """
        self.backbone.compile(dynamic=False)

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


def build_projector(feature_dim: int, config: ProjectorConfig) -> Projector:
    """Build the MLP from features (B, F) to embeddings (B, D), its batch norm local."""
    return Projector(
        feature_dim,
        config.hidden_dim,
        config.embedding_dim,
        num_layers=config.num_layers,
        batch_norm=config.batch_norm,
    )
