"""The papers' augmentations by name, and ``MultiView``: one image to several views.

A view is a torchvision PIL pipeline from an RGB image to a normalised tensor (3, H, W). All of
them draw from torch's generator; ``MultiView`` seeds it so that a view is a pure function of
(seed, epoch, sample index, view index).

Sources: ``ProCo_cifar/main.py`` and ``ProCo_cifar/autoaug.py`` of LeapLabTHU/ProCo,
``LT/paco_cifar.py`` and ``LT/moco/loader.py`` of dvlab-research/Parametric-Contrastive-Learning;
AutoAugment is Cubuk et al. 2019 (arXiv:1805.09501), Cutout DeVries and Taylor 2017
(arXiv:1708.04552).
"""

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torch import Tensor
from torchvision import transforms as T


@dataclass(frozen=True)
class PixelFormat:
    """How the images of a data set enter a network.

    Args:
        size: Height and width in pixels.
        mean: Of each channel, on a scale of 0 to 1.
        std: Of each channel, on the same scale.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def to_tensor(self, pixels: Image.Image | np.ndarray) -> Tensor:
        """Normalise one RGB image, or bytes (..., H, W, 3), to float32 (..., 3, H, W).

        Equal to torchvision's ``ToTensor`` and ``Normalize``, which take a quarter of the time of
        a whole view.
        """
        planes = np.moveaxis(np.asarray(pixels), -1, -3).astype(np.float32, order="C")
        planes /= 255
        planes -= np.array(self.mean, np.float32)[:, None, None]
        planes /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(planes)


class MultiView:
    """Turn one image into V views, reproducibly.

    Args:
        names: Keys of ``VIEWS``, one per view.
        pixel_format: Size, mean and standard deviation of the data set.
        seed: Of the training.

    Raises:
        ValueError: If a name is unknown.
    """

    def __init__(self, names: Sequence[str], pixel_format: PixelFormat, seed: int) -> None:
        self.views = [build_view(name, pixel_format) for name in names]
        self.seed = seed

    def __call__(self, image: Image.Image, epoch: int, index: int) -> list[Tensor]:
        """Return V tensors (3, H, W) that depend on nothing but the image and the three numbers.

        Args:
            image: RGB.
            epoch: Counts from 0.
            index: Of the sample in its data set.
        """
        with preserved_rng():
            return self.draw(image, epoch, index)

    def draw(self, image: Image.Image, epoch: int, index: int) -> list[Tensor]:
        """Do the same but leave the global generators seeded, for loops that preserve them once."""
        views = []
        for number, view in enumerate(self.views):
            _seed_rng(derive_seed(self.seed, epoch, index, number))
            views.append(view(image))
        return views


def build_view(name: str, pixel_format: PixelFormat) -> T.Compose:
    """Build one view from RGB image to tensor (3, H, W).

    Raises:
        ValueError: If the name is not a key of ``VIEWS``.
    """
    if name not in VIEWS:
        raise ValueError(f"unknown view {name!r}; choose from {', '.join(VIEWS)}")
    return VIEWS[name](pixel_format)


def derive_seed(*parts: int) -> int:
    """Hash integers to a seed in [0, 2**32), the same on every machine and Python."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=4).digest(), "little")


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Leave the caller's global generators as they were (0.1 ms, nearly all of it NumPy's)."""
    states = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.default_generator.set_state(states[2])


def _seed_rng(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed would reseed every GPU as well.
    torch.default_generator.manual_seed(seed)


class Cutout:
    """Blacken one square whose centre is anywhere in the image.

    Args:
        length: Side of the square in pixels; parts beyond the border are lost.
    """

    def __init__(self, length: int) -> None:
        self.length = length

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return a copy with the square set to 0."""
        left = int(torch.randint(image.width, ())) - self.length // 2
        top = int(torch.randint(image.height, ())) - self.length // 2
        image = image.copy()
        image.paste((0, 0, 0), (left, top, left + self.length, top + self.length))
        return image


class GaussianBlur:
    """Blur with a radius drawn from a range, as SimCLR (Chen et al. 2020, arXiv:2002.05709).

    Args:
        smallest: Standard deviation in pixels.
        largest: Standard deviation in pixels.
    """

    def __init__(self, smallest: float = 0.1, largest: float = 2.0) -> None:
        self.smallest, self.largest = smallest, largest

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the blurred image."""
        radius = float(torch.empty(()).uniform_(self.smallest, self.largest))
        return image.filter(ImageFilter.GaussianBlur(radius))


class CifarAutoAugment:
    """Apply one of AutoAugment's 25 pairs of operations for CIFAR-10, each with its probability."""

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the image after none, one or both operations of a random pair."""
        choice, *draws = torch.rand(5).tolist()
        pair = _CIFAR_POLICY[int(choice * len(_CIFAR_POLICY))]
        for (name, probability, level), draw, sign in zip(pair, draws[:2], draws[2:], strict=True):
            if draw < probability:
                image = _OPERATIONS[name](image, level, negative=sign < 0.5)
        return image


class _Operation(NamedTuple):
    """An operation whose magnitude grows from ``start`` at level 0 to ``stop`` at level 9.

    The magnitude of a signed operation may be negated.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    start: float = 0.0
    stop: float = 0.0
    is_signed: bool = False

    def __call__(self, image: Image.Image, level: int, *, negative: bool) -> Image.Image:
        magnitude = self.start + level * (self.stop - self.start) / 9
        return self.apply(image, -magnitude if self.is_signed and negative else magnitude)


_GREY = (128, 128, 128)
_AFFINE, _BICUBIC = Image.Transform.AFFINE, Image.Resampling.BICUBIC


def _shear_y(image: Image.Image, magnitude: float) -> Image.Image:
    matrix = (1, 0, 0, magnitude, 1, 0)
    return image.transform(image.size, _AFFINE, matrix, _BICUBIC, fillcolor=_GREY)


def _translate(image: Image.Image, right: float, down: float) -> Image.Image:
    matrix = (1, 0, right * image.width, 0, 1, down * image.height)
    return image.transform(image.size, _AFFINE, matrix, fillcolor=_GREY)


def _enhance(kind: Callable[[Image.Image], Any]) -> _Operation:
    return _Operation(lambda image, m: kind(image).enhance(1 + m), 0, 0.9, is_signed=True)


_OPERATIONS = {
    "shear_y": _Operation(_shear_y, 0, 0.3, is_signed=True),
    "translate_x": _Operation(lambda image, m: _translate(image, m, 0), 0, 150 / 331, True),
    "translate_y": _Operation(lambda image, m: _translate(image, 0, m), 0, 150 / 331, True),
    # Faithful: the authors always turn the same way.
    "rotate": _Operation(lambda image, m: image.rotate(m, fillcolor=_GREY), 0, 30),
    "color": _enhance(ImageEnhance.Color),
    "contrast": _enhance(ImageEnhance.Contrast),
    "sharpness": _enhance(ImageEnhance.Sharpness),
    "brightness": _enhance(ImageEnhance.Brightness),
    "posterize": _Operation(lambda image, m: ImageOps.posterize(image, round(m)), 8, 4),
    "solarize": _Operation(lambda image, m: ImageOps.solarize(image, ceil(m)), 256, 0),
    "autocontrast": _Operation(lambda image, m: ImageOps.autocontrast(image)),
    "equalize": _Operation(lambda image, m: ImageOps.equalize(image)),
    "invert": _Operation(lambda image, m: ImageOps.invert(image)),
}

# Operation, probability, level: the CIFAR-10 policy of AutoAugment, as the authors use it for
# CIFAR-100 as well.
_CIFAR_POLICY = (
    (("invert", 0.1, 7), ("contrast", 0.2, 6)),
    (("rotate", 0.7, 2), ("translate_x", 0.3, 9)),
    (("sharpness", 0.8, 1), ("sharpness", 0.9, 3)),
    (("shear_y", 0.5, 8), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.5, 8), ("equalize", 0.9, 2)),
    (("shear_y", 0.2, 7), ("posterize", 0.3, 7)),
    (("color", 0.4, 3), ("brightness", 0.6, 7)),
    (("sharpness", 0.3, 9), ("brightness", 0.7, 9)),
    (("equalize", 0.6, 5), ("equalize", 0.5, 1)),
    (("contrast", 0.6, 7), ("sharpness", 0.6, 5)),
    (("color", 0.7, 7), ("translate_x", 0.5, 8)),
    (("equalize", 0.3, 7), ("autocontrast", 0.4, 8)),
    (("translate_y", 0.4, 3), ("sharpness", 0.2, 6)),
    (("brightness", 0.9, 6), ("color", 0.2, 8)),
    (("solarize", 0.5, 2), ("invert", 0.0, 3)),
    (("equalize", 0.2, 0), ("autocontrast", 0.6, 0)),
    (("equalize", 0.2, 8), ("equalize", 0.6, 4)),
    (("color", 0.9, 9), ("equalize", 0.6, 6)),
    (("autocontrast", 0.8, 4), ("solarize", 0.2, 8)),
    (("brightness", 0.1, 3), ("color", 0.7, 0)),
    (("solarize", 0.4, 5), ("autocontrast", 0.9, 3)),
    (("translate_y", 0.9, 9), ("translate_y", 0.7, 9)),
    (("autocontrast", 0.9, 2), ("solarize", 0.8, 3)),
    (("equalize", 0.8, 8), ("invert", 0.1, 3)),
    (("translate_y", 0.7, 9), ("autocontrast", 0.9, 1)),
)


def _cifar_autoaugment(pixel_format: PixelFormat) -> T.Compose:
    """The classifier's view in ProCo and the query's in PaCo: AutoAugment and Cutout."""
    # The hole is cut before normalisation: it is black, not the mean.
    steps = [*_crop_and_flip(pixel_format), CifarAutoAugment(), Cutout(pixel_format.size // 2)]
    return T.Compose([*steps, pixel_format.to_tensor])


def _flip_crop(pixel_format: PixelFormat) -> T.Compose:
    """The baselines' view (He et al. 2016, arXiv:1512.03385): crop and flip only."""
    return T.Compose([*_crop_and_flip(pixel_format), pixel_format.to_tensor])


def _crop_and_flip(pixel_format: PixelFormat) -> list[Callable]:
    size = pixel_format.size
    return [T.RandomCrop(size, padding=size // 8), T.RandomHorizontalFlip()]


def _sim_proco(pixel_format: PixelFormat) -> T.Compose:
    """The contrastive view of ProCo: SimCLR's without blur."""
    return T.Compose([*_sim(pixel_format, 0.08), pixel_format.to_tensor])


def _sim_paco(pixel_format: PixelFormat) -> T.Compose:
    """The contrastive view of PaCo: less of a zoom, and blur."""
    blur = T.RandomApply([GaussianBlur()], p=0.5)
    return T.Compose([*_sim(pixel_format, 0.2), blur, pixel_format.to_tensor])


def _sim(pixel_format: PixelFormat, smallest_crop: float) -> list[Callable]:
    return [
        T.RandomResizedCrop(pixel_format.size, scale=(smallest_crop, 1.0)),
        T.RandomHorizontalFlip(),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
    ]


def _digits(pixel_format: PixelFormat) -> T.Compose:
    """Small turns, shifts and zooms; no flip, since a mirrored digit is another character."""
    bilinear = T.InterpolationMode.BILINEAR
    shake = T.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=bilinear)
    return T.Compose([shake, pixel_format.to_tensor])


def _test(pixel_format: PixelFormat) -> T.Compose:
    """The image as it is."""
    return T.Compose([pixel_format.to_tensor])


VIEWS: dict[str, Callable[[PixelFormat], T.Compose]] = {
    "cifar_autoaugment": _cifar_autoaugment,
    "sim_proco": _sim_proco,
    "sim_paco": _sim_paco,
    "flip_crop": _flip_crop,
    "digits": _digits,
    "test": _test,
}
