"""Whatever ends a run, its checkpoint is whole, its status says why, and no process is left."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from conftest import tiny
from forks import Forks
from PIL import Image
from safetensors.torch import load_file

from ltlib.checkpoints import load_checkpoint
from ltlib.config import override
from ltlib.recipes import RECIPES
from ltlib.runs import is_finished, load_arrays, lock_run, open_run, read_json

SMALL = {"optim.epochs": 2, "optim.batch_size": 64, "data.imbalance_factor": 100}
QUEUE = {"method.queue_size": 128}
CHANGES = {"ce": SMALL, "proco": SMALL, "paco": SMALL | QUEUE}
WORKERS = ("--views=pil", "--num-workers=2")
TIMEOUT = 60


@pytest.fixture(scope="module")
def forks():
    with Forks() as forks:
        yield forks


def command(method, folder, *more, **changes):
    """Return the arguments of a training, and its folder."""
    changes = CHANGES[method] | {name.replace("__", "."): v for name, v in changes.items()}
    recipe = f"{method}-digits-if50"
    run_dir = open_run(override(RECIPES[recipe], changes), recipe, folder)
    sets = [f"--set={name}={value}" for name, value in changes.items()]
    return ["train", recipe, *sets, "--runs-dir", folder, *more], run_dir


def group(world):
    """Return the environment of each process of a group, as torchrun sets it."""
    if world == 1:
        return [{}]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world)}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world)]


def start(forks, arguments, log, world=1, **options):
    return [forks.start(arguments, log, environment=e, **options) for e in group(world)]


def wait_until(condition, what):
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def checkpoint_of(run_dir):
    return (run_dir / "checkpoint.pt").exists


def written(run_dir):
    """Tell when the newest checkpoint was written; a result counts as well."""
    times = []
    for name in ("checkpoint.pt", "result.json"):
        try:
            times.append((run_dir / name).stat().st_mtime_ns)
        except FileNotFoundError:  # or just being replaced
            times.append(0)
    return times


def descendants(process):
    return psutil.Process(process).children(recursive=True)


def assert_failed(forks, processes):
    # Not all 1: gloo may abort a process that is still leaving when its peer has left.
    assert all([forks.wait(process) for process in processes])


def assert_gone(processes):
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


def assert_same_state(first, second):
    """Weights, statistics, queue, optimiser, epoch, records: everything but the clock."""
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for name in first.keys() - {"seconds"}:
            assert_same_state(first[name], second[name])
    elif isinstance(first, list):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_same_state(one, other)
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    else:
        assert first == second or (first != first and second != second)


def assert_same_run(run_dir, whole):
    assert read_json(run_dir / "result.json") == read_json(whole / "result.json")
    ours, theirs = (load_file(run / "model.safetensors") for run in (run_dir, whole))
    assert_same_state(ours, theirs)
    histories = [
        pd.read_csv(run / "history.csv").drop(columns="seconds") for run in (run_dir, whole)
    ]
    pd.testing.assert_frame_equal(*histories, check_exact=True)
    for name in ("predictions.npz", "geometry.npz"):
        theirs = load_arrays(whole / name)
        for key, array in load_arrays(run_dir / name).items():
            np.testing.assert_array_equal(array, theirs[key])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "world"), [("proco", 1), ("paco", 1), ("proco", 2)])
def test_run_killed_at_random_moments_equals_the_uninterrupted_one(method, world, forks, tmp_path):
    arguments, whole = command(method, tmp_path / "whole", optim__epochs=3)
    processes = start(forks, arguments, tmp_path / "log", world, keep=True)
    assert [forks.wait(process) for process in processes] == [0] * world

    arguments, run_dir = command(method, tmp_path / "killed", optim__epochs=3)
    chance, kills = random.Random(f"{method} {world}"), []
    while not is_finished(run_dir):
        assert len(kills) < 50
        processes = start(
            forks, arguments, tmp_path / "log", world, keep=True, checkpoint_seconds=0
        )
        before = written(run_dir)
        if kills:  # the first is killed as it starts
            wait_until(lambda old=before: written(run_dir) != old, "progress")
        time.sleep(chance.uniform(0, 0.2))
        if not is_finished(run_dir):
            for process in chance.sample(processes, world):
                os.kill(process, signal.SIGKILL)
            state = load_checkpoint(run_dir)
            kills.append((state["epoch"], state["step"]) if state else None)
        for process in processes:
            forks.wait(process)
    print(f"{method}, {world} processes: killed at (epoch, step) {kills}")
    assert len(set(kills)) >= 3
    assert_same_run(run_dir, whole)
    assert_same_state(load_checkpoint(run_dir), load_checkpoint(whole))
    assert not list(run_dir.glob(".*.part"))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2])
def test_signal_to_all_processes_of_a_run_saves_it(number, forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, *WORKERS, optim__epochs=500)
    [process] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    workers = descendants(process)
    assert len(workers) >= 2
    os.killpg(process, number)
    assert forks.wait(process) == 1
    assert_gone(workers)
    status = read_json(run_dir / "status.json")
    assert status["state"] == "preempted"
    assert status["why"].startswith("stopped at epoch")
    last_line = (tmp_path / "log").read_text().splitlines()[-1]
    assert last_line == f"error: {status['why']}"
    state = load_checkpoint(run_dir)
    assert f"stopped at epoch {state['epoch']} step {state['step'] - 1};" in status["why"]


def test_second_signal_acts_at_once(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, optim__epochs=500)
    # A step that does not end: the loaders' workers sleep.
    [process] = start(forks, [*arguments, *WORKERS], tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    workers = descendants(process)
    for worker in workers:
        worker.suspend()
    time.sleep(0.5)
    os.kill(process, signal.SIGTERM)
    os.kill(process, signal.SIGTERM)  # torchrun's and SLURM's, of one request
    time.sleep(1.2)
    assert psutil.pid_exists(process)
    os.kill(process, signal.SIGTERM)
    for worker in workers:
        worker.resume()
    begun = time.monotonic()
    assert forks.wait(process) != 0
    assert time.monotonic() - begun < 10
    status = read_json(run_dir / "status.json")
    assert status["state"] == "preempted"
    assert "stopped at once" in status["why"]
    assert load_checkpoint(run_dir) is not None
    assert_gone(workers)


def test_workers_of_a_killed_run_end_and_its_lock_is_free_at_once(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, *WORKERS, optim__epochs=500)
    [process] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    workers = descendants(process)
    os.kill(process, signal.SIGKILL)
    forks.wait(process)
    with lock_run(run_dir):
        pass
    assert_gone(workers)


def test_copy_of_a_run_resumes_as_the_run(forks, tmp_path):
    arguments, run_dir = command("proco", tmp_path / "here")
    [process] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    os.kill(process, signal.SIGTERM)
    forks.wait(process)
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    (tmp_path / "there" / "log").write_text("")
    for folder in ("here", "there"):
        arguments, copy = command("proco", tmp_path / folder)
        [process] = start(forks, arguments, tmp_path / "log")
        assert forks.wait(process) == 0
    assert_same_run(copy, run_dir)


def test_processes_that_find_different_checkpoints_are_refused(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path / "here", optim__epochs=500)
    [process] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    os.kill(process, signal.SIGTERM)
    forks.wait(process)
    before = (run_dir / "checkpoint.pt").read_bytes()
    elsewhere, _ = command("ce", tmp_path / "there", optim__epochs=500)
    processes = [
        forks.start(own, tmp_path / "log", environment=environment)
        for own, environment in zip((arguments, elsewhere), group(2), strict=True)
    ]
    assert_failed(forks, processes)
    why = read_json(run_dir / "status.json")["why"]
    assert why.endswith("choose a folder that all their machines share")
    assert (run_dir / "checkpoint.pt").read_bytes() == before


def test_full_disk_is_one_sentence_and_loses_nothing(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, optim__epochs=500)
    [process] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    os.kill(process, signal.SIGTERM)
    forks.wait(process)
    before = (run_dir / "checkpoint.pt").read_bytes()
    # A limit on the size of files stands for the full disk: write fails likewise, in its middle.
    [process] = start(forks, arguments, tmp_path / "log2", checkpoint_seconds=0, largest=100_000)
    assert forks.wait(process) == 1
    last_line = (tmp_path / "log2").read_text().splitlines()[-1]
    assert "checkpoint.pt cannot be written (File too large); make room" in last_line
    status = read_json(run_dir / "status.json")
    assert status["state"] == "failed"
    assert f"error: {status['why']}" == last_line
    assert (run_dir / "checkpoint.pt").read_bytes() == before
    assert not list(run_dir.glob(".*.part"))


def test_folder_that_cannot_be_written_is_one_sentence(forks, tmp_path):
    (tmp_path / "file").write_text("in the way of a folder")
    arguments = ["train", "ce-digits-if50", "--runs-dir", tmp_path / "file"]
    assert forks.wait(forks.start(arguments, tmp_path / "log")) == 1
    [line] = (tmp_path / "log").read_text().splitlines()
    assert line.startswith("error: ")
    assert "cannot be written (Not a directory); make room or choose another folder" in line


def one_bad_image(folder):
    """Write twelve small images of two classes, one of them cut short."""
    generator = np.random.default_rng(0)
    for part in ("train", "test"):
        for number in range(12):
            file = folder / part / "ab"[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(generator.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(file)
    bad = folder / "train" / "a" / "6.png"
    bad.write_bytes(bad.read_bytes()[:60])
    return bad


@pytest.mark.parametrize(("world", "workers"), [(1, 0), (1, 2), (2, 1)])
def test_undecodable_image_ends_all_processes_with_its_name_once(world, workers, forks, tmp_path):
    bad = one_bad_image(tmp_path / "images")
    arguments = ["train", "ce-digits-if50", "--data-root", tmp_path / "images"]
    arguments += ["--set=data.dataset=image_folder", "--set=data.imbalance_factor=1"]
    arguments += ["--set=optim.batch_size=4", "--runs-dir", tmp_path, "--num-workers", workers]
    processes = start(forks, arguments, tmp_path / "log", world)
    begun = time.monotonic()
    assert_failed(forks, processes)
    assert time.monotonic() - begun < 30
    [status] = tmp_path.glob("ce-digits-if50/*/status.json")
    why = read_json(status)["why"]
    assert str(bad) in why
    assert "\n" not in why
    log = (tmp_path / "log").read_text()
    assert log.count(f"error: {why}\n") == 1
    assert "Traceback" not in log


def test_loss_that_is_not_finite_is_told_once_by_two_processes(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, optim__lr=1e30)
    processes = start(forks, arguments, tmp_path / "log", world=2)
    assert_failed(forks, processes)
    log = (tmp_path / "log").read_text()
    assert log.count("error: ") == log.count("lower optim.lr") == 1
    assert "lower optim.lr" in read_json(run_dir / "status.json")["why"]


def test_second_training_of_a_run_is_refused_and_the_first_goes_on(forks, tmp_path):
    arguments, run_dir = command("ce", tmp_path, optim__epochs=500)
    [first] = start(forks, arguments, tmp_path / "log")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    for world in (1, 2):
        log = tmp_path / f"refused {world}"
        processes = start(forks, arguments, log, world)
        assert_failed(forks, processes)
        assert log.read_text().count("is being trained by process") == 1
    assert read_json(run_dir / "status.json")["process"] == first
    os.kill(first, signal.SIGTERM)
    forks.wait(first)
    assert read_json(run_dir / "status.json")["state"] == "preempted"


def test_signal_in_evaluation_is_heeded_and_the_epoch_is_not_lost(tmp_path, monkeypatch):
    from ltlib.trainer import Stopped, evaluation, train

    config = tiny("proco")
    whole, run_dir = (open_run(config, "tiny", tmp_path / name) for name in ("whole", "stopped"))
    train(config, whole)
    calls = []

    def place(execution, images):
        calls.append(len(images))
        if len(images) != 64 and len(calls) > 20:  # test images, in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
        return original(execution, images)

    original = evaluation.Execution.place
    with monkeypatch.context() as patch:
        patch.setattr(evaluation.Execution, "place", place)
        with pytest.raises(Stopped, match="stopped while evaluating"):
            train(config, run_dir)
    assert load_checkpoint(run_dir)["step"] > 0
    train(config, run_dir)
    assert_same_run(run_dir, whole)


# With torchrun itself, whose start takes seconds.


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """An uninterrupted run on two processes."""
    folder = tmp_path_factory.mktemp("whole")
    arguments, run_dir = command("proco", folder, model__batch_norm="sync")
    processes = start(forks, arguments, folder / "log", world=2)
    assert [forks.wait(process) for process in processes] == [0, 0]
    return run_dir


def torchrun(run_dir, *arguments):
    trainer = ["-m", "ltlib.trainer", str(run_dir)]
    return subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", *arguments, *trainer],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )


def trainers(process):
    """List torchrun's workers, without their own."""
    return [p for p in process.children() if "ltlib.trainer" in p.cmdline()]


@pytest.mark.slow
@pytest.mark.distributed
def test_killed_worker_is_restarted_and_the_end_is_the_same(whole, tmp_path):
    _, run_dir = command("proco", tmp_path, model__batch_norm="sync")
    agent = torchrun(run_dir, "--standalone", "--nproc-per-node=2", "--max-restarts=2")
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    first = trainers(psutil.Process(agent.pid))
    first[1].kill()
    assert agent.wait(TIMEOUT) == 0
    assert_gone(first)
    assert_same_run(run_dir, whole)


@pytest.mark.slow
@pytest.mark.distributed
def test_two_machines_train_as_one_with_two_processes(whole, tmp_path):
    _, run_dir = command("proco", tmp_path, model__batch_norm="sync")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        endpoint = f"127.0.0.1:{free.getsockname()[1]}"
    machines = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-id=x"]
    agents = [torchrun(run_dir, *machines, f"--rdzv-endpoint={endpoint}") for _ in range(2)]
    assert [agent.wait(TIMEOUT) for agent in agents] == [0, 0]
    assert read_json(run_dir / "provenance.json")["processes"] == 2
    assert_same_run(run_dir, whole)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_launched_processes_save_and_end_with_their_launcher(number, tmp_path):
    arguments, run_dir = command("ce", tmp_path, "--num-processes=2", *WORKERS, optim__epochs=1000)
    launcher = subprocess.Popen(
        [sys.executable, "-m", "ltlib.cli", *map(str, arguments)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(checkpoint_of(run_dir), "a checkpoint")
    processes = descendants(launcher.pid)
    assert len(processes) >= 1 + 2 + 4  # torchrun, trainers, loader workers
    launcher.send_signal(number)
    _, errors = launcher.communicate(timeout=TIMEOUT)
    assert_gone(processes)
    status = read_json(run_dir / "status.json")
    assert status["state"] == "preempted"
    if number != signal.SIGKILL:
        assert launcher.returncode == 1
        assert errors.splitlines()[-1] == f"error: {run_dir}: {status['why']}"
        assert "Traceback" not in errors
    assert load_checkpoint(run_dir) is not None


def test_leftovers_of_a_killed_write_are_cleared(tmp_path):
    leftover = tmp_path / ".checkpoint.pt.123.part"
    leftover.write_bytes(b"half")
    with lock_run(tmp_path):
        assert not leftover.exists()
