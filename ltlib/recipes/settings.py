"""Published settings: a recipe is a complete ``ExperimentConfig``.

Hyper-parameters come from the official repositories (FlamieZhu/Balanced-Contrastive-Learning
f72d070, LeapLabTHU/ProCo af9e78e, dvlab-research/Parametric-Contrastive-Learning fe56535); where
those are silent, the comment says who filled the gap.
"""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from ltlib.config import DataConfig, ExperimentConfig
from ltlib.recipes.cifar import CIFAR_BASELINES, CIFAR_METHODS, CIFAR_RECIPES
from ltlib.recipes.large import LARGE_RECIPES

Entry = TypeVar("Entry")


def smoke(config: ExperimentConfig, epochs: int = 2) -> ExperimentConfig:
    """Shrink a recipe to seconds: digits at imbalance factor 50 on a small ResNet-8, same method.

    The milestones keep their share of the epochs; the queue shrinks with the data set. There is
    nothing to start from, so all of the network learns.
    """
    method = config.method
    if hasattr(method, "queue_size"):
        method = method.model_copy(update={"queue_size": 256})
    return ExperimentConfig(
        data=DataConfig(
            dataset="digits", imbalance_factor=50, views=("digits",) * len(config.data.views)
        ),
        model=config.model.model_copy(
            update={
                "backbone": "resnet8_stride2",
                "pretrained": False,
                "trainable_convolutions": "all",
            }
        ),
        optim=config.optim.model_copy(
            update={"epochs": epochs, "batch_size": 32, "warmup_epochs": 1, "lr": 0.05}
        ),
        method=method,
        seed=config.seed,
    )


RECIPES: dict[str, ExperimentConfig] = {
    **CIFAR_RECIPES,
    **{
        f"{method}-digits-if50": smoke(CIFAR_RECIPES[f"{method}-cifar10-if50"], epochs=12)
        for method in CIFAR_METHODS | CIFAR_BASELINES
    },
    **LARGE_RECIPES,
}


def get_recipe(name: str) -> ExperimentConfig:
    """Look a recipe up.

    Raises:
        ValueError: If there is none of that name; nearby names are listed.
    """
    return look_up(RECIPES, name, "recipe")


def look_up(registry: Mapping[str, Entry], name: str, kind: str) -> Entry:
    """Return a registry's entry, or name those nearby in a ValueError."""
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=6, cutoff=0.3) or list(registry)
        raise ValueError(f"unknown {kind} {name!r}; did you mean one of {', '.join(near)}?")
    return registry[name]
