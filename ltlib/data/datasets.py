"""Data sets by name: where their files are, and how they become an ``ImageSet``.

Files are looked for under ``root`` alone if it is given; else under the folder that the
environment variable ``LTLIB_DATA`` names, ``./data``, and that of Debian's data packages.
"""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, make_dataset
from torchvision.datasets.utils import check_integrity

from ltlib.config import DataConfig
from ltlib.data.files import find_parquet, read_idx, read_parquet
from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.longtail import long_tailed_counts, long_tailed_indices

CIFAR10_CLASSES = "airplane automobile bird cat deer dog frog horse ship truck"
CIFAR100_CLASSES = """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
    butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
    crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
    keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse
    mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy
    porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper
    snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television
    tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
"""

# Faithful: the authors normalise CIFAR-100 with the statistics of CIFAR-10.
_CIFAR_MEAN, _CIFAR_STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

FOLDER_IMAGE_SIZE = 32
"""Side in pixels to which ``image_folder`` scales and crops: that of the other data sets."""

_DEBIAN_DATASETS = Path("/usr/share/datasets")
_DIGITS_TEST_IMAGES = 40
"""Held out per class, of about 180."""


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
        The images, in memory unless they are the files of an ``image_folder``.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is damaged, the name unknown, or the tail leaves a class empty.
    """
    name = config.dataset
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    folders = _folders(root)
    full = _read_first(name, folders, train)
    if full is None and download and name in _DOWNLOADS:
        _DOWNLOADS[name](folders[0], download=True)
        full = _read_first(name, folders, train)
    if full is None:
        searched = " or ".join(str(folder.absolute()) for folder in folders)
        remedy = ", or allow its download" if name in _DOWNLOADS else ""
        raise FileNotFoundError(
            f"data set {name!r} is not in {searched}; put its files there, or name their folder "
            f"by the data root or the variable LTLIB_DATA{remedy}"
        )
    chosen = _cut(full, config) if train else full
    return chosen if name == "image_folder" else chosen.decoded()


def _folders(root: Path | None) -> list[Path]:
    if root is not None:
        return [Path(root)]
    named = os.environ.get("LTLIB_DATA")
    return [*([Path(named)] if named else []), Path("data"), _DEBIAN_DATASETS]


def _read_first(name: str, folders: list[Path], train: bool) -> ImageSet | None:
    for folder in folders:
        full = DATASETS[name](folder, train)
        if full is not None:
            return full
    return None


def _cut(full: ImageSet, config: DataConfig) -> ImageSet:
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


def _digits(folder: Path, train: bool) -> ImageSet:
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged; needs no files."""
    from sklearn.datasets import load_digits  # takes a second, for the smallest data set only

    pixels, targets = load_digits(return_X_y=True)
    grey = np.round(pixels.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
    enlarged = [Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in grey]
    images = np.stack([np.asarray(image.convert("RGB")) for image in enlarged])
    everything = ImageSet(
        images, targets.astype(np.int64), tuple("0123456789"), (0.3092,) * 3, (0.3488,) * 3
    )
    held_out = np.full(10, _DIGITS_TEST_IMAGES)
    test = long_tailed_indices(targets, held_out, split_seed=0)
    return everything.take(np.delete(np.arange(len(targets)), test) if train else np.sort(test))


def _cifar(
    folder: Path, train: bool, *, name: str, column: str, class_names: str
) -> ImageSet | None:
    """CIFAR from the original pickles, else from Hugging Face's parquet files.

    Only the originals hold the images in the order that makes our long tail the authors' own:
    parquet files may be sorted otherwise.
    """
    images: np.ndarray | EncodedImages
    if source := _cifar_originals(folder, train, name):
        images, targets = np.ascontiguousarray(source.data), np.array(source.targets, np.int64)
    elif shards := find_parquet(folder, name, "train" if train else "test"):
        contents, targets = read_parquet(shards, "img", column)
        images = EncodedImages(contents, 32)
    else:
        return None
    return ImageSet(images, targets, tuple(class_names.split()), _CIFAR_MEAN, _CIFAR_STD)


def _cifar_originals(folder: Path, train: bool, name: str) -> datasets.CIFAR10 | None:
    original = _ORIGINALS[name]
    for place in (folder, folder / name):
        if (place / original.base_folder).is_dir():
            _check_md5(place / original.base_folder, original)
            return original(place, train)
    return None


def _check_md5(folder: Path, original: type[datasets.CIFAR10]) -> None:
    listed = [*original.train_list, *original.test_list]
    for file_name, md5 in [*listed, (original.meta["filename"], original.meta["md5"])]:
        path = folder / file_name
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing; unpack the archive again")
        if not check_integrity(path, md5):
            raise ValueError(f"{path} is damaged (its MD5 is not {md5}); unpack the archive again")


def _fashion_mnist(folder: Path, train: bool) -> ImageSet | None:
    """Fashion-MNIST (Xiao et al. 2017, arXiv:1708.07747), padded from 28 to 32 pixels."""
    for place in (folder / "FashionMNIST" / "raw", folder / "fashion-mnist"):
        if place.is_dir():
            part = "train" if train else "t10k"
            grey = np.pad(read_idx(place / f"{part}-images-idx3-ubyte"), ((0, 0), (2, 2), (2, 2)))
            images = np.repeat(grey[..., None], 3, axis=-1)
            targets = read_idx(place / f"{part}-labels-idx1-ubyte").astype(np.int64)
            class_names = tuple(datasets.FashionMNIST.classes)
            return ImageSet(images, targets, class_names, (0.2190,) * 3, (0.3318,) * 3)
    return None


def _image_folder(folder: Path, train: bool) -> ImageSet | None:
    """Anybody's images: ``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``."""
    if not (folder / "train").is_dir():
        return None
    class_names = _class_folders(folder / "train")
    splits = [folder / name for name in (["train"] if train else ["test", "val"])]
    split = next((path for path in splits if path.is_dir()), None)
    if split is None:
        raise FileNotFoundError(f"{folder} holds train, but neither test nor val")
    if strangers := set(_class_folders(split)).difference(class_names):
        raise ValueError(f"{split} holds a class that train lacks: {min(strangers)}")
    index_of = {name: index for index, name in enumerate(class_names)}
    samples = make_dataset(split, index_of, IMG_EXTENSIONS, allow_empty=True) if index_of else []
    if not samples:
        raise FileNotFoundError(f"{split} holds no image in a folder per class")
    images = EncodedImages([Path(path) for path, _ in samples], FOLDER_IMAGE_SIZE)
    targets = np.array([target for _, target in samples], dtype=np.int64)
    return ImageSet(images, targets, class_names, _IMAGENET_MEAN, _IMAGENET_STD)


def _class_folders(split: Path) -> tuple[str, ...]:
    # Jupyter leaves .ipynb_checkpoints beside what it opened.
    folders = [path for path in split.iterdir() if path.is_dir() and path.name[0] != "."]
    return tuple(sorted(path.name for path in folders))


_ORIGINALS: dict[str, type[datasets.CIFAR10]] = {
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}
_DOWNLOADS = {
    **_ORIGINALS,
    "fashion_mnist": datasets.FashionMNIST,
}

# A reader takes a folder and whether to read the training images; None if they are not there.
DATASETS: dict[str, Callable[[Path, bool], ImageSet | None]] = {
    "digits": _digits,
    "cifar10": partial(_cifar, name="cifar10", column="label", class_names=CIFAR10_CLASSES),
    "cifar100": partial(_cifar, name="cifar100", column="fine_label", class_names=CIFAR100_CLASSES),
    "fashion_mnist": _fashion_mnist,
    "image_folder": _image_folder,
}
