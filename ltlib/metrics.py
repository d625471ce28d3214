"""What predictions are worth: per class, per split, overall, and how well calibrated.

NumPy only, so that notebooks and reports measure saved predictions without loading torch. CPU
tensors are accepted wherever arrays are. Accuracy is a fraction in [0, 1]; what nothing was
measured on is NaN, never 0.
"""

import numpy as np
from numpy.typing import ArrayLike

SPLITS = ("many", "medium", "few")
MANY_SHOT = 100
"""Above this many training images a class is many-shot (Liu et al. 2019, arXiv:1904.05160)."""
FEW_SHOT = 20
"""Below this many training images a class is few-shot; both bounds themselves are medium-shot."""


def per_class_accuracy(predictions: ArrayLike, targets: ArrayLike, num_classes: int) -> np.ndarray:
    """Return the share of each class's samples that were predicted as that class.

    Args:
        predictions: Predicted classes, (N,), integers in [0, C).
        targets: True classes, (N,), integers in [0, C).
        num_classes: C.

    Returns:
        Accuracy (recall) of each class, (C,), fractions; NaN for a class without samples.

    Raises:
        ValueError: If shapes disagree or a class is outside [0, C).
    """
    predicted, true = _paired(predictions, targets, num_classes)
    correct = np.bincount(true[predicted == true], minlength=num_classes)
    return _ratio(correct, np.bincount(true, minlength=num_classes))


def shots(counts: ArrayLike) -> np.ndarray:
    """Name each class's split by its number of training images.

    Args:
        counts: Training images per class, (C,).

    Returns:
        "many" (> 100), "medium" (20 to 100 inclusive) or "few" (< 20) for each class, (C,).
    """
    counts = np.asarray(counts)
    return np.select([counts > MANY_SHOT, counts >= FEW_SHOT], ["many", "medium"], "few")


def shot_accuracy(per_class: ArrayLike, counts: ArrayLike) -> dict[str, float]:
    """Average per-class accuracy over all, many-, medium- and few-shot classes.

    "all" is the mean over classes. On the field's balanced test sets it equals the share of
    correct samples; on an unbalanced one it is the balanced accuracy, which does not let the
    head decide. Classes without test samples (NaN) count nowhere.

    Differs: the authors' ``shot_acc`` returns 0 for an empty split, which reads as a failure.

    Args:
        per_class: Accuracy of each class, (C,), fractions, NaN where unknown.
        counts: Training images per class, (C,).

    Returns:
        {"all", "many", "medium", "few"} as fractions; NaN for a split without classes.

    Raises:
        ValueError: If shapes disagree.
    """
    per_class, split = np.asarray(per_class, dtype=np.float64), shots(counts)
    if per_class.shape != split.shape:
        raise ValueError(f"per_class is {per_class.shape}, counts is {split.shape}; both are (C,)")
    known = ~np.isnan(per_class)
    members = {"all": known} | {name: known & (split == name) for name in SPLITS}
    return {name: float(_ratio(per_class[of].sum(), of.sum())) for name, of in members.items()}


def confusion_matrix(predictions: ArrayLike, targets: ArrayLike, num_classes: int) -> np.ndarray:
    """Count samples by true class (row) and predicted class (column).

    Args:
        predictions: Predicted classes, (N,), integers in [0, C).
        targets: True classes, (N,), integers in [0, C).
        num_classes: C.

    Returns:
        Sample counts, (C, C), int64.

    Raises:
        ValueError: If shapes disagree or a class is outside [0, C).
    """
    predicted, true = _paired(predictions, targets, num_classes)
    cells = np.bincount(true * num_classes + predicted, minlength=num_classes**2)
    return cells.reshape(num_classes, num_classes)


def calibration(logits: ArrayLike, targets: ArrayLike, num_bins: int = 15) -> dict[str, float]:
    """Measure how far the softmax of the logits can be trusted as a probability.

    * ``ece``, expected calibration error (Guo et al. 2017, arXiv:1706.04599):
      sum_m |B_m|/N |acc(B_m) - conf(B_m)| over equal-width bins (lower, upper] of confidence.
    * ``nll``, negative log-likelihood: mean of -log p_y.
    * ``brier``, Brier score over all classes: mean of sum_c (p_c - 1[c = y])^2.

    Pass a subset of rows, say those of few-shot classes, to measure one split.

    Args:
        logits: Scores before softmax, (N, C); half precision is computed in float32.
        targets: True classes, (N,), integers in [0, C).
        num_bins: Bins of the expected calibration error, >= 1.

    Returns:
        {"ece" in [0, 1], "nll" in nats, "brier" in [0, 2]}; 0 is perfect; NaN without samples.

    Raises:
        ValueError: If shapes disagree or a class is outside [0, C).
    """
    scores = np.asarray(logits)
    scores = scores.astype(np.result_type(scores.dtype, np.float32))
    targets = _classes(targets, scores.shape[1])
    if len(scores) != len(targets):
        raise ValueError(f"logits has {len(scores)} rows, targets has {len(targets)}")
    if len(scores) == 0:
        return {"ece": np.nan, "nll": np.nan, "brier": np.nan}

    scores -= scores.max(axis=1, keepdims=True)
    probabilities = np.exp(scores)
    total = probabilities.sum(axis=1)
    probabilities /= total[:, None]
    rows = np.arange(len(targets))
    of_target = probabilities[rows, targets].astype(np.float64)
    # From the logits, not from p_y, whose logarithm is -inf once p_y underflows.
    log_likelihood = scores[rows, targets].astype(np.float64) - np.log(total)

    confidence = probabilities.max(axis=1).astype(np.float64)
    gaps = (probabilities.argmax(axis=1) == targets) - confidence
    bins = np.digitize(confidence, np.linspace(0, 1, num_bins + 1)[1:-1], right=True)
    squares = np.einsum("nc,nc->n", probabilities, probabilities).astype(np.float64)
    return {
        "ece": float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(targets)),
        "nll": float(-log_likelihood.mean()),
        "brier": float((squares - 2 * of_target + 1).mean()),
    }


def _paired(
    predictions: ArrayLike, targets: ArrayLike, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    predicted, true = _classes(predictions, num_classes), _classes(targets, num_classes)
    if len(predicted) != len(true):
        raise ValueError(f"{len(predicted)} predictions, {len(true)} targets; both are (N,)")
    return predicted, true


def _classes(values: ArrayLike, num_classes: int) -> np.ndarray:
    classes = np.asarray(values)
    if classes.ndim != 1:
        raise ValueError(f"classes must be (N,), got shape {classes.shape}")
    if classes.size and not (classes.min() >= 0 and classes.max() < num_classes):
        bounds = f"{classes.min()}..{classes.max()}"
        raise ValueError(f"classes must be in [0, {num_classes}), got {bounds}")
    return classes.astype(np.int64)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, with NaN where there is nothing to divide by."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)
