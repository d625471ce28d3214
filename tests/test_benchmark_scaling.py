import json
import os
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import tiny
from typer.testing import CliRunner

from ltlib import cli
from ltlib.benchmark import benchmark_scaling, scaling
from ltlib.benchmark.scaling import COLUMNS, FULL, QUICK, Training
from ltlib.benchmark.scaling_figure import save_scaling
from ltlib.benchmark.sides import Side, random_images
from ltlib.distributed import process_group
from ltlib.execution import Execution
from ltlib.recipes import get_recipe
from ltlib.runs import RunError

CPU = Execution(torch.device("cpu"), False, 0)


@pytest.fixture(scope="module")
def report():
    return benchmark_scaling(quick=True, repeats=3, device="cpu")


@pytest.fixture
def axes(report, tmp_path, monkeypatch):
    """The figure's panels, (2, 3): what ``save_scaling`` made, whose figure it closes."""
    figures = []
    with monkeypatch.context() as patch:
        patch.setattr(plt, "close", figures.append)
        save_scaling(report, tmp_path)
    yield np.reshape(figures[0].axes, (2, 3))
    plt.close(figures[0])


def test_one_row_for_each_size_and_way(report):
    table = report.table
    assert list(table.columns) == COLUMNS
    size = {"batch": "batch", "processes": "processes", "classes": "classes"}
    found = [(*row, table.loc[i, size[row[0]]]) for i, *row in table.iloc[:, :3].itertuples()]
    ways = [(m, w, c) for c in QUICK.classes for m in QUICK.dims for w in ("plain", "ltlib")]
    assert found == [
        *(("batch", "proco", "ltlib", batch) for batch in QUICK.batches),
        *(("processes", "proco", "ltlib", number) for number in QUICK.processes),
        *(("classes", method, way, number) for method, way, number in ways),
    ]
    times = table[["lower quartile (ms)", "median (ms)", "upper quartile (ms)"]].to_numpy()
    assert (times > 0).all()
    assert (np.diff(times) >= 0).all()
    assert (table["peak (MB)"] > 0).all()


def test_only_what_grows_changes(report):
    for against, rows in report.table.groupby("against"):
        fixed = {"batch", "processes", "classes"} - {against}
        assert (rows[list(fixed)].nunique() == 1).all()


def test_ideal_is_one_process_shared_by_the_cores(report):
    rows = report.table.query("against == 'processes'")
    assert (rows["threads"] == 1).all()
    alone, cores = rows["median (ms)"].iloc[0], report.machine["cores"]
    expected = [alone / min(number, cores) for number in QUICK.processes]
    np.testing.assert_allclose(rows["ideal (ms)"], expected)
    assert report.table.query("against != 'processes'")["ideal (ms)"].isna().all()


def test_memory_of_plain_proco_grows_as_batch_by_classes_by_dimensions(report):
    rows = report.table.query("against == 'classes' and method == 'proco'")
    peaks = rows.pivot(index="classes", columns="way", values="peak (MB)")
    floats = get_recipe(QUICK.recipe).optim.batch_size * peaks.index * QUICK.dims["proco"]
    assert (peaks["plain"] >= 4e-6 * floats).all()
    assert (peaks["ltlib"] < peaks["plain"]).all()


def test_full_sizes_are_those_of_the_recipes():
    for method, dim in FULL.dims.items():
        config = get_recipe(f"{method}-inaturalist18-resnet50").method
        assert config.projector.embedding_dim == dim
    assert config.queue_size == FULL.queue  # PaCo is the last
    batch = get_recipe(FULL.recipe).optim.batch_size
    assert {batch // number for number in FULL.processes} <= set(FULL.batches)


def test_plain_proco_is_left_out_where_its_tensors_are_gigabytes(monkeypatch):
    monkeypatch.setattr(scaling, "_PLAIN_PROCO_FLOATS", 8 * 12 * QUICK.dims["proco"])
    cases = {c: scaling._case("proco", c, 8, QUICK, CPU.device) for c in (12, 13)}
    assert {c: set(case.sides) for c, case in cases.items()} == {
        12: {"plain", "ltlib"},
        13: {"ltlib"},
    }


def step_and_look(training, rank):
    """Train one step; return the images of this process's share, and a weight."""
    torch.set_num_threads(1)
    os.environ |= training.environment(rank)
    with process_group():
        images = random_images(np.array([20, 10, 5]), seed=0)
        side = Side(training.config, training.execution, images, images)
        share = len(next(side.batches)[1])
        side.step()
        return share, side.method.classifier.weight.detach().numpy()


@pytest.mark.distributed
def test_processes_share_each_batch_and_step_together():
    training = Training(
        tiny("proco", optim__batch_size=16), 3, CPU, 1, 1, processes=2, port=scaling._free_port()
    )
    with ProcessPoolExecutor(2, get_context("forkserver")) as pool:
        answers = [pool.submit(step_and_look, training, rank) for rank in range(2)]
        shares, weights = zip(*(answer.result(timeout=60) for answer in answers), strict=True)
    assert shares == (8, 8)
    np.testing.assert_array_equal(*weights)


def die(*_):
    os._exit(1)


def test_process_that_ends_early_is_one_sentence(monkeypatch):
    monkeypatch.setattr(scaling, "take_steps", die)
    with pytest.raises(RunError, match="ended early at a batch of 16 images"):
        Training(tiny("proco", optim__batch_size=16), 10, CPU, 1, 1).measure()


def test_no_process_outlives_a_killed_benchmark():
    code = "from ltlib.benchmark import benchmark_scaling as b; b(quick=True, repeats=10**6)"
    caller = subprocess.Popen([sys.executable, "-c", code])
    main = psutil.Process(caller.pid)
    while len(others := main.children(recursive=True)) < 3:  # two that help, one that trains
        assert caller.poll() is None
        time.sleep(0.1)
    caller.kill()
    caller.wait()
    assert psutil.wait_procs(others, timeout=20)[1] == []


def test_nothing_to_measure_is_an_error():
    with pytest.raises(ValueError, match="repeats must be >= 1, got 0"):
        benchmark_scaling(repeats=0)


def test_panels_have_names_units_and_the_measured_sizes(axes):
    labels = [[ax.get_ylabel() for ax in row] for row in axes]
    assert labels == [
        ["time per image (ms)", "time of loss and backward (ms)", "time per step (ms)"],
        [
            "peak memory of the process (MB)",
            "peak memory above the inputs (MB)",
            "peak memory of each process (MB)",
        ],
    ]
    assert [ax.get_xlabel() for ax in axes[1]] == ["batch B (images)", "classes C", "processes"]
    ticks = [[text.get_text() for text in ax.get_xticklabels()] for ax in axes[1]]
    assert ticks == [["16", "32"], ["5", "50"], ["1", "2"]]


def test_panels_draw_the_medians(axes, report):
    batch, processes = (report.table[report.table["against"] == a] for a in ("batch", "processes"))
    per_image = batch["median (ms)"] / batch["batch"]
    np.testing.assert_allclose(axes[0, 0].lines[0].get_ydata(), per_image)
    measured, ideal, default = (line.get_ydata() for line in axes[0, 2].lines)
    np.testing.assert_allclose(measured, processes["median (ms)"])
    np.testing.assert_allclose(ideal, processes["ideal (ms)"])
    assert list(default) == [batch["median (ms)"].iloc[1]]  # of the same batch, with all threads
    shares = axes[1, 2].lines[1].get_ydata()
    np.testing.assert_allclose(shares, batch["peak (MB)"].iloc[::-1])


def test_legends_tell_methods_ways_and_what_is_ideal(axes):
    texts = [[text.get_text() for text in ax.get_legend().get_texts()] for ax in axes[0]]
    assert texts[0][0] == "ProCo"
    assert texts[0][1].endswith("MB an image")
    assert set(texts[1]) == {"BCL", "ProCo", "PaCo", "the plain way"}
    threads = torch.get_num_threads()
    assert set(texts[2]) == {"one thread each", "ideal", f"one process, {threads} threads"}


def test_command_prints_the_table_and_writes_figure_and_json(tmp_path, monkeypatch, report):
    asked = {}

    def measure(**options):
        asked.update(options)
        return report

    monkeypatch.setattr("ltlib.benchmark.benchmark_scaling", measure)
    arguments = ["benchmark", "scaling", "--quick", "--repeats", "3", "--figures-dir", tmp_path]
    arguments += ["--json", tmp_path / "scaling.json"]
    result = CliRunner().invoke(cli.app, list(map(str, arguments)))
    assert result.exit_code == 0, result.output
    assert asked == {"quick": True, "repeats": 3, "device": None}
    png = tmp_path / "benchmark" / "scaling.png"
    assert result.output.splitlines()[-1] == str(png)
    assert png.stat().st_size > 50_000
    drawn = pd.read_csv(png.with_suffix(".csv"))
    pd.testing.assert_frame_equal(drawn, report.table)
    assert len(json.loads((tmp_path / "scaling.json").read_text())["rows"]) == len(drawn)


def test_figure_tells_in_words_what_it_shows(report, tmp_path):
    saved = save_scaling(report, tmp_path, watermark="no result")
    row = report.table.query("against == 'batch'").iloc[-1]
    assert f"Batch 32: {row['median (ms)'] / 32:.1f} ms an image" in saved.alt
    assert "ProCo's loss, plain, 50 classes" in saved.caption
    assert saved.caption.startswith("No result.")
