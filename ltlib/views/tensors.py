"""PIL's operations on a whole batch at once, each image with its own magnitude.

Images are *levels*: float32 (B, 3, H, W) holding the integers 0 to 255, on any device. Each
function repeats what PIL does to one image, rounding included, so a view made of them draws from
the same distribution as its PIL pipeline; where PIL rounds between two passes a level may be off
by one.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

GREY = 128.0
"""Level that geometric operations of AutoAugment leave behind."""


def resample(levels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Make each pixel a weighted mean of pixels: crops, zooms, flips and blurs are all of it.

    Args:
        levels: (B, 3, H, W).
        rows: Weights of the source rows in each row, (B, H', H).
        columns: Weights of the source columns in each column, (B, W', W).

    Returns:
        Levels, (B, 3, H', W').
    """
    batch, channels, height, width = levels.shape
    across = _round(levels.reshape(batch, channels * height, width) @ columns.mT)
    across = across.view(batch, channels, height, -1).transpose(2, 3)  # (B, 3, W', H)
    down = across.reshape(batch, -1, height) @ rows.mT
    return _round(down).view(batch, channels, -1, rows.shape[1]).transpose(2, 3)


def interpolation(positions: Tensor, size: int) -> Tensor:
    """Weights of linear interpolation, and zeros where a position is off the image.

    Args:
        positions: Source coordinate of each target, (B, T); 0 is the centre of the first pixel.
        size: S, number of source pixels.

    Returns:
        (B, T, S).
    """
    sources = torch.arange(size, dtype=positions.dtype, device=positions.device)
    return (1 - (positions[:, :, None] - sources).abs()).clamp_min_(0)


def blurring(radius: Tensor, size: int) -> Tensor:
    """Weights of PIL's Gaussian blur: three box blurs that together have the wanted variance.

    Args:
        radius: Standard deviation in pixels, (B,).
        size: S; beyond the edge the last pixel repeats.

    Returns:
        (B, S, S).
    """
    variance = radius.double() ** 2 / 3
    whole = ((12 * variance + 1).sqrt() - 1).div(2).floor()
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    part = part / (6 * (variance - (whole + 1) ** 2))
    box_radius = (whole + part).float()  # of one box, fractional: its outermost pixels count less

    reach = 3  # pixels beyond the centre that a box can touch, for a radius up to 2
    offsets = torch.arange(-reach, reach + 1, device=radius.device)
    taps = (box_radius[:, None] + 1 - offsets.abs()).clamp(0, 1)
    taps = taps / taps.sum(dim=1, keepdim=True)  # (B, 2 reach + 1)
    targets = torch.arange(size, device=radius.device)
    sources = (targets[:, None] + offsets).clamp(0, size - 1)  # (S, 2 reach + 1)
    one_hot = F.one_hot(sources, size).to(taps.dtype)
    box = torch.einsum("bk,tks->bts", taps, one_hot)
    return box @ box @ box


def luma(levels: Tensor) -> Tensor:
    """Grey value of each pixel, (B, 3, H, W) -> (B, 1, H, W)."""
    red, green, blue = levels.split(1, dim=1)
    # ITU-R 601-2 luma in 16 bits, as PIL; sums stay below 2^24, so float32 is exact.
    return (19595 * red + 38470 * green + 7471 * blue + 32768).div_(65536).floor_()


def blend(first: Tensor, second: Tensor, share: Tensor) -> Tensor:
    """Go from the first image to the second, or beyond: first + share (second - first).

    Args:
        first: (B, 3, H, W), or shapes that broadcast to it.
        second: (B, 3, H, W).
        share: (B,).
    """
    return (
        torch.lerp(first.expand_as(second), second, share[:, None, None, None])
        .clamp_(0, 255)
        .floor_()
    )


def brightness(levels: Tensor, factor: Tensor) -> Tensor:
    """Black at factor (B,) 0, the image at 1."""
    return blend(levels.new_zeros(()), levels, factor)


def contrast(levels: Tensor, factor: Tensor) -> Tensor:
    """The image's mean grey at factor (B,) 0, the image at 1."""
    mean = luma(levels).mean(dim=(2, 3), keepdim=True).add_(0.5).floor_()
    return blend(mean, levels, factor)


def saturation(levels: Tensor, factor: Tensor) -> Tensor:
    """The grey image at factor (B,) 0, the image at 1."""
    return blend(luma(levels), levels, factor)


def sharpness(levels: Tensor, factor: Tensor) -> Tensor:
    """A smoothed image at factor (B,) 0, the image at 1."""
    kernel = torch.ones(3, 1, 3, 3, device=levels.device)
    kernel[:, :, 1, 1] = 5
    smooth = levels.clone()  # PIL leaves the border as it is
    smooth[:, :, 1:-1, 1:-1] = _round(F.conv2d(levels, kernel, groups=3) / 13)
    return blend(smooth, levels, factor)


def hue(levels: Tensor, turn: Tensor) -> Tensor:
    """Turn the colour wheel by ``turn`` (B,) of a circle, in 8 bits of hue and saturation."""
    red, green, blue = levels.unbind(1)
    highest = torch.maximum(torch.maximum(red, green), blue)
    spread = highest - torch.minimum(torch.minimum(red, green), blue)
    divisor = spread.clamp_min(1)
    wheel = torch.where(green == highest, 2 + (blue - red) / divisor, 4 + (red - green) / divisor)
    wheel = torch.where(red == highest, (green - blue) / divisor, wheel)
    angle = ((wheel / 6 + 1).frac_() * 255).floor_().mul_(spread > 0)
    amount = (spread / highest.clamp_min(1) * 255).floor_() / 255

    angle = _modulo(angle + (turn * 255).trunc()[:, None, None], 256) * (6 / 255)
    # Each channel is dark on a third of the wheel, bright on another, and linear in between.
    position = torch.stack([angle + 5, angle + 3, angle + 1], dim=1)
    position = _modulo(position, 6)
    darkness = torch.minimum(position, 4 - position).clamp_(0, 1)
    return _round(highest[:, None] * (1 - amount[:, None] * darkness))


def posterize(levels: Tensor, bits: Tensor) -> Tensor:
    """Keep the upper ``bits`` (B,) of each level."""
    step = (2 ** (8 - bits))[:, None, None, None]
    return (levels / step).floor_() * step


def solarize(levels: Tensor, threshold: Tensor) -> Tensor:
    """Invert the levels from ``threshold`` (B,) on."""
    return torch.where(levels < threshold[:, None, None, None], levels, 255 - levels)


def invert(levels: Tensor) -> Tensor:
    """Turn black to white."""
    return 255 - levels


def autocontrast(levels: Tensor) -> Tensor:
    """Stretch each channel to the full range."""
    lowest, highest = levels.amin(dim=(2, 3), keepdim=True), levels.amax(dim=(2, 3), keepdim=True)
    # In float64, as Python computes PIL's table: a product that is an integer must not fall short.
    # torch makes 255 / x a product with the inverse, which does.
    spread = (highest - lowest).double()
    scale = torch.full_like(spread, 255) / spread
    stretched = (levels.double() * scale - lowest.double() * scale).clamp_(0, 255).floor_()
    return torch.where(highest > lowest, stretched.to(levels.dtype), levels)


def equalize(levels: Tensor) -> Tensor:
    """Make the levels of each channel equally frequent."""
    pixels = levels.flatten(2).long()  # (B, 3, H W)
    counts = torch.zeros(*pixels.shape[:2], 256, dtype=torch.long, device=levels.device)
    counts.scatter_add_(2, pixels, torch.ones_like(pixels))
    last = pixels.amax(dim=2, keepdim=True)
    step = (pixels.shape[2] - counts.gather(2, last)) // 255
    before = counts.cumsum(dim=2) - counts
    table = ((step // 2 + before) // step.clamp_min(1)).clamp_(max=255)
    equal = table.gather(2, pixels)
    return torch.where(step > 0, equal, pixels).view(levels.shape).to(levels.dtype)


def translate(levels: Tensor, right: Tensor, down: Tensor) -> Tensor:
    """Look ``right`` and ``down`` (B,) pixels away, at the nearest pixel; grey beyond the edge."""
    batch, _, height, width = levels.shape
    columns = torch.arange(width, device=levels.device) + 0.5 + right[:, None]
    rows = torch.arange(height, device=levels.device) + 0.5 + down[:, None]
    return _nearest(
        levels,
        rows[:, :, None].expand(batch, height, width),
        columns[:, None].expand(batch, height, width),
    )


def rotate(levels: Tensor, degrees: Tensor) -> Tensor:
    """Turn counter-clockwise by ``degrees`` (B,) about the centre, nearest pixel, grey corners."""
    height, width = levels.shape[2:]
    angle = -degrees.double() * (math.pi / 180)
    cosine, sine = angle.cos()[:, None, None], angle.sin()[:, None, None]
    x = torch.arange(width, device=levels.device, dtype=torch.float64) + 0.5 - width / 2
    y = (torch.arange(height, device=levels.device, dtype=torch.float64) + 0.5 - height / 2)[
        :, None
    ]
    return _nearest(levels, -sine * x + cosine * y + height / 2, cosine * x + sine * y + width / 2)


def shear_y(levels: Tensor, slope: Tensor) -> Tensor:
    """Look ``slope`` (B,) times the column further down, bicubic; grey beyond the edge."""
    height, width = levels.shape[2:]
    columns = torch.arange(width, device=levels.device) + 0.5
    rows = torch.arange(height, device=levels.device)[:, None] + 0.5
    source = rows + slope[:, None, None] * columns  # (B, H, W)
    first = (source - 0.5).floor()
    t = (source - 0.5 - first)[:, None]
    neighbours = [
        levels.gather(2, (first + offset).clamp(0, height - 1).long()[:, None].expand_as(levels))
        for offset in (-1, 0, 1, 2)
    ]
    a, b, c, d = neighbours
    # PIL's cubic, whose parameter is -1.
    value = b + t * (c - a + t * (2 * (a - b) + c - d + t * (b - a + d - c)))
    inside = ((source >= 0) & (source < height))[:, None]
    return torch.where(inside, value.clamp_(0, 255).floor_(), GREY)


def affine(levels: Tensor, matrix: Tensor) -> Tensor:
    """Look each pixel up where ``matrix`` sends its centre, bilinear; black beyond the edge.

    Args:
        levels: (B, 3, H, W).
        matrix: From target to source coordinates (x, y), (B, 2, 3); the first pixel's centre is
            at 0.5.
    """
    height, width = levels.shape[2:]
    x = torch.arange(width, device=levels.device, dtype=matrix.dtype) + 0.5
    y = (torch.arange(height, device=levels.device, dtype=matrix.dtype) + 0.5)[:, None]
    column, row = (
        (m[:, 0, None, None] * x + m[:, 1, None, None] * y + m[:, 2, None, None])
        for m in matrix.unbind(1)
    )
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    left, top = (column - 0.5).floor(), (row - 0.5).floor()
    right_share = (column - 0.5 - left)[:, None].float()
    lower_share = (row - 0.5 - top)[:, None].float()

    def pixels(across: Tensor, along: Tensor) -> Tensor:
        flat = along.clamp(0, height - 1) * width + across.clamp(0, width - 1)
        index = flat.long().flatten(1)[:, None].expand(-1, levels.shape[1], -1)
        return levels.flatten(2).gather(2, index).view(levels.shape)

    upper = torch.lerp(pixels(left, top), pixels(left + 1, top), right_share)
    lower = torch.lerp(pixels(left, top + 1), pixels(left + 1, top + 1), right_share)
    return torch.lerp(upper, lower, lower_share).floor_() * inside[:, None]


def cut_out(levels: Tensor, row: Tensor, column: Tensor, length: int) -> Tensor:
    """Blacken a square of side ``length`` whose corner is at (row, column), each (B,)."""
    height, width = levels.shape[2:]
    rows = torch.arange(height, device=levels.device) - row[:, None]
    columns = torch.arange(width, device=levels.device) - column[:, None]
    hole = ((rows >= 0) & (rows < length))[:, :, None] & ((columns >= 0) & (columns < length))[
        :, None
    ]
    return levels.masked_fill(hole[:, None], 0)


def _nearest(levels: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read the pixel that holds each point (B, H, W); grey off the image."""
    height, width = levels.shape[2:]
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    flat = rows.floor().clamp(0, height - 1) * width + columns.floor().clamp(0, width - 1)
    index = flat.long().flatten(1)[:, None].expand(-1, levels.shape[1], -1)
    found = levels.flatten(2).gather(2, index).view(levels.shape)
    return torch.where(inside[:, None], found, GREY)


def _modulo(values: Tensor, divisor: int) -> Tensor:
    return values - divisor * (values / divisor).floor_()  # four times as fast as remainder


def _round(values: Tensor) -> Tensor:
    return values.add_(0.5).floor_()
