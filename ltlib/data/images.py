"""Images with their targets, in memory or decoded on access."""

import io
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageOps
from torchvision.transforms.functional import center_crop, resize

from ltlib.data.sources import Sources
from ltlib.views import PixelFormat


class ImageError(ValueError):
    """An image is missing or cannot be decoded; its file is named."""

    def __init__(self, message: str) -> None:
        # torch raises a worker's error anew with a message that ends in the worker's traceback.
        super().__init__(message.strip().rpartition(f"{type(self).__name__}: ")[2])


class EncodedImages:
    """A sequence of encoded images, decoded on access.

    Whatever PIL reads becomes RGB by its ``convert``: grey, palette, 16 bits, RGBA, CMYK. The
    content decides the format, not the name of the file.

    Args:
        sources: The encoded images.
        size: Height and width in pixels of what a network sees.
        own_size: Whether training views start from images of their own shape; otherwise from
            squares, to which other shapes are scaled to cover them and cropped to their centre.
        rows: Which sources, in which order; all by default.
    """

    def __init__(
        self,
        sources: Sources,
        size: int,
        *,
        own_size: bool = False,
        rows: np.ndarray | None = None,
    ) -> None:
        self.sources, self.size, self.own_size = sources, size, own_size
        self.rows = np.arange(len(sources)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of the array that ``decoded`` returns."""
        return len(self), self.size, self.size, 3

    def __getitem__(self, index: int) -> np.ndarray:
        """Decode one image as a test shows it, (size, size, 3) uint8."""
        picture = self.picture(index)
        if self.own_size:
            # 224 of 256 pixels, the test view of all the papers.
            picture = center_crop(resize(picture, self.size * 8 // 7), [self.size, self.size])
        return np.asarray(picture)

    def picture(self, index: int) -> Image.Image:
        """Decode one image to RGB, from which all training views of a sample start.

        Raises:
            ImageError: If it is missing or cannot be decoded.
        """
        row = self.rows[index]
        try:
            content = self.sources.read(row)
            if not content:
                raise ValueError("it is empty")
            with Image.open(io.BytesIO(content)) as image:
                # Faithful: orientation in EXIF is ignored, as by the authors' convert("RGB").
                return image.convert("RGB") if self.own_size else _square(image, self.size)
        except FileNotFoundError:
            raise ImageError(
                f"{self.sources.name(row)} is missing; `ltlib data check` names all that are"
            ) from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            name = self.sources.name(row)
            reason = str(error).split(" <_io.")[0]  # PIL shows the address of the buffer
            raise ImageError(f"{name} cannot be decoded: {reason}") from None

    def take(self, indices: np.ndarray) -> "EncodedImages":
        """Return the chosen images, still encoded."""
        rows = self.rows[indices]
        return EncodedImages(self.sources, self.size, own_size=self.own_size, rows=rows)

    def decoded(self) -> np.ndarray:
        """Decode everything to one array (N, size, size, 3)."""
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

    def picture(self, index: int) -> Image.Image:
        """Return one image as RGB, from which all training views of a sample start."""
        images = self.images
        if isinstance(images, EncodedImages):
            return images.picture(index)
        return Image.fromarray(images[index])

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
