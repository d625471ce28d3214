"""Data sets, their long tails, and loaders whose order and augmentation are pure functions.

``load_dataset`` reads a data set and cuts it to its tail; ``train_loader`` and ``test_loader``
turn it into batches. Nothing is downloaded unless asked for.
"""

from ltlib.data.datasets import DATASETS, load_dataset
from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.loaders import EpochBatches, epoch_order, test_loader, train_loader
from ltlib.data.longtail import class_prior, long_tailed_counts, long_tailed_indices

__all__ = [
    "DATASETS",
    "EncodedImages",
    "EpochBatches",
    "ImageSet",
    "class_prior",
    "epoch_order",
    "load_dataset",
    "long_tailed_counts",
    "long_tailed_indices",
    "test_loader",
    "train_loader",
]
