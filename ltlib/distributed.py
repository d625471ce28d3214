"""Rank, world size and a gather that carries gradients; all of it does nothing in one process.

Every method gathers its batch before the loss, so the loss sees the global batch whatever the
number of processes. ``gather`` sums the gradients of all ranks and DistributedDataParallel
averages them, which together give the gradient of the one-process batch.
"""

import ctypes
import logging
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn


def rank() -> int:
    """Return this process's number, 0 without a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of processes, 1 without a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Tell whether this process writes files and prints."""
    return rank() == 0


@contextmanager
def process_group() -> Iterator[None]:
    """Join torchrun's process group for the duration, or stay alone without torchrun."""
    if "RANK" not in os.environ or dist.is_initialized():
        yield
        return
    end_with_parent()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # torchrun restarts workers with the same store: what the last ones wrote makes them hang.
    store, own_rank, size = next(dist.rendezvous("env://"))
    store = dist.PrefixStore(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    # Small facts are exchanged between CPUs, so that no GPU has to be waited for.
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(backend, store=store, rank=own_rank, world_size=size)
    try:
        yield
    finally:
        dist.destroy_process_group()


def gather(tensor: Tensor, num_views: int = 1) -> Tensor:
    """Concatenate every rank's rows into the global batch, with gradients.

    Args:
        tensor: This rank's rows, (V*b, ...), view-major; b may differ between ranks.
        num_views: V.

    Returns:
        (V*B, ...), view-major, samples in rank order within each view. Without a process group,
        ``tensor`` itself.
    """
    if world_size() == 1:
        return tensor
    rows = tensor.unflatten(0, (num_views, -1)).transpose(0, 1)  # (b, V, ...)
    return _Gather.apply(rows).transpose(0, 1).flatten(0, 1)


def any_rank(flag: bool) -> bool:
    """Tell whether the flag is set on at least one rank; returns when all ranks have asked."""
    if world_size() == 1:
        return flag
    votes = torch.tensor(int(flag))
    dist.all_reduce(votes, op=dist.ReduceOp.MAX)
    return bool(votes)


def all_equal(number: int) -> bool:
    """Tell whether all ranks have the same number; returns when all ranks have asked."""
    if world_size() == 1:
        return True
    bounds = torch.tensor([number, -number])
    dist.all_reduce(bounds, op=dist.ReduceOp.MAX)
    return bool(bounds.sum() == 0)


def is_lost_process(error: BaseException) -> bool:
    """Tell whether an error only says that another process of the group has ended."""
    # gloo's errors have no class of their own.
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and "gloo/transport" in str(error)
    )


@torch.no_grad()
def share_buffers(module: nn.Module) -> None:
    """Give every rank the main process's buffers, so that all evaluate the network it saves."""
    if world_size() > 1:
        for buffer in module.buffers():
            dist.broadcast(buffer, 0)


def end_with_parent() -> None:
    """Ask the system to stop this process (SIGTERM) when its parent ends, however it ends."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def torchrun(arguments: list[str]) -> int:
    """Be torchrun, without the tracebacks in which it reports the end of its workers.

    Args:
        arguments: Of ``torchrun``.

    Returns:
        The exit status, 0 if all workers ended well.
    """
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    end_with_parent()
    logging.disable(logging.CRITICAL)
    try:
        run.main(arguments)
    except (ChildFailedError, SignalException):
        return 1
    return 0


_PR_SET_PDEATHSIG = 1  # of Linux's prctl(2)


class _Gather(torch.autograd.Function):
    """all_gather whose backward returns to each rank the sum of the gradients of its rows."""

    @staticmethod
    def forward(ctx, rows: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        sizes = [torch.zeros(1, dtype=torch.long) for _ in range(world_size())]
        dist.all_gather(sizes, torch.tensor([len(rows)]))
        ctx.sizes = [int(size) for size in sizes]
        # Collectives want equal shapes; only the last batch of an epoch is uneven.
        padded = rows.new_zeros((max(ctx.sizes), *rows.shape[1:]))
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in ctx.sizes]
        dist.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, ctx.sizes, strict=True)])

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        total = gradient.contiguous()
        dist.all_reduce(total)
        return total.split(ctx.sizes)[rank()]


if __name__ == "__main__":
    sys.exit(torchrun(sys.argv[1:]))
