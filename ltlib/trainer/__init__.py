"""Train one experiment: one readable loop, resumable at any step on any number of processes."""

from ltlib.trainer.endings import NonFiniteLossError, OtherProcessError
from ltlib.trainer.evaluation import (
    SAMPLES_PER_CLASS,
    Evaluation,
    describe_geometry,
    evaluate,
    evaluate_release,
)
from ltlib.trainer.loop import train
from ltlib.trainer.preparation import build_optimizer, prepare
from ltlib.trainer.schedule import learning_rate
from ltlib.trainer.signals import Stopped, StopRequest, stop_signals

__all__ = [
    "SAMPLES_PER_CLASS",
    "Evaluation",
    "NonFiniteLossError",
    "OtherProcessError",
    "StopRequest",
    "Stopped",
    "build_optimizer",
    "describe_geometry",
    "evaluate",
    "evaluate_release",
    "learning_rate",
    "prepare",
    "stop_signals",
    "train",
]
