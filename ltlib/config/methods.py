"""Settings of each method, under the name that ``methods.METHODS`` knows it by."""

from typing import Annotated, Literal

from pydantic import Field

from ltlib.config.base import Config, NonNegative, Positive


class ProjectorConfig(Config):
    """MLP from feature to embedding."""

    hidden_dim: int = Field(default=512, ge=1)
    embedding_dim: int = Field(default=128, ge=2)
    num_layers: int = Field(default=2, ge=1)
    batch_norm: bool = True


class CrossEntropyConfig(Config):
    """Plain cross entropy."""

    name: Literal["ce"] = "ce"


class LogitAdjustmentConfig(Config):
    """Cross entropy on logits + tau log prior (Menon et al. 2021, arXiv:2007.07314)."""

    name: Literal["la"] = "la"
    tau: NonNegative = 1.0


class FocalConfig(Config):
    """Focal loss (Lin et al. 2017, arXiv:1708.02002)."""

    name: Literal["focal"] = "focal"
    focusing: NonNegative = 1.0
    """Gamma; 1 in the long-tailed literature since Cao et al., 2 in Lin et al.'s detectors."""


class _ReweightedConfig(Config):
    beta: float = Field(default=0.9999, ge=0, lt=1)
    """Of the class-balanced weights (1 - beta) / (1 - beta^n); 0 weighs all classes alike."""


class ClassBalancedConfig(_ReweightedConfig):
    """Cross entropy with class-balanced weights (Cui et al. 2019, arXiv:1901.05555)."""

    name: Literal["cb"] = "cb"
    reweight_from: float = Field(default=0.0, ge=0, le=1)
    """Share of the epochs from which the weights act; 1 is never."""


class DeferredReweightingConfig(_ReweightedConfig):
    """CE-DRW: class-balanced weights late in training (Cao et al. 2019, arXiv:1906.07413)."""

    name: Literal["ce_drw"] = "ce_drw"
    reweight_from: float = Field(default=0.8, ge=0, le=1)
    """Share of the epochs from which the weights act; epoch 160 of 200."""


class MarginConfig(_ReweightedConfig):
    max_margin: NonNegative = 0.5
    """Margin of the smallest class, a difference of cosines."""


class LabelAwareMarginConfig(MarginConfig):
    """LDAM (Cao et al. 2019, arXiv:1906.07413); wants the cosine classifier."""

    name: Literal["ldam"] = "ldam"
    reweight_from: float = Field(default=1.0, ge=0, le=1)
    """Share of the epochs from which class-balanced weights act; 1 is never."""


class DeferredLabelAwareMarginConfig(MarginConfig):
    """LDAM-DRW: LDAM with class-balanced weights late in training."""

    name: Literal["ldam_drw"] = "ldam_drw"
    reweight_from: float = Field(default=0.8, ge=0, le=1)
    """Share of the epochs from which class-balanced weights act; epoch 160 of 200."""


class MixupConfig(Config):
    """Cross entropy on mixed images (Zhang et al. 2018, arXiv:1710.09412)."""

    name: Literal["mixup"] = "mixup"
    alpha: Positive = 1.0
    """Shares are drawn from Beta(alpha, alpha); 1 is uniform."""


class _ContrastConfig(Config):
    projector: ProjectorConfig = ProjectorConfig()
    temperature: Positive = 0.1
    ce_weight: NonNegative = 1.0
    contrast_weight: NonNegative = 1.0


class SupervisedContrastConfig(_ContrastConfig):
    """Logit adjustment + supervised contrast (Khosla et al. 2020, arXiv:2004.11362)."""

    name: Literal["scl"] = "scl"


class KPositiveContrastConfig(_ContrastConfig):
    """Logit adjustment + k-positive contrast, KCL (Kang et al. 2021, OpenReview OqtLIabPTit)."""

    name: Literal["kcl"] = "kcl"
    num_positives: int = Field(default=6, ge=0)
    """Positives drawn for each anchor, besides the other view of its own image."""


class BalancedContrastConfig(_ContrastConfig):
    """BCL (Zhu et al. 2022, arXiv:2207.09052)."""

    name: Literal["bcl"] = "bcl"
    class_averaging: bool = True
    class_complement: bool = True
    anchor_average: Literal["sample", "class"] = "sample"
    """Outer mean over anchors (authors) or over the classes of the batch."""


class ProbabilisticContrastConfig(_ContrastConfig):
    """ProCo (Du et al. 2024, arXiv:2403.06726)."""

    name: Literal["proco"] = "proco"
    estimator: Literal["online", "frozen", "ema"] = "online"
    """Statistics behind the logits: updated within the epoch (authors' code), those of the
    previous epoch (paper), or an exponential average over steps."""
    concentration: Literal["authors", "banerjee", "exact"] = "authors"
    """Concentration from the mean resultant length R: D R / (1 - R^2), Banerjee's
    approximation, or the root of A_D(kappa) = R."""
    ema_decay: float = Field(default=0.99, ge=0, lt=1)


class _ParametricConfig(Config):
    alpha: NonNegative = 0.05
    """Weight of a sample pair against a parametric class center."""
    beta: Positive = 1.0
    gamma: NonNegative = 1.0
    temperature: Positive = 0.2
    center_temperature: Positive = 1.0
    normalize_weights: bool = True
    """Divide by beta + alpha * positives (authors' code) or keep the plain sum (paper)."""
    logit_adjustment: bool = True
    """Add the log prior to the center logits; the authors' code for full ImageNet does not."""
    queue_size: int = Field(default=8192, ge=0)
    queue_init: Literal["authors", "unit"] = "authors"
    """Random keys normalised along the queue (authors' code) or each to unit length."""


class ParametricContrastConfig(_ParametricConfig):
    """PaCo (Cui et al. 2021, arXiv:2107.12028)."""

    name: Literal["paco"] = "paco"
    projector: ProjectorConfig = ProjectorConfig(hidden_dim=2048)
    momentum: float = Field(default=0.999, ge=0, le=1)
    """Of the momentum encoder."""


class GeneralizedParametricContrastConfig(_ParametricConfig):
    """GPaCo (Cui et al. 2023, arXiv:2209.12400): no momentum encoder, both views are anchors."""

    name: Literal["gpaco"] = "gpaco"
    projector: ProjectorConfig = ProjectorConfig(hidden_dim=2048, num_layers=3, batch_norm=False)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)


MethodConfig = Annotated[
    CrossEntropyConfig
    | LogitAdjustmentConfig
    | FocalConfig
    | ClassBalancedConfig
    | DeferredReweightingConfig
    | LabelAwareMarginConfig
    | DeferredLabelAwareMarginConfig
    | MixupConfig
    | SupervisedContrastConfig
    | KPositiveContrastConfig
    | BalancedContrastConfig
    | ProbabilisticContrastConfig
    | ParametricContrastConfig
    | GeneralizedParametricContrastConfig,
    Field(discriminator="name"),
]
