"""Backbones, the projector and the cosine classifier.

A backbone maps images (B, 3, H, W) to features (B, F) and has no classifier of its own: which
branch sees which head is a matter of the method. Nothing here downloads weights.

CIFAR ResNets follow He et al. 2016 (arXiv:1512.03385) with parameter-free shortcuts; the larger
backbones are torchvision's ResNet and ResNeXt (Xie et al. 2017, arXiv:1611.05431), initialised
like the authors' copies of it: the last batch norm of a block starts at one, not at zero.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck, ResNet


class CifarResNet(nn.Module):
    """ResNet of depth 6n + 2 for small images: three stages of n blocks, 16, 32 and 64 wide.

    Parameter names are those of the authors' code, so that released weights load by name.

    Args:
        blocks_per_stage: n; 5 gives ResNet-32.
        stem_stride: Of the first convolution; 2 does a quarter of the work, for images that hold
            no detail at full size, such as digits.
    """

    feature_dim = 64

    def __init__(self, blocks_per_stage: int, stem_stride: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv3x3(3, 16, stem_stride)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks_per_stage, stride=1)
        self.layer2 = _stage(16, 32, blocks_per_stage, stride=2)
        self.layer3 = _stage(32, 64, blocks_per_stage, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, 3, H, W) to features (B, 64)."""
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)  # (B, 16, H, W)
        x = self.layer3(self.layer2(self.layer1(x)))  # (B, 64, H/4, W/4)
        return x.mean(dim=(2, 3))


class _BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters (option A of He et al. 2016)."""

    def __init__(self, in_planes: int, planes: int, stride: int) -> None:
        super().__init__()
        self.conv1 = _conv3x3(in_planes, planes, stride)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = _conv3x3(planes, planes, stride=1)
        self.bn2 = nn.BatchNorm2d(planes)
        self.stride = stride
        self.padding = (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.bn2(self.conv2(out))
        return F.relu(out + self._shortcut(x), inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        """Subsample the pixels and put as many zero channels before as behind."""
        if self.stride == 1:
            return x
        # Not a slice, whose gradient is channels first and slows every layer below it.
        x = F.avg_pool2d(x, kernel_size=1, stride=self.stride)
        return F.pad(x, (0, 0, 0, 0, self.padding, self.padding))


def _conv3x3(in_planes: int, planes: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(in_planes, planes, kernel_size=3, stride=stride, padding=1, bias=False)


def _stage(in_planes: int, planes: int, num_blocks: int, stride: int) -> nn.Sequential:
    first = _BasicBlock(in_planes, planes, stride)
    return nn.Sequential(first, *(_BasicBlock(planes, planes, 1) for _ in range(num_blocks - 1)))


class Projector(nn.Sequential):
    """MLP from feature to embedding of unit length.

    Linear layers with ReLU, and batch normalisation before it, between them. Applied to the rows
    of a classifier's weight instead of features it gives BCL's prototypes.

    Args:
        feature_dim: F.
        hidden_dim: Width between the layers.
        embedding_dim: D.
        num_layers: Number of linear layers; 1 is a linear map.
        batch_norm: Whether hidden layers are batch-normalised (GPaCo's are not).
    """

    def __init__(
        self,
        feature_dim: int,
        hidden_dim: int = 512,
        embedding_dim: int = 128,
        num_layers: int = 2,
        batch_norm: bool = True,
    ) -> None:
        layers: list[nn.Module] = []
        for in_dim in [feature_dim, *[hidden_dim] * (num_layers - 2)][: num_layers - 1]:
            layers.append(nn.Linear(in_dim, hidden_dim))
            if batch_norm:
                layers.append(nn.BatchNorm1d(hidden_dim))
            layers.append(nn.ReLU(inplace=True))
        layers.append(nn.Linear(hidden_dim if num_layers > 1 else feature_dim, embedding_dim))
        super().__init__(*layers)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to embeddings (B, D), float32 under any autocast."""
        return F.normalize(in_full_precision(super().forward(features)), dim=1)


class CosineClassifier(nn.Module):
    """Logits are ``scale`` times the cosine between feature and class weight.

    Args:
        feature_dim: F.
        num_classes: C.
        scale: Multiplies the cosines.
    """

    def __init__(self, feature_dim: int, num_classes: int, scale: float = 30.0) -> None:
        super().__init__()
        # The authors' initialisation: uniform in a cube, then each class to unit length.
        weight = torch.empty(num_classes, feature_dim).uniform_(-1, 1)
        self.weight = nn.Parameter(F.normalize(weight, dim=1))
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to logits (B, C), float32 under any autocast."""
        # A bfloat16 cosine near 1 is off by up to 0.002, which the scale turns into 0.06.
        with torch.autocast(features.device.type, enabled=False):
            features = F.normalize(in_full_precision(features), dim=1)
            return self.scale * features @ F.normalize(in_full_precision(self.weight), dim=1).T


def in_full_precision(tensor: Tensor) -> Tensor:
    """Return the tensor in float32, or in float64 if it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """Build a backbone with fresh weights.

    Args:
        name: A key of ``BACKBONES``.

    Returns:
        The module, (B, 3, H, W) -> (B, F), and F.

    Raises:
        ValueError: If the name is unknown.
    """
    if name not in BACKBONES:
        raise ValueError(f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}")
    return BACKBONES[name]()


def freeze_convolutions(backbone: nn.Module) -> None:
    """Let of a ResNet's convolutions only those of the last block learn.

    Batch norms keep learning and keep their running statistics going, as in PaCo's code for
    Places-LT (``LT/paco_fp16_places.py``).
    """
    stages = [child for child in backbone.children() if isinstance(child, nn.Sequential)]
    last_block = set(stages[-1][-1].modules())
    for module in backbone.modules():
        if isinstance(module, nn.Conv2d):
            module.requires_grad_(module in last_block)


def build_classifier(
    name: str, feature_dim: int, num_classes: int, scale: float = 30.0
) -> nn.Linear | CosineClassifier:
    """Build the layer from features (B, F) to logits (B, C); its ``weight`` is (C, F).

    Args:
        name: ``"linear"`` or ``"cosine"``.
        feature_dim: F.
        num_classes: C.
        scale: Multiplies the cosines of the cosine classifier.

    Raises:
        ValueError: If the name is unknown.
    """
    if name == "linear":
        return nn.Linear(feature_dim, num_classes)
    if name == "cosine":
        return CosineClassifier(feature_dim, num_classes, scale)
    raise ValueError(f"unknown classifier {name!r}; choose from linear, cosine")


def _cifar_resnet(depth: int, stem_stride: int = 1) -> tuple[nn.Module, int]:
    return CifarResNet((depth - 2) // 6, stem_stride), CifarResNet.feature_dim


def _resnet(
    num_blocks: tuple[int, int, int, int], groups: int = 1, width_per_group: int = 64
) -> tuple[nn.Module, int]:
    model = ResNet(Bottleneck, list(num_blocks), groups=groups, width_per_group=width_per_group)
    feature_dim = model.fc.in_features
    model.fc = nn.Identity()
    return model, feature_dim


BACKBONES: dict[str, Callable[[], tuple[nn.Module, int]]] = {
    "resnet8": partial(_cifar_resnet, 8),
    "resnet8_stride2": partial(_cifar_resnet, 8, stem_stride=2),
    "resnet20": partial(_cifar_resnet, 20),
    "resnet32": partial(_cifar_resnet, 32),
    "resnet44": partial(_cifar_resnet, 44),
    "resnet56": partial(_cifar_resnet, 56),
    "resnet110": partial(_cifar_resnet, 110),
    "resnet50": partial(_resnet, (3, 4, 6, 3)),
    "resnet101": partial(_resnet, (3, 4, 23, 3)),
    "resnet152": partial(_resnet, (3, 8, 36, 3)),
    "resnet200": partial(_resnet, (3, 24, 36, 3)),
    "resnext50_32x4d": partial(_resnet, (3, 4, 6, 3), groups=32, width_per_group=4),
    "resnext101_32x4d": partial(_resnet, (3, 4, 23, 3), groups=32, width_per_group=4),
}
