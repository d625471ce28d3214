"""Published settings on CIFAR-LT (ResNet-32, one GPU), and the baselines that explain them."""

from ltlib.config import (
    BalancedContrastConfig,
    ClassBalancedConfig,
    CrossEntropyConfig,
    DataConfig,
    DeferredLabelAwareMarginConfig,
    DeferredReweightingConfig,
    ExperimentConfig,
    FocalConfig,
    GeneralizedParametricContrastConfig,
    KPositiveContrastConfig,
    LabelAwareMarginConfig,
    LogitAdjustmentConfig,
    MethodConfig,
    MixupConfig,
    ModelConfig,
    OptimConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    ProjectorConfig,
    SupervisedContrastConfig,
)

CIFAR_PROJECTOR = ProjectorConfig(hidden_dim=512, embedding_dim=128)

# ProCo's script: 200 epochs of batch 256, rate x0.1 at 160 and 180, 5 epochs of warm-up.
PROCO_OPTIM = OptimConfig(
    epochs=200, batch_size=256, lr=0.3, weight_decay=2e-4, warmup_epochs=5, milestones=(0.8, 0.9)
)
PROCO_OPTIM_400 = PROCO_OPTIM.model_copy(
    update={"epochs": 400, "warmup_epochs": 10, "milestones": (0.9, 0.95)}
)
# BCL's CIFAR trainer was never released. Rate, warm-up, weight decay and loss weights are those
# of the re-implementations that reach its numbers (ConCutMix, CUDA_LTR); no drop_last as in BCL.
BCL_OPTIM = PROCO_OPTIM.model_copy(update={"lr": 0.15, "weight_decay": 5e-4, "drop_last": False})
# PaCo hard-codes epochs 320 and 360 and compares with <=, hence the late boundaries.
PACO_OPTIM = OptimConfig(
    epochs=400,
    batch_size=128,
    lr=0.05,
    weight_decay=5e-4,
    warmup_epochs=10,
    milestones=(0.8, 0.9),
    late_boundaries=True,
)

# The classifier's view comes first, then those that contrast.
CLASSIFIER_VIEW = ("cifar_autoaugment",)
PROCO_VIEWS = (*CLASSIFIER_VIEW, "sim_proco", "sim_proco")
PACO_VIEWS = (*CLASSIFIER_VIEW, "sim_paco")

Setting = tuple[MethodConfig, ModelConfig, OptimConfig, tuple[str, ...]]

# CE and LA train as BCL does, so that a table compares losses and not augmentation or schedule.
CIFAR_METHODS: dict[str, Setting] = {
    "ce": (CrossEntropyConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "la": (LogitAdjustmentConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "scl": (
        SupervisedContrastConfig(
            projector=CIFAR_PROJECTOR, temperature=0.1, ce_weight=2.0, contrast_weight=0.6
        ),
        ModelConfig(classifier="cosine"),
        BCL_OPTIM,
        PROCO_VIEWS,
    ),
    "bcl": (
        BalancedContrastConfig(
            projector=CIFAR_PROJECTOR, temperature=0.1, ce_weight=2.0, contrast_weight=0.6
        ),
        ModelConfig(classifier="cosine"),
        BCL_OPTIM,
        PROCO_VIEWS,
    ),
    "proco": (
        ProbabilisticContrastConfig(projector=CIFAR_PROJECTOR, temperature=0.1),
        ModelConfig(),
        PROCO_OPTIM,
        PROCO_VIEWS,
    ),
    "paco": (
        ParametricContrastConfig(
            projector=ProjectorConfig(hidden_dim=64, embedding_dim=32),
            alpha=0.01,
            temperature=0.05,
            queue_size=1024,
        ),
        ModelConfig(),
        PACO_OPTIM,
        PACO_VIEWS,
    ),
    # GPaCo publishes no long-tailed CIFAR run: its full CIFAR-100 script with PaCo's views.
    "gpaco": (
        GeneralizedParametricContrastConfig(
            projector=ProjectorConfig(
                hidden_dim=64, embedding_dim=128, num_layers=3, batch_norm=False
            ),
            alpha=0.01,
            temperature=0.07,
            queue_size=1024,
        ),
        ModelConfig(),
        PACO_OPTIM,
        PACO_VIEWS,
    ),
}

# The baselines train as BCL does as well; their papers crop and flip, at batch 128 and rate 0.1.
# Hyper-parameters are those of Cao et al.'s code (kaidic/LDAM-DRW 65e2597), mixup's of its paper,
# and KCL's are SCL's with Kang et al.'s six positives.
CIFAR_BASELINES: dict[str, Setting] = {
    "focal": (FocalConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "cb": (ClassBalancedConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "ce_drw": (DeferredReweightingConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "ldam": (
        LabelAwareMarginConfig(),
        ModelConfig(classifier="cosine"),
        BCL_OPTIM,
        CLASSIFIER_VIEW,
    ),
    "ldam_drw": (
        DeferredLabelAwareMarginConfig(),
        ModelConfig(classifier="cosine"),
        BCL_OPTIM,
        CLASSIFIER_VIEW,
    ),
    "mixup": (MixupConfig(), ModelConfig(), BCL_OPTIM, CLASSIFIER_VIEW),
    "kcl": (
        KPositiveContrastConfig(
            projector=CIFAR_PROJECTOR, temperature=0.1, ce_weight=2.0, contrast_weight=0.6
        ),
        ModelConfig(classifier="cosine"),
        BCL_OPTIM,
        PROCO_VIEWS,
    ),
}
_CIFAR = CIFAR_METHODS | CIFAR_BASELINES


def _cifar(method: str, dataset: str, imbalance_factor: int) -> ExperimentConfig:
    method_config, model, optim, views = _CIFAR[method]
    data = DataConfig(dataset=dataset, imbalance_factor=imbalance_factor, views=views)
    return ExperimentConfig(data=data, model=model, optim=optim, method=method_config)


CIFAR_RECIPES: dict[str, ExperimentConfig] = {
    f"{method}-{dataset}-if{factor}": _cifar(method, dataset, factor)
    for method in _CIFAR
    for dataset in ("cifar10", "cifar100")
    for factor in (100, 50, 10)
}
CIFAR_RECIPES |= {
    f"proco-{dataset}-if{factor}-400ep": CIFAR_RECIPES[f"proco-{dataset}-if{factor}"].model_copy(
        update={"optim": PROCO_OPTIM_400}
    )
    for dataset in ("cifar10", "cifar100")
    for factor in (100, 50, 10)
}
