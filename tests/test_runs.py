import json
import math

import numpy as np
import pandas as pd
import pytest
from conftest import tiny

from ltlib.config import config_hash, override
from ltlib.runs import (
    is_finished,
    load_history,
    load_per_class,
    load_runs,
    load_shots,
    open_run,
    read_config,
    read_json,
    write_arrays,
    write_history,
    write_json,
    write_status,
)


def write_run(folder, recipe="ce-x", accuracy=0.5, finished=True, **changes):
    """Write a run as the trainer would, without training."""
    config = tiny("ce", **changes)
    run_dir = open_run(config, recipe, folder)
    rows = [{"epoch": e, "lr": 0.1, "loss": 2.0 - e, "all": accuracy, "few": 0.1} for e in (0, 1)]
    write_history(run_dir, rows)
    counts = np.array([150, 50, 10])
    targets = np.repeat([0, 1, 2], 4)
    write_arrays(
        run_dir / "predictions.npz",
        {
            "targets": targets,
            "predictions": np.where(np.arange(12) % 4 < 2, targets, 0),
            "class_counts": counts,
            "class_names": np.array(["a", "b", "c"]),
        },
    )
    write_status(run_dir, "finished" if finished else "preempted")
    if finished:
        last = {"epoch": 1, "all": accuracy, "many": 0.9, "medium": 0.5, "few": float("nan")}
        write_json(run_dir / "result.json", {"last": last, "best": last | {"all": accuracy + 0.1}})
    return run_dir


def test_folder_is_named_after_recipe_config_and_seed(tmp_path):
    config = tiny("ce", seed=3)
    run_dir = open_run(config, "ce-x", tmp_path)
    assert run_dir == tmp_path / "ce-x" / f"{config_hash(config)}-s3"
    assert read_config(run_dir) == config
    assert open_run(config, "ce-x", tmp_path) == run_dir


def test_folder_with_another_experiment_is_refused(tmp_path):
    config = tiny("ce")
    run_dir = open_run(config, "ce-x", tmp_path)
    write_json(run_dir / "config.json", override(config, {"optim.lr": 9}).model_dump(mode="json"))
    with pytest.raises(ValueError, match="holds another experiment; move that folder away"):
        open_run(config, "ce-x", tmp_path)


def test_only_the_result_makes_a_run_finished(tmp_path):
    run_dir = write_run(tmp_path, finished=False)
    write_status(run_dir, "finished")
    assert not is_finished(run_dir)
    runs = load_runs(tmp_path)
    assert runs["all"].isna().all()


def test_load_runs_lists_finished_and_unfinished(tmp_path):
    write_run(tmp_path, "b", accuracy=0.4)
    write_run(tmp_path, "a", accuracy=0.6, seed=1)
    write_run(tmp_path, "a", finished=False)
    runs = load_runs(tmp_path)
    assert list(zip(runs["recipe"], runs["seed"], runs["state"], strict=True)) == [
        ("a", 0, "preempted"),
        ("a", 1, "finished"),
        ("b", 0, "finished"),
    ]
    assert runs["all"].tolist()[1:] == [0.6, 0.4]
    assert math.isnan(runs["few"].iloc[1])
    assert runs["best_all"].iloc[2] == pytest.approx(0.5)
    assert load_runs(tmp_path, ["b", "a"])["recipe"].tolist() == ["b", "a", "a"]
    assert load_runs(tmp_path / "nowhere").empty


def test_foreign_folder_is_passed_over(tmp_path):
    run_dir = write_run(tmp_path)
    write_json(run_dir / "config.json", {"of": "another version"})
    assert load_runs(tmp_path).empty


def test_nan_becomes_null_in_json_and_nan_again_in_tables(tmp_path):
    run_dir = write_run(tmp_path)
    assert json.loads((run_dir / "result.json").read_text())["last"]["few"] is None
    assert load_runs(tmp_path)["few"].isna().all()


def test_per_class_and_shots_come_from_the_predictions(tmp_path):
    write_run(tmp_path)
    per_class = load_per_class(load_runs(tmp_path))
    assert per_class["accuracy"].tolist() == [1, 0.5, 0.5]
    assert per_class["class"].tolist() == ["a", "b", "c"]
    assert per_class["train_count"].tolist() == [150, 50, 10]
    shots = load_shots(load_runs(tmp_path)).set_index("split")["accuracy"]
    assert shots.to_dict() == pytest.approx({"all": 2 / 3, "many": 1, "medium": 0.5, "few": 0.5})


def test_history_carries_method_and_seed(tmp_path):
    write_run(tmp_path)
    write_run(tmp_path, seed=1)
    history = load_history(load_runs(tmp_path))
    assert history.groupby("seed")["epoch"].apply(list).to_dict() == {0: [0, 1], 1: [0, 1]}
    assert set(history["method"]) == {"ce"}


def test_reading_nothing_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no finished run to read; train first"):
        load_history(load_runs(tmp_path))


def test_half_written_file_never_counts(tmp_path, monkeypatch):
    file = tmp_path / "x.json"
    write_json(file, {"value": 1})
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_json(file, {"value": 2})
    assert read_json(file) == {"value": 1}


def test_history_round_trip(tmp_path):
    rows = [{"epoch": 0, "all": 0.25}, {"epoch": 1, "all": float("nan")}]
    write_history(tmp_path, rows)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "history.csv"), pd.DataFrame(rows))
