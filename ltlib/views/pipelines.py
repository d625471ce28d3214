"""The papers' augmentations by name, as PIL pipelines."""

from collections.abc import Callable
from functools import partial

from torchvision import transforms as T

from ltlib.views.operations import CifarAutoAugment, Cutout, GaussianBlur, rand_augment
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
    """The contrastive view of ProCo, and of BCL at 224 pixels: SimCLR's without blur."""
    return T.Compose([*_sim(pixel_format, 0.08), pixel_format.to_tensor])


def _sim_paco(pixel_format: PixelFormat) -> T.Compose:
    """The contrastive view of PaCo on CIFAR: less of a zoom, and blur."""
    return T.Compose([*_sim(pixel_format, 0.2), _blur(), pixel_format.to_tensor])


def _sim_paco_large(pixel_format: PixelFormat) -> T.Compose:
    """The contrastive view of PaCo at 224 pixels: no other hue, and flipped last."""
    crop = T.RandomResizedCrop(pixel_format.size)
    steps = [crop, _jitter(), T.RandomGrayscale(0.2), _blur(), T.RandomHorizontalFlip()]
    return T.Compose([*steps, pixel_format.to_tensor])


def _rand_bcl(pixel_format: PixelFormat) -> T.Compose:
    """The contrastive view ``rand`` of BCL and ProCo: their ``sim``, then RandAugment."""
    steps = [*_sim(pixel_format, 0.08), rand_augment(pixel_format.size)]
    return T.Compose([*steps, pixel_format.to_tensor])


def _randcls(pixel_format: PixelFormat, num_operations: int = 2) -> T.Compose:
    """The classifier's view of BCL and ProCo and the query's of PaCo, at 224 pixels."""
    steps = [*_zoom_and_flip(pixel_format), _jitter()]
    steps.append(rand_augment(pixel_format.size, num_operations))
    return T.Compose([*steps, pixel_format.to_tensor])


def _randclsstack(
    pixel_format: PixelFormat, num_operations: int = 2, magnitude: int = 10
) -> T.Compose:
    """The query's view of PaCo's larger networks and the second of GPaCo's: grey and blurred."""
    steps = [*_zoom_and_flip(pixel_format), _jitter(), T.RandomGrayscale(0.2), _blur()]
    steps.append(rand_augment(pixel_format.size, num_operations, magnitude))
    return T.Compose([*steps, pixel_format.to_tensor])


def _zoom_and_flip(pixel_format: PixelFormat, smallest_crop: float = 0.08) -> list[Callable]:
    crop = T.RandomResizedCrop(pixel_format.size, scale=(smallest_crop, 1.0))
    return [crop, T.RandomHorizontalFlip()]


def _jitter() -> Callable:
    # As in the authors' code: at probability 1 it still draws whether to apply.
    return T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.0)], p=1.0)


def _blur() -> Callable:
    return T.RandomApply([GaussianBlur()], p=0.5)


def _sim(pixel_format: PixelFormat, smallest_crop: float) -> list[Callable]:
    return [
        *_zoom_and_flip(pixel_format, smallest_crop),
        T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8),
        T.RandomGrayscale(0.2),
    ]


def _digits(pixel_format: PixelFormat) -> T.Compose:
    """Small turns, shifts and zooms; no flip, since a mirrored digit is another character."""
    bilinear = T.InterpolationMode.BILINEAR
    shake = T.RandomAffine(10, (0.1, 0.1), (0.9, 1.1), interpolation=bilinear)
    return T.Compose([shake, pixel_format.to_tensor])


def _test(pixel_format: PixelFormat) -> T.Compose:
    """The image as the data set gives it: those of 224 pixels come scaled and cropped."""
    return T.Compose([pixel_format.to_tensor])


VIEWS: dict[str, Callable[[PixelFormat], T.Compose]] = {
    "cifar_autoaugment": _cifar_autoaugment,
    "sim_proco": _sim_proco,
    "sim_paco": _sim_paco,
    "randcls": _randcls,
    "randcls_n3": partial(_randcls, num_operations=3),
    "randcls_n5": partial(_randcls, num_operations=5),
    "randclsstack": _randclsstack,
    "randclsstack_n3": partial(_randclsstack, num_operations=3),
    "randclsstack_n3_m12": partial(_randclsstack, num_operations=3, magnitude=12),
    "randclsstack_n5": partial(_randclsstack, num_operations=5),
    "rand_bcl": _rand_bcl,
    "sim_paco_large": _sim_paco_large,
    "flip_crop": _flip_crop,
    "digits": _digits,
    "test": _test,
}
