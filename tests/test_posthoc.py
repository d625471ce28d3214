"""Other classifiers: oracles on hand-placed features, laws, and a whole run."""

import math
import sys

import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from conftest import tiny
from torch import nn

from ltlib import cli
from ltlib.data import class_prior
from ltlib.models import CosineClassifier
from ltlib.posthoc import (
    Outputs,
    adjust_logits,
    class_balanced_draws,
    nearest_class_mean,
    normalize_rows,
    reclassify,
    retrain_classifier,
)
from ltlib.runs import open_run, read_json
from ltlib.trainer import train

COUNTS = [100, 40, 10, 2]
SPLITS = ["all", "many", "medium", "few"]


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def separable():
    """Long-tailed features of four classes, each about its own axis."""
    targets = torch.repeat_interleave(torch.arange(4), torch.tensor(COUNTS))
    features = 3 * torch.eye(6)[targets] + 0.2 * normal(len(targets), 6).float()
    return Outputs(features, torch.zeros(len(targets), 4), targets)


# --- oracles ---


def test_logit_adjustment_takes_off_the_log_prior():
    logits, prior = normal(5, 4), class_prior(COUNTS).double()
    for row, adjusted in zip(logits, adjust_logits(logits, prior, 0.7), strict=True):
        expected = [row[c] - 0.7 * math.log(prior[c]) for c in range(4)]
        torch.testing.assert_close(adjusted, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_tau_normalisation_divides_each_row_by_a_power_of_its_norm(tau):
    weight = normal(4, 6)
    for row, normalised in zip(weight, normalize_rows(weight, tau), strict=True):
        expected = row / sum(x * x for x in row) ** (tau / 2)
        torch.testing.assert_close(normalised, expected, rtol=1e-9, atol=1e-9)


def test_nearest_class_mean_is_the_smallest_angle_or_distance():
    train_features, targets = normal(12, 3), torch.arange(12) % 4
    train = Outputs(train_features, torch.zeros(12, 4), targets)
    features = normal(20, 3, seed=1)
    for metric, distance in (
        ("cosine", lambda x, mean: -F.cosine_similarity(x, mean, dim=0)),
        ("euclidean", lambda x, mean: (F.normalize(x, dim=0) - mean).norm()),
    ):
        samples = F.normalize(train_features, dim=1) if metric == "euclidean" else train_features
        means = [samples[targets == c].mean(0) for c in range(4)]
        expected = [min(range(4), key=lambda c: distance(x, means[c])) for x in features]
        assert nearest_class_mean(train, features, metric).tolist() == expected


def test_class_balanced_draws_take_every_class_alike():
    targets = torch.repeat_interleave(torch.arange(3), torch.tensor([3000, 100, 10]))
    drawn = class_balanced_draws(targets, seed=0)
    assert len(drawn) == 9000
    shares = targets[drawn].bincount() / 9000
    torch.testing.assert_close(shares, torch.full((3,), 1 / 3), rtol=0, atol=0.02)
    within = drawn[targets[drawn] == 2].bincount()[3100:]
    assert within.min() > 200  # of 300 expected of each image


# --- laws ---


def test_without_tau_logit_adjustment_changes_nothing():
    logits = normal(5, 4)
    assert torch.equal(adjust_logits(logits, class_prior(COUNTS), 0.0), logits)


def test_a_balanced_prior_changes_no_prediction():
    logits = normal(200, 4)
    adjusted = adjust_logits(logits, torch.full((4,), 0.25), 3.0)
    assert torch.equal(adjusted.argmax(1), logits.argmax(1))


def test_training_with_the_prior_is_what_adjusting_takes_off():
    logits, prior = normal(5, 4), class_prior(COUNTS)
    torch.testing.assert_close(adjust_logits(logits + prior.log(), prior), logits)


def test_tau_of_one_gives_unit_rows_and_of_zero_changes_nothing():
    weight = normal(4, 6)
    torch.testing.assert_close(normalize_rows(weight, 1.0).norm(dim=1), torch.ones(4).double())
    assert torch.equal(normalize_rows(weight, 0.0), weight)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_nearest_class_mean_separates_what_is_separable(metric, separable):
    assert torch.equal(nearest_class_mean(separable, separable.features, metric), separable.targets)


@pytest.mark.parametrize("build", [nn.Linear, CosineClassifier])
def test_retraining_separates_what_is_separable_and_repeats_itself(build, separable):
    answers = []
    for _ in range(2):
        torch.manual_seed(0)
        fresh = build(6, 4)
        features = separable.features.clone()
        retrained = retrain_classifier(fresh, features, separable.targets, seed=3)
        assert torch.equal(features, separable.features)
        answers.append(retrained(features))
    assert torch.equal(answers[0].argmax(1), separable.targets)
    assert torch.equal(*answers)
    assert not answers[0].requires_grad


def test_draws_follow_the_seed():
    targets = torch.arange(20) % 4
    first, again, other = (class_balanced_draws(targets, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_unknown_metric_is_refused(separable):
    with pytest.raises(ValueError, match="metric must be 'cosine' or 'euclidean', got 'l1'"):
        nearest_class_mean(separable, separable.features, "l1")


# --- a whole run ---


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    config = tiny("ce", optim__epochs=8)
    folder = open_run(config, "tiny", tmp_path_factory.mktemp("runs"))
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def table(run_dir):
    return reclassify(run_dir, curve=(0.0, 1.0))


def test_the_run_itself_comes_first_with_its_own_accuracies(table, run_dir):
    last = read_json(run_dir / "result.json")["last"]
    assert table["classifier"].iloc[0] == "as trained"
    assert table[SPLITS].iloc[0].to_dict() == pytest.approx(
        {split: last[split] for split in SPLITS}
    )


def test_the_table_names_every_classifier_and_marks_the_curve(table, run_dir):
    fixed = table[table["setting"] == "fixed"]
    assert list(fixed["classifier"]) == [
        *("as trained", "logit adjustment", "tau-normalisation"),
        *("cRT", "NCM, cosine", "NCM, Euclidean"),
    ]
    assert list(fixed["tau"].dropna()) == [1.0, 1.0]
    curve = table[table["setting"] == "curve"]
    assert curve.groupby("classifier")["tau"].agg(list).to_dict() == {
        "logit adjustment": [0.0, 1.0],
        "tau-normalisation": [0.0, 1.0],
    }
    assert table[SPLITS].stack().between(0, 1).all()
    pd.testing.assert_frame_equal(pd.read_csv(run_dir / "posthoc.csv"), table)


def test_the_curve_meets_the_fixed_setting_and_the_run(table):
    curve = table[table["setting"] == "curve"].set_index(["classifier", "tau"])[SPLITS]
    fixed = table[table["setting"] == "fixed"].set_index("classifier")[SPLITS]
    for name in ("logit adjustment", "tau-normalisation"):
        assert curve.loc[(name, 1.0)].equals(fixed.loc[name])
    assert curve.loc[("logit adjustment", 0.0)].equals(fixed.loc["as trained"])


def test_balancing_the_classifier_helps_the_tail(table):
    few = table[table["setting"] == "fixed"].set_index("classifier")["few"]
    assert few["as trained"] < few["logit adjustment"]
    assert few["as trained"] < few["cRT"]


def test_a_second_time_gives_the_same_table(table, run_dir):
    pd.testing.assert_frame_equal(reclassify(run_dir, curve=(0.0, 1.0)), table)


def test_the_command_prints_percent(run_dir, capsys, monkeypatch, table):
    monkeypatch.setattr(sys, "argv", ["ltlib", "posthoc", str(run_dir)])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert not caught.value.code
    printed = capsys.readouterr().out
    assert "few (%)" in printed
    assert "curve" not in printed
    row = next(line for line in printed.splitlines() if "cRT" in line)
    accuracy = table.set_index("classifier").loc["cRT", "all"]
    assert float(row.split()[2]) == pytest.approx(100 * accuracy, abs=0.01)


def test_what_is_no_finished_run_is_refused_in_one_sentence(run_dir, tmp_path):
    with pytest.raises(ValueError, match="is no run; name a folder that `ltlib train` printed"):
        reclassify(tmp_path)
    unfinished = open_run(tiny("ce"), "tiny", tmp_path)
    with pytest.raises(ValueError, match="is not finished"):
        reclassify(unfinished)
    (unfinished / "result.json").write_text("{}")
    with pytest.raises(
        FileNotFoundError, match="model.safetensors is missing; train the run again"
    ):
        reclassify(unfinished)
