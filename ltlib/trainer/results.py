"""What a finished run leaves in its folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from ltlib.checkpoints import export_weights
from ltlib.data import ImageSet
from ltlib.metrics import SPLITS
from ltlib.runs import RESULT, write_arrays, write_json, write_status
from ltlib.trainer.evaluation import Evaluation


def summary(history: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Pick the last and the best epoch, with their accuracies, from the rows of all epochs."""
    best = max(history, key=lambda row: row["all"])
    names = ("epoch", "all", *SPLITS)
    return {
        key: {name: row[name] for name in names}
        for key, row in (("last", history[-1]), ("best", best))
    }


def write_results(
    run_dir: Path,
    method: nn.Module,
    evaluation: Evaluation,
    train_set: ImageSet,
    geometry: Mapping[str, np.ndarray],
    provenance: Mapping[str, object],
    result: Mapping[str, object],
) -> None:
    """Write weights, predictions, geometry, provenance and status, and last the result.

    Args:
        run_dir: The run's folder.
        method: The trained method.
        evaluation: Its answers to the test images.
        train_set: Gives the counts and names of the classes.
        geometry: From ``describe_geometry``.
        provenance: How and where it was computed.
        result: From ``summary``.
    """
    half = np.finfo(np.float16)
    predictions = {
        "targets": evaluation.targets,
        "predictions": evaluation.logits.argmax(axis=1),
        "logits": evaluation.logits.clip(half.min, half.max).astype(np.float16),
        "class_counts": train_set.class_counts,
        "class_names": np.array(train_set.class_names),
    }
    export_weights(method, run_dir / "model.safetensors")
    write_arrays(run_dir / "predictions.npz", predictions)
    write_arrays(run_dir / "geometry.npz", geometry)
    write_json(run_dir / "provenance.json", provenance)
    write_status(run_dir, "finished")
    write_json(run_dir / RESULT, result)
