"""Views against torchvision's pipelines, hand-placed pixels, and the laws of randomness."""

import pickle
import random

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from timm.data.auto_augment import rand_augment_transform
from torch.testing import assert_close
from torchvision import transforms as T

from ltlib import views
from ltlib.views import (
    VIEWS,
    CifarAutoAugment,
    Cutout,
    MultiView,
    PixelFormat,
    build_view,
    operations,
)

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
FORMAT = PixelFormat(32, MEAN, STD)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def image() -> Image.Image:
    """Smooth colours that are different under every flip, shift and turn."""
    row, column = np.mgrid[0:32, 0:32]
    pixels = np.stack([row * 8, column * 8, (row * column) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def _reference(*steps):
    return T.Compose([*steps, T.ToTensor(), T.Normalize(MEAN, STD)])


# The pipelines as the papers' code lists them, in torchvision's own words.
COLOURS = (T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.1)], p=0.8), T.RandomGrayscale(p=0.2))
FLIP = T.RandomHorizontalFlip()
BLUR = T.RandomApply([views.GaussianBlur(0.1, 2.0)], p=0.5)
REFERENCES = {
    "test": _reference(),
    "flip_crop": _reference(T.RandomCrop(32, padding=4), FLIP),
    "sim_proco": _reference(T.RandomResizedCrop(32), FLIP, *COLOURS),
    "sim_paco": _reference(T.RandomResizedCrop(32, scale=(0.2, 1.0)), FLIP, *COLOURS, BLUR),
}


@pytest.mark.parametrize("name", REFERENCES)
def test_a_view_equals_the_papers_pipeline_to_the_last_bit(name, image):
    view = build_view(name, FORMAT)
    for seed in range(20):
        torch.manual_seed(seed)
        actual = view(image)
        torch.manual_seed(seed)
        assert torch.equal(actual, REFERENCES[name](image))


INATURALIST = PixelFormat(224, (0.466, 0.471, 0.380), (0.195, 0.194, 0.192))


def _large(*steps):
    mean, std = INATURALIST.mean, INATURALIST.std
    return T.Compose([T.RandomResizedCrop(224), *steps, T.ToTensor(), T.Normalize(mean, std)])


def _rand(policy: str):
    # The authors' parameters: int(224 * 0.45), and the mean of ImageNet, 0.485 0.456 0.406, in
    # bytes. Their iNaturalist runs fill with it as well.
    return rand_augment_transform(policy, {"translate_const": 100, "img_mean": (124, 116, 104)})


JITTER = T.RandomApply([T.ColorJitter(0.4, 0.4, 0.4, 0.0)], p=1.0)
GREY = T.RandomGrayscale(p=0.2)
STACK = (FLIP, JITTER, GREY, BLUR)
LARGE_REFERENCES = {
    "sim_proco": _large(FLIP, *COLOURS),
    "rand_bcl": _large(FLIP, *COLOURS, _rand("rand-n2-m10-mstd0.5")),
    "sim_paco_large": _large(JITTER, GREY, BLUR, FLIP),
    "randcls": _large(FLIP, JITTER, _rand("rand-n2-m10-mstd0.5")),
    "randcls_n3": _large(FLIP, JITTER, _rand("rand-n3-m10-mstd0.5")),
    "randcls_n5": _large(FLIP, JITTER, _rand("rand-n5-m10-mstd0.5")),
    "randclsstack": _large(*STACK, _rand("rand-n2-m10-mstd0.5")),
    "randclsstack_n3": _large(*STACK, _rand("rand-n3-m10-mstd0.5")),
    "randclsstack_n3_m12": _large(*STACK, _rand("rand-n3-m12-mstd0.5")),
    "randclsstack_n5": _large(*STACK, _rand("rand-n5-m10-mstd0.5")),
}


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    """An image at the size that ImageNet has them: larger than a view, and not square."""
    row, column = np.mgrid[0:375, 0:500]
    pixels = np.stack([row * 0.6, column * 0.5, (row * column) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def _seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


@pytest.mark.parametrize("name", LARGE_REFERENCES)
def test_a_large_view_equals_the_papers_pipeline_to_the_last_bit(name, photograph):
    view = build_view(name, INATURALIST)
    for seed in range(8):
        _seed_all(seed)
        actual = view(photograph)
        _seed_all(seed)
        assert torch.equal(actual, LARGE_REFERENCES[name](photograph))
        assert actual.shape == (3, 224, 224)


def test_a_batch_is_normalised_like_its_images(image):
    pixels = np.stack([np.asarray(image), 255 - np.asarray(image)])
    batch = FORMAT.to_tensor(pixels)
    assert batch.is_contiguous()
    assert torch.equal(batch[0], FORMAT.to_tensor(image))
    assert torch.equal(batch[1], REFERENCES["test"](Image.fromarray(pixels[1])))


def test_blur_is_pils_with_a_radius_from_the_range(image):
    torch.manual_seed(3)
    blurred = views.GaussianBlur(0.1, 2.0)(image)
    torch.manual_seed(3)
    radius = torch.empty(()).uniform_(0.1, 2.0).item()
    assert blurred == image.filter(ImageFilter.GaussianBlur(radius))


def test_the_policy_is_torchvisions_table_of_autoaugment():
    renamed = {"shear_y": "ShearY", "translate_x": "TranslateX", "translate_y": "TranslateY"}
    without_level = {"autocontrast", "equalize", "invert"}
    policy = [
        tuple(
            (
                renamed.get(name, name.capitalize()).replace("Autoc", "AutoC"),
                probability,
                None if name in without_level else level,
            )
            for name, probability, level in pair
        )
        for pair in operations.CIFAR_POLICY
    ]
    published = T.AutoAugment(T.AutoAugmentPolicy.CIFAR10).policies
    assert [tuple(pair) for pair in published] == policy


def _apply(name: str, image: Image.Image, level: int, negative: bool = False) -> np.ndarray:
    return np.asarray(operations.OPERATIONS[name](image, level, negative=negative)).astype(int)


@pytest.mark.parametrize("negative", [False, True])
def test_translation_moves_pixels_by_a_share_of_the_width_and_fills_grey(image, negative):
    pixels = np.asarray(image)
    # Level 9 is 150 of AutoAugment's 331 pixels: 14.502 of 32, so the nearest source is 15 away.
    shift = -15 if negative else 15
    expected = np.full_like(pixels, 128)
    for column in range(32):
        if 0 <= column + shift < 32:
            expected[:, column] = pixels[:, column + shift]
    np.testing.assert_array_equal(_apply("translate_x", image, 9, negative), expected)
    turned = Image.fromarray(pixels.transpose(1, 0, 2))
    np.testing.assert_array_equal(
        _apply("translate_y", turned, 9, negative), expected.transpose(1, 0, 2)
    )


def test_pointwise_operations_follow_their_formulas(image):
    pixels = np.asarray(image).astype(int)
    np.testing.assert_array_equal(_apply("invert", image, 3), 255 - pixels)
    # Level 7 keeps 5 bits (8 - 4 * 7/9, rounded).
    np.testing.assert_array_equal(_apply("posterize", image, 7), pixels // 8 * 8)
    # Level 3 inverts from 256 * 6/9 = 170.67 upwards.
    solarized = np.where(pixels < 170.67, pixels, 255 - pixels)
    np.testing.assert_array_equal(_apply("solarize", image, 3), solarized)
    # Level 9 scales by 1.9 or 0.1.
    np.testing.assert_allclose(
        _apply("brightness", image, 9), np.minimum(pixels * 1.9, 255), atol=1
    )
    np.testing.assert_allclose(_apply("brightness", image, 9, negative=True), pixels * 0.1, atol=1)


def test_rotation_goes_one_way_only_and_fills_corners_grey(image):
    turned = _apply("rotate", image, 9)
    np.testing.assert_array_equal(turned, _apply("rotate", image, 9, negative=True))
    for row, column in ((0, 0), (0, 31), (31, 0), (31, 31)):
        assert turned[row, column].tolist() == [128] * 3
    # Counter-clockwise: what was right of the centre is now above it.
    right_of_centre = np.asarray(image)[16, 28, 1]
    assert turned[10, 26, 1] == pytest.approx(right_of_centre, abs=16)


def test_level_zero_of_a_scaled_operation_changes_nothing(image):
    for name in ("color", "contrast", "sharpness", "brightness", "shear_y", "translate_x"):
        np.testing.assert_array_equal(_apply(name, image, 0), np.asarray(image))


def test_autoaugment_draws_every_pair_and_operation_as_often_as_its_table_says(monkeypatch):
    drawn = []

    class Recorder:
        def __init__(self, name):
            self.name = name

        def __call__(self, image, level, *, negative):
            drawn.append((self.name, level, negative))
            return image

    monkeypatch.setattr(
        operations, "OPERATIONS", {name: Recorder(name) for name in operations.OPERATIONS}
    )
    num_draws = 20_000
    for _ in range(num_draws):
        CifarAutoAugment()(None)
    expected: dict[tuple[str, int], float] = {}
    for name, probability, level in (step for pair in operations.CIFAR_POLICY for step in pair):
        expected[name, level] = expected.get((name, level), 0) + num_draws / 25 * probability
    for (name, level), mean in expected.items():
        count = sum(step[:2] == (name, level) for step in drawn)
        assert abs(count - mean) <= 5 * mean**0.5
    share_negative = sum(step[2] for step in drawn) / len(drawn)
    assert share_negative == pytest.approx(0.5, abs=0.02)


def test_cutout_blackens_one_square_centred_anywhere():
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    covered = np.zeros((32, 32))
    num_draws = 4000
    for _ in range(num_draws):
        hole = np.asarray(Cutout(16)(white))[..., 0] == 0
        rows, columns = hole.any(1).sum(), hole.any(0).sum()
        assert hole.sum() == rows * columns
        assert 8 <= rows <= 16
        assert 8 <= columns <= 16
        covered += hole
    # On each axis the centres 0 to 8 reach the corner, and 9 to 24 the middle.
    assert covered[0, 0] / num_draws == pytest.approx((9 / 32) ** 2, abs=0.02)
    assert covered[16, 16] / num_draws == pytest.approx((16 / 32) ** 2, abs=0.03)
    assert np.asarray(white).min() == 255


def test_the_hole_is_black_before_normalisation():
    white = Image.new("RGB", (32, 32), (255, 255, 255))
    black = torch.tensor([(0 - mean) / std for mean, std in zip(MEAN, STD, strict=True)])
    cut_and_normalize = T.Compose(build_view("cifar_autoaugment", FORMAT).transforms[-2:])
    values = cut_and_normalize(white).flatten(1)
    holes = (values - black[:, None]).abs().amax(dim=0) < 1e-6
    assert 64 <= holes.sum() <= 256


def test_views_flip_half_of_the_time_but_digits_never(image):
    ramp = Image.fromarray(
        np.repeat(np.arange(0, 256, 8, dtype=np.uint8)[None, :, None], 32, 0).repeat(3, 2)
    )
    column = torch.arange(32.0)

    def mirrored(name: str) -> float:
        view = build_view(name, PixelFormat(32, (0.0,) * 3, (1.0,) * 3))
        slopes = [(view(ramp).mean(dim=(0, 1)) * (column - 15.5)).sum() for _ in range(400)]
        return sum(slope.item() < 0 for slope in slopes) / len(slopes)

    assert mirrored("flip_crop") == pytest.approx(0.5, abs=0.1)
    assert mirrored("digits") == 0


def test_every_view_gives_a_float_tensor_of_the_format(image):
    for name in VIEWS:
        tensor = build_view(name, FORMAT)(image)
        assert tensor.shape == (3, 32, 32)
        assert tensor.dtype == torch.float32
        assert tensor.is_contiguous()


def test_crop_margin_and_hole_grow_with_the_image():
    large = PixelFormat(64, MEAN, STD)
    steps = build_view("cifar_autoaugment", large).transforms
    assert (steps[0].size, steps[0].padding, steps[3].length) == ((64, 64), 8, 32)


@pytest.mark.parametrize("name", [name for name in VIEWS if name != "test"])
def test_a_view_is_a_function_of_seed_epoch_index_and_view(name, image):
    def draw(seed=0, epoch=0, index=0, view=0):
        return MultiView([name] * 2, FORMAT, seed)(image, epoch, index)[view]

    assert torch.equal(draw(), draw())
    for other in (draw(seed=1), draw(epoch=1), draw(index=1), draw(view=1)):
        assert not torch.equal(draw(), other)


def test_a_view_does_not_depend_on_the_views_beside_it(image):
    alone = MultiView(["test", "sim_proco"], FORMAT, 0)(image, 5, 7)[1]
    beside = MultiView(["cifar_autoaugment", "sim_proco", "digits"], FORMAT, 0)(image, 5, 7)[1]
    assert torch.equal(alone, beside)


def test_drawing_views_leaves_the_callers_generators_alone(image):
    def upcoming():
        return torch.rand(2).tolist(), random.random(), np.random.randn(3).tolist()

    def reseed():
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)
        np.random.randn()  # NumPy now holds back the second of a pair of normal numbers

    reseed()
    expected = upcoming()
    reseed()
    MultiView(["cifar_autoaugment", "sim_paco", "randcls"], FORMAT, 0)(image, 0, 0)
    assert upcoming() == expected
    reseed()
    with pytest.raises(TypeError):
        MultiView(["sim_paco"], FORMAT, 0)(None, 0, 0)
    assert upcoming() == expected


def test_a_view_may_draw_from_any_generator(image, monkeypatch):
    def noise(pixel_format):
        return lambda image: torch.tensor([torch.rand(()), random.random(), np.random.rand()])

    monkeypatch.setitem(VIEWS, "noise", noise)
    multi_view = MultiView(["noise"], FORMAT, 0)
    first, again, other = (multi_view(image, 0, index)[0] for index in (0, 0, 1))
    assert torch.equal(first, again)
    assert (first != other).all()


def test_derived_seeds_are_fixed_for_ever_and_depend_on_the_order_of_their_parts():
    assert views.derive_seed(0, 0, 0, 0) == 1_563_248_206
    seeds = {views.derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    # 8,000 draws out of 2**32: a collision has a chance of 1 in 130.
    assert len(seeds) >= 7_999
    assert views.derive_seed(1, 23) != views.derive_seed(12, 3)


def test_views_can_be_sent_to_another_process(image):
    for name in VIEWS:
        multi_view = MultiView([name], FORMAT, 0)
        copy = pickle.loads(pickle.dumps(multi_view))
        assert_close(copy(image, 0, 0), multi_view(image, 0, 0), rtol=0, atol=0)


def test_an_unknown_view_is_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown view 'sim'; .*cifar_autoaugment.*sim_proco"):
        MultiView(["sim"], FORMAT, 0)
