"""A method made ready to train: on its device, compiled where that pays, shared by processes."""

from dataclasses import replace

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from ltlib.config import ExperimentConfig, OptimConfig
from ltlib.distributed import world_size
from ltlib.execution import Execution
from ltlib.methods import Method


def prepare(
    method: Method, config: ExperimentConfig, num_steps: int, execution: Execution
) -> tuple[nn.Module, Execution]:
    """Move a method to its device, compile its backbones if that pays, and wrap it for DDP.

    Args:
        method: Changed in place.
        config: The experiment.
        num_steps: Of an epoch.
        execution: How it is computed.

    Returns:
        What makes a step, and the execution with ``compiled`` decided.
    """
    execution.prepare(method)
    num_images = config.optim.epochs * num_steps * config.optim.batch_size * method.num_views
    execution = replace(execution, compiled=execution.compiles(num_images))
    if execution.compiled:
        method.compile_backbones()
    if world_size() == 1:
        return method, execution
    gpus = [execution.device] if execution.device.type == "cuda" else None
    step_module = DistributedDataParallel(method, gpus)
    # They are equal on all ranks, but for local batch norm's, which training never reads.
    step_module.broadcast_buffers = False
    return step_module, execution


def build_optimizer(
    method: Method, optim: OptimConfig, execution: Execution
) -> torch.optim.Optimizer:
    """Build SGD over the parameters that train."""
    return torch.optim.SGD(
        [parameter for parameter in method.parameters() if parameter.requires_grad],
        lr=optim.lr,
        momentum=optim.momentum,
        weight_decay=optim.weight_decay,
        fused=execution.device.type == "cuda",
    )
