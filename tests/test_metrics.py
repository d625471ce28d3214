"""Metrics against scikit-learn, torchmetrics, and by hand at the edges."""

import math

import numpy as np
import pytest
import sklearn.metrics
import torch
import torchmetrics.functional.classification as oracle

from ltlib import metrics


@pytest.fixture
def scored() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(400, 5)) * 2
    targets = rng.integers(0, 5, size=400)
    logits[np.arange(400), targets] += 1.5
    return logits, targets


def test_per_class_accuracy_is_the_recall_of_scikit_learn(scored):
    logits, targets = scored
    predictions = logits.argmax(axis=1)
    expected = sklearn.metrics.recall_score(targets, predictions, average=None)
    np.testing.assert_allclose(metrics.per_class_accuracy(predictions, targets, 5), expected)


def test_confusion_matrix_counts_like_scikit_learn(scored):
    logits, targets = scored
    predictions = logits.argmax(axis=1)
    matrix = metrics.confusion_matrix(predictions, targets, 5)
    np.testing.assert_array_equal(matrix, sklearn.metrics.confusion_matrix(targets, predictions))
    assert matrix.dtype == np.int64


@pytest.mark.parametrize("num_bins", [1, 10, 15])
def test_calibration_agrees_with_torchmetrics_and_scikit_learn(scored, num_bins):
    logits, targets = scored
    measured = metrics.calibration(logits, targets, num_bins)
    as_tensors = torch.tensor(logits), torch.tensor(targets)
    ece = oracle.multiclass_calibration_error(*as_tensors, num_classes=5, n_bins=num_bins)
    probabilities = as_tensors[0].softmax(1).numpy()
    assert measured["ece"] == pytest.approx(float(ece), abs=1e-6)
    assert measured["nll"] == pytest.approx(sklearn.metrics.log_loss(targets, probabilities))
    one_hot = np.eye(5)[targets]
    assert measured["brier"] == pytest.approx(((probabilities - one_hot) ** 2).sum(1).mean())


def test_split_bounds_themselves_are_medium_shot():
    names = metrics.shots([101, 100, 20, 19, 0])
    assert names.tolist() == ["many", "medium", "medium", "few", "few"]


def test_shot_accuracy_averages_classes_within_their_split():
    measured = metrics.shot_accuracy([0.9, 0.7, 0.5, 0.1], [500, 101, 50, 3])
    assert measured == pytest.approx({"all": 0.55, "many": 0.8, "medium": 0.5, "few": 0.1})


def test_on_a_balanced_test_set_all_is_the_share_of_correct_samples():
    targets = np.repeat(np.arange(4), 25)
    predictions = np.random.default_rng(1).integers(0, 4, size=100)
    per_class = metrics.per_class_accuracy(predictions, targets, 4)
    expected = (predictions == targets).mean()
    assert metrics.shot_accuracy(per_class, [9, 9, 9, 9])["all"] == pytest.approx(expected)


def test_a_class_without_samples_is_nan_and_left_out_of_the_means():
    per_class = metrics.per_class_accuracy([0, 1, 1], [0, 0, 1], 3)
    np.testing.assert_equal(per_class, [0.5, 1.0, np.nan])
    measured = metrics.shot_accuracy(per_class, [200, 200, 200])
    assert measured["all"] == measured["many"] == 0.75


def test_an_empty_split_is_nan_not_zero():
    measured = metrics.shot_accuracy([0.5, 0.6], [500, 400])
    assert math.isnan(measured["medium"])
    assert math.isnan(measured["few"])


def test_tensors_are_accepted():
    predictions, targets = torch.tensor([0, 1]), torch.tensor([0, 0])
    assert metrics.per_class_accuracy(predictions, targets, 2)[0] == 0.5
    assert metrics.calibration(torch.eye(2), predictions)["nll"] > 0


def test_extreme_and_half_precision_logits_stay_finite():
    logits = np.array([[60000.0, -60000.0], [-60000.0, 60000.0]], dtype=np.float16)
    measured = metrics.calibration(logits, [0, 0])
    assert measured["ece"] == pytest.approx(0.5)
    assert measured["nll"] == pytest.approx(60000, rel=1e-3)
    assert measured["brier"] == pytest.approx(1.0)


def test_calibration_leaves_its_input_alone(scored):
    logits, targets = scored
    before = logits.copy()
    metrics.calibration(logits, targets)
    np.testing.assert_array_equal(logits, before)


def test_nothing_measured_is_nan():
    assert all(math.isnan(v) for v in metrics.calibration(np.zeros((0, 3)), []).values())
    assert np.isnan(metrics.per_class_accuracy([], [], 2)).all()


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([0, 3], [0, 1], r"\[0, 3\), got 0\.\.3"),
        ([0, 1], [-1, 1], r"got -1\.\.1"),
        ([[0, 1]], [0, 1], r"must be \(N,\)"),
    ],
)
def test_wrong_classes_are_refused(predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        metrics.per_class_accuracy(predictions, targets, 3)


def test_disagreeing_lengths_are_refused():
    with pytest.raises(ValueError, match="2 predictions, 3 targets"):
        metrics.confusion_matrix([0, 1], [0, 1, 1], 2)
    with pytest.raises(ValueError, match="2 rows"):
        metrics.calibration(np.eye(2), [0])
    with pytest.raises(ValueError, match=r"both are \(C,\)"):
        metrics.shot_accuracy([0.5], [1, 2])
