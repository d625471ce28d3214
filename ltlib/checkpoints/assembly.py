"""A released state dict -> backbone, projector and classifier, inferred from keys and shapes."""

import re
from collections.abc import Mapping
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ltlib.models import (
    BACKBONES,
    CosineClassifier,
    Projector,
    build_backbone,
    build_classifier,
)

SHOWN_COMPLAINTS = 3


class Layout(NamedTuple):
    """Where the files of a family keep what; keys are without DataParallel's ``module.``."""

    family: str
    backbone: str
    """Prefix of the backbone's keys."""
    projector: str
    classifier: str
    cosine: Literal["columns", "rows"] | None
    """Whether a classifier without bias is a cosine classifier, and what of its weight is one
    class."""
    set_aside: dict[str, str]
    """What only training needs, by the first name of its keys."""
    sign: str = ""
    """Prefix that a later family with the same three does not have."""


class Network(NamedTuple):
    """The three parts of a network, filled, and what of the file they left."""

    family: str
    backbone_name: str
    backbone: nn.Module
    projector: Projector
    classifier: nn.Linear | CosineClassifier
    feature_dim: int
    embedding_dim: int
    set_aside: dict[str, str]
    """What of the layout's ``set_aside`` the file holds."""
    unmatched: list[str]
    """Keys that no part takes and no layout explains."""

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classifier.weight)

    @property
    def scale(self) -> float | None:
        """Of the cosine classifier; None for a linear one."""
        return self.classifier.scale if isinstance(self.classifier, CosineClassifier) else None


def assemble(state: Mapping[str, Tensor], scale: float) -> Network:
    """Build a network's three parts and fill them with copies of the file's tensors.

    Args:
        state: Tensors by key, without DataParallel's ``module.``.
        scale: Of a cosine classifier, which no key holds.

    Raises:
        ValueError: If the layout is unknown, a key is missing or a shape disagrees.
    """
    layout = _find_layout(state)
    parts, set_aside, unmatched = _split(state, layout)
    # Built without storage and initialisation, then given the file's tensors as parameters.
    with torch.device("meta"):
        name, backbone, feature_dim = _nearest_backbone(parts[layout.backbone])
        projector, embedding_dim = _build_projector(
            parts[layout.projector], feature_dim, layout.projector
        )
        classifier = _build_classifier(parts[layout.classifier], feature_dim, scale, layout)
    for module, prefix, what in (
        (backbone, layout.backbone, f"{name}, the nearest backbone"),
        (projector, layout.projector, "a projector"),
        (classifier, layout.classifier, "a classifier of these features"),
    ):
        unmatched += _fill(module, parts[prefix], prefix, what)
    return Network(
        family=layout.family,
        backbone_name=name,
        backbone=backbone,
        projector=projector,
        classifier=classifier,
        feature_dim=feature_dim,
        embedding_dim=embedding_dim,
        set_aside=set_aside,
        unmatched=unmatched,
    )


def _find_layout(state: Mapping[str, Tensor]) -> Layout:
    for layout in LAYOUTS:
        prefixes = [layout.backbone, layout.projector, layout.classifier, layout.sign]
        if all(any(key.startswith(prefix) for key in state) for prefix in prefixes):
            return layout
    names = sorted({key.partition(".")[0] for key in state})
    shown = ", ".join(names[:8]) + ", ..." * (len(names) > 8)
    known = "; ".join(f"{x.backbone}* {x.projector}* {x.classifier}* ({x.family})" for x in LAYOUTS)
    raise ValueError(f"unknown layout, it holds {shown or 'nothing'}; known are {known}")


def _split(
    state: Mapping[str, Tensor], layout: Layout
) -> tuple[dict[str, dict[str, Tensor]], dict[str, str], list[str]]:
    """Deal the tensors to the three parts; return the parts, what is set aside, and the rest."""
    # PaCo's projector lies within its backbone's keys, so the longest prefix decides.
    prefixes = sorted((layout.backbone, layout.projector, layout.classifier), key=len, reverse=True)
    parts: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in prefixes}
    set_aside, unmatched = {}, []
    for key, tensor in state.items():
        first_name = key.partition(".")[0]
        if prefix := next((prefix for prefix in prefixes if key.startswith(prefix)), None):
            parts[prefix][key.removeprefix(prefix)] = tensor
        elif first_name in layout.set_aside:
            set_aside[first_name] = layout.set_aside[first_name]
        else:
            unmatched.append(key)
    return parts, set_aside, unmatched


def _nearest_backbone(part: Mapping[str, Tensor]) -> tuple[str, nn.Module, int]:
    """Return the backbone whose keys and shapes differ least from those given: name, module, F."""
    # The number in a ResNet's name counts the convolutions, shortcuts aside, and the classifier.
    depth = 1 + sum(tensor.ndim == 4 and "downsample" not in key for key, tensor in part.items())
    gaps = {name: abs(depth - int(re.findall(r"\d+", name)[0])) for name in BACKBONES}
    candidates = [
        (name, *build_backbone(name)) for name, gap in gaps.items() if gap == min(gaps.values())
    ]
    given = _signature(part)
    return min(candidates, key=lambda each: len(given ^ _signature(each[1].state_dict())))


def _signature(tensors: Mapping[str, Tensor]) -> set[tuple[str, torch.Size]]:
    return {(key, tensor.shape) for key, tensor in tensors.items()}


def _build_projector(
    part: dict[str, Tensor], feature_dim: int, prefix: str
) -> tuple[Projector, int]:
    """Return the projector and D; a single linear layer's keys become those of a sequence."""
    if "weight" in part:
        for key in list(part):
            part[f"0.{key}"] = part.pop(key)
    layers = {
        int(key.removesuffix(".weight")): tensor
        for key, tensor in part.items()
        if re.fullmatch(r"\d+\.weight", key) and tensor.ndim == 2
    }
    widths = [len(layers[index]) for index in sorted(layers)]
    if not widths:
        raise ValueError(f"{prefix}* holds no linear layer, so it is no projector")
    batch_norm = any(key.endswith("running_mean") for key in part)
    return Projector(feature_dim, widths[0], widths[-1], len(widths), batch_norm), widths[-1]


def _build_classifier(
    part: dict[str, Tensor], feature_dim: int, scale: float, layout: Layout
) -> nn.Linear | CosineClassifier:
    """Return the classifier; a weight with one class per column is transposed."""
    key, weight = f"{layout.classifier}weight", part.get("weight")
    if weight is None or weight.ndim != 2:
        what = "is missing" if weight is None else f"is {tuple(weight.shape)}"
        raise ValueError(f"{key} {what}; a classifier's is a matrix of classes and features")
    if layout.cosine is None or "bias" in part:
        return build_classifier("linear", feature_dim, len(weight))
    if layout.cosine == "columns":
        if len(weight) != feature_dim:
            raise ValueError(
                f"{key} is {tuple(weight.shape)}; as there is no bias it is a cosine classifier's, "
                f"which has one row for each of {feature_dim} features and one column per class"
            )
        part["weight"] = weight = weight.T
    return build_classifier("cosine", feature_dim, len(weight), scale)


def _fill(module: nn.Module, part: Mapping[str, Tensor], prefix: str, what: str) -> list[str]:
    """Give a module its tensors; return the keys that it has no place for."""
    expected = module.state_dict()
    complaints = [f"{prefix}{key} is missing" for key in expected if key not in part]
    complaints += [
        f"{prefix}{key} is {tuple(part[key].shape)} instead of {tuple(tensor.shape)}"
        for key, tensor in expected.items()
        if key in part and part[key].shape != tensor.shape
    ]
    if complaints:
        more = len(complaints) - SHOWN_COMPLAINTS
        shown = ", ".join(complaints[:SHOWN_COMPLAINTS]) + (f", and {more} more" * (more > 0))
        raise ValueError(f"{prefix}* does not fit {what}: {shown}")
    copies = {
        key: part[key].detach().to(tensor.dtype, copy=True).contiguous()
        for key, tensor in expected.items()
    }
    module.load_state_dict(copies, assign=True)
    return [f"{prefix}{key}" for key in part if key not in expected]


_CLASS_WEIGHTS = {"head_fc": "projector of the class weights to prototypes"}
_QUEUE = {
    "queue": "keys of earlier steps",
    "queue_l": "targets of the queue",
    "queue_ptr": "position in the queue",
}
_MOMENTUM = {"encoder_k": "momentum encoder", "linear_k": "momentum copy of the classifier"}

# The first that fits. Sources: ProCo_cifar/models/resnet_cifar.py and ProCo/models/resnext.py of
# LeapLabTHU/ProCo, models/resnext.py of FlamieZhu/Balanced-Contrastive-Learning, and the files
# moco/builder.py of dvlab-research/Parametric-Contrastive-Learning.
LAYOUTS = (
    Layout("bcl", "encoder.", "head.", "fc.", "columns", _CLASS_WEIGHTS, "head_fc."),
    Layout("proco", "encoder.", "head.", "fc.", "columns", {}),
    Layout(
        "paco", "encoder_q.", "encoder_q.fc.", "linear.", None, _QUEUE | _MOMENTUM, "encoder_k."
    ),
    Layout("gpaco", "encoder_q.", "encoder_q.fc.", "linear.", None, _QUEUE),
    Layout("ltlib", "backbone.", "projector.", "classifier.", "rows", {}),
)
