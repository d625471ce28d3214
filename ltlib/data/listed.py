"""ImageNet-LT, iNaturalist 2018 and Places-LT: the authors' lists over folders of images."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.lists import (
    ImageList,
    Layout,
    OfficialList,
    find_list,
    locate,
    search_folders,
)
from ltlib.distributed import is_main

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LARGE_IMAGE_SIZE = 224
"""Side in pixels of what a network sees of a photograph."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ListedDataset:
    """A data set that is lists and images; a reader for ``DATASETS``.

    Args:
        lists: Of the splits "train" and "test", and "val" where the authors have one.
        class_name: From the name of a training image to that of its class.
        layouts: How the images may lie, as listed first.
        mean: Of each channel, on a scale of 0 to 1.
        std: Of each channel, on the same scale.
    """

    lists: dict[str, OfficialList]
    class_name: Callable[[str], str]
    layouts: tuple[Layout, ...]
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    def __call__(self, folder: Path, train: bool) -> ImageSet | None:
        """Read the training or the test images; None if there is no training list."""
        split = "train" if train else "test"
        read = self.read(folder, split)
        if read is None:
            return None
        found, images = read
        if is_main() and not self.lists[split].is_like(found):
            logger.warning("%s is %s", found.path, self.lists[split].describe(found))
        return images

    def read(self, folder: Path, split: str) -> tuple[ImageList, ImageSet] | None:
        """Read the list of a split, and find its images; None if there is no training list.

        Raises:
            FileNotFoundError: If another list, or all images, are missing.
            ValueError: If a list is damaged.
        """
        folders = search_folders(folder)
        train_list = find_list(folders, self.lists["train"])
        if train_list is None:
            return None
        official = self.lists[split]
        found = train_list if split == "train" else find_list(folders, official)
        if found is None:
            raise FileNotFoundError(
                f"{folder} holds {train_list.path.name} but not {official.file_name}; "
                "any clone of BCL, ProCo or PaCo has it"
            )
        class_names = self._class_names(train_list)
        files = locate(found, class_names, self.layouts, folders)
        if files is None:
            raise FileNotFoundError(
                f"none of the images that {found.path} names is below {folder}, where "
                f"{found.names[0]} or the folders above it should be"
            )
        images = EncodedImages(files, LARGE_IMAGE_SIZE, own_size=True)
        return found, ImageSet(images, found.targets, class_names, self.mean, self.std)

    def _class_names(self, train_list: ImageList) -> tuple[str, ...]:
        """Name each class after the folder of its first training image."""
        targets, first = np.unique(train_list.targets, return_index=True)
        names = [str(target) for target in range(targets[-1] + 1)]
        for target, row in zip(targets.tolist(), first.tolist(), strict=True):
            names[target] = self.class_name(train_list.names[row]) or names[target]
        return tuple(names)


def _folder_name(name: str) -> str:
    """``train/n01440764/x.JPEG`` to ``n01440764``, ``train_val2018/Aves/3054/x.jpg`` alike."""
    return "/".join(name.split("/")[1:-1])


def _place_name(name: str) -> str:
    """``data_256/a/arena/hockey/x.jpg`` or ``train/arena-hockey/x.jpg`` to ``arena/hockey``."""
    top, _, folder = name.rpartition("/")[0].partition("/")
    return folder.partition("/")[2] if top == "data_256" else folder.replace("-", "/")


def _as_listed(name: str, class_name: str) -> str:
    return name


def _flat_val(name: str, class_name: str) -> str:
    """ImageNet's validation images as its archive has them, in one folder."""
    return f"val/{_file_name(name)}" if name.startswith("val/") else name


def _original_places(name: str, class_name: str) -> str:
    """Places365's archives of images of 256x256 pixels."""
    if name.startswith(("val/", "val_256/")):
        return f"val_256/{_file_name(name)}"
    return f"data_256/{class_name[:1]}/{class_name}/{_file_name(name)}"


def _easy_places(name: str, class_name: str) -> str:
    """Places365's archive "easy directory structure"."""
    split = "val" if name.startswith(("val/", "val_256/")) else "train"
    return f"{split}/{class_name.replace('/', '-')}/{_file_name(name)}"


def _file_name(name: str) -> str:
    return name.rpartition("/")[2]


IMAGENET_LT = ListedDataset(
    lists={
        "train": OfficialList(
            "ImageNet_LT_train.txt", 115_846, ("a063f095fcd475db4cf8b0658c4b73955535bbf9",)
        ),
        "val": OfficialList(
            "ImageNet_LT_val.txt", 20_000, ("3ed3188b2f44829ce2dec1cc27040d8d40984088",)
        ),
        "test": OfficialList(
            "ImageNet_LT_test.txt", 50_000, ("76a2fb9749d6cd29e765cc4f8c270f2504131e2f",)
        ),
    },
    class_name=_folder_name,
    layouts=(_as_listed, _flat_val),
)
INATURALIST18 = ListedDataset(
    lists={
        "train": OfficialList(
            "iNaturalist18_train.txt", 437_513, ("4accdb7584d2f0a5106c40a33ed6afa392189bcc",)
        ),
        # Its test images have no public targets: all papers test on the validation images.
        "test": OfficialList(
            "iNaturalist18_val.txt", 24_426, ("4c23900857fd0f5adcd4cc0dffef345039eeb05f",)
        ),
    },
    class_name=_folder_name,
    layouts=(_as_listed,),
    mean=(0.466, 0.471, 0.380),
    std=(0.195, 0.194, 0.192),
)
PLACES_LT = ListedDataset(
    lists={
        "train": OfficialList(
            "Places_LT_train.txt",
            62_500,
            (
                "1d608b558c25c271da75c06f1e5e3625a4ebcb79",  # names the original archives
                "6392252f8ae867bc8a5e841cc1b29e5b8ef4b636",  # names the easy directories
            ),
        ),
        "val": OfficialList("Places_LT_val.txt", 7_300),
        # Differs: PaCo reports the accuracy on Places_LT_val.txt, the rest of the field on this.
        "test": OfficialList("Places_LT_test.txt", 36_500),
    },
    class_name=_place_name,
    layouts=(_as_listed, _original_places, _easy_places),
)
