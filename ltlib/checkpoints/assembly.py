"""A released state dict -> backbone, projector and classifier, inferred from keys and shapes."""

import re
from collections.abc import Mapping
from functools import cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ltlib.models import BACKBONES, Projector, build_backbone, build_classifier

SHOWN_COMPLAINTS = 3


class Layout(NamedTuple):
    """Where the files of a family keep what; keys are without the prefix of (D)DP."""

    family: str
    backbone: str
    """Prefix of the backbone's keys."""
    projector: str
    classifier: str
    cosine: Literal["columns", "rows"] | None
    """Whether a classifier without bias is a cosine classifier, and what of its weight is one
    class."""
    set_aside: dict[str, str] = {}  # noqa: RUF012 (a default of a NamedTuple is never assigned to)
    """What training needed and a network does not, by its first name."""
    sign: str = ""
    """Name in ``set_aside`` that tells the family from another with the same prefixes."""


class Network(NamedTuple):
    """The three parts of a network, filled, and what of the file they left."""

    backbone_name: str
    backbone: nn.Module
    projector: Projector
    classifier: nn.Module
    unmatched: list[str]
    """Keys that no part takes and no layout explains."""


def find_layout(state: Mapping[str, Tensor]) -> Layout:
    """Recognise a family by its keys.

    Raises:
        ValueError: If no layout fits.
    """
    for layout in LAYOUTS:
        prefixes = [layout.backbone, layout.projector, layout.classifier, layout.sign]
        if all(any(key.startswith(prefix) for key in state) for prefix in prefixes):
            return layout
    names = sorted({key.partition(".")[0] for key in state})
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    wanted = "; ".join(f"{x.family} {x.backbone}* {x.projector}* {x.classifier}*" for x in LAYOUTS)
    raise ValueError(f"unknown layout: holds {shown or 'nothing'}, known are {wanted}")


def assemble(state: Mapping[str, Tensor], layout: Layout, scale: float) -> Network:
    """Build the three parts and fill them with copies of the file's tensors.

    Args:
        state: Tensors by key, without the prefix of (D)DP.
        layout: Theirs.
        scale: Of the cosine classifier, which no key holds.

    Raises:
        ValueError: If a key is missing or a shape disagrees.
    """
    parts: dict[str, dict[str, Tensor]] = {
        # The longest first: PaCo's projector lies within its backbone's keys.
        prefix: {}
        for prefix in sorted((layout.backbone, layout.projector, layout.classifier), key=len)[::-1]
    }
    unmatched = []
    for key, tensor in state.items():
        if prefix := next((prefix for prefix in parts if key.startswith(prefix)), None):
            parts[prefix][key.removeprefix(prefix)] = tensor
        elif key.partition(".")[0] not in layout.set_aside:
            unmatched.append(key)

    # Built without storage and initialisation, then given the file's tensors as parameters.
    with torch.device("meta"):
        name = _nearest_backbone(parts[layout.backbone])
        backbone, feature_dim = build_backbone(name)
        hidden = _build_projector(parts[layout.projector], feature_dim, layout.projector)
        classifier, weight = _build_classifier(parts[layout.classifier], layout, feature_dim, scale)
    parts[layout.classifier]["weight"] = weight
    for module, prefix, what in (
        (backbone, layout.backbone, f"{name}, the nearest backbone"),
        (hidden, layout.projector, "a projector"),
        (classifier, layout.classifier, "a classifier of these features"),
    ):
        unmatched += _fill(module, parts[prefix], prefix, what)
    return Network(name, backbone, hidden, classifier, unmatched)


def _nearest_backbone(part: Mapping[str, Tensor]) -> str:
    """Name the backbone whose keys and shapes differ least from those given."""
    # The number in a ResNet's name counts the convolutions, shortcuts aside, and the classifier.
    depth = 1 + sum(tensor.ndim == 4 and "downsample" not in key for key, tensor in part.items())
    gaps = {name: abs(depth - int(re.findall(r"\d+", name)[0])) for name in BACKBONES}
    given = {(key, tuple(tensor.shape)) for key, tensor in part.items()}
    candidates = [name for name, gap in gaps.items() if gap == min(gaps.values())]
    return min(candidates, key=lambda name: len(given ^ _signature(name)))


@cache
def _signature(backbone: str) -> frozenset[tuple[str, tuple[int, ...]]]:
    module, _ = build_backbone(backbone)
    return frozenset((key, tuple(tensor.shape)) for key, tensor in module.state_dict().items())


def _build_projector(part: dict[str, Tensor], feature_dim: int, prefix: str) -> Projector:
    if "weight" in part:  # a single linear layer, which is no sequence
        for key in list(part):
            part[f"0.{key}"] = part.pop(key)
    weights = {key: tensor for key, tensor in part.items() if re.fullmatch(r"\d+\.weight", key)}
    widths = [
        len(weights[key])
        for key in sorted(weights, key=lambda key: int(key.partition(".")[0]))
        if weights[key].ndim == 2
    ]
    if not widths:
        raise ValueError(f"{prefix}* holds no linear layer, so it is no projector")
    batch_norm = any(key.endswith("running_mean") for key in part)
    return Projector(feature_dim, widths[0], widths[-1], len(widths), batch_norm)


def _build_classifier(
    part: Mapping[str, Tensor], layout: Layout, feature_dim: int, scale: float
) -> tuple[nn.Module, Tensor]:
    """Return the classifier and its weight with one class per row."""
    key, weight = f"{layout.classifier}weight", part.get("weight")
    if weight is None or weight.ndim != 2:
        shape = "missing" if weight is None else tuple(weight.shape)
        raise ValueError(f"{key} is {shape}, and no matrix of classes and features")
    cosine = layout.cosine is not None and "bias" not in part
    if cosine and layout.cosine == "columns":
        if len(weight) != feature_dim:
            raise ValueError(
                f"{key} is {tuple(weight.shape)}; without bias it is a cosine classifier's, with "
                f"{feature_dim} rows, one for each feature, and one column for each class"
            )
        weight = weight.T
    name = "cosine" if cosine else "linear"
    return build_classifier(name, feature_dim, len(weight), scale), weight


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
    Layout("proco", "encoder.", "head.", "fc.", "columns"),
    Layout(
        "paco", "encoder_q.", "encoder_q.fc.", "linear.", None, _QUEUE | _MOMENTUM, "encoder_k."
    ),
    Layout("gpaco", "encoder_q.", "encoder_q.fc.", "linear.", None, _QUEUE),
    Layout("ltlib", "backbone.", "projector.", "classifier.", "rows"),
)
