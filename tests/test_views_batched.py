"""Batched views: laws of their randomness, and their distribution against the PIL pipelines."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from ltlib.views import BATCHED_VIEWS, VIEWS, BatchedViews, PixelFormat, build_view
from ltlib.views.batched import Draws

FORMAT = PixelFormat(32, (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
NAMES = ("cifar_autoaugment", "sim_proco", "sim_paco", "sim_proco", "flip_crop", "digits")


@pytest.fixture(scope="module")
def pixels() -> torch.Tensor:
    generator = np.random.default_rng(0)
    coarse = generator.integers(256, size=(24, 4, 4, 3), dtype=np.uint8)
    enlarged = [
        Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC) for image in coarse
    ]
    return torch.from_numpy(np.stack([np.asarray(image) for image in enlarged]))


def test_a_view_depends_on_seed_epoch_index_and_view_alone(pixels):
    views = BatchedViews(NAMES, FORMAT, seed=3)
    indices = np.arange(24) * 1_000
    whole = views(pixels, 5, indices)
    assert [view.shape for view in whole] == [(24, 3, 32, 32)] * len(NAMES)
    part = np.array([17, 2, 9])
    for ours, alone in zip(whole, views(pixels[part], 5, indices[part]), strict=True):
        assert torch.equal(ours[part], alone)
    again = BatchedViews(NAMES, FORMAT, seed=3)
    assert all(map(torch.equal, whole, again(pixels, 5, indices)))
    others = [
        views(pixels, 6, indices),
        BatchedViews(NAMES, FORMAT, seed=4)(pixels, 5, indices),
        views(pixels, 5, indices + 1),
    ]
    for other in others:
        assert not any(map(torch.equal, whole, other))
    assert not torch.equal(whole[1], whole[3])  # two views of one name are drawn apart


def test_views_leave_images_and_global_generators_alone(pixels):
    before, state = pixels.clone(), torch.get_rng_state()
    BatchedViews(NAMES, FORMAT, seed=0)(pixels, 0, np.arange(24))
    assert torch.equal(pixels, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_test_view_is_the_normalised_image(pixels):
    (view,) = BatchedViews(("test",), FORMAT, seed=0)(pixels, 0, np.arange(24))
    torch.testing.assert_close(view, FORMAT.to_tensor(pixels.numpy()), rtol=1e-5, atol=1e-5)
    assert view.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
def test_a_gpu_shows_what_the_cpu_shows(pixels):
    views = BatchedViews(NAMES, FORMAT, seed=3)
    ours = views(pixels.to("cuda"), 5, np.arange(24))
    for shown, expected in zip(ours, views(pixels, 5, np.arange(24)), strict=True):
        difference = (shown.cpu() - expected).abs() * 255 * 0.2
        assert (difference > 1.5).float().mean() < 0.01  # where the two round apart


def test_unknown_view_is_named():
    with pytest.raises(ValueError, match="view 'sim_nobody' is not computed in batches; choose"):
        BatchedViews(("flip_crop", "sim_nobody"), FORMAT, seed=0)


def test_draws_are_uniform_and_independent():
    draws = Draws(0, 0, [0, 1], np.arange(20_000))
    numbers = torch.cat([draws(2), draws(1)]).double().numpy()  # (3, 2 * 20,000)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert stats.kstest(numbers.ravel(), "uniform").pvalue > 1e-3
    first, second = np.split(numbers, 2, axis=1)
    following = np.roll(first, 1, axis=1)
    for other in (second, following, Draws(1, 0, [0], np.arange(20_000))(3).numpy()):
        assert np.abs(np.corrcoef(first, other)[:3, 3:]).max() < 4.5 / np.sqrt(20_000)


def statistics(views: np.ndarray, image: np.ndarray) -> dict[str, np.ndarray]:
    """Numbers that tell one image's views (n, 3, 32, 32) apart, each (n,)."""
    flat = views.reshape(len(views), -1)
    centred = (flat - flat.mean(axis=1, keepdims=True)) / (flat.std(axis=1, keepdims=True) + 1e-6)
    likeness = {
        name: centred @ (other - other.mean()).ravel()
        for name, other in (("same", image), ("flipped", image[:, :, ::-1]))
    }
    return {
        "mean": flat.mean(axis=1),
        "spread": flat.std(axis=1),
        "lowest": flat.min(axis=1),
        "highest": flat.max(axis=1),
        "red": views[:, 0].mean(axis=(1, 2)),
        "colour": (views[:, 0] - views[:, 2]).std(axis=(1, 2)),
        "rows": np.abs(np.diff(views, axis=2)).mean(axis=(1, 2, 3)),
        "columns": np.abs(np.diff(views, axis=3)).mean(axis=(1, 2, 3)),
        "corner": views[:, 1, :4, :4].mean(axis=(1, 2)),
        "centre": views[:, 2, 12:20, 12:20].mean(axis=(1, 2)),
        **likeness,
    }


@pytest.mark.parametrize("name", [name for name in BATCHED_VIEWS if name != "test"])
def test_a_batched_view_has_the_distribution_of_its_pil_pipeline(name, pixels):
    count, image = 1500, pixels[3]
    (batched,) = BatchedViews((name,), FORMAT, seed=0)(
        image.expand(count, -1, -1, -1), 0, np.arange(count)
    )
    view = build_view(name, FORMAT)
    torch.manual_seed(0)
    reference = torch.stack([view(Image.fromarray(image.numpy())) for _ in range(count)])
    plain = FORMAT.to_tensor(image.numpy()).numpy()
    ours, theirs = (statistics(shown.numpy(), plain) for shown in (batched, reference))
    for statistic, values in ours.items():
        result = stats.ks_2samp(values.round(3), theirs[statistic].round(3))
        assert result.pvalue > 1e-4, (statistic, result)


def test_every_batched_view_has_a_pil_pipeline():
    assert set(BATCHED_VIEWS) <= set(VIEWS)
