"""What a trained network answers to the test images, and the geometry of its features."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ltlib import geometry
from ltlib.checkpoints import Release
from ltlib.config import DataConfig
from ltlib.data import load_dataset, test_loader
from ltlib.distributed import any_rank, gather
from ltlib.execution import Execution
from ltlib.methods import Method
from ltlib.metrics import per_class_accuracy, shot_accuracy
from ltlib.trainer.endings import with_plain_errors
from ltlib.trainer.signals import Stopped, StopRequest

SAMPLES_PER_CLASS = 20
"""Test embeddings kept in ``geometry.npz`` for pictures."""


class Evaluation(NamedTuple):
    """The network's answer to every test image, in data set order."""

    targets: np.ndarray
    """(N,), int64."""
    logits: np.ndarray
    """(N, C), float32."""


def accuracies(evaluation: Evaluation, counts: np.ndarray) -> dict[str, float]:
    """Return the accuracies of an evaluation: "all", "many", "medium" and "few", fractions."""
    predictions = evaluation.logits.argmax(axis=1)
    per_class = per_class_accuracy(predictions, evaluation.targets, len(counts))
    return shot_accuracy(per_class, counts)


@torch.inference_mode()
def evaluate(
    method: Method | Release,
    loader: DataLoader,
    execution: Execution | None = None,
    stop: StopRequest | None = None,
) -> Evaluation:
    """Answer every test image once, however many processes share them.

    Args:
        method: The trained method or released network; left in evaluation mode.
        loader: This process's share, from ``data.test_loader``.
        execution: Device and precision; by default float32 where the method is.
        stop: Heeded between batches, if given.

    Raises:
        Stopped: If a process was asked to stop.
    """
    execution = execution or Execution(next(method.parameters()).device, False, 0)
    method.eval()
    logits, targets = [], []
    for images, labels in _batches(loader, stop):
        with execution.autocast():
            logits.append(method.predict(execution.place(images)).float())
        targets.append(labels.to(execution.device))
    return Evaluation(
        gather(torch.cat(targets)).cpu().numpy(), gather(torch.cat(logits)).cpu().numpy()
    )


def evaluate_release(
    release: Release,
    config: DataConfig,
    *,
    data_root: Path | str | None = None,
    device: str | None = None,
) -> dict[str, float]:
    """Measure a released network on the test images of a data set, in float32.

    Args:
        release: From ``checkpoints.load_release``; moved to the device.
        config: The data set, and how long the tail of its training images is.
        data_root: The only folder searched for the data set, if given.
        device: See ``Execution.choose``.

    Returns:
        Accuracies as fractions: "all", and "many", "medium" and "few" by training images.

    Raises:
        ValueError: If the network answers another number of classes than the data set has.
        FileNotFoundError: If the data set is not there.
    """
    root = Path(data_root) if data_root else None
    train_set, test_set = (load_dataset(config, root, part) for part in (True, False))
    counts, num_classes = train_set.class_counts, release.info["num_classes"]
    if len(counts) != num_classes:
        raise ValueError(
            f"{release.info['source']} answers {num_classes} classes, "
            f"{config.dataset} has {len(counts)}"
        )
    execution = Execution.choose(device, "fp32")
    execution.prepare(release)
    tests = test_loader(test_set, num_workers=execution.num_workers)
    return accuracies(evaluate(release, tests, execution), counts)


@torch.inference_mode()
def describe_geometry(
    method: Method,
    loader: DataLoader,
    class_counts: np.ndarray,
    execution: Execution,
    stop: StopRequest | None = None,
) -> dict[str, np.ndarray]:
    """Measure the trained network's test features and embeddings; ``stop`` as in ``evaluate``.

    Returns:
        ``feature_means`` (C, F), ``embedding_means`` (C, D), ``classifier`` (C, F),
        ``class_vectors`` (C, D) where the method has them, ``class_counts`` (C,), some
        ``sample_embeddings`` with ``sample_targets``, and the measures NC1-NC4 of the features.
    """
    method.eval()
    parts = []
    for images, labels in _batches(loader, stop):
        with execution.autocast():
            features, embeddings = method.embed(execution.place(images))
            predictions = method.classifier(features).argmax(dim=1)
        parts.append(
            (features.float(), embeddings.float(), labels.to(features.device), predictions)
        )
    features, embeddings, targets, predictions = (
        gather(torch.cat(part)).cpu() for part in zip(*parts, strict=True)
    )
    num_classes = len(class_counts)
    means = geometry.class_means(features, targets, num_classes)
    classifier = method.classifier.weight.detach().float().cpu()
    # The first samples of each class: data set order, so that runs show the same images.
    order = torch.argsort(targets, stable=True)
    position = torch.arange(len(order)) - torch.searchsorted(targets[order], targets[order])
    chosen = order[position < SAMPLES_PER_CLASS]
    arrays = {
        "feature_means": means,
        "embedding_means": geometry.class_means(embeddings, targets, num_classes),
        "classifier": classifier,
        "sample_embeddings": embeddings[chosen].half(),
        "sample_targets": targets[chosen],
    }
    vectors = method.class_vectors()
    if vectors is not None:
        arrays["class_vectors"] = vectors.detach().float().cpu()
    measures = {
        "within_class_variability": geometry.within_class_variability(
            features, targets, num_classes
        ),
        "equinorm": geometry.equinorm(means),
        "equiangularity": geometry.equiangularity(means),
        "simplex_gap": geometry.simplex_gap(means),
        "self_duality": geometry.self_duality(means, classifier),
        "nearest_mean_disagreement": geometry.nearest_mean_disagreement(
            features, predictions, means
        ),
    }
    return (
        {name: tensor.numpy() for name, tensor in arrays.items()}
        | {name: np.asarray(value) for name, value in measures.items()}
        | {"class_counts": class_counts}
    )


def _batches(loader: DataLoader, stop: StopRequest | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the loader's batches; if one process is asked to stop, all of them do."""
    if stop is None:
        yield from with_plain_errors(loader)
        return
    for batch in with_plain_errors(loader):
        if stop.is_set():
            break
        yield batch
    # Not asked between batches: of those, the processes may have different numbers.
    if any_rank(stop.is_set()):
        raise Stopped("stopped while evaluating; start again to resume", stop.number)
