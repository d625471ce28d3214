import copy

import pytest
import torch
from conftest import tiny
from torch import nn

from ltlib.config import ExperimentConfig, config_hash, override
from ltlib.execution import has_compiler
from ltlib.methods import build_method
from ltlib.normalization import GhostBatchNorm, SyncedBatchNorm, with_batch_norm

VIEWS, IMAGES, CHANNELS = 3, 8, 5


def ghost(num_images, num_views=VIEWS):
    return with_batch_norm(
        nn.Sequential(nn.BatchNorm2d(CHANNELS)), f"ghost:{num_images}", num_views
    )


def rows(images=IMAGES):
    torch.manual_seed(0)
    return 3 * torch.randn(VIEWS * images, CHANNELS, 2, 2) + 1


def test_ghost_groups_are_what_as_many_gpus_would_normalize():
    x = rows()
    norm = ghost(2)
    y = norm(x).unflatten(0, (VIEWS, IMAGES))
    means, variances = [], []
    for start in range(0, IMAGES, 2):
        gpu = nn.BatchNorm2d(CHANNELS, momentum=1.0)
        share = x.unflatten(0, (VIEWS, IMAGES))[:, start : start + 2].flatten(0, 1)
        expected = gpu(share).unflatten(0, (VIEWS, 2))
        torch.testing.assert_close(y[:, start : start + 2], expected)
        means.append(gpu.running_mean)
        variances.append(gpu.running_var)
    torch.testing.assert_close(norm[0].running_mean, 0.1 * torch.stack(means).mean(0))
    torch.testing.assert_close(norm[0].running_var, 0.9 + 0.1 * torch.stack(variances).mean(0))
    assert norm[0].num_batches_tracked == 1


@pytest.mark.parametrize(("mode", "images"), [("ghost:8", 8), ("ghost:100", 8), ("sync", 8)])
def test_one_group_of_everything_is_plain_batch_norm(mode, images):
    x, plain = rows(images), nn.BatchNorm2d(CHANNELS)
    norm = with_batch_norm(nn.Sequential(nn.BatchNorm2d(CHANNELS)), mode, VIEWS)
    torch.testing.assert_close(norm(x), plain(x))
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(norm.state_dict()[f"0.{name}"], value)
    torch.testing.assert_close(norm.eval()(x), plain.eval()(x))


def test_rest_of_a_division_goes_into_the_groups():
    x = rows(images=7)
    y = ghost(3)(x).unflatten(0, (VIEWS, 7))
    for group in (y[:, :4], y[:, 4:]):  # two groups of at least three images
        mean = group.mean(dim=(0, 1, 3, 4))
        torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("num_images", "num_views"), [(8, 1), (2, 1), (2, VIEWS)])
def test_channels_last_images_stay_so(num_images, num_views):
    x = rows().to(memory_format=torch.channels_last).requires_grad_()
    y = ghost(num_images, num_views)(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    y.square().sum().backward()
    assert x.grad.is_contiguous(memory_format=torch.channels_last)


def test_names_weights_and_generator_stay():
    torch.manual_seed(0)
    plain = build_method(tiny("paco"), [5, 3, 2])
    after = torch.rand(1)
    torch.manual_seed(0)
    ghosts = build_method(tiny("paco", model__batch_norm="ghost:4"), [5, 3, 2])
    assert torch.equal(torch.rand(1), after)
    assert plain.state_dict().keys() == ghosts.state_dict().keys()
    for name, value in plain.state_dict().items():
        assert torch.equal(ghosts.state_dict()[name], value)
    norms = [module for module in ghosts.modules() if isinstance(module, GhostBatchNorm)]
    assert len(norms) == 2 * (7 + 1)  # of the encoder, and of its momentum copy


def test_prototypes_keep_their_own_batch_norm():
    method = build_method(tiny("bcl", model__batch_norm="sync"), [5, 3, 2])
    assert isinstance(method.projector[1], SyncedBatchNorm)
    assert type(method.prototype_projector[1]) is nn.BatchNorm1d


@pytest.mark.parametrize("mode", ["global", "ghost", "ghost:0", "ghost:1", "ghost:-2", "ghost:x"])
def test_unknown_mode_is_one_sentence(mode):
    with pytest.raises(ValueError, match="model.batch_norm: must be local, sync or ghost:<images"):
        override(ExperimentConfig(), {"model.batch_norm": mode})


def test_local_is_the_default_and_leaves_the_hash():
    config = ExperimentConfig()
    assert config_hash(config) == config_hash(override(config, {"model.batch_norm": "local"}))
    assert config_hash(config) != config_hash(override(config, {"model.batch_norm": "ghost:32"}))


@pytest.mark.skipif(not has_compiler(), reason="needs a compiler")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_local_batch_norm_is_pytorchs_also_far_from_zero(dtype):
    torch.manual_seed(0)
    reference = nn.BatchNorm2d(CHANNELS)
    nn.init.uniform_(reference.weight)
    norm = with_batch_norm(nn.Sequential(copy.deepcopy(reference)), "local")
    compiled = torch.compile(norm, dynamic=False)
    reference.double()
    for offset in (0, 100):  # in standard deviations
        images = (offset + torch.randn(8, CHANNELS, 8, 8)).to(dtype)
        images = images.to(memory_format=torch.channels_last).requires_grad_()
        exact = images.detach().double().requires_grad_()
        upstream = torch.randn_like(images)
        norm.zero_grad()
        reference.zero_grad()
        shown, expected = compiled(images), reference(exact)
        shown.backward(upstream)
        expected.backward(upstream.double())
        assert shown.dtype == dtype
        assert shown.is_contiguous(memory_format=torch.channels_last)
        rounding = 1e-5 if dtype == torch.float32 else 1e-2
        for ours, exactly in ((shown, expected), (images.grad, exact.grad)):
            torch.testing.assert_close(ours.double(), exactly, rtol=rounding, atol=rounding)
        for name, parameter in reference.named_parameters():
            ours = getattr(norm[0], name).grad.double()
            torch.testing.assert_close(ours, parameter.grad, rtol=1e-4, atol=1e-3)
        for name, buffer in reference.named_buffers():
            ours = getattr(norm[0], name).to(buffer.dtype)
            torch.testing.assert_close(ours, buffer, rtol=1e-6, atol=1e-6)
