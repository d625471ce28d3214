import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import tiny
from typer.testing import CliRunner

from ltlib import cli
from ltlib.config import config_hash
from ltlib.doctor import Finding, examine
from ltlib.runs import is_finished


def ltlib(*arguments):
    """Run the command as a user does."""
    command = [sys.executable, "-m", "ltlib.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.mark.slow
def test_train_prints_the_folder_last_and_reads_a_finished_run(tmp_path):
    changes = [
        "--set=optim.epochs=1",
        "--set=optim.batch_size=64",
        "--set=data.imbalance_factor=100",
    ]
    arguments = ["train", "ce-digits-if50", *changes, "--seed", 2, "--runs-dir", tmp_path]
    first = ltlib(*arguments)
    assert first.returncode == 0, first.stderr
    run_dir = Path(first.stdout.splitlines()[-1])
    assert run_dir.parent == tmp_path / "ce-digits-if50"
    assert run_dir.name == f"{config_hash(tiny('ce', optim__epochs=1))}-s2"
    assert is_finished(run_dir)
    assert "epoch 1/1" in first.stderr
    second = ltlib(*arguments)
    assert second.stdout == first.stdout
    assert "epoch" not in second.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["train", "bcl"], "unknown recipe 'bcl'"),
        (["train", "ce-digits-if50", "--set", "optim.epoch=1"], "did you mean 'optim.epochs'"),
        (["train", "ce-digits-if50", "--set", "optim.epochs"], "--set takes key=value"),
        (["train", "ce-digits-if50", "--device", "cuda"], "torch sees no GPU; use cpu"),
        (["train", "ce-digits-if50", "--precision", "fp8"], "precision must be auto, bf16 or fp32"),
        (["train", "ce-cifar10-if100", "--data-root", "nowhere"], "cifar10"),
        (["report", "nowhere.ipynb"], "nowhere.ipynb"),
        (["data", "check", "nothing"], "unknown data set 'nothing'"),
        (["reproduce", "start_here", "--seeds", "0;1"], "--seeds takes numbers such as 0,1,2"),
    ],
)
def test_user_errors_end_in_one_sentence(arguments, sentence, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LTLIB_DATA", raising=False)
    monkeypatch.setattr(sys, "argv", ["ltlib", *arguments])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    errors = capsys.readouterr().err.strip().splitlines()
    assert errors[-1].startswith("error: ")
    assert sentence in errors[-1]


def test_help_answers_within_a_second():
    seconds = []
    for _ in range(3):
        start = time.monotonic()
        assert ltlib("--help").returncode == 0
        seconds.append(time.monotonic() - start)
    assert "torch" not in ltlib("--help").stderr
    assert min(seconds) < 3  # a generous bound for a busy machine; torch alone takes longer


def test_recipes_lists_by_part_of_a_name():
    result = CliRunner().invoke(cli.app, ["recipes", "proco-cifar100"])
    assert "proco-cifar100-if100-400ep" in result.stdout.split()
    assert all("proco-cifar100" in name for name in result.stdout.split())


def test_data_check_counts_images(monkeypatch):
    result = CliRunner().invoke(cli.app, ["data", "check", "digits", "--imbalance-factor", "50"])
    assert "digits train: 390 images of 10 classes, 138 to 2 a class" in result.stdout
    assert "digits test: 400 images of 10 classes, 40 to 40 a class" in result.stdout


def test_doctor_finds_digits_and_names_every_fix(tmp_path, monkeypatch):
    monkeypatch.setenv("LTLIB_DATA", str(tmp_path))
    findings = {finding.subject: finding for finding in examine(None, tmp_path)}
    assert findings["digits"].level == "OK"
    assert findings["cifar100"].level == "WARN"
    assert "LTLIB_DATA" in findings["cifar100"].text
    assert {finding.level for finding in findings.values()} <= {"OK", "WARN"}
    assert str(Finding("OK", "disk", "9 GiB free")) == "OK    disk        9 GiB free"
