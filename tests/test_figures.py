import numpy as np
import pandas as pd
import pytest
from conftest import tiny

from ltlib import figures, geometry
from ltlib.config import DataConfig
from ltlib.reproduce import compare
from ltlib.runs import load_runs, open_run
from ltlib.trainer import train


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Finished runs of two methods, one of them with two seeds."""
    folder = tmp_path_factory.mktemp("runs")
    for method, seed in (("ce", 0), ("ce", 1), ("proco", 0)):
        config = tiny(method, seed=seed, optim__epochs=1)
        train(config, open_run(config, f"{method}-digits-if50", folder))
    return load_runs(folder)


def saved(figure):
    """Return a saved figure's data, having checked that picture, data and texts are there."""
    assert figure.path.stat().st_size > 5000
    assert figure.alt
    assert figure.caption
    return pd.read_csv(figure.data_path)


def test_class_counts_say_totals(tmp_path):
    tails = [DataConfig(imbalance_factor=factor) for factor in (1, 50)]
    figure = figures.class_counts(tails, tmp_path)
    assert saved(figure).groupby("imbalance_factor")["train_count"].sum()[50] == 390
    assert "IF 50: 390 images, 138 to 2 a class" in figure.caption


def test_accuracy_figures_state_data_seeds_and_epochs(runs, tmp_path):
    for make in (figures.per_class_accuracy, figures.shot_accuracy, figures.history):
        figure = make(runs, tmp_path)
        assert "digits, imbalance factor 100, n = 1 to 2, last of 1 epochs." in figure.caption
        assert set(saved(figure)["method"]) == {"ce", "proco"}


def test_shot_figure_repeats_the_runs_accuracy(runs, tmp_path):
    figure = figures.shot_accuracy(runs, tmp_path)
    data = saved(figure)
    ours = data[(data["split"] == "all") & (data["method"] == "ce")]["accuracy"]
    np.testing.assert_allclose(ours, runs[runs["method"] == "ce"]["all"])
    assert f"CE {100 * ours.mean():.1f} %" in figure.alt


def test_cosines_are_those_of_the_saved_means(runs, tmp_path):
    data = saved(figures.cosine_matrices(runs, tmp_path))
    assert data.groupby("method").size().to_dict() == {"ce": 90, "proco": 90}
    assert data["cosine"].between(-1, 1).all()


def test_spheres_show_four_classes_as_unit_vectors(runs, tmp_path):
    data = saved(figures.spheres(runs, tmp_path, methods=("proco",)))
    assert set(data["method"]) == {"proco"}
    assert sorted(data["class"].unique()) == [0, 1, 8, 9]
    np.testing.assert_allclose(np.linalg.norm(data[["x", "y", "z"]], axis=1), 1)
    means = data[data["what"] == "class mean"][["x", "y", "z"]].to_numpy()
    assert means.shape == (4, 3)


def test_a_perfect_simplex_is_drawn_as_a_regular_tetrahedron():
    from ltlib.figures.embeddings import _tetrahedron

    vertices = geometry.simplex(4, 16).float().numpy()
    arrays = {
        "class_counts": np.array([40, 30, 20, 10]),
        "embedding_means": vertices,
        "sample_embeddings": vertices,
        "sample_targets": np.arange(4),
    }
    _, means, ideal = _tetrahedron(arrays)
    cosines = means[["x", "y", "z"]].to_numpy() @ means[["x", "y", "z"]].to_numpy().T
    np.testing.assert_allclose(cosines[~np.eye(4, dtype=bool)], -1 / 3, atol=1e-6)
    np.testing.assert_allclose(ideal, means[["x", "y", "z"]], atol=1e-6)


def test_watermark_reaches_caption_and_alternative_text(runs, tmp_path):
    figure = figures.history(runs, tmp_path, watermark="smoke run on digits, not a result")
    assert figure.caption.startswith("Smoke run on digits, not a result")


def test_tables_leave_missing_cells_empty_and_grey_what_is_not_comparable(runs):
    table = compare("start_here", runs)
    page = figures.show(table, caption="A caption").to_html()
    assert "A caption" in page
    assert "nan" not in page.lower().replace("nanm", "")
    assert page.count("color: #8a909c") > 0
    assert "data.imbalance_factor = 100.0" in page


def test_geometry_and_provenance_tables_have_a_row_each(runs):
    page = figures.geometry_table(runs).to_html()
    assert "NC1 within-class variability" in page
    assert page.count("ProCo") == 1
    page = figures.provenance_table(runs).to_html()
    assert page.count("digits-if50/") == 3


def test_recurrence_error_names_where_it_fails(tmp_path):
    figure = figures.recurrence_error(tmp_path)
    data = saved(figure)
    assert "1024 dimensions: nowhere" in figure.caption
    wrong = data[(data["dim"] == 128) & (data["error"] > 1e-3)]["kappa"].min()
    assert 1e3 < wrong < 3e3
