"""Several gloo processes give the loss, gradients and memory of one on the same batch."""

import socket

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from conftest import BASELINE_NAMES, METHOD_NAMES, tiny
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ltlib import data
from ltlib.data import load_dataset, train_loader
from ltlib.distributed import any_rank, gather, is_main, rank, share_buffers, world_size
from ltlib.methods import build_method
from ltlib.normalization import with_batch_norm
from ltlib.trainer import evaluate

COUNTS = [40, 20, 10, 5, 3, 2, 2, 1, 1, 1]
BATCH = 10  # shares of 2, 3, 2 and 3 on four processes
STEPS = 2
NAMES = (*METHOD_NAMES, *BASELINE_NAMES)
SMALL = {
    "paco": {"method__queue_size": 64},
    "gpaco": {"method__queue_size": 64},
    "kcl": {"method__num_positives": 1},
}


def share(num_rows: int) -> slice:
    return slice(num_rows * rank() // world_size(), num_rows * (rank() + 1) // world_size())


def take_steps(name: str, batch_norm: str, batch: int) -> dict[str, torch.Tensor]:
    """Train two steps in float64; return losses, gradients, weights and memory."""
    torch.manual_seed(0)
    method = build_method(tiny(name, model__batch_norm=batch_norm, **SMALL.get(name, {})), COUNTS)
    method.double()
    model: nn.Module = DistributedDataParallel(method) if world_size() > 1 else method
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    generator = torch.Generator().manual_seed(1)
    result = {}
    method.on_epoch_start(0)
    for step in range(STEPS):
        views = torch.randn(3, batch, 3, 16, 16, dtype=torch.float64, generator=generator)
        targets = torch.randint(10, (batch,), generator=generator)
        torch.manual_seed(step)
        output = model(list(views[: method.num_views, share(batch)]), targets[share(batch)])
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
    """Gather uneven shares of five rows of two views, and send a gradient back."""
    rows = torch.arange(20.0, dtype=torch.float64).reshape(2, 5, 2)
    own = rows[:, share(5)].reshape(-1, 2).requires_grad_()
    whole = gather(own, num_views=2)
    weights = torch.linspace(1, 2, 20, dtype=torch.float64).reshape(10, 2)
    (weights * whole**2).sum().backward()
    shared = nn.BatchNorm1d(2)
    shared.running_mean += rank() + 1
    share_buffers(shared)
    return {
        "gathered": whole.detach(),
        "gradient": gather(own.grad, num_views=2),
        "flag": torch.tensor([any_rank(rank() == 1), is_main()]),
        "shared": shared.running_mean,
    }


def normalize_rows(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Batch-normalise uneven shares far from zero, and differentiate."""
    torch.manual_seed(0)
    norm = with_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), "sync").to(torch.float32)
    if dtype == torch.float64:
        norm.double()
    with torch.no_grad():
        norm[0].weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    rows = (torch.randn(7, 3, 4, 4, dtype=torch.float64) + 100).to(dtype)
    own = rows[share(7)].contiguous(memory_format=torch.channels_last).requires_grad_()
    y = gather(norm(own))
    (y.double() ** 3 / world_size()).mean().backward()
    return {"y": y.detach(), "gradient": gather(own.grad), **norm.state_dict()}


def load_an_epoch() -> dict[str, torch.Tensor]:
    """Gather an epoch's batches: views, and targets."""
    train_set = load_dataset(tiny("paco").data, None, True)
    views = ("cifar_autoaugment", "sim_paco")
    loader = train_loader(
        train_set,
        views,
        batch_size=50,
        seed=3,
        drop_last=False,
        rank=rank(),
        world_size=world_size(),
    )
    loader.batch_sampler.set_epoch(1)
    batches = {}
    for step, (views, targets) in enumerate(loader):
        batches[f"targets {step}"] = gather(targets)
        batches |= {f"view {step} {i}": gather(view) for i, view in enumerate(views)}
    return batches


def answer_test_images() -> dict[str, torch.Tensor]:
    test_set = load_dataset(tiny("ce").data, None, False).take(np.arange(101))
    torch.manual_seed(0)
    method = build_method(tiny("ce"), COUNTS)
    loader = data.test_loader(test_set, batch_size=17, rank=rank(), world_size=world_size())
    logits = torch.from_numpy(evaluate(method, loader).logits)
    return {"logits": logits, "targets": torch.from_numpy(evaluate(method, loader).targets)}


def take_all() -> dict[str, dict[str, torch.Tensor]]:
    results = {}
    if world_size() != 3:
        results = {name: take_steps(name, "sync", BATCH) for name in NAMES}
        results |= {f"ghost {name}": take_steps(name, "ghost:2", 8) for name in ("proco", "gpaco")}
    return results | {
        "gather": gather_and_differentiate(),
        "float64": normalize_rows(torch.float64),
        "bfloat16": normalize_rows(torch.bfloat16),
        "epoch": load_an_epoch(),
        "evaluation": answer_test_images(),
    }


def worker(process: int, ports: dict[int, int], folder: str) -> None:
    """Be a process of each group that is large enough."""
    torch.set_num_threads(1)
    for world, port in ports.items():
        if process < world:
            address = f"tcp://127.0.0.1:{port}"
            dist.init_process_group("gloo", address, rank=process, world_size=world)
            torch.save(take_all(), f"{folder}/{process}-of-{world}.pt")
            dist.destroy_process_group()


@pytest.fixture(scope="module")
def alone():
    return take_all()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What the processes of groups of 2, 3 and 4 found."""
    folder = tmp_path_factory.mktemp("ranks")
    ports = {}
    for world in (2, 3, 4):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports[world] = free.getsockname()[1]
    mp.start_processes(worker, (ports, str(folder)), nprocs=4, start_method="spawn")
    return folder


@pytest.fixture(params=(2, 3, 4))
def ranks(request, folder):
    """What each process of a group found."""
    world = request.param
    return [torch.load(folder / f"{process}-of-{world}.pt") for process in range(world)]


def assert_as_alone(ranks, alone, name, **tolerance):
    for process, results in enumerate(ranks):
        assert results[name].keys() == alone[name].keys()
        for key, expected in alone[name].items():
            torch.testing.assert_close(
                results[name][key], expected, msg=f"{key} on rank {process}", **tolerance
            )


def test_one_process_is_rank_zero_of_one():
    assert (rank(), world_size(), is_main()) == (0, 1, True)
    tensor = torch.ones(3)
    assert gather(tensor) is tensor
    assert any_rank(True)


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 4], indirect=True)
@pytest.mark.parametrize("name", NAMES)
def test_processes_train_as_one(name, ranks, alone):
    assert_as_alone(ranks, alone, name, rtol=1e-7, atol=1e-10)


@pytest.mark.distributed
@pytest.mark.parametrize("ranks", [2, 4], indirect=True)
@pytest.mark.parametrize("name", ["proco", "gpaco"])
def test_groups_of_ghost_batch_norm_are_those_of_one_process(name, ranks, alone):
    assert_as_alone(ranks, alone, f"ghost {name}", rtol=1e-7, atol=1e-10)


@pytest.mark.distributed
def test_synced_batch_norm_is_torchs_on_the_whole_batch(ranks):
    whole = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        whole.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
    torch.manual_seed(0)
    rows = (torch.randn(7, 3, 4, 4, dtype=torch.float64) + 100).requires_grad_()
    y = whole(rows)
    (y**3).mean().backward()
    for results in ranks:
        ours = results["float64"]
        torch.testing.assert_close(ours["y"], y.detach(), rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(ours["gradient"], rows.grad, rtol=1e-8, atol=1e-10)
        for name, value in whole.state_dict().items():
            torch.testing.assert_close(ours[f"0.{name}"], value, rtol=1e-10, atol=1e-10)
        coarse = results["bfloat16"]
        assert coarse["y"].dtype == coarse["gradient"].dtype == torch.bfloat16
        assert coarse["0.running_var"].dtype == torch.float32
        rounded = rows.detach().bfloat16().double().var((0, 2, 3))
        torch.testing.assert_close(
            coarse["0.running_var"].double(), 0.9 + 0.1 * rounded, rtol=1e-4, atol=0
        )


@pytest.mark.distributed
@pytest.mark.parametrize("name", ["epoch", "evaluation"])
def test_union_of_the_shares_is_the_one_process_batch(name, ranks, alone):
    exact = {"rtol": 0, "atol": 0} if name == "epoch" else {"rtol": 1e-5, "atol": 1e-5}
    assert_as_alone(ranks, alone, name, **exact)


@pytest.mark.distributed
def test_gather_keeps_views_apart_and_returns_every_ranks_gradient(ranks):
    rows = torch.arange(20.0, dtype=torch.float64).reshape(10, 2)
    weights = torch.linspace(1, 2, 20, dtype=torch.float64).reshape(10, 2)
    for process, results in enumerate(ranks):
        gathered = results["gather"]
        assert torch.equal(gathered["gathered"], rows)
        # Each of the W ranks computes the same loss; DDP's mean divides their sum by W.
        torch.testing.assert_close(gathered["gradient"], len(ranks) * 2 * weights * rows)
        assert gathered["flag"].tolist() == [True, process == 0]
        assert gathered["shared"].tolist() == [1, 1]
