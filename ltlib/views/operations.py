"""Operations on one PIL image that torchvision lacks or has otherwise.

All draw from torch, except RandAugment, which draws from ``random`` and NumPy.
"""

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple

import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps


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
        pair = CIFAR_POLICY[int(choice * len(CIFAR_POLICY))]
        for (name, probability, level), draw, sign in zip(pair, draws[:2], draws[2:], strict=True):
            if draw < probability:
                image = OPERATIONS[name](image, level, negative=sign < 0.5)
        return image


def rand_augment(
    size: int, num_operations: int = 2, magnitude: int = 10
) -> Callable[[Image.Image], Image.Image]:
    """Build RandAugment (Cubuk et al. 2019, arXiv:1909.13719) as the authors' code has it.

    timm's implementation, of which theirs is a copy: operations are drawn with replacement, each
    applied with probability 1/2 at a magnitude drawn around ``magnitude`` with deviation 0.5.

    Args:
        size: Side of the image in pixels; 0.45 of it is the longest shift.
        num_operations: Drawn for each image.
        magnitude: Out of 10. What is drawn is clipped, so 12 is the strongest.
    """
    from timm.data.auto_augment import rand_augment_transform  # half a second, for few views

    # Faithful: what turns or shifts uncover is ImageNet's mean colour, on iNaturalist as well.
    looks = {"translate_const": int(0.45 * size), "img_mean": (124, 116, 104)}
    return rand_augment_transform(f"rand-n{num_operations}-m{magnitude}-mstd0.5", looks)


class _Operation(NamedTuple):
    """An operation whose magnitude grows from ``start`` at level 0 to ``stop`` at level 9.

    The magnitude of a signed operation may be negated.
    """

    apply: Callable[[Image.Image, float], Image.Image]
    start: float = 0.0
    stop: float = 0.0
    is_signed: bool = False

    def magnitude(self, level: float) -> float:
        """Return the magnitude of a level, unsigned."""
        return self.start + level * (self.stop - self.start) / 9

    def __call__(self, image: Image.Image, level: int, *, negative: bool) -> Image.Image:
        magnitude = self.magnitude(level)
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


OPERATIONS = {
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
CIFAR_POLICY = (
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
