import json
import math
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import METHOD_NAMES, tiny
from safetensors.torch import load_file

from ltlib import data
from ltlib.config import OptimConfig, override
from ltlib.distributed import process_group
from ltlib.execution import Execution, has_compiler
from ltlib.methods import build_method
from ltlib.metrics import per_class_accuracy, shot_accuracy
from ltlib.recipes import RECIPES
from ltlib.runs import RunLockedError, is_finished, load_arrays, lock_run, open_run, read_json
from ltlib.trainer import (
    SAMPLES_PER_CLASS,
    NonFiniteLossError,
    Stopped,
    evaluate,
    learning_rate,
    loop,
    train,
)


def start(config, folder):
    return open_run(config, "tiny", folder)


def weights(run_dir):
    return load_file(run_dir / "model.safetensors")


def assert_same_run(first, second):
    """Everything but the clock agrees, bit for bit."""
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name
    assert (first / "result.json").read_text() == (second / "result.json").read_text()
    histories = [
        pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (first, second)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    for name, array in load_arrays(first / "predictions.npz").items():
        np.testing.assert_array_equal(array, load_arrays(second / "predictions.npz")[name])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """An uninterrupted run of each method."""
    folder = tmp_path_factory.mktemp("runs")
    runs = {}
    for method in METHOD_NAMES:
        config = tiny(method)
        runs[method] = start(config, folder / method)
        train(config, runs[method])
    return runs


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_every_method_trains_evaluates_and_saves(method, finished):
    run_dir = finished[method]
    result = read_json(run_dir / "result.json")
    history = pd.read_csv(run_dir / "history.csv")
    assert list(history["epoch"]) == [0, 1]
    assert history["loss"].iloc[1] < history["loss"].iloc[0]
    assert result["last"]["epoch"] == 1
    assert result["last"]["all"] == pytest.approx(history["all"].iloc[1])
    assert result["best"]["all"] == pytest.approx(history["all"].max())
    predictions = load_arrays(run_dir / "predictions.npz")
    per_class = per_class_accuracy(predictions["predictions"], predictions["targets"], 10)
    shots = shot_accuracy(per_class, predictions["class_counts"])
    assert shots == pytest.approx({k: v for k, v in result["last"].items() if k != "epoch"})
    geometry = load_arrays(run_dir / "geometry.npz")
    assert geometry["embedding_means"].shape[0] == 10
    assert geometry["sample_targets"].tolist().count(3) == SAMPLES_PER_CLASS
    assert read_json(run_dir / "status.json")["state"] == "finished"
    provenance = read_json(run_dir / "provenance.json")
    assert provenance["precision"] in ("fp32", "bf16")
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    assert not list(run_dir.glob("checkpoint*"))
    assert list(run_dir.glob("events.*"))


@pytest.mark.parametrize("method", METHOD_NAMES)
def test_saved_weights_give_the_saved_predictions(method, finished):
    config = tiny(method)
    counts = load_arrays(finished[method] / "predictions.npz")["class_counts"]
    model = build_method(config, counts.tolist())
    model.load_state_dict(weights(finished[method]))
    tests = data.test_loader(data.load_dataset(config.data, None, False))
    logits = evaluate(model, tests, Execution.choose()).logits
    saved = load_arrays(finished[method] / "predictions.npz")["logits"]
    np.testing.assert_allclose(logits, saved, rtol=2e-3, atol=2e-2)


def test_a_finished_run_is_only_read(finished, monkeypatch):
    monkeypatch.setattr(loop, "load_dataset", None)
    assert train(tiny("ce"), finished["ce"]) == read_json(finished["ce"] / "result.json")


# Step 6 is an epoch's last, at whose end nothing is left to train of it; 8 is in the second epoch.
@pytest.mark.parametrize(
    ("method", "steps"), [*((name, 3) for name in METHOD_NAMES), ("proco", 6), ("paco", 8)]
)
def test_stopped_and_resumed_run_equals_the_uninterrupted_one(
    method, steps, finished, tmp_path, monkeypatch
):
    config = tiny(method)
    run_dir = start(config, tmp_path)
    taken = []

    def any_rank(flag):
        taken.append(flag)
        return len(taken) >= steps

    with monkeypatch.context() as patch:
        patch.setattr(loop, "any_rank", any_rank)
        with pytest.raises(Stopped, match="start again to resume"):
            train(config, run_dir)
    assert read_json(run_dir / "status.json")["state"] == "preempted"
    assert not is_finished(run_dir)
    train(config, run_dir)
    assert_same_run(run_dir, finished[method])


@pytest.mark.parametrize(
    ("method", "changes"),
    [("kcl", {}), ("mixup", {}), ("ldam_drw", {"method__reweight_from": 0.5})],
)
def test_what_draws_or_switches_resumes_as_well(method, changes, tmp_path, monkeypatch):
    config = tiny(method, **changes)
    whole, stopped = start(config, tmp_path / "whole"), start(config, tmp_path / "stopped")
    train(config, whole)
    taken = []

    def any_rank(flag):
        taken.append(flag)
        return len(taken) >= 9  # in the second epoch

    with monkeypatch.context() as patch:
        patch.setattr(loop, "any_rank", any_rank)
        with pytest.raises(Stopped):
            train(config, stopped)
    train(config, stopped)
    assert_same_run(stopped, whole)


def test_damaged_checkpoint_is_passed_over(tmp_path, monkeypatch, caplog):
    config = tiny("ce")
    run_dir = start(config, tmp_path)
    steps = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "any_rank", lambda flag: next(steps) >= 6)
        with pytest.raises(Stopped):
            train(config, run_dir)
    newest = run_dir / "checkpoint.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    result = train(config, run_dir)
    assert "is damaged and passed over" in caplog.text
    assert result["last"]["epoch"] == 1


def test_loss_that_is_not_finite_stops_with_the_step_named(tmp_path):
    config = override(tiny("ce"), {"optim.lr": 1e30})
    run_dir = start(config, tmp_path)
    with pytest.raises(NonFiniteLossError, match=r"loss is (nan|inf) at epoch \d step \d"):
        train(config, run_dir)
    assert read_json(run_dir / "status.json")["state"] == "failed"
    assert "lower optim.lr" in read_json(run_dir / "status.json")["why"]
    assert not is_finished(run_dir)


def test_two_processes_cannot_train_one_run(tmp_path):
    config = tiny("ce")
    run_dir = start(config, tmp_path)
    code = (
        "import sys, time; from pathlib import Path; from ltlib.runs import lock_run\n"
        "with lock_run(Path(sys.argv[1])): print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "locked\n"
        with pytest.raises(RunLockedError, match=f"being trained by process {holder.pid}"):
            train(config, run_dir)
        holder.kill()
    with lock_run(run_dir):
        pass  # the lock of a dead process does not count


def test_seed_changes_the_run_and_equal_seeds_repeat_it(finished, tmp_path):
    again, other = tiny("ce"), tiny("ce", seed=1)
    first, second = start(again, tmp_path / "a"), start(other, tmp_path / "a")
    assert first != second
    train(again, first)
    train(other, second)
    assert_same_run(first, finished["ce"])
    assert not torch.equal(
        weights(second)["classifier.weight"], weights(first)["classifier.weight"]
    )


def test_workers_do_not_change_a_run_on_pil_views(finished, tmp_path):
    alone, helped = (start(tiny("bcl"), tmp_path / name) for name in ("alone", "helped"))
    train(tiny("bcl"), alone, views="pil", num_workers=0)
    train(tiny("bcl"), helped, views="pil", num_workers=2)
    assert_same_run(helped, alone)
    assert read_json(alone / "provenance.json")["views"] == "pil"
    assert read_json(finished["bcl"] / "provenance.json")["views"] == "batched"
    ours, theirs = (pd.read_csv(run / "history.csv") for run in (finished["bcl"], alone))
    assert (ours["loss"] != theirs["loss"]).all()  # other draws


def test_resumed_run_keeps_precision_and_views_it_began_with(tmp_path, monkeypatch):
    config = tiny("ce")
    whole, stopped = start(config, tmp_path / "whole"), start(config, tmp_path / "stopped")
    train(config, whole, views="pil", precision="fp32")
    steps = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "any_rank", lambda flag: next(steps) >= 7)
        with pytest.raises(Stopped):
            train(config, stopped, views="pil", precision="fp32")
    train(config, stopped)
    assert_same_run(stopped, whole)
    provenance = read_json(stopped / "provenance.json")
    assert (provenance["precision"], provenance["views"]) == ("fp32", "pil")


@pytest.mark.slow
@pytest.mark.skipif(not has_compiler(), reason="needs g++ and Python's headers")
def test_compiled_run_resumes_exactly_at_a_batch_of_another_shape(finished, tmp_path, monkeypatch):
    config = tiny("bcl")  # keeps the last batch, which is not full
    whole, stopped = start(config, tmp_path / "whole"), start(config, tmp_path / "stopped")
    train(config, whole, compiled=True)
    steps = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(loop, "any_rank", lambda flag: next(steps) >= 4)  # of six
        with pytest.raises(Stopped):
            train(config, stopped, compiled=True)
    torch.compiler.reset()
    train(config, stopped, compiled=True)
    assert_same_run(stopped, whole)
    assert read_json(whole / "provenance.json")["compiled"] is True
    assert read_json(finished["bcl"] / "provenance.json")["compiled"] is False


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["bcl", "paco"])
def test_gpu_trains_as_the_cpu_does(method, tmp_path, monkeypatch):
    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    for name, value in (alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29517"}).items():
        monkeypatch.setenv(name, value)
    config = tiny(method, model__batch_norm="sync", optim__lr=0.01)
    losses = {}
    for device in ("cpu", "cuda"):
        run_dir = start(config, tmp_path / device)
        with process_group():
            train(config, run_dir, device=device, precision="fp32")
        losses[device] = pd.read_csv(run_dir / "history.csv")["loss"]
    np.testing.assert_allclose(losses["cuda"], losses["cpu"], rtol=1e-2)


def test_evaluation_counts_every_test_image_once(finished):
    predictions = load_arrays(finished["ce"] / "predictions.npz")
    test_set = data.load_dataset(tiny("ce").data, None, False)
    np.testing.assert_array_equal(predictions["targets"], test_set.targets)


def test_step_schedule_of_proco():
    optim = RECIPES["proco-cifar100-if100"].optim
    rates = [learning_rate(optim, epoch) for epoch in range(200)]
    assert rates[:6] == pytest.approx([0.06, 0.12, 0.18, 0.24, 0.3, 0.3])
    assert rates[159:161] == pytest.approx([0.3, 0.03])
    assert rates[179:181] == pytest.approx([0.03, 0.003])


def test_step_schedule_of_paco_acts_one_epoch_late():
    optim = RECIPES["paco-cifar100-if100"].optim
    rates = [learning_rate(optim, epoch) for epoch in range(400)]
    assert rates[9:12] == pytest.approx([0.05, 0.055, 0.05])
    assert rates[320:322] == pytest.approx([0.05, 0.005])
    assert rates[360:362] == pytest.approx([0.005, 0.0005])


def test_cosine_schedule_starts_below_its_rate_and_ends_above_zero():
    optim = OptimConfig(epochs=90, lr=0.1, schedule="cosine", warmup_epochs=0)
    rates = [learning_rate(optim, epoch) for epoch in range(90)]
    assert rates[0] == pytest.approx(0.05 * (1 + math.cos(math.pi / 91)))
    assert rates[-1] == pytest.approx(0.05 * (1 + math.cos(math.pi * 90 / 91)))
    assert all(a > b > 0 for a, b in pairwise(rates))


def test_bad_experiment_fails_before_training(tmp_path):
    config = tiny("ce", data__dataset="nowhere")
    run_dir = start(config, tmp_path)
    with pytest.raises(ValueError, match="unknown data set 'nowhere'"):
        train(config, run_dir)
    assert json.loads((run_dir / "status.json").read_text())["state"] == "failed"
