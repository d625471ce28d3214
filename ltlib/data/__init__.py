"""Data sets, their long tails, and loaders whose order and augmentation are pure functions.

``load_dataset`` reads a data set and cuts it to its tail; ``train_loader`` and ``test_loader``
turn it into batches. Nothing is downloaded unless asked for.
"""

from ltlib.data.check import check_dataset, manifest_of
from ltlib.data.datasets import DATASETS, is_writable, load_dataset, pack_dataset
from ltlib.data.images import EncodedImages, ImageError, ImageSet
from ltlib.data.loaders import (
    EpochBatches,
    epoch_order,
    takes_batched_views,
    test_loader,
    train_loader,
)
from ltlib.data.longtail import class_prior, long_tailed_counts, long_tailed_indices

__all__ = [
    "DATASETS",
    "EncodedImages",
    "EpochBatches",
    "ImageError",
    "ImageSet",
    "check_dataset",
    "class_prior",
    "epoch_order",
    "is_writable",
    "load_dataset",
    "long_tailed_counts",
    "long_tailed_indices",
    "manifest_of",
    "pack_dataset",
    "takes_batched_views",
    "test_loader",
    "train_loader",
]
