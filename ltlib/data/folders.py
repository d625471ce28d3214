"""Data sets that are one folder of images a class: anybody's own, and full ImageNet."""

import os
import re
from pathlib import Path

import numpy as np
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset

from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.listed import IMAGENET_LT, IMAGENET_MEAN, IMAGENET_STD, LARGE_IMAGE_SIZE
from ltlib.data.lists import OfficialList, find_list, search_folders
from ltlib.data.sources import Files

FOLDER_IMAGE_SIZE = 32
"""Side in pixels to which ``image_folder`` scales and crops: that of the other data sets."""


def image_folder(folder: Path, train: bool) -> ImageSet | None:
    """Anybody's images: ``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``."""
    if not (folder / "train").is_dir():
        return None
    class_names = _class_folders(folder / "train")
    splits = [folder / name for name in (["train"] if train else ["test", "val"])]
    split = next((path for path in splits if path.is_dir()), None)
    if split is None:
        raise FileNotFoundError(f"{folder} holds train, but neither test nor val")
    files, targets = _files_by_class(split, class_names)
    images = EncodedImages(files, FOLDER_IMAGE_SIZE)
    return ImageSet(images, targets, class_names, IMAGENET_MEAN, IMAGENET_STD)


def imagenet(folder: Path, train: bool) -> ImageSet | None:
    """Full ImageNet (ILSVRC 2012): ``train/<WordNet id>/*``, and ``val`` alike or in one folder.

    In one folder, the classes are those of the list ``ImageNet_LT_test.txt``, or
    ``ImageNet_val.txt``: both name all 50,000 validation images.
    """
    folders = search_folders(folder)
    place = next((place for place in folders if _holds_wordnet_ids(place / "train")), None)
    if place is None:
        return None
    class_names = _class_folders(place / "train")
    if train or _holds_wordnet_ids(place / "val"):
        files, targets = _files_by_class(place / ("train" if train else "val"), class_names)
    else:
        names = (IMAGENET_LT.lists["test"], OfficialList("ImageNet_val.txt", 50_000))
        found = next((found for name in names if (found := find_list(folders, name))), None)
        if found is None:
            raise FileNotFoundError(
                f"{place / 'val'} holds no folder per class and {folder} no ImageNet_LT_test.txt, "
                "which says the class of each image"
            )
        files = Files(place / "val", [name.rpartition("/")[2] for name in found.names])
        targets = found.targets
    images = EncodedImages(files, LARGE_IMAGE_SIZE, own_size=True)
    return ImageSet(images, targets, class_names, IMAGENET_MEAN, IMAGENET_STD)


def _files_by_class(split: Path, class_names: tuple[str, ...]) -> tuple[Files, np.ndarray]:
    """List the images of each class, and the targets (N,).

    Raises:
        ValueError: If a folder is no class.
        FileNotFoundError: If there is no image.
    """
    if strangers := set(_class_folders(split)).difference(class_names):
        raise ValueError(f"{split} holds a class that train lacks: {min(strangers)}")
    index_of = {name: index for index, name in enumerate(class_names)}
    samples = make_dataset(split, index_of, IMG_EXTENSIONS, allow_empty=True) if index_of else []
    if not samples:
        raise FileNotFoundError(f"{split} holds no image in a folder per class")
    files = Files(split, [os.path.relpath(path, split) for path, _ in samples])
    return files, np.array([target for _, target in samples], dtype=np.int64)


def _class_folders(split: Path) -> tuple[str, ...]:
    # Jupyter leaves .ipynb_checkpoints beside what it opened.
    folders = [path for path in split.iterdir() if path.is_dir() and path.name[0] != "."]
    return tuple(sorted(path.name for path in folders))


def _holds_wordnet_ids(split: Path) -> bool:
    return split.is_dir() and any(re.fullmatch(r"n\d{8}", name) for name in os.listdir(split))
