"""CE, LA, SCL, BCL, ProCo, PaCo, GPaCo and baselines: model + memory + losses = one step.

A method is an ``nn.Module`` whose ``forward(views, targets)`` returns the loss of one step. The
loss is always that of the global batch: outputs are gathered over processes first. Everything a
method remembers is in buffers, so ``state_dict`` is all there is to save.
"""

from collections.abc import Sequence

from torch import Tensor

from ltlib.config import ExperimentConfig
from ltlib.methods.base import Method, StepOutput
from ltlib.methods.classification import (
    CrossEntropy,
    Focal,
    LabelAwareMargin,
    LogitAdjustment,
    Mixup,
    ReweightedCrossEntropy,
)
from ltlib.methods.contrast import (
    BalancedContrast,
    KPositiveContrast,
    ProbabilisticContrast,
    SupervisedContrast,
)
from ltlib.methods.parametric import GeneralizedParametricContrast, ParametricContrast

__all__ = ["METHODS", "Method", "StepOutput", "build_method"]


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


METHODS: dict[str, type[Method]] = {
    "ce": CrossEntropy,
    "focal": Focal,
    "cb": ReweightedCrossEntropy,
    "ce_drw": ReweightedCrossEntropy,
    "ldam": LabelAwareMargin,
    "ldam_drw": LabelAwareMargin,
    "mixup": Mixup,
    "la": LogitAdjustment,
    "kcl": KPositiveContrast,
    "scl": SupervisedContrast,
    "bcl": BalancedContrast,
    "proco": ProbabilisticContrast,
    "paco": ParametricContrast,
    "gpaco": GeneralizedParametricContrast,
}
