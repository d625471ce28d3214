"""Class counts with a long tail, and the subset of a balanced data set that has them.

Both repeat the procedure of Cao et al. 2019 (arXiv:1906.07413) in the form that BCL, ProCo and
PaCo share (``ProCo_cifar/dataset/cifar.py`` of LeapLabTHU/ProCo), to the last image.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor


def long_tailed_counts(
    max_count: int,
    imbalance_factor: float,
    num_classes: int,
    imbalance_type: Literal["exponential", "step"] = "exponential",
) -> np.ndarray:
    """Count the training images of each class, from the largest to the smallest.

    Exponential: ``n_i = int(max_count * (1 / imbalance_factor) ** (i / (C - 1)))``. Step: the
    second half of the classes has ``int(max_count / imbalance_factor)`` images.

    Args:
        max_count: Images of the largest class.
        imbalance_factor: Largest over smallest class, >= 1.
        num_classes: C.
        imbalance_type: Shape of the tail.

    Returns:
        Counts (C,), int64, in the order of the classes.

    Raises:
        ValueError: If a class would be empty or an argument is out of range.
    """
    if imbalance_factor < 1:
        raise ValueError(
            f"imbalance_factor must be >= 1, got {imbalance_factor} "
            "(the authors' code passes the inverse)"
        )
    # Python's power, as in the authors' code: NumPy's may differ in the last bit, and int() cuts.
    smallest = 1 / imbalance_factor
    if imbalance_type == "exponential":
        last = max(num_classes - 1, 1)
        shares = [smallest ** (index / last) for index in range(num_classes)]
    elif imbalance_type == "step":
        num_large = num_classes - num_classes // 2
        shares = [1.0] * num_large + [smallest] * (num_classes - num_large)
    else:
        raise ValueError(
            f"unknown imbalance_type {imbalance_type!r}; choose from exponential, step"
        )
    counts = np.array([int(max_count * share) for share in shares], dtype=np.int64)
    if not counts.all():
        raise ValueError(
            f"imbalance_factor {imbalance_factor:g} leaves class {counts.argmin()} without an "
            f"image, as the largest class has only {max_count}; lower it"
        )
    return counts


def class_prior(counts: Sequence[int] | np.ndarray | Tensor) -> Tensor:
    """Divide class counts (C,) by their sum.

    Returns:
        Probabilities (C,), float32.

    Raises:
        ValueError: If a class is empty, since the logarithm of its prior is not finite.
    """
    counts = torch.as_tensor(counts, dtype=torch.float64)
    if not (counts > 0).all():
        raise ValueError(f"class {int(counts.argmin())} has no training image")
    return (counts / counts.sum()).float()


def long_tailed_indices(targets: np.ndarray, counts: np.ndarray, split_seed: int) -> np.ndarray:
    """Choose which images of each class are kept.

    Args:
        targets: Class of each image of the full data set, (N,).
        counts: Images to keep of each class, (C,).
        split_seed: Of NumPy's legacy generator; 0 chooses the authors' images.

    Returns:
        Indices into ``targets``, ``counts.sum()`` of them, class by class.
    """
    generator = np.random.RandomState(split_seed)
    chosen = []
    for target, count in enumerate(counts):
        indices = np.flatnonzero(targets == target)
        generator.shuffle(indices)
        chosen.append(indices[:count])
    return np.concatenate(chosen)
