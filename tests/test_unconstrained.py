"""Free unit vectors: known optima, the bound, the released average, and the pictures of them."""

import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ltlib import geometry, plots, unconstrained
from ltlib.config import (
    BalancedContrastConfig,
    GeneralizedParametricContrastConfig,
    LogitAdjustmentConfig,
    ParametricContrastConfig,
    ProbabilisticContrastConfig,
    SupervisedContrastConfig,
)
from ltlib.figures import MEASURES
from ltlib.runs import load_runs

ROOT = Path(__file__).parents[1]
BALANCED, TAIL = (6, 6, 6, 6), (16, 4, 2, 1)
BOUND = 0.5826576530618005  # log(1 + 3 exp(-4/3))

SCL = SupervisedContrastConfig(temperature=1)
PER_SAMPLE = BalancedContrastConfig(temperature=1)
PER_CLASS = BalancedContrastConfig(temperature=1, anchor_average="class")
AVERAGING = BalancedContrastConfig(temperature=1, class_complement=False)
PROCO = ProbabilisticContrastConfig(temperature=1)
PACO = ParametricContrastConfig(temperature=1)


def pairs(end):
    return end.cosines[~torch.eye(len(end.cosines), dtype=torch.bool)]


def assert_simplex(end, tolerance=1e-4):
    ideal = torch.full_like(pairs(end), -1 / (len(end.cosines) - 1))
    torch.testing.assert_close(pairs(end), ideal, rtol=0, atol=tolerance)


# --- known optima ---


@pytest.mark.parametrize("method", unconstrained.ladder(1.0).values())
def test_balanced_counts_end_in_the_simplex(method):
    end = unconstrained.minimize(method, BALANCED, dim=3, seeds=[0, 1])
    assert_simplex(end)
    assert end.agreeing == end.starts == 2
    found = unconstrained.measures(end.embeddings, end.targets, end.class_vectors)
    assert found["within_class_variability"] < 1e-8
    assert found["equinorm"] < 1e-6
    assert math.isnan(found["self_duality"]) or found["self_duality"] < 1e-3


@pytest.mark.parametrize("counts", [TAIL, (9, 1, 1), (5, 4, 3, 2, 2)])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_per_class_average_reaches_simplex_and_bound_whatever_the_counts(counts, temperature):
    method = BalancedContrastConfig(temperature=temperature, anchor_average="class")
    end = unconstrained.minimize(method, counts, dim=len(counts), seeds=[0])
    assert_simplex(end)
    bound = unconstrained.lower_bound(len(counts), temperature)
    assert end.loss == pytest.approx(bound, abs=1e-6)


def test_dimension_below_the_simplex_leaves_the_bound_unmet():
    end = unconstrained.minimize(PER_CLASS, BALANCED, dim=2, seeds=[0])
    assert end.loss > BOUND + 1e-3


@pytest.mark.parametrize(
    ("method", "lowest", "highest"),
    [
        (SCL, -0.850, 0.207),
        (AVERAGING, -0.858, 0.854),
        (AVERAGING.model_copy(update={"anchor_average": "class"}), -0.435, -0.209),
        (PER_SAMPLE, -0.726, 0.474),
    ],
)
def test_long_tail_bends_what_is_not_averaged_per_class(method, lowest, highest):
    end = unconstrained.minimize(method, TAIL, dim=4, seeds=[0, 1])
    assert float(pairs(end).min()) == pytest.approx(lowest, abs=1e-3)
    assert float(pairs(end).max()) == pytest.approx(highest, abs=1e-3)
    assert end.agreeing == 2


def test_released_average_goes_below_the_bound_of_the_simplex():
    end = unconstrained.minimize(PER_SAMPLE, TAIL, dim=4, seeds=[0])
    assert end.loss == pytest.approx(0.5262177, abs=1e-6)
    assert end.loss < BOUND - 0.05
    assert unconstrained.simplex_loss(PER_SAMPLE, TAIL, dim=4) == pytest.approx(BOUND, abs=1e-12)


def test_missing_classes_need_the_complement():
    batches = unconstrained.draw_batches((16, 8, 4, 2), size=8, number=12, seed=0)
    ends = [
        unconstrained.minimize(method, (16, 8, 4, 2), dim=3, seeds=[0], batches=batches)
        for method in (AVERAGING.model_copy(update={"anchor_average": "class"}), PER_CLASS)
    ]
    assert ends[0].gap > 0.2
    assert 1e-3 < ends[1].gap < 0.1


# --- laws ---


@pytest.mark.parametrize("method", [SCL, PER_SAMPLE, PROCO, PACO])
def test_optimum_does_not_depend_on_the_start(method):
    ends = [unconstrained.minimize(method, (6, 4, 2), dim=3, seeds=[seed]) for seed in (0, 7)]
    assert ends[0].loss == pytest.approx(ends[1].loss, abs=1e-7)
    torch.testing.assert_close(ends[0].cosines, ends[1].cosines, rtol=0, atol=1e-3)


def test_same_seeds_give_the_same_vectors():
    ends = [unconstrained.minimize(PER_CLASS, (4, 2), dim=2, seeds=[3, 4]) for _ in range(2)]
    assert torch.equal(ends[0].embeddings, ends[1].embeddings)


def test_batch_of_everything_is_no_batches_at_all():
    everything = [torch.arange(12)]
    ends = [
        unconstrained.minimize(PER_SAMPLE, (6, 4, 2), dim=3, seeds=[0], batches=batches)
        for batches in (None, everything)
    ]
    assert ends[0].loss == ends[1].loss


@pytest.mark.parametrize("method", [SCL, PER_SAMPLE, PER_CLASS])
def test_gradient_descent_ends_where_the_loss_is_smallest(method):
    end, way = unconstrained.descend(method, (6, 4, 2), dim=2, steps=1000)
    best = unconstrained.minimize(method, (6, 4, 2), dim=2)
    assert end.loss == pytest.approx(best.loss, abs=1e-7)
    assert way["step"].is_monotonic_increasing
    assert way["step"].iloc[[0, -1]].tolist() == [0, 1000]
    assert way["loss"].iloc[-1] == end.loss
    assert way["loss"].iloc[0] > end.loss


def test_proco_rests_where_vectors_and_statistics_agree():
    end = unconstrained.minimize(PROCO, (6, 4, 2), dim=3, seeds=[0])
    torch.testing.assert_close(end.means, end.class_vectors, rtol=0, atol=1e-5)
    assert end.gap > 0.05  # the class prior in its logits


def test_paco_collapses_each_class_and_keeps_its_centers_finite():
    end = unconstrained.minimize(PACO, (8, 4, 2), dim=3, seeds=[0])
    found = unconstrained.measures(end.embeddings, end.targets, end.class_vectors)
    assert found["within_class_variability"] < 1e-6
    assert found["nearest_mean_disagreement"] == 0
    assert end.class_vectors.norm(dim=1).max() < 50


def test_lower_bound_is_the_simplex_loss_of_bcl():
    assert unconstrained.lower_bound(4, 1.0) == pytest.approx(BOUND, abs=1e-12)
    for counts, temperature in [((5, 3, 2), 0.1), ((2, 1), 0.5), ((3, 3, 2, 2, 1), 2.0)]:
        method = BalancedContrastConfig(temperature=temperature)
        at_simplex = unconstrained.simplex_loss(method, counts, dim=len(counts))
        bound = unconstrained.lower_bound(len(counts), temperature)
        assert at_simplex == pytest.approx(bound, rel=1e-9)


def test_measures_of_the_simplex_are_zero():
    corners = geometry.simplex(5, 6)
    targets = torch.arange(5).repeat_interleave(3)
    found = unconstrained.measures(corners[targets], targets, 2 * corners)
    assert found["lowest_cosine"] == pytest.approx(-0.25)
    assert found["highest_cosine"] == pytest.approx(-0.25)
    for name in MEASURES:
        assert found[name] == pytest.approx(0, abs=1e-12)


def test_batches_are_drawn_without_replacement_and_by_seed():
    batches = unconstrained.draw_batches((6, 4, 2), size=5, number=3, seed=1)
    assert [len(set(batch.tolist())) for batch in batches] == [5, 5, 5]
    assert set(torch.cat(batches).tolist()) <= set(range(12))
    again = unconstrained.draw_batches((6, 4, 2), size=5, number=3, seed=1)
    assert all(map(torch.equal, batches, again))


# --- edges ---


def test_gpaco_is_paco_but_for_its_label_smoothing():
    methods = (
        ParametricContrastConfig(temperature=1),
        GeneralizedParametricContrastConfig(temperature=1),
        GeneralizedParametricContrastConfig(temperature=1, label_smoothing=0.1),
    )
    paco, gpaco, smooth = (
        unconstrained.minimize(method, (4, 4, 4), dim=2, seeds=[0]).loss for method in methods
    )
    assert paco == gpaco < smooth


def test_method_without_contrast_is_refused():
    with pytest.raises(ValueError, match="la has no loss of unit vectors; choose scl, bcl"):
        unconstrained.minimize(LogitAdjustmentConfig(), BALANCED, dim=3)


def test_batches_for_proco_are_refused():
    with pytest.raises(ValueError, match="leave batches out"):
        unconstrained.minimize(PROCO, BALANCED, dim=3, batches=[torch.arange(4)])


@pytest.mark.parametrize("counts", [(4,), (4, 0)])
def test_bad_counts_are_named(counts):
    with pytest.raises(ValueError, match="class_counts must be two or more numbers >= 1, got"):
        unconstrained.minimize(SCL, counts, dim=3)


def test_simplex_loss_of_paco_is_refused():
    with pytest.raises(ValueError, match="paco's centers may have any length"):
        unconstrained.simplex_loss(PACO, BALANCED, dim=3)


# --- pictures ---


@pytest.fixture(scope="module")
def ends():
    """Cheap arrangements under the names of the ladder: pictures do not care how good they are."""
    return {
        name: unconstrained.descend(method, (4, 3, 2, 2), dim=3, steps=3)
        for name, method in unconstrained.ladder(1.0).items()
    }


@pytest.fixture(autouse=True)
def _style():
    plots.set_style()


def test_pictures_say_what_they_show(ends, tmp_path):
    losses = {name: end for name, (end, _) in ends.items()}
    cold = unconstrained.descend(unconstrained.parts(0.5)["SCL"], (4, 3, 2, 2), dim=3, steps=3)[0]
    saved = [
        unconstrained.spheres(losses, tmp_path, "spheres_long_tailed"),
        unconstrained.cosine_matrices(losses, tmp_path),
        unconstrained.losses_against_simplex(losses, losses, tmp_path),
        unconstrained.steps(ends, tmp_path),
        unconstrained.temperatures({"SCL": [losses["SCL"], cold]}, tmp_path, recipe=0.5),
        unconstrained.batches(losses, losses, tmp_path, size=4),
    ]
    for picture in saved:
        assert picture.path.exists()
        assert picture.data_path.exists()
        assert "SCL" in picture.alt
        assert "4, 3, 2 and 2 vectors a class, 3 dimensions" in picture.caption
    assert "from 0.5 to 1" in saved[4].caption


def test_spheres_stand_upright(ends, tmp_path):
    end = unconstrained.minimize(PER_CLASS, (4, 3, 2, 2), dim=3, seeds=[0])
    saved = unconstrained.spheres({"BCL, per class": end}, tmp_path, "one")
    first = saved.data_path.read_text().splitlines()[1].split(",")
    assert [float(x) for x in first[:3]] == pytest.approx([0, 0, 1], abs=1e-4)


def test_results_table_leaves_the_simplex_of_paco_empty(ends):
    losses = {name: end for name, (end, _) in ends.items()}
    table = unconstrained.results_table(losses, losses).data
    empty = table.loc[table["loss of the simplex"].isna(), "method"]
    assert set(empty) == {"PaCo"}
    assert set(table["counts"]) == {"balanced", "long\N{NON-BREAKING HYPHEN}tailed"}


def test_trained_networks_says_so_when_there_are_none(tmp_path):
    saved = unconstrained.trained_networks(load_runs(tmp_path / "none"), tmp_path)
    assert saved.caption.startswith("No finished run of a contrastive method was found")
    assert saved.path.exists()


@pytest.mark.notebook
def test_notebook_runs_without_runs_and_from_another_folder(tmp_path):
    command = [sys.executable, "-m", "papermill", "--no-progress-bar"]
    command += [str(ROOT / "notebooks/simplex_geometry.ipynb"), str(tmp_path / "out.ipynb")]
    for name, value in (("seeds", "[0]"), ("runs_dir", "runs"), ("figures_dir", "figures")):
        command += ["-p", name, value if name == "seeds" else str(tmp_path / value)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = tmp_path / "figures" / "simplex_geometry"
    pictures = {file.stem for file in figures.glob("*.png")}
    assert pictures == {file.stem for file in figures.glob("*.csv")}
    assert len(pictures) == 8
