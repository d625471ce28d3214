"""Miniature copies of the large data sets: real JPEG files, true folders, true lists.

The pictures are scikit-learn's digits, enlarged to shapes of 60 to 120 pixels and tinted; digit
``c`` is class ``c``. The training classes have a long tail. ``val`` lists name images that no
other list names, as in the originals, save iNaturalist's, whose only test list it is.
"""

from collections.abc import Callable, Iterator
from hashlib import md5
from itertools import count
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

NUM_CLASSES = 10
WORDNET_IDS = [f"n0{number}" for number in range(1440764, 1440774)]
PLACES = """
    airfield airplane_cabin airport_terminal alcove alley amphitheater amusement_park
    apartment_building/outdoor aquarium arena/hockey
"""
KINGDOMS = ("Plantae", "Insecta", "Aves")


class Split(NamedTuple):
    """One list: its file, how many images of each class it names, and what it calls them."""

    file_name: str
    counts: list[int]
    name_image: Callable[[int, int], str]
    """From the class and a number that no other image of the tree has."""


def build_tree(
    name: str,
    folder: Path,
    *,
    per_class: int = 20,
    test_per_class: int = 2,
    easy_places: bool = False,
) -> Path:
    """Write the lists of a data set, if it has any, and its images below ``folder``.

    Args:
        name: "imagenet_lt", "inaturalist18", "places_lt" or "imagenet".
        folder: Made if it does not exist.
        per_class: Training images of the largest class; the smallest has a tenth, at least one.
        test_per_class: Images of each class in the other lists.
        easy_places: Whether Places lies as in the "easy directory" archive, and its lists say so.

    Returns:
        The folder.
    """
    numbers = count(1)
    digits = load_digits()
    for split in _splits(name, per_class, test_per_class, easy_places):
        lines = []
        for target, number_of_images in enumerate(split.counts):
            of_class = np.flatnonzero(digits.target == target)
            for _ in range(number_of_images):
                number = next(numbers)
                path = split.name_image(target, number)
                lines.append(f"{path} {target}\n")
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                picture = _draw(digits.images[of_class[number % len(of_class)]], number)
                picture.save(folder / path, "JPEG", quality=90)
        if name != "imagenet":
            (folder / split.file_name).write_text("".join(lines))
    return folder


def _draw(digit: np.ndarray, number: int) -> Image.Image:
    """Enlarge one digit of 8x8 values up to 16 to a shape and a colour of its own."""
    generator = np.random.RandomState(number)
    size = tuple(generator.randint(60, 121, 2))
    grey = Image.fromarray(np.round(digit * (255 / 16)).astype(np.uint8))
    planes = np.asarray(grey.resize(size, Image.Resampling.BICUBIC), float)[..., None]
    tint = generator.uniform(0.5, 1, 3)
    return Image.fromarray((planes * tint).astype(np.uint8))


def _splits(name: str, per_class: int, test_per_class: int, easy: bool) -> Iterator[Split]:
    tail = [max(1, int(per_class * 0.1 ** (c / (NUM_CLASSES - 1)))) for c in range(NUM_CLASSES)]
    flat = [test_per_class] * NUM_CLASSES
    if name in ("imagenet_lt", "imagenet"):
        yield Split("ImageNet_LT_train.txt", tail, _imagenet_train)
        if name == "imagenet_lt":
            yield Split("ImageNet_LT_val.txt", flat, _imagenet_train)
        yield Split("ImageNet_LT_test.txt", flat, _imagenet_val)
    elif name == "inaturalist18":
        yield Split("iNaturalist18_train.txt", tail, _inaturalist)
        yield Split("iNaturalist18_val.txt", flat, _inaturalist)
    elif name == "places_lt":
        yield Split("Places_LT_train.txt", tail, _easy_train if easy else _places_train)
        yield Split("Places_LT_val.txt", flat, _easy_train if easy else _places_train)
        yield Split("Places_LT_test.txt", flat, _easy_val if easy else _places_val)
    else:
        raise ValueError(f"no tree of {name!r}")


def _imagenet_train(target: int, number: int) -> str:
    return f"train/{WORDNET_IDS[target]}/{WORDNET_IDS[target]}_{number}.JPEG"


def _imagenet_val(target: int, number: int) -> str:
    return f"val/{WORDNET_IDS[target]}/ILSVRC2012_val_{number:08d}.JPEG"


def _inaturalist(target: int, number: int) -> str:
    digest = md5(str(number).encode()).hexdigest()
    return f"train_val2018/{KINGDOMS[target % 3]}/{target}/{digest}.jpg"


def _places_train(target: int, number: int) -> str:
    return f"data_256/{_place(target)[0]}/{_place(target)}/{number:08d}.jpg"


def _places_val(target: int, number: int) -> str:
    return f"val_256/Places365_val_{number:08d}.jpg"


def _place(target: int) -> str:
    return PLACES.split()[target]


def _easy_train(target: int, number: int) -> str:
    return f"train/{_place(target).replace('/', '-')}/{number:08d}.jpg"


def _easy_val(target: int, number: int) -> str:
    return f"val/{_place(target).replace('/', '-')}/Places365_val_{number:08d}.jpg"
