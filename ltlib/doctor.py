"""Examine a machine: will the suite run here, how fast, and on which data."""

import os
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import NamedTuple

import torch

from ltlib.config import DataConfig
from ltlib.data import DATASETS, load_dataset
from ltlib.execution import Execution, cpu_features, cpu_name, has_compiler

PACKAGES = ("torch", "torchvision", "numpy", "pandas", "matplotlib", "papermill", "jupyterlab")
GIB = 2**30


class Finding(NamedTuple):
    """One line of the examination."""

    level: str
    """OK, WARN or FAIL."""
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.level:<4}  {self.subject:<10}  {self.text}"


def examine(data_root: Path | None = None, runs_dir: Path = Path("runs")) -> list[Finding]:
    """Check versions, processor, GPUs, memory, disk and data sets.

    Args:
        data_root: Folder searched first for data sets.
        runs_dir: Folder that runs will be written to.
    """
    return [
        *_versions(),
        _processor(),
        *_gpus(),
        _memory(),
        _disk(runs_dir),
        *(_data_set(name, data_root) for name in DATASETS),
    ]


def _versions() -> list[Finding]:
    findings = [Finding("OK", "python", platform.python_version())]
    for name in PACKAGES:
        try:
            findings.append(Finding("OK", name, version(name)))
        except PackageNotFoundError:
            findings.append(Finding("FAIL", name, "missing; run pip install -e ."))
    return findings


def _processor() -> Finding:
    features = cpu_features()
    fast = [label for flag, label in _FAST.items() if flag in features]
    cores = len(os.sched_getaffinity(0))
    text = f"{cpu_name()}, {cores} cores, {', '.join(fast) or 'no AVX-512, no AMX'}"
    if "amx_bf16" in features and not has_compiler():
        hint = "install g++ and Python's headers, and long trainings take a fifth less time"
        return Finding("WARN", "processor", f"{text}; trains in bf16; {hint}")
    if "amx_bf16" in features:
        return Finding("OK", "processor", f"{text}; trains in bf16, compiled where it pays")
    return Finding("WARN", "processor", f"{text}; trains in fp32, about 3 times slower than AMX")


def _gpus() -> list[Finding]:
    if not torch.cuda.is_available():
        hint = ""
        if Path("/proc/driver/nvidia").exists():
            hint = "; a driver is here, so torch was built for another CUDA: see pytorch.org"
        return [Finding("WARN", "GPU", f"none that torch sees, training runs on the CPU{hint}")]
    precision = "bf16" if Execution.choose().bf16 else "fp32"
    return [
        Finding(
            "OK",
            f"GPU {index}",
            f"{properties.name}, {properties.total_memory / GIB:.0f} GiB, trains in {precision}",
        )
        for index in range(torch.cuda.device_count())
        for properties in [torch.cuda.get_device_properties(index)]
    ]


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    if total < 4:
        return Finding("WARN", "memory", f"{total:.0f} GiB; lower optim.batch_size below 128")
    return Finding("OK", "memory", f"{total:.0f} GiB")


def _disk(runs_dir: Path) -> Finding:
    folder = runs_dir.absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return Finding("FAIL", "disk", f"{folder} cannot be written; choose another --runs-dir")
    free = shutil.disk_usage(folder).free / GIB
    if free < 2:
        return Finding("WARN", "disk", f"{free:.1f} GiB free in {folder}; make room")
    return Finding("OK", "disk", f"{free:.0f} GiB free in {folder}")


def _data_set(name: str, data_root: Path | None) -> Finding:
    try:
        images = load_dataset(DataConfig(dataset=name), data_root, train=False)
    except FileNotFoundError as error:
        return Finding("WARN", name, str(error))
    except ValueError as error:
        return Finding("FAIL", name, str(error))
    classes = len(images.class_names)
    return Finding("OK", name, f"found, {len(images):,} test images of {classes} classes")


_FAST = {"avx512f": "AVX-512", "avx512_bf16": "AVX-512 bf16", "amx_bf16": "AMX bf16"}
