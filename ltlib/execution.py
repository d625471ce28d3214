"""Where and how a run is computed: device, precision, workers, and the facts about the machine.

None of this is part of an experiment's identity; it is written to the run's provenance.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sysconfig
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ltlib.distributed import world_size

Precision = Literal["auto", "bf16", "fp32"]
Views = Literal["batched", "pil"]

_WORTH_COMPILING = 400_000
"""Images of a whole run, views counted, from which compiling pays: it costs about a minute."""


@dataclass(frozen=True)
class Execution:
    """Device, precision, views, compilation and data workers of one process."""

    device: torch.device
    bf16: bool
    """Whether forward passes run under bfloat16 autocast; losses stay in float32."""
    num_workers: int
    views: Views = "batched"
    """Views of small images in batches on the device, or each by PIL: equal distributions."""
    compiled: bool | None = None
    """Whether backbones are compiled; None where that pays."""

    @classmethod
    def choose(
        cls,
        device: str | None = None,
        precision: Precision = "auto",
        num_workers: int | None = None,
        views: Views | None = None,
        compiled: bool | None = None,
        begun: Mapping[str, Any] | None = None,
    ) -> "Execution":
        """Fill in what was not asked for from what the machine has.

        Args:
            device: "cpu", "cuda" or "cuda:N"; the GPU of this process if there is one.
            precision: "auto" takes bf16 where the hardware multiplies it, as emulation is slow.
            num_workers: Processes that augment; the cores left over, at most 8, none on 2 cores.
            views: "batched", where all of a recipe's views can be (those of images in memory), or
                "pil", one image at a time, the reference.
            compiled: Whether ``torch.compile`` takes the backbones; None leaves it to
                ``compiles``.
            begun: The ``choices`` that a run began with, kept where nothing else is asked for.

        Raises:
            ValueError: If the device, precision or kind of views does not exist, or there is no
                compiler.
        """
        if device is None:
            device = f"cuda:{torch.cuda.current_device()}" if torch.cuda.is_available() else "cpu"
        chosen = torch.device(device)
        if chosen.type == "cuda" and not torch.cuda.is_available():
            raise ValueError(f"device {device!r} was asked for but torch sees no GPU; use cpu")
        if precision not in ("auto", "bf16", "fp32"):
            raise ValueError(f"precision must be auto, bf16 or fp32, got {precision!r}")
        begun = begun or {}
        views = views or begun.get("views", "batched")
        compiled = begun.get("compiled") if compiled is None else compiled
        if precision == "auto":
            precision = begun.get("precision", "auto")
        if views not in ("batched", "pil"):
            raise ValueError(f"views must be batched or pil, got {views!r}")
        if compiled and not has_compiler():
            raise ValueError(
                "compiling needs g++ and Python's headers; install them or pass --no-compile"
            )
        bf16 = has_fast_bf16(chosen) if precision == "auto" else precision == "bf16"
        if num_workers is None:
            cores = len(os.sched_getaffinity(0)) // max(1, torch.cuda.device_count())
            num_workers = 0 if cores <= 2 else min(8, cores - 1)
        return cls(chosen, bf16, num_workers, views, compiled)

    def choices(self) -> dict[str, object]:
        """Return what of this changes a result's last digits."""
        precision = "bf16" if self.bf16 else "fp32"
        return {"precision": precision, "views": self.views, "compiled": bool(self.compiled)}

    def compiles(self, num_images: int) -> bool:
        """Tell whether a run over so many images, views counted, compiles its backbones.

        By default where it was measured to pay: on a CPU in bf16, if the run is long.
        """
        if self.compiled is None:
            pays = self.bf16 and self.device.type == "cpu" and num_images >= _WORTH_COMPILING
            return pays and has_compiler()
        return self.compiled

    def autocast(self) -> AbstractContextManager:
        """Enter the run's precision."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def place(self, images: Tensor) -> Tensor:
        """Move a batch (B, 3, H, W) to the device, channels last."""
        return images.to(self.device, non_blocking=True, memory_format=torch.channels_last)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Move a network to the device, channels last."""
        if self.device.type == "cpu":
            _keep_freed_memory()
        return module.to(self.device).to(memory_format=torch.channels_last)


def has_fast_bf16(device: torch.device) -> bool:
    """Tell whether the hardware multiplies bfloat16: a GPU that says so, or a CPU with AMX."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return "amx_bf16" in cpu_features()


def has_compiler() -> bool:
    """Tell whether ``torch.compile`` finds what it needs for a CPU."""
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return headers.exists() and shutil.which(os.environ.get("CXX", "g++")) is not None


def cpu_features() -> set[str]:
    """Return the CPU's feature flags, empty where the system does not list them."""
    file = Path("/proc/cpuinfo")
    if not file.exists():
        return set()
    flags = (line for line in file.read_text().splitlines() if line.startswith("flags"))
    return set(next(flags, "").partition(":")[2].split())


def cpu_name() -> str:
    """Return the CPU's model name."""
    file = Path("/proc/cpuinfo")
    if file.exists():
        for line in file.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def describe(execution: Execution) -> dict[str, object]:
    """Return what provenance records about code, libraries and machine."""
    on_gpu = execution.device.type == "cuda"
    return {
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{
                name: version(name)
                for name in ("ltlib", "torch", "torchvision", "timm", "pillow", "numpy")
            },
        },
        "device": torch.cuda.get_device_name(execution.device) if on_gpu else cpu_name(),
        "threads": torch.get_num_threads(),
        **execution.choices(),
        "processes": world_size(),
        "workers": execution.num_workers,
    }


def _keep_freed_memory() -> None:
    """Let glibc keep what is freed: a step's activations come again at once.

    Otherwise it returns large blocks to the system, which must then clear their pages at every
    use, 200,000 of them in a step of ProCo: a tenth of its time.
    """
    try:
        glibc = ctypes.CDLL("libc.so.6")
        mallopt = glibc.mallopt
    except (OSError, AttributeError):
        return  # another C library
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # of malloc.h


def _commit() -> str | None:
    """Return the package's git commit, marked where files differ from it."""
    folder = Path(__file__).parent
    commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "--", "."])
    try:
        commit, changes = (
            subprocess.run(["git", *c], cwd=folder, capture_output=True, text=True, check=True)
            for c in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit.stdout.strip() + ("+changes" if changes.stdout else "")
