"""Every knob of an experiment, as frozen, typed, hashable values.

Only what can change the result is here. Device, number of workers, precision and folders are
execution settings: they are arguments of ``trainer.train`` and are written to a run's provenance.
"""

import difflib
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]


class _Config(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DataConfig(_Config):
    """Which images, how long their tail, and how each is shown."""

    dataset: str = "digits"
    imbalance_factor: float = Field(default=1.0, ge=1)
    """Largest class over smallest class, as in the papers; 1 keeps the data set as it is."""
    imbalance_type: Literal["exponential", "step"] = "exponential"
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    """Draws which images of a class are kept; 0 gives the authors' images."""
    views: tuple[str, ...] = ("cifar_autoaugment",)
    """Augmentation of each view the method takes, by its name in ``views.VIEWS``."""


class ModelConfig(_Config):
    """Backbone and classifier; projectors belong to the methods that contrast."""

    backbone: str = "resnet32"
    classifier: Literal["linear", "cosine"] = "linear"
    classifier_scale: Positive = 30.0
    """Multiplies the cosines of the cosine classifier."""


class OptimConfig(_Config):
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


class ProjectorConfig(_Config):
    """MLP from feature to embedding."""

    hidden_dim: int = Field(default=512, ge=1)
    embedding_dim: int = Field(default=128, ge=2)
    num_layers: int = Field(default=2, ge=1)
    batch_norm: bool = True


class CrossEntropyConfig(_Config):
    """Plain cross entropy."""

    name: Literal["ce"] = "ce"


class LogitAdjustmentConfig(_Config):
    """Cross entropy on logits + tau log prior (Menon et al. 2021, arXiv:2007.07314)."""

    name: Literal["la"] = "la"
    tau: NonNegative = 1.0


class FocalConfig(_Config):
    """Focal loss (Lin et al. 2017, arXiv:1708.02002)."""

    name: Literal["focal"] = "focal"
    focusing: NonNegative = 1.0
    """Gamma; 1 in the long-tailed literature since Cao et al., 2 in Lin et al.'s detectors."""


class _ReweightedConfig(_Config):
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


class _MarginConfig(_ReweightedConfig):
    max_margin: NonNegative = 0.5
    """Margin of the smallest class, a difference of cosines."""


class LabelAwareMarginConfig(_MarginConfig):
    """LDAM (Cao et al. 2019, arXiv:1906.07413); wants the cosine classifier."""

    name: Literal["ldam"] = "ldam"
    reweight_from: float = Field(default=1.0, ge=0, le=1)
    """Share of the epochs from which class-balanced weights act; 1 is never."""


class DeferredLabelAwareMarginConfig(_MarginConfig):
    """LDAM-DRW: LDAM with class-balanced weights late in training."""

    name: Literal["ldam_drw"] = "ldam_drw"
    reweight_from: float = Field(default=0.8, ge=0, le=1)
    """Share of the epochs from which class-balanced weights act; epoch 160 of 200."""


class MixupConfig(_Config):
    """Cross entropy on mixed images (Zhang et al. 2018, arXiv:1710.09412)."""

    name: Literal["mixup"] = "mixup"
    alpha: Positive = 1.0
    """Shares are drawn from Beta(alpha, alpha); 1 is uniform."""


class _ContrastConfig(_Config):
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


class _ParametricConfig(_Config):
    alpha: NonNegative = 0.05
    """Weight of a sample pair against a parametric class center."""
    beta: Positive = 1.0
    gamma: NonNegative = 1.0
    temperature: Positive = 0.2
    center_temperature: Positive = 1.0
    normalize_weights: bool = True
    """Divide by beta + alpha * positives (authors' code) or keep the plain sum (paper)."""
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


class ExperimentConfig(_Config):
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
        if isinstance(self.method, _MarginConfig) and self.model.classifier != "cosine":
            raise ValueError(
                f"{self.method.name} needs model.classifier cosine, got {self.model.classifier!r}"
            )
        return self


def override(config: ExperimentConfig, changes: Mapping[str, object]) -> ExperimentConfig:
    """Return a copy of ``config`` with some fields changed.

    Args:
        config: The starting point; not modified.
        changes: Dotted field name to new value, e.g. ``{"optim.epochs": 2}``. Text is converted
            to the field's type, as the command line and papermill pass text.

    Raises:
        ValueError: If a field does not exist (the nearest name is suggested) or a value does not
            fit its field.
    """
    tree = config.model_dump()
    for path, value in changes.items():
        *parents, leaf = path.split(".")
        node: object = tree
        for name in parents:
            node = node.get(name) if isinstance(node, dict) else None
        if not isinstance(node, dict) or leaf not in node:
            known = list(_field_names(config.model_dump()))
            near = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]!r}?" if near else f"fields: {', '.join(known)}"
            raise ValueError(f"unknown field {path!r}; {hint}")
        if path == "method.name":
            raise ValueError("method.name cannot be changed; start from a recipe of that method")
        node[leaf] = _parse(value)
    try:
        return ExperimentConfig.model_validate(tree)
    except ValidationError as error:
        raise ValueError(_one_sentence(error)) from None


def config_hash(config: ExperimentConfig) -> str:
    """Name an experiment by 10 hexadecimal digits; the seed does not enter.

    Fields at their default do not enter either, so that a new field with the old behaviour as
    its default leaves every earlier run where it is.
    """
    content = config.model_dump(mode="json", exclude={"seed"}, exclude_defaults=True)
    content["method.name"] = config.method.name
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def flatten(config: ExperimentConfig) -> dict[str, object]:
    """List a config's fields as ``{"optim.epochs": 200, ...}``."""
    return dict(_field_values(config.model_dump(mode="json")))


def _field_values(tree: Mapping[str, object], prefix: str = "") -> list[tuple[str, object]]:
    pairs: list[tuple[str, object]] = []
    for name, value in tree.items():
        if isinstance(value, Mapping):
            pairs += _field_values(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", value))
    return pairs


def _field_names(tree: Mapping[str, object]) -> list[str]:
    return [name for name, _ in _field_values(tree)]


def _parse(value: object) -> object:
    """Read lists and tuples that arrive as text; pydantic converts the scalars."""
    if isinstance(value, str) and value.startswith(("[", "{")):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value
    return value


def _one_sentence(error: ValidationError) -> str:
    """Say what is wrong, where, and what was given, one clause per problem."""
    clauses = []
    for problem in error.errors():
        # A member of a union is located by its tag as well: ("method", "bcl", "temperature").
        location = [str(part) for part in problem["loc"]]
        if len(location) > 2 and location[0] == "method":
            location.pop(1)
        given = "" if isinstance(problem["input"], Mapping) else f", got {problem['input']!r}"
        message = problem["msg"].removeprefix("Value error, ")
        clauses.append(f"{'.'.join(location)}: {message}{given}" if location else message)
    return "; ".join(clauses)
