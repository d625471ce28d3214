"""The views of small images, a whole batch at once and on the device that trains.

They draw from the distributions of the PIL pipelines of the same names, in less time, and are
like these a pure function of (seed, epoch, sample index, view index): what is random comes from
a counter-based generator (SplitMix64, Steele et al. 2014) that hashes these numbers, not from a
state. Each draw is made on the CPU, where it is tiny, so that no step waits for a GPU.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ltlib.views import tensors
from ltlib.views.multiview import derive_seed
from ltlib.views.operations import CIFAR_POLICY, OPERATIONS
from ltlib.views.pixels import PixelFormat


class BatchedViews:
    """Turn a batch of images into V views, reproducibly.

    Args:
        names: Keys of ``BATCHED_VIEWS``, one per view.
        pixel_format: Size, mean and standard deviation of the data set.
        seed: Of the training.

    Raises:
        ValueError: If a name is unknown.
    """

    def __init__(self, names: Sequence[str], pixel_format: PixelFormat, seed: int) -> None:
        unknown = [name for name in names if name not in BATCHED_VIEWS]
        if unknown:
            raise ValueError(
                f"view {unknown[0]!r} is not computed in batches; "
                f"choose from {', '.join(BATCHED_VIEWS)}"
            )
        self.names, self.pixel_format, self.seed = names, pixel_format, seed

    def __call__(self, pixels: Tensor, epoch: int, indices: np.ndarray) -> list[Tensor]:
        """Return V tensors (B, 3, H, W), normalised, channels last.

        Args:
            pixels: (B, H, W, 3), uint8, on any device.
            epoch: Counts from 0.
            indices: Of each sample in its data set, (B,).
        """
        levels = pixels.permute(0, 3, 1, 2).float()
        views: dict[int, Tensor] = {}
        for name in dict.fromkeys(self.names):
            # Views of one name are one batch: half of an operation's time is its start.
            numbers = [number for number, own in enumerate(self.names) if own == name]
            draws = Draws(self.seed, epoch, numbers, indices)
            shown = BATCHED_VIEWS[name](levels.repeat(len(numbers), 1, 1, 1), draws)
            shown = self.pixel_format.normalize(shown)
            views |= zip(numbers, shown.chunk(len(numbers)), strict=True)
        return [views[number] for number in range(len(self.names))]


class Draws:
    """Uniform random numbers of each image of some views, as many as are asked for.

    Args:
        seed: Of the training.
        epoch: Counts from 0.
        views: Index of each view, V of them.
        indices: Of each sample in its data set, (B,).
    """

    def __init__(self, seed: int, epoch: int, views: Sequence[int], indices: np.ndarray) -> None:
        seeds = [derive_seed(seed, epoch, view, num_bytes=8) for view in views]
        keys = np.array(seeds, np.uint64)
        self._states = _mix(keys[:, None] + indices.astype(np.uint64) * _GAMMA).ravel()
        self._count = 0

    def __call__(self, count: int) -> Tensor:
        """Return the next numbers of each image, in [0, 1), (count, V*B), on the CPU."""
        steps = np.arange(self._count + 1, self._count + count + 1, dtype=np.uint64)
        self._count += count
        bits = _mix(self._states + steps[:, None] * _GAMMA) >> np.uint64(40)
        return torch.from_numpy((bits * 2.0**-24).astype(np.float32))


_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def _mix(states: np.ndarray) -> np.ndarray:
    states = (states ^ (states >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    states = (states ^ (states >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return states ^ (states >> np.uint64(31))


def _flip_crop(levels: Tensor, draws: Draws) -> Tensor:
    size = levels.shape[-1]
    down, right, flip = draws(3)
    padding = size // 8
    shifts = (torch.stack([down, right]) * (2 * padding + 1)).floor() - padding  # (2, B)
    rows, columns = shifts[:, :, None] + torch.arange(size)
    return _look_up(levels, rows, _flipped(columns, flip < 0.5))


def _resized_crop(levels: Tensor, draws: Draws, smallest: float) -> Tensor:
    """Crop a random area of random shape, zoom to full size, and flip half of the images."""
    size = levels.shape[-1]
    tries = draws(20).view(2, 10, -1)
    area = size * size * (smallest + (1 - smallest) * tries[0])
    ratio = torch.exp((2 * tries[1] - 1) * math.log(4 / 3))
    # The first of ten crops that fits, else the whole image, which is square.
    lengths = torch.stack([(area / ratio).sqrt(), (area * ratio).sqrt()]).round()  # (2, 10, B)
    fits = ((lengths > 0) & (lengths <= size)).all(dim=0)
    first = fits.int().argmax(dim=0)
    lengths = lengths.gather(1, first.expand(2, 1, -1))[:, 0]
    lengths = torch.where(fits.any(dim=0), lengths, float(size))  # (2, B): height, width
    down, right, flip = draws(3)
    starts = (torch.stack([down, right]) * (size + 1 - lengths)).floor()
    inside = (torch.arange(size) + 0.5) * lengths[:, :, None] / size - 0.5
    inside = inside.clamp_min(0).minimum(lengths[:, :, None] - 1)
    rows, columns = starts[:, :, None] + inside
    return _look_up(levels, rows, _flipped(columns, flip < 0.5))


def _color_jitter(levels: Tensor, draws: Draws) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, and at times grey."""
    chance, grey, *strengths = draws(6)
    order = draws(4).argsort(dim=0)  # (4, B): which operation comes first, second, ...
    for turn in order:
        for number, (operation, spread, centre) in enumerate(_JITTERS):
            rows = (turn == number) & (chance < 0.8)
            magnitude = centre + spread * (2 * strengths[number] - 1)
            levels = _apply(operation, levels, rows, magnitude)
    return _apply(lambda chosen: tensors.luma(chosen).expand_as(chosen), levels, grey < 0.2)


# Operation, and its magnitude's largest distance from the centre.
_JITTERS = (
    (tensors.brightness, 0.4, 1),
    (tensors.contrast, 0.4, 1),
    (tensors.saturation, 0.4, 1),
    (tensors.hue, 0.1, 0),
)


def _sim_proco(levels: Tensor, draws: Draws) -> Tensor:
    return _color_jitter(_resized_crop(levels, draws, 0.08), draws)


def _sim_paco(levels: Tensor, draws: Draws) -> Tensor:
    levels = _color_jitter(_resized_crop(levels, draws, 0.2), draws)
    chance, radius = draws(2)

    def blur(chosen: Tensor, radius: Tensor) -> Tensor:
        weights = tensors.blurring(radius, chosen.shape[-1])
        return tensors.resample(chosen, weights, weights)

    return _apply(blur, levels, chance < 0.5, 0.1 + 1.9 * radius)


def _cifar_autoaugment(levels: Tensor, draws: Draws) -> Tensor:
    levels = _flip_crop(levels, draws)
    choice, *chances = draws(5)
    pair = (choice * len(CIFAR_POLICY)).long()
    for step, (probabilities, magnitudes) in enumerate(_POLICY_STEPS):
        happens, negative = chances[step], chances[2 + step] < 0.5
        for number, (name, operation) in enumerate(_AUTOAUGMENT.items()):
            magnitude = magnitudes[number, pair]
            if OPERATIONS[name].is_signed:
                magnitude = torch.where(negative, -magnitude, magnitude)
            rows = happens < probabilities[number, pair]
            levels = _apply(operation, levels, rows, magnitude)
    size = levels.shape[-1]
    corner = ((draws(2) * size).floor() - size // 4).to(levels.device, non_blocking=True)
    return tensors.cut_out(levels, corner[1], corner[0], size // 2)


_AUTOAUGMENT: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "shear_y": tensors.shear_y,
    "translate_x": lambda levels, m: tensors.translate(levels, m * levels.shape[3], 0 * m),
    "translate_y": lambda levels, m: tensors.translate(levels, 0 * m, m * levels.shape[2]),
    "rotate": tensors.rotate,
    "color": lambda levels, m: tensors.saturation(levels, 1 + m),
    "contrast": lambda levels, m: tensors.contrast(levels, 1 + m),
    "sharpness": lambda levels, m: tensors.sharpness(levels, 1 + m),
    "brightness": lambda levels, m: tensors.brightness(levels, 1 + m),
    "posterize": lambda levels, m: tensors.posterize(levels, m.round()),
    "solarize": lambda levels, m: tensors.solarize(levels, m.ceil()),
    "autocontrast": lambda levels, m: tensors.autocontrast(levels),
    "equalize": lambda levels, m: tensors.equalize(levels),
    "invert": lambda levels, m: tensors.invert(levels),
}


def _policy_step(step: int) -> tuple[Tensor, Tensor]:
    """Tabulate probability and magnitude of each operation in each pair's first or second place."""
    probabilities = torch.zeros(len(_AUTOAUGMENT), len(CIFAR_POLICY))
    magnitudes = torch.zeros_like(probabilities)
    for pair, (name, probability, level) in enumerate(steps[step] for steps in CIFAR_POLICY):
        number = list(_AUTOAUGMENT).index(name)
        probabilities[number, pair] = probability
        magnitudes[number, pair] = OPERATIONS[name].magnitude(level)
    return probabilities, magnitudes


_POLICY_STEPS = (_policy_step(0), _policy_step(1))


def _digits(levels: Tensor, draws: Draws) -> Tensor:
    size = levels.shape[-1]
    angle, right, down, zoom = draws(4).double()
    angle = (2 * angle - 1) * math.radians(10)
    shift = (0.1 * size * (2 * torch.stack([right, down]) - 1)).round()
    zoom = 0.9 + 0.2 * zoom
    cosine, sine = angle.cos() / zoom, angle.sin() / zoom
    right, down = -size / 2 - shift
    matrix = torch.stack(
        [
            torch.stack([cosine, sine, cosine * right + sine * down + size / 2], dim=1),
            torch.stack([-sine, cosine, cosine * down - sine * right + size / 2], dim=1),
        ],
        dim=1,
    )
    return tensors.affine(levels, matrix.to(levels.device, non_blocking=True))


def _look_up(levels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read the image at source coordinates, (B, H) and (B, W); black beyond the edge."""
    rows, columns = (
        tensors.interpolation(positions.to(levels.device, non_blocking=True), size)
        for positions, size in zip((rows, columns), levels.shape[2:], strict=True)
    )
    return tensors.resample(levels, rows, columns)


def _flipped(columns: Tensor, flip: Tensor) -> Tensor:
    return torch.where(flip[:, None], columns.flip(1), columns)


def _apply(
    operation: Callable[..., Tensor], levels: Tensor, rows: Tensor, *magnitudes: Tensor
) -> Tensor:
    """Apply an operation to some images of the batch, in place.

    Args:
        operation: Takes levels and magnitudes of as many images.
        levels: (B, 3, H, W).
        rows: Which images, bool (B,), on the CPU.
        magnitudes: Each (B,), on the CPU.
    """
    if not rows.any():
        return levels
    device = levels.device
    chosen = rows.nonzero()[:, 0]
    parts = [magnitude[chosen].to(device, non_blocking=True) for magnitude in magnitudes]
    chosen = chosen.to(device, non_blocking=True)
    levels[chosen] = operation(levels[chosen], *parts)
    return levels


BATCHED_VIEWS: dict[str, Callable[[Tensor, Draws], Tensor]] = {
    "cifar_autoaugment": _cifar_autoaugment,
    "sim_proco": _sim_proco,
    "sim_paco": _sim_paco,
    "flip_crop": _flip_crop,
    "digits": _digits,
    "test": lambda levels, draws: levels,
}
