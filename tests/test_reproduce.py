import signal
from pathlib import Path

import pandas as pd
import pytest
from test_runs import write_run

from ltlib import reproduce as module
from ltlib.config import override
from ltlib.recipes import RECIPES, TABLES
from ltlib.reproduce import compare, describe_recipes, plan, reproduce
from ltlib.runs import RunError, load_runs, open_run, write_json, write_status
from ltlib.trainer import Stopped


def finish(config, recipe, folder, accuracy):
    run_dir = open_run(config, recipe, folder)
    last = {"epoch": 199, "all": accuracy, "many": 0.7, "medium": 0.5, "few": 0.3}
    write_json(run_dir / "provenance.json", {"device": "a GPU", "precision": "bf16"})
    write_json(run_dir / "result.json", {"last": last, "best": last | {"all": accuracy + 0.001}})


def test_plan_lists_a_tables_experiments():
    experiments = plan("proco_cifar_lt")
    assert list(experiments) == [row.recipe for row in TABLES["proco_cifar_lt"].rows]
    assert experiments["proco-cifar10-if50"] == RECIPES["proco-cifar10-if50"]


def test_smoke_plan_is_marked_and_small():
    experiments = plan("proco_cifar_lt", preset="smoke")
    assert all(name.endswith("-smoke") for name in experiments)
    assert {config.data.dataset for config in experiments.values()} == {"digits"}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"preset": "quick"}, "preset must be 'paper' or 'smoke', got 'quick'"),
        ({"overrides": {"optim.epoch": 1}}, "did you mean 'optim.epochs'"),
    ],
)
def test_bad_plan_fails_before_training(arguments, sentence, monkeypatch, tmp_path):
    monkeypatch.setattr("ltlib.trainer.train", None)
    with pytest.raises(ValueError, match=sentence):
        reproduce("proco_cifar_lt", runs_dir=tmp_path, **arguments)
    assert not list(tmp_path.iterdir())


def test_reproduce_trains_what_is_missing_and_reads_the_rest(monkeypatch, tmp_path):
    trained = []

    def train(config, run_dir, **options):
        trained.append((run_dir.parent.name, config.seed))
        finish(config, run_dir.parent.name, tmp_path, 0.5)

    monkeypatch.setattr("ltlib.trainer.train", train)
    changes = {"optim.epochs": 2}
    config = override(RECIPES["ce-digits-if50"], changes | {"seed": 1})
    finish(config, "ce-digits-if50", tmp_path, 0.9)
    runs = reproduce("start_here", seeds=[0, 1], overrides=changes, runs_dir=tmp_path)
    assert len(trained) == 13
    assert ("ce-digits-if50", 1) not in trained
    assert len(runs) == 14
    trained.clear()
    reproduce("start_here", seeds=[0, 1], overrides=changes, runs_dir=tmp_path)
    assert trained == []


def test_compare_gives_mean_std_n_and_difference(tmp_path):
    for seed, accuracy in enumerate((0.51, 0.52, 0.53)):
        config = override(RECIPES["proco-cifar100-if100"], {"seed": seed})
        finish(config, "proco-cifar100-if100", tmp_path, accuracy)
    table = compare("proco_cifar_lt", load_runs(tmp_path)).set_index("recipe")
    row = table.loc["proco-cifar100-if100"]
    assert row["paper (%)"] == 52.8
    assert row["ours (%)"] == pytest.approx(52)
    assert row["std"] == pytest.approx(1)
    assert row["n"] == 3
    assert row["best on test (%)"] == pytest.approx(52.1)
    assert row["difference"] == pytest.approx(-0.8)
    assert row["comparable"] is True
    assert row["machine"] == "a GPU, bf16"
    other = table.loc["proco-cifar10-if10"]
    assert other["n"] == 0
    assert other[["ours (%)", "std", "difference", "comparable"]].isna().all()


def test_changed_and_smoke_runs_are_shown_but_not_compared(tmp_path):
    recipe = RECIPES["proco-cifar100-if100"]
    finish(recipe, "proco-cifar100-if100", tmp_path, 0.52)
    finish(override(recipe, {"optim.epochs": 2}), "proco-cifar100-if100", tmp_path, 0.05)
    write_run(tmp_path, "proco-cifar10-if100-smoke")
    table = compare("proco_cifar_lt", load_runs(tmp_path))
    changed = table[table["changed"] == "optim.epochs = 2"].iloc[0]
    assert changed["ours (%)"] == pytest.approx(5)
    assert changed["comparable"] is False
    assert pd.isna(changed["difference"])
    own = table[(table["recipe"] == "proco-cifar100-if100") & (table["changed"] == "")].iloc[0]
    assert (own["n"], own["comparable"]) == (1, True)
    assert pd.isna(own["std"])
    smoke = table[table["recipe"] == "proco-cifar10-if100-smoke"].iloc[0]
    assert smoke["comparable"] is False
    assert pd.isna(smoke["paper (%)"])


def test_recipes_are_described_by_what_they_share_and_what_they_do_not():
    common, varying = describe_recipes("proco_cifar_lt")
    common = common.set_index("setting")["value"]
    assert common["optim.lr"] == "0.3"
    assert "model.backbone" not in common.index  # the default's
    varying = varying.set_index("recipe")
    assert len(varying) == len(TABLES["proco_cifar_lt"].rows)
    assert varying.loc["proco-cifar100-if100-400ep", "optim.milestones"] == "0.9, 0.95"
    assert not set(varying.columns) & set(common.index)
    _, ladder = describe_recipes("start_here")
    assert ladder.set_index("recipe").loc["ce-digits-if50", "method.temperature"] == ""


class Torchrun:
    """In place of torchrun: leaves word of what became of the run."""

    def __init__(self, command, env, start_new_session):
        self.command, self.signals = command, []
        Torchrun.last = self

    def send_signal(self, number):
        self.signals.append(number)

    def wait(self):
        for number in Torchrun.arriving:
            signal.raise_signal(number)
        write_status(Path(self.command[-1]), Torchrun.state, why="loss is nan")


def test_launch_tells_why_a_run_failed(monkeypatch, tmp_path):
    run_dir = open_run(RECIPES["ce-digits-if50"], "ce-digits-if50", tmp_path)
    Torchrun.state, Torchrun.arriving = "failed", []
    monkeypatch.setattr(module.subprocess, "Popen", Torchrun)
    with pytest.raises(RunError, match="loss is nan"):
        module.launch(run_dir, 2, num_workers=0, compiled=False, download=True, device=None)
    assert "--nproc-per-node=2" in Torchrun.last.command
    options = ["--num-workers", "0", "--no-compiled", "--download"]
    assert Torchrun.last.command[-7:] == ["-m", "ltlib.trainer", *options, str(run_dir)]


def test_launch_passes_signals_on_and_knows_the_first(monkeypatch, tmp_path):
    run_dir = open_run(RECIPES["ce-digits-if50"], "ce-digits-if50", tmp_path)
    Torchrun.state, Torchrun.arriving = "preempted", [signal.SIGUSR2, signal.SIGTERM]
    monkeypatch.setattr(module.subprocess, "Popen", Torchrun)
    with pytest.raises(Stopped) as stopped:
        module.launch(run_dir, 2)
    assert stopped.value.number == signal.SIGUSR2
    assert Torchrun.last.signals == [signal.SIGUSR2, signal.SIGTERM]
