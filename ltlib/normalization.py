"""Batch normalisation over the whole batch of all processes, or over small groups of its images.

PyTorch's own normalises each process's rows by themselves, so its result depends on the number of
processes. ``sync`` takes the statistics of all processes' rows. ``ghost:n`` (Hoffer et al. 2017,
arXiv:1705.08741) takes those of groups of n images, which is what n images per GPU give: so one
process can train as a paper did on several.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ltlib.distributed import world_size


def with_batch_norm(module: nn.Module, mode: str, num_views: int = 1) -> nn.Module:
    """Replace a module's batch norms by those of a mode, names and values of parameters kept.

    Args:
        module: Changed in place.
        mode: "local", PyTorch's own, "sync" or "ghost:<n>".
        num_views: Views V that pass through the module together, as rows (V*B, ...), view-major.
    """
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                sizes = child.num_features, child.eps, child.momentum
                norm: _BatchNorm
                if mode == "local":
                    norm = LocalBatchNorm(*sizes)
                elif mode == "sync":
                    norm = SyncedBatchNorm(*sizes)
                else:
                    norm = GhostBatchNorm(*sizes)
                    norm.num_images, norm.num_views = int(mode.removeprefix("ghost:")), num_views
                norm.load_state_dict(child.state_dict())
                setattr(parent, name, norm)
    return module


class _SharedBatchNorm(_BatchNorm):
    """What all share: one update of the running statistics a pass, the same on every process."""

    momentum: float
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Normalise rows (N, C) or (N, C, H, W)."""
        if self.training:
            return self.normalize(x)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)

    def normalize(self, x: Tensor) -> Tensor:
        """Normalise a training pass and update the running statistics."""
        raise NotImplementedError

    @torch.no_grad()
    def follow(self, mean: Tensor, var: Tensor) -> None:
        """Move the running statistics towards a pass's mean and unbiased variance, each (C,)."""
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
        self.running_var.lerp_(var.to(self.running_var.dtype), self.momentum)
        self.num_batches_tracked.add_(1)


class LocalBatchNorm(_SharedBatchNorm):
    """Statistics of this process's rows: PyTorch's own, written out where it is compiled."""

    def normalize(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            return self._written_out(x)
        self.num_batches_tracked.add_(1)
        mean, var = self.running_mean, self.running_var
        return F.batch_norm(x, mean, var, self.weight, self.bias, True, self.momentum, self.eps)

    def _written_out(self, x: Tensor) -> Tensor:
        # The compiler's decomposition takes Welford's variance, which is slow, and keeps the mean
        # for the backward pass in bfloat16. Two sums fuse into one read of x, in float32. They are
        # taken about one of the rows, lest their difference be one of large numbers; not about the
        # running mean, which has moved on when the backward pass reads it.
        dims = [0, *range(2, x.ndim)]
        shape = (-1, *[1] * (x.ndim - 2))
        rows, count = x.to(self.weight.dtype), x.numel() // self.num_features
        origin = rows.detach().movedim(1, -1).flatten(0, -2)[0]  # (C,)
        rows = rows - origin.view(shape)
        # Not means, whose gradient is a division at every element.
        mean = rows.sum(dims) * (1 / count)
        var = (rows.square().sum(dims) * (1 / count) - mean.square()).clamp_min(0)
        self.follow(origin + mean, var * (count / (count - 1)))
        scale = self.weight * torch.rsqrt(var + self.eps)
        shift = self.bias - mean * scale
        return (rows * scale.view(shape) + shift.view(shape)).to(x.dtype)


class SyncedBatchNorm(LocalBatchNorm):
    """Statistics of the rows of all processes, on any device; their shares may differ in size."""

    # Differs: torch's SyncBatchNorm takes only GPUs, and waits for them at every layer.

    def normalize(self, x: Tensor) -> Tensor:
        if world_size() == 1:
            return super().normalize(x)
        y, mean, var = _Synced.apply(x, self.weight, self.bias, self.eps)
        self.follow(mean, var)
        return y


class GhostBatchNorm(_SharedBatchNorm):
    """Statistics of groups of images of this process, each with all its views of the pass.

    Groups are consecutive images and as even as can be, none smaller than ``num_images`` unless
    the share is. If ``num_images`` divides every share the groups, and the result, are those of
    one process. Running statistics follow the mean over the groups of all processes.
    """

    num_images: int
    num_views: int

    def normalize(self, x: Tensor) -> Tensor:
        views = x.chunk(self.num_views)
        num_groups = max(1, len(views[0]) // self.num_images)
        sums = x.new_zeros(2 * self.num_features + 1, dtype=self.weight.dtype)
        normalized = []
        # Rows are cut and joined along the first axis only, which keeps images channels last.
        for group in zip(*(view.tensor_split(num_groups) for view in views), strict=True):
            mean, var = (torch.zeros_like(self.weight, requires_grad=False) for _ in range(2))
            rows = torch.cat(group) if len(group) > 1 else group[0]
            # With momentum 1 the running statistics become those of the group.
            rows = F.batch_norm(rows, mean, var, self.weight, self.bias, True, 1.0, self.eps)
            normalized.append(rows.chunk(self.num_views))
            sums += len(rows) * torch.cat([mean, var, mean.new_ones(1)])
        if world_size() > 1:
            dist.all_reduce(sums)
        self.follow(*(sums[:-1] / sums[-1]).chunk(2))
        return torch.cat([rows for view in zip(*normalized, strict=True) for rows in view])


class _Synced(torch.autograd.Function):
    """Normalise by the statistics of all ranks; gradients flow through them to every rank."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        dims = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x.to(weight.dtype), dims, correction=0)
        own = torch.cat([mean, var, mean.new_tensor([x.numel() / len(mean)])])
        ranks = [torch.empty_like(own) for _ in range(world_size())]
        dist.all_gather(ranks, own)
        means, variances, counts = torch.stack(ranks).split([len(mean), len(mean), 1], dim=1)
        # Chan's combination: no difference of large numbers, as E[x^2] - E[x]^2 would be.
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        var = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        ctx.save_for_backward(x, weight, mean, var, count)
        ctx.eps = eps
        unbiased = var * (count / (count - 1))
        ctx.mark_non_differentiable(mean, unbiased)
        return F.batch_norm(x, mean, var, weight, bias, eps=eps), mean, unbiased

    @staticmethod
    def backward(  # type: ignore[no-untyped-def]
        ctx, gradient: Tensor, *statistics: None
    ) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, var, count = ctx.saved_tensors
        # As if mean and variance were constants; what they add is taken off below.
        direct, to_weight, to_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, x, weight, mean, var, None, None, False, ctx.eps, [True, True, True]
        )
        sums = torch.stack([to_weight, to_bias])
        dist.all_reduce(sums)
        inverse_std = torch.rsqrt(var + ctx.eps)
        slope = -weight * inverse_std**2 * sums[0] / count
        constant = -weight * inverse_std * sums[1] / count - slope * mean
        shape = (-1, *[1] * (x.ndim - 2))
        through = torch.addcmul(constant.view(shape), x.to(weight.dtype), slope.view(shape))
        return (direct + through).to(x.dtype), to_weight, to_bias, None
