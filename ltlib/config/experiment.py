"""One experiment: data, model, optimisation, method and seed."""

import re
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from ltlib.config.base import Config, NonNegative, Positive
from ltlib.config.methods import CrossEntropyConfig, MarginConfig, MethodConfig


class DataConfig(Config):
    """Which images, how long their tail, and how each is shown."""

    dataset: str = "digits"
    imbalance_factor: float = Field(default=1.0, ge=1)
    """Largest class over smallest class, as in the papers; 1 keeps the data set as it is."""
    imbalance_type: Literal["exponential", "step"] = "exponential"
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    """Draws which images of a class are kept; 0 gives the authors' images."""
    views: tuple[str, ...] = ("cifar_autoaugment",)
    """Augmentation of each view the method takes, by its name in ``views.VIEWS``."""


class ModelConfig(Config):
    """Backbone and classifier; projectors belong to the methods that contrast."""

    backbone: str = "resnet32"
    classifier: Literal["linear", "cosine"] = "linear"
    classifier_scale: Positive = 30.0
    """Multiplies the cosines of the cosine classifier."""
    pretrained: bool = False
    """Start the backbone from ImageNet weights, read from a file whose digest is provenance."""
    trainable_convolutions: Literal["all", "last_block"] = "all"
    """Which of the backbone's convolutions learn; batch norms do in any case (PaCo, Places-LT)."""
    batch_norm: str = "local"
    """Statistics of each process's rows ("local"), of all processes' rows ("sync"), or of groups
    of n images ("ghost:<n>"), which is what n images per GPU give."""

    @field_validator("batch_norm")
    @classmethod
    def _batch_norm_is_known(cls, value: str) -> str:
        if not re.fullmatch(r"local|sync|ghost:([2-9]|[1-9]\d+)", value):
            raise ValueError("must be local, sync or ghost:<images of a group, at least 2>")
        return value


class OptimConfig(Config):
    """SGD and its schedule; ``lr`` is per global batch as configured."""

    epochs: int = Field(default=200, ge=1)
    batch_size: int = Field(default=256, ge=1)
    """Images of one step over all processes."""
    lr: Positive = 0.1
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: NonNegative = 5e-4
    schedule: Literal["step", "cosine"] = "step"
    warmup_epochs: int = Field(default=5, ge=0)
    milestones: tuple[float, ...] = (0.8, 0.9)
    """Shares of ``epochs`` at which the step schedule multiplies the rate by ``decay``."""
    decay: Positive = 0.1
    late_boundaries: bool = False
    """PaCo's code: warm-up and milestones act one epoch later, so warm-up ends above ``lr``."""
    drop_last: bool = True


class ExperimentConfig(Config):
    """One experiment: data, model, optimisation, method and the training seed."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    optim: OptimConfig = OptimConfig()
    method: MethodConfig = CrossEntropyConfig()
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Initialisation, order and augmentation; not which images are kept."""

    @model_validator(mode="after")
    def _queue_holds_whole_batches(self) -> Self:
        size = getattr(self.method, "queue_size", 0)
        if size % self.optim.batch_size:
            raise ValueError(
                f"method.queue_size must be a multiple of optim.batch_size, "
                f"got {size} and {self.optim.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _margins_are_of_cosines(self) -> Self:
        if isinstance(self.method, MarginConfig) and self.model.classifier != "cosine":
            raise ValueError(
                f"{self.method.name} needs model.classifier cosine, got {self.model.classifier!r}"
            )
        return self
