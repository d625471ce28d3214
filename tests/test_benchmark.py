import io
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch
from conftest import tiny
from typer.testing import CliRunner

from ltlib import cli, losses
from ltlib.benchmark import Report, benchmark_losses, benchmark_training, plain, training
from ltlib.benchmark.losses import COLUMNS, SIDES, cases, proco
from ltlib.benchmark.measuring import Stage, stage_peaks
from ltlib.benchmark.sides import PLAIN_WORKERS, PlainExecution, Side, random_images
from ltlib.execution import Execution
from ltlib.memory import ClassStatistics
from ltlib.recipes import RECIPES
from ltlib.runs import RunError

CPU = torch.device("cpu")

# A side that answers at once; the plain one has twice the numbers.
ECHO = """
import json, sys
answers = {
    "describe": {"precision": "fp32"},
    "size": {"steps": 3, "tests": 8},
    "step": {"data": 1, "forward": 2, "loss": 3, "backward": 4, "optimiser": 6},
    "evaluate": {"image": 0.5},
    "memory": {"MB": 7},
}
slower = 2 if json.loads(sys.argv[1])[0] == "plain" else 1
for request in sys.stdin:
    answer = answers[request.strip()]
    if request not in ("describe\\n", "size\\n"):
        answer = {name: slower * value for name, value in answer.items()}
    print(json.dumps(answer), flush=True)
"""


@pytest.fixture(scope="module")
def report():
    return benchmark_losses(quick=True, repeats=2, device="cpu")


def test_both_sides_compute_the_same_numbers(report):
    compared = report.table.dropna(subset="times faster").query("stage != 'step'")
    assert set(compared["loss"]) == {"ProCo", "BCL", "PaCo"}
    assert (compared["difference"] <= 1e-5).all()


def test_plain_update_equals_ours_when_classes_are_absent_or_new():
    ours = ClassStatistics(5, 4)
    plainly = ClassStatistics(5, 4)
    plainly.load_state_dict(ours.state_dict())
    for seed, targets in enumerate(([0, 0, 3], [3, 1, 3], [0, 4, 4])):
        generator = torch.Generator().manual_seed(seed)
        rows = torch.nn.functional.normalize(torch.randn(3, 4, generator=generator), dim=1)
        ours.update(rows, torch.tensor(targets))
        plain.update_statistics(plainly, rows, torch.tensor(targets))
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(plainly.state_dict()[name], value, atol=1e-6, rtol=0)


def test_plain_losses_equal_ours_in_double_precision():
    generator = torch.Generator().manual_seed(0)

    def unit(*shape):
        rows = torch.randn(*shape, generator=generator, dtype=torch.float64)
        return torch.nn.functional.normalize(rows, dim=1)

    targets = torch.tensor([0, 2, 2, 5])
    rows, centers, kappa = unit(4, 8), unit(6, 8), 50 * torch.rand(6, generator=generator).double()
    queue, queue_targets, logits = unit(5, 8), torch.tensor([0, 1, 2, -1, 5]), 3 * unit(4, 6)
    prior = torch.linspace(1, 2, 6).double() / 9
    for name, arguments, options in (
        ("probabilistic_contrastive_logits", (rows, centers, kappa, 0.1), {}),
        ("balanced_contrastive_loss", (rows, targets, centers, 0.1), {}),
        (
            "parametric_contrastive_loss",
            (rows, targets, queue, queue_targets, logits, prior),
            {"alpha": 0.05, "temperature": 0.2},
        ),
    ):
        actual = getattr(plain, name)(*arguments, **options)
        expected = getattr(losses, name)(*arguments, **options)
        torch.testing.assert_close(actual, expected, atol=1e-10, rtol=0)


def test_table_of_losses_has_each_stage_of_each_case(report):
    table = report.table
    assert list(table.columns) == COLUMNS
    assert [*zip(table["loss"], table["sizes"], table["stage"], strict=True)] == [
        (loss, sizes, stage)
        for loss, sizes, stages in (
            ("ProCo", "B=8 C=12 D=16", ("update", "forward", "backward", "step")),
            ("ProCo", "B=8 C=20 D=16", ("update", "forward", "backward", "step")),
            ("BCL", "B=8 C=12 D=16", ("forward", "backward", "step")),
            ("BCL", "B=8 C=20 D=16", ("forward", "backward", "step")),
            ("PaCo", "B=8 C=12 D=8 K=32", ("forward", "backward", "step")),
        )
        for stage in stages
    ]
    alone = table["sizes"] == "B=8 C=20 D=16"
    alone &= table["loss"] == "ProCo"
    assert table.loc[alone, [name for name in COLUMNS if "plain" in name]].isna().all(axis=None)
    assert (table["dtype"] == "float32").all()
    assert (table["threads"] == torch.get_num_threads()).all()
    numbers = table.loc[~alone].drop(columns=["loss", "sizes", "stage", "dtype", "difference"])
    assert (numbers > 0).all(axis=None)
    ratio = table["plain min (ms)"] / table["ltlib min (ms)"]
    np.testing.assert_allclose(table["times faster"], ratio)
    assert (table["ltlib min (ms)"] <= table["ltlib median (ms)"]).all()


def test_whole_step_peaks_where_its_worst_stage_does(report):
    for _, rows in report.table.groupby(["loss", "sizes"]):
        peaks = rows.set_index("stage")["ltlib peak (MB)"]
        assert peaks["step"] == peaks.drop("step").max()


def test_peak_counts_what_is_alive_at_once():
    given = torch.zeros(1000)

    def step():
        first = given + 1  # 4,000 bytes
        second = first.double()  # and 8,000
        yield Stage("two", (second,))
        del second
        yield Stage("freed", ())
        third = torch.zeros(500)  # 2,000 beside the first
        del third, first
        yield Stage("one and a half", ())
        yield Stage("none", (torch.zeros(250),))

    peaks = stage_peaks(step)
    assert list(peaks) == ["two", "freed", "one and a half", "none"]
    # Scalars that an operation makes for itself take a few bytes more.
    expected = {"two": 12_000, "freed": 12_000, "one and a half": 6_000, "none": 1_000}
    for name, size in expected.items():
        assert size <= peaks[name] < size + 100


def test_peak_includes_temporaries_inside_an_operation_and_the_graph():
    rows = torch.randn(100, 100, requires_grad=True)  # 40,000 bytes

    def step():
        loss = rows.exp().logsumexp(1).sum()
        yield Stage("forward", (loss,))
        yield Stage("backward", torch.autograd.grad(loss, rows))

    peaks = stage_peaks(step)
    assert peaks["forward"] >= 80_000  # the exponential, and one that logsumexp makes
    assert peaks["backward"] >= 80_000  # the kept exponential, and the gradient


def test_proco_stays_under_a_gigabyte_at_the_size_of_inaturalist():
    case = proco(256, 8142, 1024, torch.Generator().manual_seed(0), CPU, sides=("ltlib",))
    assert max(stage_peaks(case.sides["ltlib"]).values()) < 1e9


def test_plain_proco_makes_a_tensor_of_batch_by_classes_by_dimensions():
    case = proco(16, 50, 64, torch.Generator().manual_seed(0), CPU)
    peaks = {side: stage_peaks(step) for side, step in case.sides.items()}
    size = 4 * 16 * 50 * 64
    for stage in ("update", "forward", "backward"):
        assert peaks["plain"][stage] >= size > peaks["ltlib"][stage]


def test_cases_at_full_size_are_those_of_the_papers():
    first = next(cases(CPU))
    assert str(first) == "B=256 C=1000 D=1024"
    assert tuple(first.sides) == SIDES


def test_losses_command_prints_the_machine_and_writes_json(tmp_path, monkeypatch, report):
    asked = {}

    def measure(**options):
        asked.update(options)
        return report

    monkeypatch.setattr("ltlib.benchmark.benchmark_losses", measure)
    file = tmp_path / "losses.json"
    arguments = ["benchmark", "losses", "--quick", "--repeats", "2", "--json", str(file)]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.exit_code == 0, result.output
    assert asked == {"quick": True, "repeats": 2, "device": None}
    assert result.output.startswith("commit ")
    assert "difference" in result.output
    assert "nan" not in result.output.lower()
    written = json.loads(file.read_text())
    assert set(written["machine"]) >= {"device", "threads", "versions", "repeats"}
    assert len(written["rows"]) == len(report.table)
    assert written["rows"][4]["plain min (ms)"] is None


@pytest.mark.parametrize("measure", [benchmark_losses, benchmark_training])
def test_nothing_to_measure_is_an_error(measure):
    count = {benchmark_losses: "repeats", benchmark_training: "steps"}[measure]
    with pytest.raises(ValueError, match=f"{count} must be >= 1, got 0"):
        measure(**{count: 0})


@pytest.fixture
def data():
    return random_images(np.array([20, 10, 5]), seed=0), random_images(np.array([2, 2, 2]), seed=1)


@pytest.mark.parametrize("kind", [Execution, PlainExecution])
def test_side_times_every_stage_of_a_step(kind, data):
    execution = kind(CPU, False, num_workers=1 if kind is PlainExecution else 0)
    config = tiny("proco", optim__batch_size=16)
    side = Side(config, execution, *data)
    before = side.method.classifier.weight.clone()
    laps = [side.step() for _ in range(4)]  # two an epoch
    assert all(list(lap) == list(training.STAGES) for lap in laps)
    assert all(seconds > 0 for lap in laps for seconds in lap.values())
    assert not torch.equal(side.method.classifier.weight, before)
    assert side.method.statistics.count.sum() == 4 * 2 * 16
    assert side.evaluate()["image"] > 0
    assert side.memory()["MB"] > 100
    assert side.describe()["precision"] == "fp32"


def test_plain_batches_hold_the_views_of_single_images(data):
    config = tiny("proco", optim__batch_size=16)
    views, targets = next(Side(config, PlainExecution(CPU, False, 1), *data).batches)
    assert [tuple(view.shape) for view in views] == [(16, 3, 32, 32)] * 3
    assert views[0].is_contiguous()
    assert targets.dtype == torch.int64


@pytest.fixture
def echo(monkeypatch):
    monkeypatch.setattr(training, "_SERVE", ECHO)
    monkeypatch.setattr(training, "_SERVE_PLAIN", ECHO)


def test_table_of_training_compares_medians(echo):
    report = benchmark_training(steps=2, quick=True, device="cpu")
    assert isinstance(report, Report)
    table = report.table.set_index("quantity")
    assert list(table.columns) == ["plain", "ltlib", "times better"]
    assert table["ltlib"].to_dict() == {
        "data (ms)": 1000,
        "forward (ms)": 2000,
        "loss (ms)": 3000,
        "backward (ms)": 4000,
        "optimiser (ms)": 6000,
        "step (ms)": 16_000,
        "training (images/s)": RECIPES["proco-digits-if50"].optim.batch_size / 16,
        "evaluation (images/s)": 2,
        "epoch (s)": 3 * 16 + 8 * 0.5,
        "first step (s)": 16,
        "peak memory (MB)": 7,
    }
    assert (table["times better"] == 2).all()
    assert "random" in str(report)


def test_side_is_stopped_unless_it_answers(echo):
    with training._Process("ltlib", ECHO, []) as process:
        for _ in range(2):
            assert process.ask("memory") == {"MB": 7}
            state = os.waitid(os.P_PID, process.process.pid, os.WSTOPPED)
            assert state.si_status == signal.SIGSTOP
    assert process.process.returncode == -signal.SIGKILL


def test_side_that_fails_is_named():
    with (
        training._Process("plain", "raise SystemExit(3)", []) as process,
        pytest.raises(RunError, match="the plain side ended early"),
    ):
        process.ask("step")


def test_random_images_have_the_counts_asked_for(data):
    train_set, _ = data
    assert train_set.class_counts.tolist() == [20, 10, 5]
    assert train_set.images.dtype == np.uint8


@pytest.mark.parametrize("name", ["plain", "ltlib"])
def test_side_serves_requests_line_by_line(name, monkeypatch, capsys):
    config = tiny("proco", optim__batch_size=16).model_dump(mode="json")
    monkeypatch.setattr(sys, "argv", ["-c", json.dumps([name, config, 10, "cpu", None])])
    monkeypatch.setattr(sys, "stdin", io.StringIO("describe\nstep\nmemory\n"))
    exec({"plain": training._SERVE_PLAIN, "ltlib": training._SERVE}[name])
    described, lap, memory = map(json.loads, capsys.readouterr().out.splitlines())
    workers = PLAIN_WORKERS if name == "plain" else Execution.choose().num_workers
    assert described["workers"] == workers
    assert set(lap) == set(training.STAGES)
    assert memory["MB"] > 0


def test_train_command_prints_both_sides(echo):
    result = CliRunner().invoke(cli.app, ["benchmark", "train", "--quick", "--steps", "1"])
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[-1].split() == ["peak", "memory", "(MB)", "14", "7", "2"]
