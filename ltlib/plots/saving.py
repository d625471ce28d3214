"""A figure on disk: the PNG, the CSV it was drawn from, and what a notebook shows."""

import base64
import html
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from pandas.api.types import is_integer_dtype

_DPI = 200
_CSS_PIXELS_PER_INCH = 96  # half of _DPI or less: sharp on screens with doubled pixels
_WATERMARK = "watermark"
_STRIP_INCHES = 0.3
_AMBER, _DARK_AMBER = "#FFD98A", "#5C3A00"


@dataclass(frozen=True)
class SavedFigure:
    """A saved figure, which a notebook displays with its alt text, caption and files.

    The HTML is self-contained; only the links to the two files lead, by name, beside the page.
    """

    path: Path
    """The PNG; the CSV beside it has the same stem."""
    alt: str
    caption: str
    width: float
    """Inches."""

    @property
    def data_path(self) -> Path:
        """The CSV of the data that the figure was drawn from."""
        return self.path.with_suffix(".csv")

    def _repr_html_(self) -> str:
        png = base64.b64encode(self.path.read_bytes()).decode()
        links = " · ".join(
            f'<a href="{quote(path.name)}">{label}</a>'
            for path, label in [(self.path, "PNG"), (self.data_path, "data (CSV)")]
        )
        width = round(self.width * _CSS_PIXELS_PER_INCH)
        return (
            f'<figure style="margin:1em 0">'
            f'<img alt="{html.escape(self.alt)}" src="data:image/png;base64,{png}" '
            f'style="width:100%;max-width:{width}px;height:auto">'
            f'<figcaption style="font-size:0.9em;line-height:1.4;max-width:46rem">'
            f"{html.escape(self.caption)} <small>{links}</small></figcaption></figure>"
        )


def save_figure(
    figure: Figure,
    path: str | Path,
    data: pd.DataFrame,
    *,
    alt: str,
    caption: str = "",
    watermark: str | None = None,
) -> SavedFigure:
    """Write a figure as PNG and, beside it, the data it was drawn from as CSV.

    Closes the figure for pyplot, so that a notebook does not show it a second time; end the cell
    with the returned object, which displays the picture with its alt text.

    Args:
        figure: The figure; of Axes, ``ax.figure``.
        path: Where the PNG goes; ".png" may be left out, missing folders are made.
        data: The tidy data of the figure. An index is kept if it has a name or labels.
        alt: What the figure shows, for who cannot see it.
        caption: Data set, imbalance factor, seeds, epoch: enough to read the figure alone.
        watermark: Marks the figure as no result, e.g. "smoke run on digits, not a result".

    Returns:
        What a notebook displays.

    Raises:
        ValueError: If ``alt`` is blank.
    """
    if not alt.strip():
        raise ValueError("alt is blank: say in a sentence what the figure shows")
    path = Path(path)
    path = path if path.suffix == ".png" else path.with_name(f"{path.name}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    if watermark:
        add_watermark(figure, watermark)
        sentence = f"{watermark[0].upper()}{watermark[1:]}."
        alt, caption = f"{sentence} {alt}", f"{sentence} {caption}".strip()
    saved = SavedFigure(path, alt, caption, width=float(figure.get_size_inches()[0]))
    metadata = {"Title": path.stem, "Description": alt, "Comment": caption}
    metadata |= {"Source": saved.data_path.name, "Software": "ltlib"}
    figure.draw_without_rendering()  # the layout of Axes of fixed aspect settles in a second pass
    figure.savefig(path, dpi=_DPI, metadata=metadata)
    has_labels = data.index.names != [None] or not is_integer_dtype(data.index)
    data.to_csv(saved.data_path, index=has_labels, lineterminator="\n")
    plt.close(figure)
    return saved


def add_watermark(figure: Figure, text: str) -> None:
    """Set a strip with the text on top of the figure, which grows by its height; once.

    A strip covers no data, cannot be overlooked, and goes wherever the picture goes.

    Args:
        figure: The figure.
        text: Such as "smoke run on digits, not a result".
    """
    if figure.findobj(lambda artist: artist.get_gid() == _WATERMARK):
        return
    width, height = figure.get_size_inches()
    share = height / (height + _STRIP_INCHES)
    figure.set_size_inches(width, height + _STRIP_INCHES)
    figure.set_layout_engine("constrained", rect=(0, 0, 1, share))
    strip = Rectangle((0, share), 1, 1 - share, transform=figure.transFigure, color=_AMBER)
    figure.add_artist(strip)
    figure.text(
        0.5,
        (1 + share) / 2,
        text,
        gid=_WATERMARK,
        ha="center",
        va="center_baseline",
        weight="bold",
        color=_DARK_AMBER,
    )
