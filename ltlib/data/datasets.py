"""Data sets by name: where their files are, and how they become an ``ImageSet``.

Files are looked for under ``root`` alone if it is given; else under the folder that the
environment variable ``LTLIB_DATA`` names, ``./data``, and that of Debian's data packages.
"""

import logging
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from torchvision import datasets

from ltlib.config import DataConfig
from ltlib.data.folders import image_folder, imagenet
from ltlib.data.images import ImageSet
from ltlib.data.listed import IMAGENET_LT, INATURALIST18, PLACES_LT, ListedDataset
from ltlib.data.longtail import long_tailed_counts, long_tailed_indices
from ltlib.data.pack import pack_path, read_pack, write_pack
from ltlib.data.small import (
    CIFAR10_CLASSES,
    CIFAR100_CLASSES,
    ORIGINALS,
    cifar,
    digits,
    fashion_mnist,
)
from ltlib.distributed import is_main

_DEBIAN_DATASETS = Path("/usr/share/datasets")

logger = logging.getLogger(__name__)


def load_dataset(
    config: DataConfig, root: Path | None = None, train: bool = True, *, download: bool = False
) -> ImageSet:
    """Read the training images, cut to the long tail, or all test images.

    Args:
        config: Which data set, how long its tail.
        root: The only folder searched, if given.
        train: Whether to read the training images.
        download: Whether a data set that is not found may be downloaded to the first folder.

    Returns:
        The images, in memory unless each is a file or all are in a pack.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is damaged, the name unknown, or the tail leaves a class empty.
    """
    full, _ = find_dataset(config.dataset, root, train, download=download)
    chosen = cut(full, config) if train else full
    return chosen.decoded() if config.dataset in ORIGINALS else chosen


def find_dataset(
    name: str, root: Path | None, train: bool, *, download: bool = False, packed: bool = True
) -> tuple[ImageSet, Path]:
    """Find all training or test images, still encoded, and the folder that holds them.

    Args:
        name: Key of ``DATASETS``.
        root: The only folder searched, if given.
        train: Whether to find the training images.
        download: Whether a data set that is not found may be downloaded to the first folder.
        packed: Whether a pack takes the place of what else a folder holds.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is damaged or the name unknown.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    folders = _folders(root)
    found = _read_first(name, folders, train, packed)
    if found is None and download and name in _DOWNLOADS:
        _DOWNLOADS[name](folders[0], download=True)
        found = _read_first(name, folders, train, packed)
    if found is None:
        searched = " or ".join(str(folder.absolute()) for folder in folders)
        raise FileNotFoundError(
            f"data set {name!r} is not in {searched}; put its files there, or name their folder "
            f"by the data root or the variable LTLIB_DATA{_remedy(name)}"
        )
    return found


def pack_dataset(name: str, root: Path | None = None, output: Path | None = None) -> list[Path]:
    """Write a pack of the training and one of the test images.

    Args:
        name: Of a data set of one file per image.
        root: The only folder searched, if given.
        output: Folder of the packs, where ``load_dataset`` uses them; by default beside the data.

    Returns:
        The packs.

    Raises:
        FileNotFoundError: If the data set, or one of its images, is not there.
        PermissionError: If the packs may not be written there.
        ValueError: If it is in one file already.
    """
    paths = []
    for train in (True, False):
        images, folder = find_dataset(name, root, train, packed=False)
        if output is None and not is_writable(folder):
            raise PermissionError(f"{folder} is read-only; name another folder for the packs")
        path = pack_path(output or folder, name, train)
        write_pack(images, path)
        paths.append(path)
    return paths


def is_writable(folder: Path) -> bool:
    """Tell whether a folder is there and meant to be written: root could write to any."""
    return folder.is_dir() and os.access(folder, os.W_OK) and folder.stat().st_mode & 0o222 != 0


def _folders(root: Path | None) -> list[Path]:
    if root is not None:
        return [Path(root)]
    named = os.environ.get("LTLIB_DATA")
    return [*([Path(named)] if named else []), Path("data"), _DEBIAN_DATASETS]


def _read_first(
    name: str, folders: list[Path], train: bool, packed: bool
) -> tuple[ImageSet, Path] | None:
    for folder in folders:
        pack = pack_path(folder, name, train)
        if packed and pack.is_file():
            if is_main():
                logger.info("images of %s", pack)
            return read_pack(pack), folder
        full = DATASETS[name](folder, train)
        if full is not None:
            return full, folder
    return None


def _remedy(name: str) -> str:
    reader = DATASETS[name]
    if isinstance(reader, ListedDataset):
        return f"; any clone of BCL, ProCo or PaCo has its list {reader.lists['train'].file_name}"
    return ", or allow its download" if name in _DOWNLOADS else ""


def cut(full: ImageSet, config: DataConfig) -> ImageSet:
    """Keep the images of the long tail.

    Raises:
        ValueError: If a class is or would be empty.
    """
    available = full.class_counts
    if not available.all():
        empty = full.class_names[int(available.argmin())]
        raise ValueError(f"class {empty!r} of data set {config.dataset!r} has no training image")
    if config.imbalance_factor == 1:
        return full
    wanted = long_tailed_counts(
        int(available.max()), config.imbalance_factor, len(available), config.imbalance_type
    )
    counts = np.minimum(wanted, available)
    return full.take(long_tailed_indices(full.targets, counts, config.split_seed))


_DOWNLOADS = {
    **ORIGINALS,
    "fashion_mnist": datasets.FashionMNIST,
}

# A reader takes a folder and whether to read the training images; None if they are not there.
DATASETS: dict[str, Callable[[Path, bool], ImageSet | None]] = {
    "digits": digits,
    "cifar10": partial(cifar, name="cifar10", column="label", class_names=CIFAR10_CLASSES),
    "cifar100": partial(cifar, name="cifar100", column="fine_label", class_names=CIFAR100_CLASSES),
    "fashion_mnist": fashion_mnist,
    "imagenet_lt": IMAGENET_LT,
    "inaturalist18": INATURALIST18,
    "places_lt": PLACES_LT,
    "imagenet": imagenet,
    "image_folder": image_folder,
}
