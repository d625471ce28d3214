"""Published numbers with their source, and the authors' training curves."""

from importlib.resources import files

import pandas as pd


def published_results() -> pd.DataFrame:
    """Read the published numbers.

    Returns:
        One row per number: paper, table, dataset, imbalance_factor, backbone, method, epochs,
        views_or_aug, split, value (as printed, mostly accuracy in percent), source, and
        confidence ("authors": their own files; "quoted": somebody else's text).
    """
    return _read_csv("results.csv")


def reference_curves() -> pd.DataFrame:
    """Read the authors' own ProCo training curves (LeapLabTHU/ProCo, TensorBoard logs).

    Returns:
        Columns recipe, epoch (0-based), all (test accuracy, fraction), loss/ce, loss/contrast,
        train_top1 (fraction, of classifier plus contrast logits on augmented images).
    """
    return _read_csv("proco_curves.csv")


def _read_csv(name: str) -> pd.DataFrame:
    with (files("ltlib") / "published" / name).open() as file:
        return pd.read_csv(file)
