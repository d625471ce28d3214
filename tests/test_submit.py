"""Runs as jobs, with submitit's local executor in SLURM's place."""

import builtins
import os
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
from conftest import tiny
from typer.testing import CliRunner

from ltlib import cli
from ltlib.runs import RunError, is_finished, load_history, load_runs, open_run, read_json
from ltlib.submit import submit


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # jobs live on
def test_tables_missing_runs_become_jobs(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    changes = ["--set=optim.epochs=1", "--set=optim.batch_size=128"]
    arguments = ["reproduce", "start_here", "--seeds=0", *changes, f"--runs-dir={tmp_path}"]
    monkeypatch.setattr("ltlib.reproduce.plan", lambda *args, **options: {"tiny": tiny("ce")})
    result = CliRunner().invoke(cli.app, [*arguments, "--submit=local", "--job=timeout_min=5"])
    assert result.exit_code == 0, result.output
    [line] = result.output.splitlines()
    run_dir = Path(line.split(": ")[1])
    deadline = time.monotonic() + 60
    while not is_finished(run_dir) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert is_finished(run_dir)
    assert list((tmp_path / "jobs").glob("*.out"))
    again = CliRunner().invoke(cli.app, [*arguments, "--submit=local"])
    assert again.output == ""


@pytest.mark.slow
def test_preempted_job_is_requeued_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run_dir = open_run(tiny("ce", optim__epochs=12), "tiny", tmp_path / "runs")
    settings = {"timeout_min": 60}
    [job] = submit([run_dir], "local", logs_dir=tmp_path / "jobs", settings=settings)
    deadline = time.monotonic() + 60
    while not (run_dir / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    tasks = psutil.Process(job._process.pid).children(recursive=True)
    [task] = [task for task in tasks if "submitit.core._submit" in task.cmdline()]
    task.send_signal(signal.SIGUSR2)  # which SLURM sends before it preempts
    assert job.result() == str(run_dir)
    log = job.paths.stdout.read_text() + job.paths.stderr.read_text()
    assert "Requeued job" in log
    assert f"resuming {run_dir}" in log
    assert load_history(load_runs(tmp_path / "runs"))["epoch"].tolist() == list(range(12))


@pytest.mark.slow
def test_cancelled_job_saves_and_is_not_requeued(tmp_path):
    run_dir = open_run(tiny("ce", optim__epochs=500), "tiny", tmp_path / "runs")
    [job] = submit([run_dir], "local", logs_dir=tmp_path / "jobs")
    deadline = time.monotonic() + 60
    while not (run_dir / "checkpoint.pt").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(read_json(run_dir / "status.json")["process"], signal.SIGTERM)
    assert "start again to resume" in str(job.exception())
    assert read_json(run_dir / "status.json")["state"] == "preempted"


@pytest.mark.parametrize(
    ("executor", "settings", "sentence"),
    [
        ("slurm", {}, "srun"),
        ("pbs", {}, "submitted to slurm or local, not to 'pbs'"),
        ("local", {"colour": "red"}, "colour"),
    ],
)
def test_wrong_submission_is_one_sentence(executor, settings, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        submit([tmp_path], executor, settings=settings, logs_dir=tmp_path)


def test_missing_submitit_names_the_extra(tmp_path, monkeypatch):
    def refuse(name, *arguments, **options):
        if name == "submitit":
            raise ModuleNotFoundError(name)
        return original(name, *arguments, **options)

    original = builtins.__import__
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(RunError, match=r"pip install 'ltlib\[slurm\]'"):
        submit([tmp_path], "local", logs_dir=tmp_path)


def test_template_passes_the_signal_on_and_requeues(tmp_path):
    """The script as SLURM runs it, with stand-ins for SLURM's programs."""
    script = CliRunner().invoke(cli.app, ["slurm"]).output
    assert "#SBATCH --requeue" in script
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    programs = {
        "srun": "trap 'echo saved >> log; exit 1' USR1; echo $@ > log; touch started\n"
        "while true; do sleep 0.05; done",
        "scontrol": 'if [ $1 = show ]; then echo first; echo second; else echo "$@" >> log; fi',
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    slurm = {"SLURM_JOB_NODELIST": "x", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4"}
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    job = subprocess.Popen(
        ["bash", "-c", script, "slurm.sbatch", "ce-digits-if50", "--seed", "1"],
        cwd=tmp_path,
        env=os.environ | slurm | path,
    )
    deadline = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    assert job.wait(20) != 0
    command, *rest = (tmp_path / "log").read_text().splitlines()
    assert rest == ["saved", "requeue 7"]
    assert "--nnodes=2 --nproc-per-node=4" in command
    assert "--rdzv-endpoint=first:29500" in command
    assert command.endswith("-m ltlib.cli train ce-digits-if50 --seed 1")
