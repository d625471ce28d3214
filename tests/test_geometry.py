"""Geometry measures against naive loops, on the exact simplex, and under its symmetries."""

import math

import pytest
import torch
from torch.testing import assert_close

from ltlib import geometry

SCALARS = [geometry.equiangularity, geometry.equinorm, geometry.simplex_gap]
NC1 = [geometry.within_class_variability, geometry.trace_ratio]


@pytest.fixture
def sample() -> tuple[torch.Tensor, torch.Tensor]:
    """Sixty embeddings of four unevenly sized classes, (60, 6) and (60,)."""
    generator = torch.Generator().manual_seed(0)
    targets = torch.tensor([0] * 30 + [1] * 15 + [2] * 10 + [3] * 5)
    centers = torch.randn(4, 6, generator=generator, dtype=torch.float64)
    noise = torch.randn(60, 6, generator=generator, dtype=torch.float64)
    return centers[targets] + 0.3 * noise, targets


def rotation(dim: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64))[0]


# Oracles: naive loops from the equations.


def test_class_means_average_each_class(sample):
    embeddings, targets = sample
    expected = torch.stack([embeddings[targets == c].mean(dim=0) for c in range(4)])
    assert_close(geometry.class_means(embeddings, targets, 4), expected)


@pytest.mark.parametrize("center", [True, False])
def test_pairwise_measures_agree_with_a_loop_over_pairs(sample, center):
    means = geometry.class_means(*sample, 4)
    rows = [m - means.mean(dim=0) if center else m for m in means]
    cosines = [
        float(rows[a] @ rows[b] / (rows[a].norm() * rows[b].norm()))
        for a in range(4)
        for b in range(4)
        if a != b
    ]
    mean = sum(cosines) / 12
    std = math.sqrt(sum((c - mean) ** 2 for c in cosines) / 12)
    assert geometry.equiangularity(means, center=center) == pytest.approx(std)
    gap = sum(abs(c + 1 / 3) for c in cosines) / 12
    assert geometry.simplex_gap(means, center=center) == pytest.approx(gap)
    norms = torch.stack(rows).norm(dim=1)
    cv = float(norms.std(correction=0) / norms.mean())
    assert geometry.equinorm(means, center=center) == pytest.approx(cv)


def test_within_class_variability_is_the_trace_of_the_papers_matrices(sample):
    embeddings, targets = sample
    means = geometry.class_means(embeddings, targets, 4)
    within, between = torch.zeros(6, 6).double(), torch.zeros(6, 6).double()
    for row, target in zip(embeddings, targets, strict=True):
        within += torch.outer(row - means[target], row - means[target]) / 60
    for row in means - means.mean(dim=0):
        between += torch.outer(row, row) / 4
    expected = torch.trace(within @ torch.linalg.pinv(between, rtol=1e-9)) / 4
    assert geometry.within_class_variability(*sample, 4) == pytest.approx(float(expected))
    ratio = torch.trace(within) / torch.trace(between)
    assert geometry.trace_ratio(*sample, 4) == pytest.approx(float(ratio))


def test_class_distance_variance_agrees_with_a_loop_over_pairs(sample):
    embeddings, targets = sample
    measured = geometry.class_distance_variance(embeddings, targets, 4)
    groups = [embeddings[targets == c] for c in range(4)]
    variance = [((g - g.mean(dim=0)) ** 2).sum(dim=1).mean() for g in groups]
    for a in range(4):
        for b in range(4):
            if a != b:
                distance = (groups[a].mean(dim=0) - groups[b].mean(dim=0)).square().sum()
                assert_close(measured[a, b], (variance[a] + variance[b]) / (2 * distance))
    assert measured.diagonal().isnan().all()


def test_nearest_mean_disagreement_counts_samples(sample):
    embeddings, targets = sample
    means = geometry.class_means(*sample, 4)
    nearest = [min(range(4), key=lambda c: float((row - means[c]).norm())) for row in embeddings]
    expected = sum(a != b for a, b in zip(nearest, targets.tolist(), strict=True)) / 60
    assert geometry.nearest_mean_disagreement(embeddings, targets, means) == expected
    exact = geometry.nearest_mean_disagreement(embeddings, torch.tensor(nearest), means)
    assert exact == 0


def test_mean_by_split_averages_pairs_of_different_classes():
    matrix = torch.arange(16.0).reshape(4, 4)
    matrix = matrix + matrix.T
    means = geometry.mean_by_split(matrix, ["many", "many", "few", "few"])
    assert means["many-many"] == matrix[0, 1]
    assert means["few-few"] == matrix[2, 3]
    assert means["many-few"] == matrix[:2, 2:].mean()
    assert math.isnan(means["medium-medium"])
    assert len(means) == 6


# Laws: the simplex is ideal, and nothing depends on the frame.


@pytest.mark.parametrize(("num_classes", "dim"), [(2, 1), (3, 2), (4, 3), (10, 128), (100, 99)])
def test_simplex_is_equiangular_equinorm_and_centred(num_classes, dim):
    vertices = geometry.simplex(num_classes, dim)
    assert vertices.shape == (num_classes, dim)
    expected = torch.full_like(vertices @ vertices.T, -1 / (num_classes - 1)).fill_diagonal_(1)
    assert_close(vertices @ vertices.T, expected, atol=1e-14, rtol=0)
    assert_close(vertices.sum(dim=0), torch.zeros(dim).double(), atol=1e-13, rtol=0)
    for measure in SCALARS:
        assert measure(vertices) == pytest.approx(0, abs=1e-13)
        assert measure(vertices, center=False) == pytest.approx(0, abs=1e-13)
    assert geometry.self_duality(vertices, 7 * vertices) == pytest.approx(0, abs=1e-13)


def test_collapsed_samples_have_no_within_class_variability():
    targets = torch.arange(5).repeat(4)
    embeddings = geometry.simplex(5, 8)[targets]
    for measure in NC1:
        assert measure(embeddings, targets, 5) == pytest.approx(0, abs=1e-25)
    assert geometry.class_distance_variance(embeddings, targets, 5).nansum() < 1e-25


@pytest.mark.parametrize("measure", SCALARS)
def test_pairwise_measures_ignore_rotation_scale_and_shift(sample, measure):
    means = geometry.class_means(*sample, 4)
    moved = 3.7 * means @ rotation(6) + 2.0
    assert measure(moved) == pytest.approx(measure(means))
    uncentred = 3.7 * means @ rotation(6)
    assert measure(uncentred, center=False) == pytest.approx(measure(means, center=False))


@pytest.mark.parametrize("measure", NC1)
def test_within_class_measures_ignore_rotation_scale_and_shift(sample, measure):
    embeddings, targets = sample
    moved = 3.7 * embeddings @ rotation(6) + 2.0
    assert measure(moved, targets, 4) == pytest.approx(measure(embeddings, targets, 4))


def test_within_class_variability_survives_a_large_common_offset(sample):
    embeddings, targets = sample
    expected = geometry.within_class_variability(embeddings, targets, 4)
    shifted = geometry.within_class_variability(embeddings + 1e4, targets, 4)
    assert shifted == pytest.approx(expected, rel=1e-6)


def test_self_duality_ignores_scale_and_is_two_when_opposite(sample):
    means = geometry.class_means(*sample, 4)
    assert geometry.self_duality(means, 5 * means + 1) == pytest.approx(0, abs=1e-13)
    assert geometry.self_duality(means, -means) == pytest.approx(2)
    assert geometry.self_duality(means, means + 1, center=False) > 0.1


def test_nearest_simplex_finds_a_rotated_simplex_again():
    turned = geometry.simplex(4, 5) @ rotation(5)
    assert_close(geometry.nearest_simplex(2.5 * turned), turned)


def test_nearest_simplex_is_no_farther_than_any_other_rotation(sample):
    means = torch.nn.functional.normalize(geometry.class_means(*sample, 4), dim=1)
    nearest = geometry.nearest_simplex(means)
    assert geometry.simplex_gap(nearest) == pytest.approx(0, abs=1e-13)
    other = geometry.simplex(4, 6) @ rotation(6)
    assert (nearest * means).sum() >= (other * means).sum()


def test_welch_bound_meets_the_simplex_and_vanishes_with_room():
    assert geometry.welch_bound(10, 9) == pytest.approx(1 / 9)
    assert geometry.welch_bound(10, 10) == 0
    assert geometry.welch_bound(100, 64) == pytest.approx(0.0754, abs=1e-4)
    assert geometry.welch_bound(100, 32) == pytest.approx(0.1465, abs=1e-4)


def test_no_directions_beat_the_welch_bound():
    generator = torch.Generator().manual_seed(3)
    cosines = geometry.cosine_matrix(torch.randn(20, 5, generator=generator), center=False)
    assert cosines.fill_diagonal_(0).abs().max() >= geometry.welch_bound(20, 5)


# Edges.


def test_a_class_without_samples_is_nan_and_left_out_of_every_measure(sample):
    embeddings, targets = sample
    means = geometry.class_means(embeddings, targets, 5)
    assert means[4].isnan().all()
    assert geometry.cosine_matrix(means)[4].isnan().all()
    for measure in SCALARS:
        assert measure(means) == pytest.approx(measure(means[:4]))
    for measure in NC1:
        assert measure(*sample, 5) == pytest.approx(measure(*sample, 4))
    classifier = torch.ones(5, 6).double()
    classifier[:4] = means[:4]
    assert geometry.self_duality(means, classifier) == pytest.approx(0, abs=1e-13)
    disagreement = geometry.nearest_mean_disagreement(embeddings, targets, means)
    assert disagreement == geometry.nearest_mean_disagreement(embeddings, targets, means[:4])


def test_two_centred_classes_are_always_opposite():
    means = torch.tensor([[1.0, 2.0, 3.0], [-4.0, 0.0, 1.0]])
    expected = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).double()
    assert_close(geometry.cosine_matrix(means), expected)
    assert geometry.simplex_gap(means) == pytest.approx(0, abs=1e-12)


def test_too_few_dimensions_leave_a_gap():
    generator = torch.Generator().manual_seed(4)
    means = torch.randn(10, 3, generator=generator)
    assert geometry.simplex_gap(means) > 0.1
    with pytest.raises(ValueError, match="num_classes=10 and dim=3"):
        geometry.simplex(10, 3)
    with pytest.raises(ValueError, match="num_classes=1"):
        geometry.simplex(1, 3)


def test_half_precision_is_measured_in_double(sample):
    embeddings, targets = sample
    rounded = embeddings.bfloat16()
    means = geometry.class_means(rounded, targets, 4)
    assert means.dtype == torch.float64
    assert_close(means, geometry.class_means(rounded.double(), targets, 4))


def test_wrong_shapes_and_classes_are_refused(sample):
    embeddings, targets = sample
    with pytest.raises(ValueError, match=r"\(60, 6\) and \(59,\)"):
        geometry.class_means(embeddings, targets[1:], 4)
    with pytest.raises(ValueError, match=r"\[0, 3\), got 3"):
        geometry.class_means(embeddings, targets, 3)
    with pytest.raises(ValueError, match=r"\(4, 6\) and \(4, 5\)"):
        geometry.self_duality(torch.ones(4, 6), torch.ones(4, 5))
