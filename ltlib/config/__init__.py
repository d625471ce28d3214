"""Every knob of an experiment, as frozen, typed, hashable values.

Only what can change the result is here. Device, number of workers, precision and folders are
execution settings: they are arguments of ``trainer.train`` and are written to a run's provenance.
"""

from ltlib.config.changes import config_hash, flatten, override
from ltlib.config.experiment import DataConfig, ExperimentConfig, ModelConfig, OptimConfig
from ltlib.config.methods import (
    BalancedContrastConfig,
    ClassBalancedConfig,
    CrossEntropyConfig,
    DeferredLabelAwareMarginConfig,
    DeferredReweightingConfig,
    FocalConfig,
    GeneralizedParametricContrastConfig,
    KPositiveContrastConfig,
    LabelAwareMarginConfig,
    LogitAdjustmentConfig,
    MethodConfig,
    MixupConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    ProjectorConfig,
    SupervisedContrastConfig,
)

__all__ = [
    "BalancedContrastConfig",
    "ClassBalancedConfig",
    "CrossEntropyConfig",
    "DataConfig",
    "DeferredLabelAwareMarginConfig",
    "DeferredReweightingConfig",
    "ExperimentConfig",
    "FocalConfig",
    "GeneralizedParametricContrastConfig",
    "KPositiveContrastConfig",
    "LabelAwareMarginConfig",
    "LogitAdjustmentConfig",
    "MethodConfig",
    "MixupConfig",
    "ModelConfig",
    "OptimConfig",
    "ParametricContrastConfig",
    "ProbabilisticContrastConfig",
    "ProjectorConfig",
    "SupervisedContrastConfig",
    "config_hash",
    "flatten",
    "override",
]
