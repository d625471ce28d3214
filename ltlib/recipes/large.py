"""Published settings on ImageNet-LT, iNaturalist 2018, Places-LT and full ImageNet, at 224 pixels.

Batch and learning rate are global. The authors' batch norms see the images of one GPU, here the
groups of ``model.batch_norm``, on any number of processes. Our losses see the global batch, where
PaCo's and GPaCo's code contrasts the images of one GPU among themselves and with a queue that all
share.
"""

from ltlib.config import (
    BalancedContrastConfig,
    CrossEntropyConfig,
    DataConfig,
    ExperimentConfig,
    GeneralizedParametricContrastConfig,
    LogitAdjustmentConfig,
    MethodConfig,
    ModelConfig,
    OptimConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    ProjectorConfig,
)

Setting = tuple[MethodConfig, OptimConfig, tuple[str, ...], ModelConfig]

# Differs: BCL's 4 GPUs each take a quarter of the three views in a row, so that a batch norm sees
# 192 images of one or two views. The nearest here is 64 images with all three views, as many rows.
COSINE_64 = ModelConfig(classifier="cosine", batch_norm="ghost:64")
COSINE_32 = ModelConfig(classifier="cosine", batch_norm="ghost:32")
LINEAR_16, LINEAR_32, LINEAR_64 = (ModelConfig(batch_norm=f"ghost:{n}") for n in (16, 32, 64))
# All batch norms learn as well: the authors freeze convolutions only. PaCo's script names
# torchvision's resnet152-b121ed2d, GPaCo's the later resnet152-394f9c45.
PLACES = ModelConfig(pretrained=True, trainable_convolutions="last_block", batch_norm="ghost:32")

PROJECTOR = ProjectorConfig(hidden_dim=2048, embedding_dim=1024)
BCL = BalancedContrastConfig(projector=PROJECTOR, temperature=0.07, contrast_weight=0.35)
PROCO = ProbabilisticContrastConfig(projector=PROJECTOR, temperature=0.07)
# The defaults are those of the scripts: alpha 0.05, temperature 0.2, a queue of 8192 keys.
PACO = ParametricContrastConfig()
GPACO = GeneralizedParametricContrastConfig()
FULL_PACO = PACO.model_copy(update={"logit_adjustment": False})
FULL_GPACO = GPACO.model_copy(update={"logit_adjustment": False, "label_smoothing": 0.1})

# It keeps the last batch. Epochs and rate for iNaturalist are the README's.
BCL_OPTIM = OptimConfig(
    epochs=90,
    batch_size=256,
    lr=0.1,
    weight_decay=5e-4,
    schedule="cosine",
    warmup_epochs=0,
    drop_last=False,
)
BCL_INATURALIST_OPTIM = BCL_OPTIM.model_copy(
    update={"epochs": 100, "lr": 0.2, "weight_decay": 1e-4}
)
# 8 GPUs x 32, as in the scripts. The README says 4 GPUs, which at the same rate is batch 128.
PROCO_OPTIM = BCL_OPTIM.model_copy(update={"drop_last": True})
PROCO_180_OPTIM = PROCO_OPTIM.model_copy(update={"epochs": 180})
PROCO_INATURALIST_OPTIM = PROCO_OPTIM.model_copy(update={"lr": 0.2, "weight_decay": 1e-4})


def _paco_optim(lr: float, weight_decay: float = 5e-4, batch_size: int = 128) -> OptimConfig:
    """The schedule of PaCo and GPaCo."""
    return OptimConfig(
        epochs=400,
        batch_size=batch_size,
        lr=lr,
        weight_decay=weight_decay,
        schedule="cosine",
        warmup_epochs=10,
    )


FULL_OPTIM = _paco_optim(0.04, 1e-4, batch_size=256)
PLACES_OPTIM = _paco_optim(0.02).model_copy(update={"epochs": 30, "warmup_epochs": 5})

SIM_SIM = ("randcls", "sim_proco", "sim_proco")
SIM_RAND = ("randcls", "rand_bcl", "sim_proco")  # in the order of the code, not of the name
RAND_RAND = ("randcls", "rand_bcl", "rand_bcl")
PACO_VIEWS = ("randcls", "sim_paco_large")
PLACES_VIEWS = ("sim_paco_large", "sim_paco_large")

SETTINGS: dict[str, Setting] = {
    # BCL without its contrast, so that a table compares losses.
    "ce-imagenet_lt-resnet50": (CrossEntropyConfig(), BCL_OPTIM, ("randcls",), COSINE_64),
    "ce-imagenet_lt-resnext50": (CrossEntropyConfig(), BCL_OPTIM, ("randcls",), COSINE_64),
    "la-imagenet_lt-resnet50": (LogitAdjustmentConfig(), BCL_OPTIM, ("randcls",), COSINE_64),
    "la-imagenet_lt-resnext50": (LogitAdjustmentConfig(), BCL_OPTIM, ("randcls",), COSINE_64),
    "bcl-imagenet_lt-resnet50": (BCL, BCL_OPTIM, SIM_SIM, COSINE_64),
    "bcl-imagenet_lt-resnext50-sim-sim": (BCL, BCL_OPTIM, SIM_SIM, COSINE_64),
    "bcl-imagenet_lt-resnext50-sim-rand": (BCL, BCL_OPTIM, SIM_RAND, COSINE_64),
    # The released main.py accepts rand-rand and then does not know it; this is what it means.
    "bcl-imagenet_lt-resnext50-rand-rand": (BCL, BCL_OPTIM, RAND_RAND, COSINE_64),
    "bcl-inaturalist18-resnet50": (BCL, BCL_INATURALIST_OPTIM, SIM_SIM, COSINE_64),
    "proco-imagenet_lt-resnet50": (PROCO, PROCO_OPTIM, SIM_SIM, COSINE_32),
    "proco-imagenet_lt-resnet50-180ep": (PROCO, PROCO_180_OPTIM, SIM_SIM, COSINE_32),
    "proco-imagenet_lt-resnext50": (PROCO, PROCO_OPTIM, SIM_SIM, COSINE_32),
    "proco-inaturalist18-resnet50": (PROCO, PROCO_INATURALIST_OPTIM, SIM_SIM, COSINE_32),
    "paco-imagenet_lt-resnet50": (PACO, _paco_optim(0.02), PACO_VIEWS, LINEAR_32),
    "paco-imagenet_lt-resnext50": (
        PACO.model_copy(update={"temperature": 0.07}),
        _paco_optim(0.02),
        ("randclsstack", "sim_paco_large"),
        LINEAR_32,
    ),
    "paco-imagenet_lt-resnext101": (
        PACO,
        _paco_optim(0.03),
        ("randclsstack_n3", "sim_paco_large"),
        LINEAR_32,
    ),
    "paco-inaturalist18-resnet50": (PACO, _paco_optim(0.02, 1e-4), PACO_VIEWS, LINEAR_32),
    # No script: that of ResNet-50.
    "paco-inaturalist18-resnet152": (PACO, _paco_optim(0.02, 1e-4), PACO_VIEWS, LINEAR_32),
    "paco-places_lt-resnet152": (PACO, PLACES_OPTIM, PLACES_VIEWS, PLACES),
    "gpaco-imagenet_lt-resnet50": (
        GPACO.model_copy(update={"alpha": 0.045}),
        _paco_optim(0.04),
        ("randcls", "randclsstack"),
        LINEAR_32,
    ),
    "gpaco-imagenet_lt-resnext50": (
        GPACO,
        _paco_optim(0.06),
        ("randcls_n3", "randclsstack_n3"),
        LINEAR_32,
    ),
    "gpaco-imagenet_lt-resnext101": (
        GPACO,
        _paco_optim(0.06),
        ("randcls_n5", "randclsstack_n5"),
        LINEAR_32,
    ),
    # 8 GPUs each, unlike PaCo's 4.
    "gpaco-inaturalist18-resnet50": (GPACO, _paco_optim(0.04, 1e-4), PACO_VIEWS, LINEAR_16),
    "gpaco-inaturalist18-resnet152": (
        GPACO,
        _paco_optim(0.08, 1e-4, batch_size=256),
        PACO_VIEWS,
        LINEAR_32,
    ),
    "gpaco-places_lt-resnet152": (
        GPACO.model_copy(update={"alpha": 0.02}),
        PLACES_OPTIM,
        PLACES_VIEWS,
        PLACES,
    ),
    "paco-imagenet-resnet50": (FULL_PACO, FULL_OPTIM, PACO_VIEWS, LINEAR_64),
    # No script: that of ResNet-50.
    "paco-imagenet-resnet101": (FULL_PACO, FULL_OPTIM, PACO_VIEWS, LINEAR_64),
    "paco-imagenet-resnet200": (
        FULL_PACO,
        FULL_OPTIM,
        ("randclsstack_n3_m12", "sim_paco_large"),
        LINEAR_64,
    ),
    "gpaco-imagenet-resnet50": (
        FULL_GPACO,
        _paco_optim(0.08, 1e-4, batch_size=512),
        ("randcls", "randclsstack"),
        LINEAR_64,
    ),
}

_FULL_NAMES = {"resnext50": "resnext50_32x4d", "resnext101": "resnext101_32x4d"}


def _recipe(
    name: str, method: MethodConfig, optim: OptimConfig, views: tuple[str, ...], model: ModelConfig
) -> ExperimentConfig:
    """Complete a setting by the data set and the backbone that its name gives."""
    dataset, backbone = name.split("-")[1:3]
    return ExperimentConfig(
        data=DataConfig(dataset=dataset, views=views),
        model=model.model_copy(update={"backbone": _FULL_NAMES.get(backbone, backbone)}),
        optim=optim,
        method=method,
    )


LARGE_RECIPES = {name: _recipe(name, *setting) for name, setting in SETTINGS.items()}
