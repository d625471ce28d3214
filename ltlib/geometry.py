"""How close embeddings are to the simplex: neural-collapse measures NC1 to NC4.

Balanced training drives class means to a simplex equiangular tight frame (ETF): C directions of
equal length whose pairwise cosines are all -1/(C-1) (Papyan et al. 2020, arXiv:2008.08186).
These functions say how far a long-tailed one is from there. ``embeddings`` may be any vectors of
samples, projected (D) or backbone features (F).

Everything is computed and returned in float64: near collapse the measures are differences of
nearly equal numbers. A class without samples has a NaN mean and is left out of every measure.
"""

import math
from collections.abc import Sequence
from itertools import combinations_with_replacement

import torch
import torch.nn.functional as F
from torch import Tensor

_ROWS_AT_ONCE = 4096  # bounds the (N, C) distances of data sets with thousands of classes


def class_means(embeddings: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Average the embeddings of each class.

    Args:
        embeddings: One row per sample, (N, D).
        targets: Class of each row, (N,), int64 in [0, C).
        num_classes: C.

    Returns:
        Class means, (C, D), float64; a row of NaN for a class without samples.

    Raises:
        ValueError: If shapes disagree or a class is outside [0, C).
    """
    if embeddings.ndim != 2 or targets.shape != embeddings.shape[:1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(targets.shape)}"
        raise ValueError(f"embeddings and targets must be (N, D) and (N,), got {shapes}")
    return _average_by_class(embeddings.double(), targets, num_classes)


def cosine_matrix(means: Tensor, *, center: bool = True) -> Tensor:
    """Return the cosine of the angle between every two class means.

    Args:
        means: Class means, (C, D).
        center: Subtract the mean over classes first, as neural collapse does. The contrastive
            losses of unit embeddings are not invariant to a shift: for those also look without.

    Returns:
        Cosines, (C, C), in [-1, 1]; NaN in the rows and columns of classes without samples.
    """
    directions = F.normalize(_centered(means) if center else means.double(), dim=1)
    return directions @ directions.T


def equiangularity(means: Tensor, *, center: bool = True) -> float:
    """NC2: standard deviation, over pairs of classes, of the cosine between their means.

    std_{a != b} cos(h_a - h_G, h_b - h_G) with h_G the mean over classes; Papyan et al. 2020
    (arXiv:2008.08186).

    Args:
        means: Class means, (C, D).
        center: As in ``cosine_matrix``.

    Returns:
        0 when all pairs are equally far apart.
    """
    return float(_off_diagonal(cosine_matrix(means, center=center)).std(correction=0))


def equinorm(means: Tensor, *, center: bool = True) -> float:
    """NC2: coefficient of variation, over classes, of the length of the mean.

    std_c |h_c - h_G| / mean_c |h_c - h_G|; Papyan et al. 2020 (arXiv:2008.08186).

    Args:
        means: Class means, (C, D).
        center: As in ``cosine_matrix``.

    Returns:
        0 when all means are equally long.
    """
    norms = _present(_centered(means) if center else means.double()).norm(dim=1)
    return float(norms.std(correction=0) / norms.mean())


def simplex_gap(means: Tensor, *, center: bool = True) -> float:
    """NC2: mean distance of the pairwise cosines from those of the simplex.

    mean_{a != b} |cos(h_a - h_G, h_b - h_G) + 1/(C-1)|; Papyan et al. 2020 (arXiv:2008.08186).
    In fewer than C-1 dimensions no simplex exists and ``welch_bound`` says what is possible.

    Args:
        means: Class means, (C, D).
        center: As in ``cosine_matrix``.

    Returns:
        0 for a simplex, < 2.
    """
    means = _present(means)
    cosines = _off_diagonal(cosine_matrix(means, center=center))
    return float((cosines + 1 / (len(means) - 1)).abs().mean())


def welch_bound(num_classes: int, dim: int) -> float:
    """Return the smallest possible largest |cosine| between C directions in D dimensions.

    sqrt((C - D) / (D (C - 1))) (Welch 1974); the reference line where D < C-1, as in the 64
    dimensions of a CIFAR ResNet's feature for 100 classes.

    Args:
        num_classes: C, at least 2.
        dim: D.

    Returns:
        A cosine; 1/(C-1), the simplex, at D = C-1, and 0 from D = C on.
    """
    return math.sqrt(max(num_classes - dim, 0) / (dim * (num_classes - 1)))


def within_class_variability(embeddings: Tensor, targets: Tensor, num_classes: int) -> float:
    """NC1: spread of samples around their class mean, in units of the spread of the means.

    Tr(S_W S_B^+) / C with S_W = 1/N sum_i r_i r_i^T, r_i = h_i - h_{y_i}, and
    S_B = 1/C sum_c (h_c - h_G)(h_c - h_G)^T; Papyan et al. 2020 (arXiv:2008.08186).
    Few samples make it too small, by (n-1)/n for n samples a class: compare equal n.

    Args:
        embeddings: One row per sample, (N, D).
        targets: Class of each row, (N,), int64 in [0, C).
        num_classes: C.

    Returns:
        0 when every sample sits on its class mean.
    """
    means = class_means(embeddings, targets, num_classes)
    residuals = embeddings.double() - means[targets]
    # With M the centred means, S_B^+ = C M^+ M^+^T, so the trace needs no (D, D) matrix.
    # Centring leaves one singular value of pure rounding error, which must not be inverted.
    inverse = torch.linalg.pinv(_present(_centered(means)), rtol=1e-10)
    return float((residuals @ inverse).square().sum(dim=1).mean())


def trace_ratio(embeddings: Tensor, targets: Tensor, num_classes: int) -> float:
    """NC1 without a pseudo-inverse: Tr S_W / Tr S_B, all directions weighing the same.

    Args:
        embeddings: One row per sample, (N, D).
        targets: Class of each row, (N,), int64 in [0, C).
        num_classes: C.

    Returns:
        0 when every sample sits on its class mean.
    """
    means = class_means(embeddings, targets, num_classes)
    within = (embeddings.double() - means[targets]).square().sum(dim=1).mean()
    return float(within / _present(_centered(means)).square().sum(dim=1).mean())


def class_distance_variance(embeddings: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """NC1 pair by pair: class-distance normalised variance (CDNV).

    (Var_a + Var_b) / (2 |h_a - h_b|^2), Var_c = mean over the class of |h - h_c|^2; Galanti et
    al. 2022 (arXiv:2112.15121). ``mean_by_split`` averages it over head and tail pairs.

    Args:
        embeddings: One row per sample, (N, D).
        targets: Class of each row, (N,), int64 in [0, C).
        num_classes: C.

    Returns:
        One value per pair of classes, (C, C), 0 when collapsed; NaN on the diagonal.
    """
    means = class_means(embeddings, targets, num_classes)
    squares = (embeddings.double() - means[targets]).square().sum(dim=1, keepdim=True)
    variance = _average_by_class(squares, targets, num_classes)  # (C, 1)
    distance = torch.cdist(means, means, compute_mode="donot_use_mm_for_euclid_dist")
    return ((variance + variance.T) / (2 * distance.square())).fill_diagonal_(math.nan)


def self_duality(means: Tensor, classifier: Tensor, *, center: bool = True) -> float:
    """NC3: distance between the classifier's weights and the class means, both rescaled.

    | W/|W|_F - H/|H|_F |_F with H the centred class means; Papyan et al. 2020
    (arXiv:2008.08186). Works for anything with one row per class: weights, BCL's prototypes,
    ProCo's mean directions, PaCo's centers.

    Args:
        means: Class means, (C, D).
        classifier: One row per class, (C, D).
        center: Subtract the mean over classes from both.

    Returns:
        0 when they are proportional, 2 when opposite.

    Raises:
        ValueError: If shapes disagree.
    """
    if means.shape != classifier.shape:
        shapes = f"{tuple(means.shape)} and {tuple(classifier.shape)}"
        raise ValueError(f"means and classifier must both be (C, D), got {shapes}")
    present = ~means.isnan().any(dim=1)
    pair = [rows[present].double() for rows in (means, classifier)]
    first, second = (_centered(rows) if center else rows for rows in pair)
    return float((first / first.norm() - second / second.norm()).norm())


def nearest_mean_disagreement(embeddings: Tensor, predictions: Tensor, means: Tensor) -> float:
    """NC4: share of samples that the classifier does not give to the nearest class mean.

    mean_i [yhat_i != argmin_c |h_i - h_c|]; Papyan et al. 2020 (arXiv:2008.08186).

    Args:
        embeddings: One row per sample, (N, D).
        predictions: The classifier's class of each row, (N,), int64.
        means: Class means, (C, D).

    Returns:
        A fraction; 0 when the classifier is the nearest-mean rule.
    """
    chunks = embeddings.double().split(_ROWS_AT_ONCE)
    distances = (torch.cdist(chunk, means.double()) for chunk in chunks)  # (<= 4096, C) each
    nearest = torch.cat([chunk.nan_to_num(nan=math.inf).argmin(dim=1) for chunk in distances])
    return float((nearest != predictions).double().mean())


def mean_by_split(matrix: Tensor, splits: Sequence[str]) -> dict[str, float]:
    """Average a class-by-class matrix over pairs of different classes, by their splits.

    "few-few" cosines far above -1/(C-1) are minority collapse (Fang et al. 2021,
    arXiv:2101.12699).

    Args:
        matrix: One symmetric value per pair of classes, (C, C), such as ``cosine_matrix``.
        splits: Split of each class, (C,), as ``metrics.shots`` names them.

    Returns:
        Mean of each of the six pairs of splits, "many-many" to "few-few"; NaN where empty.
    """
    members = {name: torch.tensor([s == name for s in splits]) for name in _SPLITS}
    off_diagonal = matrix.double().clone().fill_diagonal_(math.nan)
    return {
        f"{a}-{b}": float(off_diagonal[members[a]][:, members[b]].nanmean())
        for a, b in combinations_with_replacement(_SPLITS, 2)
    }


def simplex(num_classes: int, dim: int) -> Tensor:
    """Construct a simplex ETF: C unit vectors whose pairwise cosines are all -1/(C-1).

    The vertices are the columns of the Helmert matrix, rescaled: exact up to rounding, the same
    on every machine. Dimensions beyond C-1 are zero.

    Args:
        num_classes: C, at least 2.
        dim: D, at least C-1.

    Returns:
        One vertex per class, (C, D), float64.

    Raises:
        ValueError: If there is no such simplex.
    """
    if num_classes < 2 or dim < num_classes - 1:
        needs = "a simplex needs num_classes >= 2 and dim >= num_classes - 1"
        raise ValueError(f"{needs}, got num_classes={num_classes} and dim={dim}")
    k = torch.arange(1, num_classes, dtype=torch.float64)
    helmert = torch.ones(num_classes, num_classes - 1, dtype=torch.float64).triu()
    helmert[1:] -= torch.diag(k)
    vertices = helmert * (num_classes / ((num_classes - 1) * k * (k + 1))).sqrt()
    return F.pad(vertices, (0, dim - num_classes + 1))


def nearest_simplex(means: Tensor) -> Tensor:
    """Rotate the simplex onto the class means: the ideal to draw beside them.

    The orthogonal Procrustes solution (Schoenemann 1966): with S the simplex, H the unit means
    and S^T H = U Sigma V^T, the rotation (or reflection) U V^T maximises the mean cosine.

    Args:
        means: Class means, (C, D), D >= C-1, none missing.

    Returns:
        One vertex per class, (C, D), float64.
    """
    ideal = simplex(*means.shape).to(means.device)
    left, _, right = torch.linalg.svd(ideal.T @ F.normalize(means.double(), dim=1))
    return ideal @ left @ right


_SPLITS = ("many", "medium", "few")


def _average_by_class(rows: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    counts = torch.bincount(targets, minlength=num_classes)
    if len(counts) > num_classes:
        raise ValueError(f"targets must be in [0, {num_classes}), got {int(targets.max())}")
    sums = rows.new_zeros(num_classes, rows.shape[1]).index_add_(0, targets, rows)
    return sums / counts[:, None]  # 0/0 is the NaN of a class without samples


def _centered(means: Tensor) -> Tensor:
    means = means.double()
    return means - _present(means).mean(dim=0)


def _present(means: Tensor) -> Tensor:
    return means[~means.isnan().any(dim=1)]


def _off_diagonal(cosines: Tensor) -> Tensor:
    pairs = cosines[~torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)]
    return pairs[~pairs.isnan()]
