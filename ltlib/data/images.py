"""Images with their targets, in memory or decoded on access."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from ltlib.views import PixelFormat


class EncodedImages:
    """A sequence of image files, or of their bytes, decoded to (H, W, 3) uint8 on access.

    Args:
        sources: Paths, or contents of files.
        size: Height and width; other shapes are scaled to cover the square, then cropped to its
            centre.
    """

    def __init__(self, sources: Sequence[Path | bytes], size: int) -> None:
        self.sources = sources
        self.size = size

    def __len__(self) -> int:
        return len(self.sources)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that ``decoded`` returns."""
        return len(self), self.size, self.size, 3

    def __getitem__(self, index: int) -> np.ndarray:
        source = self.sources[index]
        try:
            with Image.open(io.BytesIO(source) if isinstance(source, bytes) else source) as image:
                return np.asarray(_square(image, self.size))
        except (UnidentifiedImageError, OSError) as error:
            name = f"image {index}" if isinstance(source, bytes) else source
            raise ValueError(f"{name} cannot be decoded: {error}") from None

    def take(self, indices: np.ndarray) -> "EncodedImages":
        """Return the chosen images, still encoded."""
        return EncodedImages([self.sources[index] for index in indices], self.size)

    def decoded(self) -> np.ndarray:
        """Decode everything to one array (N, H, W, 3)."""
        # Threads gain nothing: decoding small images mostly holds the interpreter's lock.
        return np.stack([self[index] for index in range(len(self))])


def _square(image: Image.Image, size: int) -> Image.Image:
    if image.size != (size, size):
        # A JPEG file can be decoded at a fraction of its size; others are left alone.
        image.draft("RGB", (size, size))
        return ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
    return image.convert("RGB")


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images, the class of each, and what a network must know about their pixels.

    Args:
        images: (N, H, W, 3) uint8, in memory or decoded on access.
        targets: (N,) int64 in [0, C).
        class_names: C of them.
        mean: Of each channel, on a scale of 0 to 1.
        std: Of each channel, on the same scale.

    Raises:
        ValueError: If the numbers of images and targets differ or a target is out of range.
    """

    images: np.ndarray | EncodedImages
    targets: np.ndarray
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        if len(self.images) != len(self.targets):
            raise ValueError(f"{len(self.images)} images have {len(self.targets)} targets")
        outside = (self.targets < 0) | (self.targets >= len(self.class_names))
        if outside.any():
            raise ValueError(
                f"target {self.targets[outside][0]} of image {outside.argmax()} is outside "
                f"the {len(self.class_names)} classes"
            )

    def __len__(self) -> int:
        return len(self.targets)

    @property
    def class_counts(self) -> np.ndarray:
        """Images of each class, (C,), int64."""
        return np.bincount(self.targets, minlength=len(self.class_names))

    @property
    def pixel_format(self) -> PixelFormat:
        """What the views need."""
        return PixelFormat(self.images.shape[1], self.mean, self.std)

    def take(self, indices: np.ndarray) -> "ImageSet":
        """Return the chosen images, in the order of ``indices``."""
        images = self.images
        chosen = images.take(indices) if isinstance(images, EncodedImages) else images[indices]
        return replace(self, images=chosen, targets=self.targets[indices])

    def decoded(self) -> "ImageSet":
        """Return the same images as one array."""
        images = self.images
        return replace(self, images=images.decoded()) if isinstance(images, EncodedImages) else self
