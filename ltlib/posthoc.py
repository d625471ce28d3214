"""Other classifiers on a finished run's features; the network is not trained again.

Post-hoc logit adjustment (Menon et al. 2021, arXiv:2007.07314); tau-normalisation, the re-trained
classifier (cRT) and nearest class means (NCM), all three of Kang et al. 2020 (arXiv:1910.09217).
Nothing is chosen on test images: tau is decided beforehand, and a curve over tau is marked as one.

A run trained with logit adjustment, as every contrastive method here is, has the prior in its loss
already: adjusting its logits once more favours the tail twice.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor, nn

from ltlib import geometry
from ltlib.config import ExperimentConfig
from ltlib.data import ImageSet, load_dataset, test_loader
from ltlib.execution import Execution, Precision
from ltlib.methods import Method, build_method
from ltlib.metrics import per_class_accuracy, shot_accuracy
from ltlib.models import CosineClassifier, build_classifier
from ltlib.runs import is_finished, read_config, write_atomically
from ltlib.views import derive_seed

POSTHOC = "posthoc.csv"


class Outputs(NamedTuple):
    """What a network makes of a data set in its test view, in data set order."""

    features: Tensor
    """(N, F), float32."""
    logits: Tensor
    """Of the network's own classifier, (N, C), float32."""
    targets: Tensor
    """(N,), int64."""


def reclassify(
    run_dir: Path | str,
    *,
    tau: float = 1.0,
    curve: Sequence[float] = (),
    data_root: Path | str | None = None,
    device: str | None = None,
    precision: Precision = "auto",
) -> pd.DataFrame:
    """Evaluate other classifiers on a finished run's features; saved as its ``posthoc.csv``.

    Args:
        run_dir: The run's folder.
        tau: Strength of logit adjustment and of tau-normalisation, decided beforehand.
        curve: Further values of tau, to look at. Picking the best is tuning on the test set.
        data_root: Folder searched first for the data set.
        device, precision: See ``Execution.choose``.

    Returns:
        One row per classifier: classifier, tau (NaN where there is none), setting ("fixed" or
        "curve"), and the accuracies all, many, medium, few on the test images (fractions).

    Raises:
        ValueError: If the folder holds no finished run.
        FileNotFoundError: If its weights or its data set are missing.
    """
    run_dir = Path(run_dir)
    config = _read_finished(run_dir)
    root = Path(data_root) if data_root else None
    train_set, test_set = (load_dataset(config.data, root, part) for part in (True, False))
    execution = Execution.choose(device, precision, num_workers=0)
    method = load_method(run_dir, config, train_set.class_counts.tolist())
    execution.prepare(method)
    train = run_network(method, train_set, execution)
    test = run_network(method, test_set, execution)

    def with_tau(tau: float) -> dict[tuple[str, float], Tensor]:
        weight = normalize_rows(_effective_weight(method.classifier), tau)
        return {
            ("logit adjustment", tau): adjust_logits(test.logits, method.prior, tau).argmax(1),
            ("tau-normalisation", tau): (test.features @ weight.T).argmax(1),
        }

    retrained = retrain_classifier(
        _fresh_classifier(config, method), train.features, train.targets, seed=config.seed
    )
    fixed = {
        ("as trained", math.nan): test.logits.argmax(1),
        **with_tau(tau),
        ("cRT", math.nan): retrained(test.features).argmax(1),
        ("NCM, cosine", math.nan): nearest_class_mean(train, test.features, "cosine"),
        ("NCM, Euclidean", math.nan): nearest_class_mean(train, test.features, "euclidean"),
    }
    points = dict(sorted(item for value in curve for item in with_tau(value).items()))
    table = pd.DataFrame(
        [
            {"classifier": name, "tau": strength, "setting": setting}
            | _accuracies(predictions, test.targets, train_set)
            for setting, answers in (("fixed", fixed), ("curve", points))
            for (name, strength), predictions in answers.items()
        ]
    )
    write_atomically(run_dir / POSTHOC, table.to_csv(index=False).encode())
    return table


def adjust_logits(logits: Tensor, prior: Tensor, tau: float = 1.0) -> Tensor:
    """Take tau log prior off the logits of a network that was trained without it.

    Menon et al. 2021 (arXiv:2007.07314).

    Args:
        logits: Scores, (N, C).
        prior: Share of each class in the training set, (C,), > 0.
        tau: Strength; 0 changes nothing.

    Returns:
        Adjusted scores, (N, C).
    """
    return logits - tau * prior.log()


def normalize_rows(weight: Tensor, tau: float = 1.0) -> Tensor:
    """Divide each class's weight by its norm to the power tau.

    Kang et al. 2020 (arXiv:1910.09217): w_c / |w_c|^tau, without bias, since the norms follow the
    class counts.

    Args:
        weight: Of a linear classifier, (C, F).
        tau: Strength; 0 changes nothing, 1 gives unit rows.

    Returns:
        Weights, (C, F).
    """
    return weight / weight.norm(dim=1, keepdim=True) ** tau


def nearest_class_mean(
    train: Outputs, features: Tensor, metric: Literal["cosine", "euclidean"] = "cosine"
) -> Tensor:
    """Predict the class whose mean training feature is nearest.

    Kang et al. 2020 (arXiv:1910.09217): by cosine, or by the Euclidean distance between
    normalised features and the means of normalised features.

    Args:
        train: The training images' features and targets; no class empty.
        features: To be classified, (N, F).
        metric: What is near.

    Returns:
        Predicted classes, (N,), int64.

    Raises:
        ValueError: If the metric is unknown.
    """
    if metric not in ("cosine", "euclidean"):
        raise ValueError(f"metric must be 'cosine' or 'euclidean', got {metric!r}")
    num_classes = train.logits.shape[1]
    if metric == "cosine":
        means = geometry.class_means(train.features, train.targets, num_classes)
        return (features @ F.normalize(means, dim=1).to(features).T).argmax(1)
    means = geometry.class_means(F.normalize(train.features, dim=1), train.targets, num_classes)
    return torch.cdist(F.normalize(features, dim=1), means.to(features)).argmin(1)


def retrain_classifier(
    classifier: nn.Module,
    features: Tensor,
    targets: Tensor,
    *,
    epochs: int = 10,
    batch_size: int = 256,
    lr: float = 0.1,
    seed: int = 0,
) -> nn.Module:
    """Train a fresh classifier on frozen features, every class as often as any other (cRT).

    Kang et al. 2020 (arXiv:1910.09217): 10 epochs of SGD with momentum, the rate falling to zero
    along a cosine. An epoch draws as many images as if each class had those of the largest. Rate
    and weight decay are those of their ImageNet-LT configuration, per 256 images.

    Differs: the features are those of the test view, not augmented ones, and images are drawn
    with replacement.

    Args:
        classifier: Features (B, F) to logits (B, C), newly initialised; trained in place.
        features: Of the training images, (N, F).
        targets: Class of each, (N,), int64.
        epochs: Number of epochs.
        batch_size: Images of one step.
        lr: Rate at the start.
        seed: Of the draws.

    Returns:
        The classifier, without gradients.
    """
    optimizer = torch.optim.SGD(classifier.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(epochs):
        order = class_balanced_draws(targets.cpu(), derive_seed(seed, epoch)).to(targets.device)
        for batch in order.split(batch_size):
            loss = F.cross_entropy(classifier(features[batch]), targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        schedule.step()
    return classifier.requires_grad_(False)


def class_balanced_draws(targets: Tensor, seed: int) -> Tensor:
    """Draw a class evenly, then one of its images, as often as C times the largest class.

    Args:
        targets: Class of each image, (N,), int64.
        seed: Of the draws.

    Returns:
        Indices into ``targets``, int64.
    """
    counts = targets.bincount()
    draws = int(counts.max()) * int((counts > 0).sum())
    generator = torch.Generator().manual_seed(seed)
    return torch.multinomial(1 / counts[targets], draws, replacement=True, generator=generator)


@torch.no_grad()
def run_network(method: Method, image_set: ImageSet, execution: Execution) -> Outputs:
    """Take features and logits of all images in the test view; the method stays in evaluation."""
    method.eval()
    features, logits = [], []
    for images, _ in test_loader(image_set, num_workers=execution.num_workers):
        with execution.autocast():
            features.append(method.backbone(execution.place(images)))
            logits.append(method.classifier(features[-1]).float())
    targets = torch.from_numpy(image_set.targets).to(execution.device)
    return Outputs(torch.cat(features).float(), torch.cat(logits), targets)


def load_method(run_dir: Path, config: ExperimentConfig, class_counts: Sequence[int]) -> Method:
    """Build a run's network with its trained weights.

    Raises:
        FileNotFoundError: If the run was kept without its weights.
    """
    file = run_dir / "model.safetensors"
    if not file.exists():
        raise FileNotFoundError(f"{file} is missing; train the run again to have its weights")
    method = build_method(config, class_counts)
    method.load_state_dict(load_file(file))
    return method


def _read_finished(run_dir: Path) -> ExperimentConfig:
    if not (run_dir / "config.json").exists():
        raise ValueError(f"{run_dir} is no run; name a folder that `ltlib train` printed")
    if not is_finished(run_dir):
        raise ValueError(f"{run_dir} is not finished; start its training again to resume it")
    return read_config(run_dir)


def _fresh_classifier(config: ExperimentConfig, method: Method) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        classifier = build_classifier(
            config.model.classifier,
            method.feature_dim,
            method.num_classes,
            scale=config.model.classifier_scale,
        )
    return classifier.to(method.prior.device)


def _effective_weight(classifier: nn.Linear | CosineClassifier) -> Tensor:
    """Rows whose products with features rank the classes as the logits do, bias aside.

    Those of a cosine classifier are of unit length, so tau changes nothing there.
    """
    weight = classifier.weight.detach().float()
    return F.normalize(weight, dim=1) if isinstance(classifier, CosineClassifier) else weight


def _accuracies(predictions: Tensor, targets: Tensor, train_set: ImageSet) -> dict[str, float]:
    counts = train_set.class_counts
    per_class = per_class_accuracy(predictions.cpu(), targets.cpu(), len(counts))
    return shot_accuracy(per_class, counts)
