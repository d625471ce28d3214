"""The batch's operations against PIL's, image by image, level by level."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ltlib.views import operations, tensors

SIZE, BATCH = 32, 48


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """Noise, smooth images, a narrow range of levels, one flat channel and flat images."""
    generator = np.random.default_rng(0)
    noise = generator.integers(256, size=(BATCH, SIZE, SIZE, 3))
    row, column = np.mgrid[0:SIZE, 0:SIZE]
    smooth = np.stack([row * 8, column * 8, (row + column) * 4], axis=-1)
    images = np.where(np.arange(BATCH)[:, None, None, None] % 2, noise, smooth)
    images[2:8] = images[2:8] // 5 + np.arange(6)[:, None, None, None] * 30
    images[8:12, ..., 1] = 77
    images[12] = 130
    images[13, ..., :] = [250, 3, 3]
    images[14, 0, 0] = 255
    return images.astype(np.uint8)


def to_levels(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def largest_error(levels, pixels, reference) -> tuple[int, float]:
    """Return the largest difference and the share of levels that differ."""
    expected = np.stack(
        [np.asarray(reference(Image.fromarray(image), i)) for i, image in enumerate(pixels)]
    )
    assert torch.equal(levels, levels.round())
    difference = (levels - to_levels(expected)).abs()
    return int(difference.max()), float((difference > 0).float().mean())


def uniform(low: float, high: float) -> torch.Tensor:
    return torch.empty(BATCH).uniform_(low, high, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("operation", "enhancer"),
    [
        (tensors.brightness, ImageEnhance.Brightness),
        (tensors.contrast, ImageEnhance.Contrast),
        (tensors.saturation, ImageEnhance.Color),
        (tensors.sharpness, ImageEnhance.Sharpness),
    ],
)
@pytest.mark.parametrize(("low", "high"), [(0.1, 1.0), (1.0, 1.9)])
def test_enhancement_is_pils(operation, enhancer, low, high, pixels):
    factor = uniform(low, high)
    levels = operation(to_levels(pixels), factor)
    worst, share = largest_error(
        levels, pixels, lambda image, i: enhancer(image).enhance(float(factor[i]))
    )
    # A product that is an integer in one order of rounding falls short in the other.
    assert worst <= 1
    assert share < 0.01


def test_hue_is_torchvisions(pixels):
    turn = uniform(-0.1, 0.1)
    worst, share = largest_error(
        tensors.hue(to_levels(pixels), turn),
        pixels,
        lambda image, i: F.adjust_hue(image, float(turn[i])),
    )
    assert worst <= 6  # one step of PIL's 8-bit hue where the two round an angle apart
    assert share < 0.005


@pytest.mark.parametrize("name", ["invert", "autocontrast", "equalize"])
def test_operation_without_magnitude_is_pils_to_the_last_bit(name, pixels):
    reference = getattr(ImageOps, name)
    levels = getattr(tensors, name)(to_levels(pixels))
    assert largest_error(levels, pixels, lambda image, i: reference(image)) == (0, 0)


def test_posterize_and_solarize_are_pils_to_the_last_bit(pixels):
    bits = torch.arange(BATCH) % 5 + 4
    levels = tensors.posterize(to_levels(pixels), bits)
    reference = lambda image, i: ImageOps.posterize(image, int(bits[i]))  # noqa: E731
    assert largest_error(levels, pixels, reference) == (0, 0)
    threshold = torch.linspace(0, 256, BATCH).ceil()
    levels = tensors.solarize(to_levels(pixels), threshold)
    reference = lambda image, i: ImageOps.solarize(image, int(threshold[i]))  # noqa: E731
    assert largest_error(levels, pixels, reference) == (0, 0)


def test_luma_is_pils_grey(pixels):
    grey = tensors.luma(to_levels(pixels)).expand(-1, 3, -1, -1)
    reference = lambda image, i: image.convert("L").convert("RGB")  # noqa: E731
    assert largest_error(grey, pixels, reference) == (0, 0)


def test_translation_and_rotation_are_pils_to_the_last_bit(pixels):
    shift = uniform(-150 / 331, 150 / 331)
    move = operations._translate
    levels = tensors.translate(to_levels(pixels), shift * SIZE, torch.zeros(BATCH))
    reference = lambda image, i: move(image, float(shift[i]), 0)  # noqa: E731
    assert largest_error(levels, pixels, reference) == (0, 0)
    levels = tensors.translate(to_levels(pixels), torch.zeros(BATCH), shift * SIZE)
    reference = lambda image, i: move(image, 0, float(shift[i]))  # noqa: E731
    assert largest_error(levels, pixels, reference) == (0, 0)
    degrees = uniform(-30, 30)
    levels = tensors.rotate(to_levels(pixels), degrees)
    worst, share = largest_error(
        levels, pixels, lambda image, i: image.rotate(float(degrees[i]), fillcolor=(128,) * 3)
    )
    assert share < 2e-3, worst  # PIL steps through the image in fixed point


def test_shear_is_pils(pixels):
    slope = uniform(-0.3, 0.3)
    worst, share = largest_error(
        tensors.shear_y(to_levels(pixels), slope),
        pixels,
        lambda image, i: operations._shear_y(image, float(slope[i])),
    )
    assert worst <= 1
    assert share < 0.01


def test_affine_map_is_torchvisions(pixels):
    angle, scale = uniform(-10, 10), uniform(0.9, 1.1)
    shift = torch.randint(-3, 4, (BATCH, 2), generator=torch.Generator().manual_seed(2))
    centre = [SIZE / 2, SIZE / 2]
    matrix = torch.tensor(
        [
            F._get_inverse_affine_matrix(
                centre, float(angle[i]), shift[i].tolist(), float(scale[i]), [0.0, 0.0]
            )
            for i in range(BATCH)
        ],
        dtype=torch.float64,
    ).view(BATCH, 2, 3)

    def reference(image, i):
        return F.affine(
            image,
            float(angle[i]),
            shift[i].tolist(),
            float(scale[i]),
            [0.0, 0.0],
            interpolation=InterpolationMode.BILINEAR,
        )

    worst, share = largest_error(tensors.affine(to_levels(pixels), matrix), pixels, reference)
    assert worst <= 1
    assert share < 0.01


def test_resampling_a_crop_is_torchvisions(pixels):
    generator = torch.Generator().manual_seed(3)
    height, width = torch.randint(5, SIZE + 1, (2, BATCH), generator=generator)
    top = torch.randint(SIZE, (BATCH,), generator=generator) % (SIZE + 1 - height)
    left = torch.randint(SIZE, (BATCH,), generator=generator) % (SIZE + 1 - width)

    def positions(start, length):
        inside = (torch.arange(SIZE) + 0.5) * length[:, None] / SIZE - 0.5
        return start[:, None] + inside.clamp_min(0).minimum(length[:, None] - 1)

    levels = tensors.resample(
        to_levels(pixels),
        tensors.interpolation(positions(top, height), SIZE),
        tensors.interpolation(positions(left, width), SIZE),
    )
    worst, share = largest_error(
        levels,
        pixels,
        lambda image, i: F.resized_crop(
            image, *(int(n[i]) for n in (top, left, height, width)), [SIZE, SIZE]
        ),
    )
    assert worst <= 1
    assert share < 0.01


def test_blur_is_pils(pixels):
    radius = uniform(0.1, 2.0)
    weights = tensors.blurring(radius, SIZE)
    torch.testing.assert_close(weights.sum(dim=2), torch.ones(BATCH, SIZE))
    worst, share = largest_error(
        tensors.resample(to_levels(pixels), weights, weights),
        pixels,
        lambda image, i: image.filter(ImageFilter.GaussianBlur(float(radius[i]))),
    )
    assert worst <= 2  # PIL rounds after each of its six passes
    assert share < 0.5


def test_hole_is_cut_where_pil_pastes_it(pixels):
    row, column = torch.randint(-8, SIZE, (2, BATCH), generator=torch.Generator().manual_seed(4))

    def reference(image, i):
        image = image.copy()
        left, top = int(column[i]), int(row[i])
        image.paste((0, 0, 0), (left, top, left + 16, top + 16))
        return image

    levels = tensors.cut_out(to_levels(pixels), row, column, 16)
    assert largest_error(levels, pixels, reference) == (0, 0)
