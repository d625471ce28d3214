"""The papers' augmentations by name, as PIL pipelines."""

from collections.abc import Callable

from torchvision import transforms as T

from ltlib.views.operations import CifarAutoAugment, Cutout, GaussianBlur
from ltlib.views.pixels import PixelFormat


def build_view(name: str, pixel_format: PixelFormat) -> T.Compose:
    """Build one view from RGB image to tensor (3, H, W).

    Raises:
        ValueError: If the name is not a key of ``VIEWS``.
    """
    if name not in VIEWS:
        raise ValueError(f"unknown view {name!r}; choose from {', '.join(VIEWS)}")
    return VIEWS[name](pixel_format)


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
