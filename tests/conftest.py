"""Shared by the tests: one thread, no network, small experiments on digits."""

import socket

import matplotlib as mpl
import pytest
import torch
from trees import build_tree

from ltlib.config import ExperimentConfig, override
from ltlib.recipes import RECIPES

mpl.use("Agg")
torch.set_num_threads(1)

METHOD_NAMES = ("ce", "la", "scl", "bcl", "proco", "paco", "gpaco")
BASELINE_NAMES = ("focal", "cb", "ce_drw", "ldam", "ldam_drw", "mixup", "kcl")


def tiny(method: str, **changes: object) -> ExperimentConfig:
    """Two epochs of four steps on the head of digits, in under a second."""
    config = RECIPES[f"{method}-digits-if50"]
    queue = {"method.queue_size": 128} if hasattr(config.method, "queue_size") else {}
    small = {"optim.epochs": 2, "optim.batch_size": 64, "data.imbalance_factor": 100}
    return override(config, small | queue | {k.replace("__", "."): v for k, v in changes.items()})


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(self, address):
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise OSError(f"a test asked for the network: {address}")
        return connect(self, address)

    connect = socket.socket.connect
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """ImageNet-LT in miniature, alone where data sets are looked for."""
    monkeypatch.delenv("LTLIB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    return build_tree("imagenet_lt", tmp_path / "tree")
