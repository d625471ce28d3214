"""Data sets that fit in memory: digits, CIFAR and Fashion-MNIST."""

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision import datasets
from torchvision.datasets.utils import check_integrity

from ltlib.data.files import find_parquet, read_idx, read_parquet
from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.longtail import long_tailed_indices
from ltlib.data.sources import InMemory

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

_DIGITS_TEST_IMAGES = 40
"""Held out per class, of about 180."""

ORIGINALS: dict[str, type[datasets.CIFAR10]] = {
    "cifar10": datasets.CIFAR10,
    "cifar100": datasets.CIFAR100,
}


def digits(folder: Path, train: bool) -> ImageSet:
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


def cifar(
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
        images = EncodedImages(InMemory(contents), 32)
    else:
        return None
    return ImageSet(images, targets, tuple(class_names.split()), _CIFAR_MEAN, _CIFAR_STD)


def _cifar_originals(folder: Path, train: bool, name: str) -> datasets.CIFAR10 | None:
    original = ORIGINALS[name]
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


def fashion_mnist(folder: Path, train: bool) -> ImageSet | None:
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
