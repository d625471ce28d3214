"""Two gloo processes give the loss, gradients and memory of one process on the same batch."""

import os
import socket

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import METHOD_NAMES, tiny
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ltlib import data
from ltlib.distributed import any_rank, gather, is_main, rank, share_buffers, world_size
from ltlib.methods import build_method
from ltlib.reproduce import launch
from ltlib.runs import is_finished, load_arrays, open_run, read_json

COUNTS = [40, 20, 10, 5, 3, 2, 2, 1, 1, 1]
BATCH = 9  # odd, so that two processes hold shares of different sizes
STEPS = 2
# Not mixup, whose processes mix their own images.
NAMES = (*METHOD_NAMES, "ldam_drw", "kcl")
SMALL = {
    "paco": {"method__queue_size": 64},
    "gpaco": {"method__queue_size": 64},
    "kcl": {"method__num_positives": 1},
}


def take_steps(name: str) -> dict[str, torch.Tensor]:
    """Train two steps in float64; return losses, gradients, weights and memory."""
    torch.manual_seed(0)
    method = build_method(tiny(name, **SMALL.get(name, {})), COUNTS)
    method.double()
    for module in method.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.eval()  # statistics of a local batch are a different network
    model: nn.Module = DistributedDataParallel(method) if world_size() > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    share = slice(BATCH * rank() // world_size(), BATCH * (rank() + 1) // world_size())
    generator = torch.Generator().manual_seed(1)
    result = {}
    method.on_epoch_start(0)
    for step in range(STEPS):
        views = torch.randn(3, BATCH, 3, 16, 16, dtype=torch.float64, generator=generator)
        targets = torch.randint(10, (BATCH,), generator=generator)
        torch.manual_seed(step)
        output = model(list(views[: method.num_views, share]), targets[share])
        optimizer.zero_grad()
        output.loss.backward()
        result[f"loss {step}"] = output.loss.detach()
        result[f"logits {step}"] = output.logits.detach()
        for key, parameter in method.named_parameters():
            if parameter.requires_grad:
                result[f"gradient {step} {key}"] = parameter.grad.clone()
        optimizer.step()
    return result | {f"state {key}": value for key, value in method.state_dict().items()}


def gather_and_differentiate() -> dict[str, torch.Tensor]:
    """Gather shares of 2 and 3 rows of two views each, and send a gradient back."""
    rows = torch.arange(20.0, dtype=torch.float64).reshape(2, 5, 2)
    share = rows[:, slice(0, 2) if rank() == 0 else slice(2, 5)]
    share = share.reshape(-1, 2).requires_grad_()
    whole = gather(share, num_views=2)
    weights = torch.linspace(1, 2, 20, dtype=torch.float64).reshape(10, 2)
    (weights * whole**2).sum().backward()
    shared = nn.BatchNorm1d(2)
    shared.running_mean += rank() + 1
    share_buffers(shared)
    return {
        "gathered": whole.detach(),
        "gradient": gather(share.grad, num_views=2),
        "flag": torch.tensor([any_rank(rank() == 1, torch.device("cpu")), is_main()]),
        "shared": shared.running_mean,
    }


def worker(process: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=process, world_size=2)
    results = {name: take_steps(name) for name in NAMES}
    results["gather"] = gather_and_differentiate()
    torch.save(results, f"{folder}/{process}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.start_processes(worker, (port, str(folder)), nprocs=2, start_method="spawn")
    return [torch.load(folder / f"{process}.pt") for process in range(2)]


def test_one_process_is_rank_zero_of_one():
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    tensor = torch.ones(3)
    assert gather(tensor) is tensor
    assert any_rank(True, tensor.device)


@pytest.mark.distributed
@pytest.mark.parametrize("name", NAMES)
def test_two_processes_train_as_one(name, two_processes):
    alone = take_steps(name)
    for process, results in enumerate(two_processes):
        ours = results[name]
        assert ours.keys() == alone.keys()
        for key, expected in alone.items():
            torch.testing.assert_close(
                ours[key], expected, rtol=1e-9, atol=1e-12, msg=f"{key} on rank {process}"
            )


@pytest.mark.distributed
def test_gather_keeps_views_apart_and_returns_every_ranks_gradient(two_processes):
    rows = torch.arange(20.0, dtype=torch.float64).reshape(10, 2)
    weights = torch.linspace(1, 2, 20, dtype=torch.float64).reshape(10, 2)
    for process, results in enumerate(two_processes):
        gathered = results["gather"]
        assert torch.equal(gathered["gathered"], rows)
        # Each of the two ranks computes the same loss; DDP's mean halves their sum.
        torch.testing.assert_close(gathered["gradient"], 2 * 2 * weights * rows)
        assert gathered["flag"].tolist() == [True, process == 0]
        assert gathered["shared"].tolist() == [1, 1]


@pytest.mark.distributed
@pytest.mark.slow
def test_launched_run_finishes_on_two_processes(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    config = tiny("bcl", optim__epochs=1, method__class_complement=False)
    run_dir = open_run(config, "tiny", tmp_path)
    launch(run_dir, 2)
    assert is_finished(run_dir)
    assert read_json(run_dir / "provenance.json")["processes"] == 2
    predictions = load_arrays(run_dir / "predictions.npz")
    test_set = data.load_dataset(config.data, None, False)
    assert predictions["targets"].tolist() == test_set.targets.tolist()
