"""Figures: what is written and drawn on the Axes, never how the pixels look."""

import base64
import re
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from PIL import Image

from ltlib import metrics, plots
from ltlib.plots.parts import split_spans
from ltlib.plots.style import INK, method_styles

METHODS = ["ce", "bcl", "proco"]


@pytest.fixture(autouse=True)
def _suite_style() -> Iterator[None]:
    mpl.use("Agg")
    with mpl.rc_context():
        plots.set_style()
        yield
    plt.close("all")


def long_tail(num_classes: int) -> np.ndarray:
    return (500 * 100.0 ** -np.linspace(0, 1, num_classes)).round().astype(int)


def tidy(**levels: list) -> pd.DataFrame:
    return pd.MultiIndex.from_product(list(levels.values()), names=list(levels)).to_frame(
        index=False
    )


def per_class(methods: list[str], num_classes: int, num_seeds: int) -> pd.DataFrame:
    """Rows of classes in shuffled order, which the figures sort."""
    rng = np.random.default_rng(0)
    classes = rng.permutation(num_classes).tolist()
    data = tidy(method=methods, seed=list(range(num_seeds)), rank=classes)
    data["train_count"] = long_tail(num_classes)[data["rank"]]
    data["accuracy"] = rng.uniform(0.2, 0.9, len(data))
    return data.assign(**{"class": [f"c{rank}" for rank in data["rank"]]}).drop(columns="rank")


def shot(methods: list[str], num_seeds: int) -> pd.DataFrame:
    splits = ["all", "many", "medium", "few"]
    data = tidy(method=methods, seed=list(range(num_seeds)), split=splits)
    return data.assign(accuracy=np.random.default_rng(1).uniform(0.3, 0.8, len(data)))


def history(methods: list[str], num_seeds: int, num_epochs: int = 12) -> pd.DataFrame:
    data = tidy(method=methods, seed=list(range(num_seeds)), epoch=list(range(num_epochs)))
    noise = np.random.default_rng(2).uniform(0, 0.1, len(data))
    return data.assign(all=0.02 * data["epoch"] + noise, loss=5 - 0.1 * data["epoch"])


def legend(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def note(ax: Axes) -> str:
    return ax.get_legend().get_title().get_text()


def texts(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.texts]


def x_labels(ax: Axes) -> list[str]:
    return [text.get_text() for text in ax.get_xticklabels()]


def errorbars(ax: Axes) -> list[ErrorbarContainer]:
    return [item for item in ax.containers if isinstance(item, ErrorbarContainer)]


def means(drawn: ErrorbarContainer) -> np.ndarray:
    return drawn.lines[0].get_ydata(orig=False)


# Palette and splits.


def test_every_method_has_a_name_a_color_and_a_marker_of_its_own():
    assert plots.METHOD_NAMES.keys() == plots.METHOD_COLORS.keys() == plots.METHOD_MARKERS.keys()
    for look in (plots.METHOD_NAMES, plots.METHOD_COLORS, plots.METHOD_MARKERS):
        assert len(set(look.values())) == len(look)


def test_methods_keep_the_suites_order_and_unknown_ones_follow():
    styles = method_styles(["zeta", "proco", "alpha", "ce", "proco"])
    assert list(styles) == ["ce", "proco", "zeta", "alpha"]
    assert [look.label for look in styles.values()] == ["CE", "ProCo", "zeta", "alpha"]
    assert len({look.color for look in styles.values()}) == 4


@pytest.mark.parametrize("count", [0, 19, 20, 100, 101, 5000])
def test_drawn_splits_are_those_of_the_metrics(count):
    assert split_spans(np.array([count])) == {str(metrics.shots([count])[0]): (-0.5, 0.5)}


def test_plots_do_not_load_torch():
    code = "import sys, ltlib.plots; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Class counts.


def test_few_classes_are_sorted_named_and_counted():
    data = pd.DataFrame({"class": ["eel", "cat", "dog"], "train_count": [15, 1900, 60]})
    ax = plots.plot_class_counts(data)
    assert ax.get_yscale() == "log"
    assert ax.get_ylabel() == "training images per class (log scale)"
    assert ax.get_xlabel() == "class, most to fewest training images"
    assert x_labels(ax) == ["cat", "dog", "eel"]
    assert {"1,900", "60", "15", "many > 100", "medium 20–100", "few < 20"} <= set(texts(ax))
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), [1900, 60, 15])


def test_curves_of_several_imbalance_factors_are_labelled_at_their_ends():
    frames = [
        pd.DataFrame({"class": range(30), "train_count": long_tail(30), "imbalance_factor": f})
        for f in (10, 100)
    ]
    ax = plots.plot_class_counts(pd.concat(frames))
    assert {"IF 10: 500 to 5", "IF 100: 500 to 5"} <= set(texts(ax))
    assert ax.get_xlabel() == "class rank, most to fewest training images"


def test_data_sets_of_unequally_many_classes_share_a_relative_axis():
    frames = [
        pd.DataFrame({"class": range(c), "train_count": long_tail(c), "dataset": f"d{c}"})
        for c in (10, 30)
    ]
    ax = plots.plot_class_counts(pd.concat(frames))
    assert ax.get_xlabel().endswith("(% of classes)")
    assert {"d10: 500 to 5", "d30: 500 to 5"} <= set(texts(ax))


# Per-class accuracy.


def test_named_classes_show_mean_and_spread_of_each_method():
    data = per_class(METHODS, 10, 3)
    ax = plots.plot_per_class_accuracy(data)
    assert ax.get_ylabel() == "accuracy (%)"
    assert ax.get_xlabel() == "class, and its number of training images"
    assert x_labels(ax)[0] == "c0\n500"
    assert [tick.get_text() for tick in ax.get_yticklabels()] == [
        "0",
        "20",
        "40",
        "60",
        "80",
        "100",
    ]
    assert legend(ax) == ["CE", "BCL", "ProCo"]
    assert note(ax) == "mean ± std over 3 seeds"
    assert texts(ax) == ["many\n> 100", "medium\n20–100", "few\n< 20"]
    for method, drawn in zip(METHODS, errorbars(ax), strict=True):
        rows = data[data["method"] == method].groupby("class")["accuracy"]
        names = [f"c{rank}" for rank in range(10)]
        np.testing.assert_allclose(means(drawn), rows.mean()[names])
        whiskers = np.array(drawn.lines[2][0].get_segments())  # (10, 2, xy)
        np.testing.assert_allclose(np.diff(whiskers[..., 1])[:, 0] / 2, rows.std()[names])
        assert to_hex(drawn.lines[0].get_color()).upper() == plots.METHOD_COLORS[method]


def test_many_classes_show_points_under_their_running_mean():
    data = per_class(["bcl"], 100, 3)
    ax = plots.plot_per_class_accuracy(data)
    points, band = ax.collections
    assert len(points.get_offsets()) == 100
    assert len(band.get_paths()) == 1
    (line,) = (line for line in ax.lines if len(line.get_xdata()) == 100)
    assert line.get_ydata()[0] == pytest.approx(points.get_offsets()[:6, 1].mean())
    assert line.get_ydata()[50] == pytest.approx(points.get_offsets()[45:56, 1].mean())
    assert note(ax) == (
        "mean ± std over 3 seeds; points are classes, lines their running mean of 11"
    )
    assert ax.get_xlabel() == "class rank, and its number of training images"


def test_one_seed_says_so_and_draws_no_spread():
    ax = plots.plot_per_class_accuracy(per_class(["ce"], 10, 1))
    assert note(ax) == "one seed (n = 1), no spread"
    assert np.isnan(errorbars(ax)[0].lines[2][0].get_segments()).all()


def test_unequal_numbers_of_seeds_stand_in_the_legend():
    data = per_class(["ce", "bcl"], 10, 3)
    ax = plots.plot_per_class_accuracy(data[(data["method"] == "bcl") | (data["seed"] == 0)])
    assert note(ax) == "mean ± std over n seeds"
    assert legend(ax) == ["CE (n = 1)", "BCL (n = 3)"]


def test_imported_weights_without_a_seed_count_as_one_run():
    ax = plots.plot_per_class_accuracy(per_class(["bcl"], 100, 1).assign(seed=np.nan))
    assert note(ax).startswith("one seed (n = 1)")


def test_a_class_without_test_samples_leaves_a_gap():
    data = per_class(["ce"], 10, 2)
    data.loc[data["class"] == "c4", "accuracy"] = np.nan
    (drawn,) = errorbars(plots.plot_per_class_accuracy(data))
    assert np.isnan(means(drawn)).tolist() == [rank == 4 for rank in range(10)]


def test_many_methods_read_row_by_row_in_the_legend():
    methods = list(plots.METHOD_NAMES)
    ax = plots.plot_per_class_accuracy(per_class(methods, 10, 1))
    entries = ax.get_legend()
    rows = -(-len(methods) // entries._ncols)
    starts = [0, *np.cumsum([len(methods[i :: entries._ncols]) for i in range(entries._ncols)])]
    columns = [legend(ax)[a:b] for a, b in pairwise(starts)]
    by_row = [column[row] for row in range(rows) for column in columns if row < len(column)]
    assert by_row == list(plots.METHOD_NAMES.values())


# Shot accuracy.


def test_shot_accuracy_shows_means_spread_and_seeds():
    data = shot(METHODS, 3)
    ax = plots.plot_shot_accuracy(data)
    assert ax.get_ylabel() == "accuracy (%)"
    assert ax.get_xlabel() == "split, by training images per class"
    assert x_labels(ax) == ["all", "many\n> 100", "medium\n20–100", "few\n< 20"]
    assert legend(ax) == ["CE", "BCL", "ProCo"]
    for method, drawn in zip(METHODS, errorbars(ax), strict=True):
        expected = data[data["method"] == method].groupby("split")["accuracy"].mean()
        np.testing.assert_allclose(means(drawn), expected)
        assert f"{100 * expected['few']:.1f}" in texts(ax)
    seeds = [dots for dots in ax.collections if len(dots.get_offsets()) == 12]
    assert len(seeds) == 3


def test_an_empty_split_says_so_and_is_not_zero():
    data = shot(METHODS, 2)
    data.loc[data["split"] == "few", "accuracy"] = np.nan
    ax = plots.plot_shot_accuracy(data)
    (words,) = (text for text in ax.texts if text.get_text() == "no classes")
    assert words.xy[0] == 3
    assert all(len(means(drawn)) == 3 for drawn in errorbars(ax))


def test_reported_values_are_bars_with_their_source():
    reference = pd.DataFrame(
        {"method": ["bcl", "paco"], "split": "all", "accuracy": [0.519, 0.52], "source": "T. 1"}
    )
    ax = plots.plot_shot_accuracy(shot(["bcl"], 3), reference)
    assert legend(ax) == ["BCL", "PaCo (not run)", "reported"]
    assert note(ax) == "mean ± std over 3 seeds\nreported: T. 1"
    lines = [item for item in ax.collections if isinstance(item, LineCollection)]
    dark = [line for line in lines if to_hex(line.get_color()[0]) == INK]
    assert [line.get_segments()[0][0, 1] for line in dark] == [0.519, 0.52]


def test_reported_values_alone_are_no_measurement():
    reference = pd.DataFrame(
        {"method": ["bcl"], "split": ["all"], "accuracy": [0.519], "source": ["T. 1"]}
    )
    ax = plots.plot_shot_accuracy(pd.DataFrame(), reference)
    assert note(ax).startswith("reported values only")
    assert texts(ax) == ["no value"] * 3


# History.


def test_history_shows_mean_lines_and_seed_bands():
    data = history(["bcl", "ce"], 3)
    ax = plots.plot_history(data)
    assert ax.get_xlabel() == "epoch"
    assert ax.get_ylabel() == "accuracy, all classes (%)"
    assert legend(ax) == ["CE", "BCL"]
    assert len(ax.lines) == len(ax.collections) == 2
    expected = data[data["method"] == "ce"].groupby("epoch")["all"].mean()
    np.testing.assert_allclose(ax.lines[0].get_ydata(), expected)
    assert "10" in [tick.get_text() for tick in ax.get_yticklabels()]


def test_the_authors_curve_is_dashed_with_its_source_in_the_legend():
    reference = pd.DataFrame({"epoch": [2, 0, 1], "all": [0.3, 0.1, 0.2], "source": "their log"})
    ax = plots.plot_history(history(["proco"], 1), reference=reference)
    assert legend(ax) == ["ProCo", "their log"]
    assert ax.lines[-1].get_linestyle() == "--"
    np.testing.assert_array_equal(ax.lines[-1].get_ydata(), [0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    ("column", "label"),
    [
        ("loss", "training loss (nats)"),
        ("loss/class_center", "training loss, class center term (nats)"),
        ("few", "accuracy, few-shot classes (%)"),
        ("seconds", "time per epoch (s)"),
        ("gap", "gap"),
    ],
)
def test_every_column_has_a_name_and_a_unit(column, label):
    data = history(["ce"], 1).assign(**{column: 0.5})
    assert plots.plot_history(data, column).get_ylabel() == label


def test_shared_axes_hold_all_their_curves():
    _, axs = plt.subplots(1, 2, sharey=True)
    plots.plot_history(history(["ce"], 1), ax=axs[0])
    plots.plot_history(history(["ce"], 1, num_epochs=40), ax=axs[1])
    assert axs[0].get_ylim()[0] >= 0
    assert axs[0].get_ylim()[1] > 0.8


# Cosine matrix.


def test_cosines_are_colored_around_the_ideal_with_a_grey_diagonal():
    ax = plots.plot_cosine_matrix(np.eye(5) * 1.25 - 0.25, name="simplex")
    (image,) = ax.images
    assert image.norm(-0.25) == pytest.approx(0.5)
    assert np.ma.getmaskarray(image.get_array()).tolist() == np.eye(5, dtype=bool).tolist()
    assert ax.get_title(loc="left") == "simplex\nmean |cos − ideal| = 0.000"
    bar = image.colorbar.ax
    assert bar.get_xlabel() == "cosine between class means"
    assert "−0.25\nideal" in [tick.get_text() for tick in bar.get_xticklabels()]


def test_cosines_are_sorted_many_to_few_with_marked_splits():
    names = ["rare", "common", "some"]
    cosines = np.array([[1, 0.1, 0.2], [0.1, 1, 0.3], [0.2, 0.3, 1]])
    matrix = pd.DataFrame(cosines, index=names, columns=names)
    ax = plots.plot_cosine_matrix(matrix, counts=[3, 500, 50])
    assert x_labels(ax) == ["common", "some", "rare"]
    drawn = ax.images[0].get_array()
    assert [drawn[0, 1], drawn[0, 2], drawn[1, 2]] == [0.3, 0.1, 0.2]
    assert texts(ax) == ["many", "medium", "few"]
    assert len(ax.lines) == 4


def test_neighbouring_matrices_share_norm_and_colorbar():
    figure, axs = plt.subplots(1, 2)
    plots.plot_cosine_matrix(np.eye(30), ax=axs[0], colorbar=False)
    plots.plot_cosine_matrix(0.5 * np.eye(30), ax=axs[1], colorbar=axs)
    first, second = (ax.images[0].norm for ax in axs)
    assert (first.vmin, first.vmax) == (second.vmin, second.vmax)
    assert len(figure.axes) == 3
    assert axs[0].get_xlabel() == "class"


@pytest.mark.parametrize("shape", [(3, 4), (1, 1)])
def test_a_matrix_of_no_pairs_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"got {shape}")):
        plots.plot_cosine_matrix(np.ones(shape))


# Simplex.


def test_the_sphere_shows_samples_means_and_the_ideal():
    rng = np.random.default_rng(3)
    points = rng.normal(size=(40, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    data = pd.DataFrame(points, columns=["x", "y", "z"]).assign(**{"class": list("abcd") * 10})
    means = data.groupby("class")[["x", "y", "z"]].mean().reset_index()
    ax = plots.plot_simplex(data, means, ideal=np.eye(4)[:, :3])
    assert texts(ax) == ["a", "b", "c", "d"]
    assert len(ax.artists) + len(ax.patches) == 4
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert len(dashed) == 6
    assert ax.get_title() == "points: samples, arrows: class means, dashed: ideal simplex"
    ax.figure.canvas.draw()
    alone = plots.plot_simplex(data.assign(train_count=1))
    assert alone.get_title() == "points: samples"


def test_a_title_takes_the_place_of_the_note():
    flat = plots.plot_cosine_matrix(np.eye(3))
    flat.set_title("BCL")
    assert [flat.get_title(loc=loc) for loc in ("left", "center")] == ["BCL", ""]
    sphere = plots.plot_simplex(pd.DataFrame({"class": [0], "x": [1.0], "y": [0.0], "z": [0.0]}))
    sphere.set_title("ProCo")
    assert [sphere.get_title(loc=loc) for loc in ("left", "center")] == ["", "ProCo"]


# What is missing.


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_class_counts,
        plots.plot_per_class_accuracy,
        plots.plot_shot_accuracy,
        plots.plot_history,
        plots.plot_simplex,
    ],
)
def test_nothing_to_draw_says_not_run_and_missing_columns_are_named(plot):
    assert texts(plot(pd.DataFrame())) == ["not run"]
    with pytest.raises(ValueError, match=r"data lacks the columns .* it has \['a'\]"):
        plot(pd.DataFrame({"a": [1]}))


def test_unknown_methods_still_plot():
    ax = plots.plot_history(history(["mine", "BCL (authors' weights)"], 2))
    assert legend(ax) == ["mine", "BCL (authors' weights)"]


# Saving.


def test_the_csv_beside_the_png_holds_exactly_the_data(tmp_path: Path):
    data = shot(["ce"], 3)
    figure = plots.plot_shot_accuracy(data).figure
    saved = plots.save_figure(figure, tmp_path / "new" / "shot-if0.1", data, alt="Shots.")
    assert saved.path == tmp_path / "new" / "shot-if0.1.png"
    assert saved.data_path == tmp_path / "new" / "shot-if0.1.csv"
    pd.testing.assert_frame_equal(pd.read_csv(saved.data_path), data)
    assert not plt.fignum_exists(figure.number)


def test_labels_in_the_index_are_kept(tmp_path: Path):
    matrix = pd.DataFrame(np.eye(2), index=["a", "b"], columns=["a", "b"])
    saved = plots.save_figure(plt.figure(), tmp_path / "matrix.png", matrix, alt="Cosines.")
    pd.testing.assert_frame_equal(pd.read_csv(saved.data_path, index_col=0), matrix)


def test_the_png_is_sharp_small_and_says_what_it_is(tmp_path: Path):
    data = history(METHODS, 3)
    figure = plots.plot_history(data).figure
    saved = plots.save_figure(figure, tmp_path / "h.png", data, alt="Ünïcode ±.", caption="C.")
    with Image.open(saved.path) as image:
        assert image.size == (1280, 800)
        assert image.info["Description"] == "Ünïcode ±."
        assert image.info["Source"] == "h.csv"
    assert saved.path.stat().st_size < 500_000


def test_the_notebook_shows_a_self_contained_figure_with_escaped_texts(tmp_path: Path):
    data = pd.DataFrame({"a": [1]})
    saved = plots.save_figure(
        plt.figure(), tmp_path / "a b.png", data, alt='A "<script>".', caption="n < 3 & so on."
    )
    page = saved._repr_html_()
    assert 'alt="A &quot;&lt;script&gt;&quot;."' in page
    assert "n &lt; 3 &amp; so on." in page
    assert 'href="a%20b.png"' in page
    assert 'href="a%20b.csv"' in page
    (embedded,) = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    assert base64.b64decode(embedded) == saved.path.read_bytes()
    assert "http" not in page


def test_a_blank_alt_text_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="alt is blank"):
        plots.save_figure(plt.figure(), tmp_path / "a.png", pd.DataFrame(), alt=" ")


def test_a_smoke_run_is_marked_once_in_picture_alt_and_caption(tmp_path: Path):
    data = history(["ce"], 1)
    figure = plots.plot_history(data).figure
    words = "smoke run on digits, not a result"
    for _ in range(2):
        saved = plots.save_figure(
            figure, tmp_path / "s.png", data, alt="Curve.", caption="CE.", watermark=words
        )
    assert [text.get_text() for text in figure.texts] == [words]
    assert figure.get_size_inches().tolist() == pytest.approx([6.4, 4.3])
    assert saved.alt == "Smoke run on digits, not a result. Curve."
    assert saved.caption == "Smoke run on digits, not a result. CE."
