"""Data sets by name: where their files are looked for, and how they become an ``ImageSet``.

Folders searched, in this order: ``root``, the one named by the environment variable
``LTLIB_DATA``, ``./data``, and that of Debian's data packages.
"""

import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits
from torchvision import datasets as torchvision_datasets
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset
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
"""Pixels to which ``image_folder`` scales and crops, since the CIFAR backbones are made for it."""

_DEBIAN_DATASETS = Path("/usr/share/datasets")
_DIGITS_TEST_IMAGES = 40
"""Held out per class, of about 180."""


def load_dataset(
    config: DataConfig, root: Path | None = None, train: bool = True, *, download: bool = False
) -> ImageSet:
    """Read the training images, cut to the long tail, or all test images.

    Args:
        config: Which data set, how long its tail.
        root: Folder searched first.
        train: Whether to read the training images.
        download: Whether a data set that is not found may be downloaded to the first folder.

    Returns:
        The images, in memory unless they are files of an ``image_folder``.

    Raises:
        FileNotFoundError: If the files are not there.
        ValueError: If a file is damaged, the name unknown, or the tail leaves a class empty.
    """
    name = config.dataset
    if name not in DATASETS:
        raise ValueError(f"unknown data set {name!r}; choose from {', '.join(DATASETS)}")
    folders = _search_path(root)
    found = _find(name, folders, train)
    if found is None and download and name in _DOWNLOADS:
        _DOWNLOADS[name](folders[0], download=True)
        found = _find(name, folders, train)
    if found is None:
        remedy = " or download it (download=True)" if name in _DOWNLOADS else ""
        raise FileNotFoundError(
            f"data set {name!r} is in none of {', '.join(map(str, folders))}; "
            f"put it there, name its folder in LTLIB_DATA{remedy}"
        )
    if train:
        found = _cut(found, config)
    if isinstance(found.images, EncodedImages) and found.images.in_memory:
        found = found.decoded()
    return found


def _search_path(root: Path | None) -> list[Path]:
    named = os.environ.get("LTLIB_DATA")
    folders = [root, Path(named) if named else None, Path("data"), _DEBIAN_DATASETS]
    return list(dict.fromkeys(Path(folder) for folder in folders if folder))


def _find(name: str, folders: list[Path], train: bool) -> ImageSet | None:
    for folder in folders:
        found = DATASETS[name](folder, train)
        if found is not None:
            return found
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
    """scikit-learn's 1,797 handwritten digits of 8x8 pixels, enlarged; no file is needed."""
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
    original = _ORIGINALS[name]
    for place in (folder, folder / name):
        if (place / original.base_folder).is_dir():
            _check_md5(place / original.base_folder, original)
            with warnings.catch_warnings():
                # The pickles are older than NumPy's idea of a boolean.
                warnings.simplefilter("ignore")
                source = original(place, train)
            images: np.ndarray | EncodedImages = np.ascontiguousarray(source.data)
            targets = np.array(source.targets, dtype=np.int64)
            break
    else:
        shards = find_parquet(folder, name, "train" if train else "test")
        if not shards:
            return None
        contents, targets = read_parquet(shards, "img", column)
        images = EncodedImages(contents, 32)
    return ImageSet(images, targets, tuple(class_names.split()), _CIFAR_MEAN, _CIFAR_STD)


def _check_md5(folder: Path, original: type[torchvision_datasets.CIFAR10]) -> None:
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
        prefix = place / ("train" if train else "t10k")
        images = read_idx(prefix.with_name(prefix.name + "-images-idx3-ubyte"))
        targets = read_idx(prefix.with_name(prefix.name + "-labels-idx1-ubyte"))
        if images is not None and targets is not None:
            break
    else:
        return None
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    class_names = tuple(torchvision_datasets.FashionMNIST.classes)
    colour = np.repeat(padded[..., None], 3, axis=-1)
    return ImageSet(colour, targets.astype(np.int64), class_names, (0.2190,) * 3, (0.3318,) * 3)


def _image_folder(folder: Path, train: bool) -> ImageSet | None:
    """Anybody's images: ``train/<class>/*`` and ``test/<class>/*`` or ``val/<class>/*``."""
    if not (folder / "train").is_dir():
        return None
    class_names, index_of = find_classes(folder / "train")
    splits = [folder / name for name in (["train"] if train else ["test", "val"])]
    split = next((path for path in splits if path.is_dir()), None)
    if split is None:
        raise FileNotFoundError(f"{folder} has a folder train, but neither test nor val")
    strangers = set(find_classes(split)[0]) - set(class_names)
    if strangers:
        raise ValueError(f"{split} has a class that train lacks: {min(strangers)}")
    samples = make_dataset(split, index_of, IMG_EXTENSIONS, allow_empty=True)
    images = EncodedImages([Path(path) for path, _ in samples], FOLDER_IMAGE_SIZE)
    targets = np.array([target for _, target in samples], dtype=np.int64)
    return ImageSet(images, targets, tuple(class_names), _IMAGENET_MEAN, _IMAGENET_STD)


_ORIGINALS: dict[str, type[torchvision_datasets.CIFAR10]] = {
    "cifar10": torchvision_datasets.CIFAR10,
    "cifar100": torchvision_datasets.CIFAR100,
}
_DOWNLOADS = {
    **_ORIGINALS,
    "fashion_mnist": torchvision_datasets.FashionMNIST,
}

# A reader takes a folder and whether to read the training images; None if they are not there.
DATASETS: dict[str, Callable[[Path, bool], ImageSet | None]] = {
    "digits": _digits,
    "cifar10": partial(_cifar, name="cifar10", column="label", class_names=CIFAR10_CLASSES),
    "cifar100": partial(_cifar, name="cifar100", column="fine_label", class_names=CIFAR100_CLASSES),
    "fashion_mnist": _fashion_mnist,
    "image_folder": _image_folder,
}
