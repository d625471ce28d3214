"""Backbones, projector and classifiers against their equations and torchvision."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch.testing import assert_close

from ltlib.models import (
    CosineClassifier,
    Projector,
    build_backbone,
    build_classifier,
    freeze_convolutions,
)

# He et al. 2016 (arXiv:1512.03385), Table 6, in millions, here without the 10-way classifier.
PUBLISHED_SIZES = {
    "resnet20": 0.27,
    "resnet32": 0.46,
    "resnet44": 0.66,
    "resnet56": 0.85,
    "resnet110": 1.7,
}


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def test_a_downsampling_block_is_two_convolutions_plus_padded_subsampled_input():
    block = build_backbone("resnet8")[0].layer2[0].eval()
    x = torch.randn(2, 16, 6, 6)
    expected = F.relu(block.bn1(F.conv2d(x, block.conv1.weight, stride=2, padding=1)))
    expected = block.bn2(F.conv2d(expected, block.conv2.weight, padding=1))
    for sample in range(2):
        for channel in range(16):
            for row in range(3):
                for column in range(3):
                    # 32 channels out of 16: eight zero channels before, eight behind.
                    kept = x[sample, channel, 2 * row, 2 * column]
                    expected[sample, 8 + channel, row, column] += kept
    assert_close(block(x), F.relu(expected))


@pytest.mark.parametrize(("name", "millions"), PUBLISHED_SIZES.items())
def test_cifar_resnets_have_the_published_number_of_parameters(name, millions):
    with torch.device("meta"):
        backbone, _ = build_backbone(name)
    size = sum(parameter.numel() for parameter in backbone.parameters()) / 1e6
    assert size == pytest.approx(millions, abs=0.05 if millions > 1 else 0.006)


def test_cifar_resnets_use_the_authors_parameter_names():
    names = [name for name, _ in build_backbone("resnet8")[0].named_parameters()]
    block = ["conv1.weight", "bn1.weight", "bn1.bias", "conv2.weight", "bn2.weight", "bn2.bias"]
    stages = [f"layer{stage}.0.{name}" for stage in (1, 2, 3) for name in block]
    assert names == ["conv1.weight", "bn1.weight", "bn1.bias", *stages]


def test_cifar_resnets_pool_the_last_stage_to_64_features():
    backbone, feature_dim = build_backbone("resnet8")
    last_stage = []
    backbone.layer3.register_forward_hook(lambda *call: last_stage.append(call[-1]))
    features = backbone(torch.randn(2, 3, 32, 32))
    assert last_stage[0].shape == (2, 64, 8, 8)
    assert_close(features, F.adaptive_avg_pool2d(last_stage[0], 1)[:, :, 0, 0])
    assert feature_dim == 64


def test_cifar_convolutions_start_with_kaiming_normal_weights():
    weight = build_backbone("resnet8")[0].layer3[0].conv2.weight
    fan_in = 64 * 3 * 3
    assert weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.02)
    # Normal, not uniform: a uniform distribution has kurtosis 1.8.
    assert (weight / weight.std()).pow(4).mean().item() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("resnet50", torchvision.models.resnet50),
        ("resnet101", torchvision.models.resnet101),
        ("resnet152", torchvision.models.resnet152),
        ("resnext50_32x4d", torchvision.models.resnext50_32x4d),
    ],
)
def test_large_backbones_are_torchvisions_without_classifier(name, reference):
    with torch.device("meta"):
        backbone, feature_dim = build_backbone(name)
        expected = reference().state_dict()
    del expected["fc.weight"], expected["fc.bias"]
    actual = backbone.state_dict()
    assert list(actual) == list(expected)
    assert all(actual[key].shape == expected[key].shape for key in actual)
    assert feature_dim == 2048


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("resnet50", 25_557_032),
        ("resnet101", 44_549_160),
        ("resnet152", 60_192_808),
        ("resnext50_32x4d", 25_028_904),
        # Not in torchvision; the numbers that timm's model cards give, 64.7 and 44.2 million.
        ("resnet200", 64_673_832),
        ("resnext101_32x4d", 44_177_704),
    ],
)
def test_large_backbones_have_the_published_number_of_parameters(name, published):
    with torch.device("meta"):
        backbone, feature_dim = build_backbone(name)
    classifier = (feature_dim + 1) * 1000
    assert sum(parameter.numel() for parameter in backbone.parameters()) + classifier == published


def test_large_backbones_start_as_the_authors_do():
    backbone, _ = build_backbone("resnet50")
    for module in backbone.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert (module.weight == 1).all()
            assert (module.bias == 0).all()
    weight = backbone.layer3[0].conv2.weight
    fan_out = weight.shape[0] * 9
    assert weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.02)


@pytest.mark.parametrize(
    ("name", "last_block"), [("resnet50", "layer4.2."), ("resnet8", "layer3.0.")]
)
def test_frozen_convolutions_leave_the_last_block_and_every_batch_norm(name, last_block):
    backbone, _ = build_backbone(name)
    freeze_convolutions(backbone)
    for key, parameter in backbone.named_parameters():
        convolution = parameter.ndim == 4
        assert parameter.requires_grad == (not convolution or key.startswith(last_block)), key


def test_resnet200_and_resnext101_have_the_blocks_their_papers_give():
    with torch.device("meta"):
        deep, _ = build_backbone("resnet200")
        wide, _ = build_backbone("resnext101_32x4d")
    stages = ("layer1", "layer2", "layer3", "layer4")
    assert [len(getattr(deep, stage)) for stage in stages] == [3, 24, 36, 3]
    assert [len(getattr(wide, stage)) for stage in stages] == [3, 4, 23, 3]
    grouped = wide.layer1[0].conv2
    assert (grouped.groups, grouped.out_channels) == (32, 128)


@pytest.mark.parametrize("name", ["resnet8", "resnet50", "resnext50_32x4d"])
def test_backbones_announce_their_feature_dimension(name):
    with torch.device("meta"):
        backbone, feature_dim = build_backbone(name)
        assert backbone.eval()(torch.empty(1, 3, 32, 32)).shape == (1, feature_dim)


def test_channels_last_images_stay_channels_last_through_every_block():
    backbone = build_backbone("resnet8")[0].to(memory_format=torch.channels_last)
    outputs = []
    for stage in (backbone.layer1, backbone.layer2, backbone.layer3):
        stage[0].register_forward_hook(lambda *call: outputs.append(call[-1]))
    backbone(torch.randn(2, 3, 16, 16).to(memory_format=torch.channels_last))
    assert [x.is_contiguous(memory_format=torch.channels_last) for x in outputs] == [True] * 3


def test_projector_is_a_normalised_two_layer_mlp():
    projector = Projector(6, 5, 4)
    features = torch.randn(8, 6)
    first, norm, _, second = projector
    hidden = features @ first.weight.T + first.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + norm.eps).sqrt()
    expected = hidden.clamp(min=0) @ second.weight.T + second.bias
    expected = expected / expected.pow(2).sum(1, keepdim=True).sqrt()
    assert_close(projector(features), expected)


def test_three_layers_without_batch_norm_are_gpacos_projector():
    layers = [type(layer).__name__ for layer in Projector(6, 5, 4, num_layers=3, batch_norm=False)]
    assert layers == ["Linear", "ReLU", "Linear", "ReLU", "Linear"]
    shapes = [tuple(p.shape) for p in Projector(6, 5, 4, num_layers=3).parameters() if p.ndim == 2]
    assert shapes == [(5, 6), (5, 5), (4, 5)]


def test_a_projector_of_one_layer_is_linear_up_to_length():
    projector = Projector(6, embedding_dim=4, num_layers=1)
    (layer,) = projector
    assert (layer.in_features, layer.out_features) == (6, 4)


def test_embeddings_are_float32_and_of_unit_length_under_autocast():
    projector = Projector(16, 32, 8)
    with torch.autocast("cpu", torch.bfloat16):
        embeddings = projector(torch.randn(64, 16))
    assert embeddings.dtype == torch.float32
    assert_close(embeddings.norm(dim=1), torch.ones(64), rtol=0, atol=1e-6)


def test_cosine_classifier_multiplies_cosines_by_its_scale():
    classifier = CosineClassifier(3, 2, scale=30.0)
    classifier.weight.data = torch.tensor([[2.0, 0.0, 0.0], [0.0, 3.0, 4.0]])
    features = torch.tensor([[5.0, 0.0, 0.0], [0.0, 1.0, 0.0], [-1.0, 1.0, 1.0]])
    expected = 30 * torch.tensor([[1.0, 0.0], [0.0, 0.6], [-1 / 3**0.5, 1.4 / 3**0.5]])
    assert_close(classifier(features), expected)


def test_cosine_logits_ignore_the_length_of_features_and_weights():
    classifier = CosineClassifier(16, 5)
    features = torch.randn(4, 16)
    logits = classifier(features)
    classifier.weight.data *= torch.rand(5, 1) + 0.5
    assert_close(classifier(features * 7), logits)


def test_cosine_logits_keep_float32_accuracy_under_autocast():
    classifier = CosineClassifier(64, 10)
    features = torch.randn(32, 64)
    exact = classifier(features)
    with torch.autocast("cpu", torch.bfloat16):
        logits = classifier(features)
    assert logits.dtype == torch.float32
    assert_close(logits, exact)


def test_cosine_classifier_starts_with_unit_weights_in_all_directions():
    weight = CosineClassifier(64, 4000).weight
    assert_close(weight.norm(dim=1), torch.ones(4000))
    assert weight.mean(dim=0).abs().max() < 0.01


def test_classifiers_share_the_layout_of_their_weight():
    for name in ("linear", "cosine"):
        classifier = build_classifier(name, 8, 3, scale=10.0)
        assert classifier.weight.shape == (3, 8)
        assert classifier(torch.randn(2, 8)).shape == (2, 3)


def test_unknown_names_are_answered_with_the_choices():
    with pytest.raises(ValueError, match=r"unknown backbone 'resnet33'; .*resnet32.*resnext101"):
        build_backbone("resnet33")
    with pytest.raises(ValueError, match=r"unknown classifier 'svm'; .*linear, cosine"):
        build_classifier("svm", 8, 3)
