"""The authors' files, built here from networks of their key names, against what is read of them.

The reference networks are torchvision's and a small one of the test's own; none of ``ltlib`` is in
them.
"""

import builtins
import contextlib
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn
from torch.testing import assert_close
from torchvision.models import resnet

from ltlib import cli
from ltlib.checkpoints import (
    Release,
    export_weights,
    load_checkpoint,
    load_release,
    save_checkpoint,
    save_release,
)
from ltlib.checkpoints.assembly import assemble
from ltlib.config import DataConfig
from ltlib.data import load_dataset
from ltlib.data import test_loader as loader_of
from ltlib.models import BACKBONES
from ltlib.trainer import evaluate_release


class Block(nn.Module):
    def __init__(self, width_in, width, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.grown = stride, width - width_in

    def forward(self, x):
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        half = self.grown // 2
        shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return torch.relu(y + shortcut)


class CifarNet(nn.Module):
    """ResNet of 6n + 2 layers; with a number of classes it ends in ``fc``, as PaCo's does."""

    def __init__(self, n=1, num_classes=None, width=16):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        before = width
        for stage in range(3):
            after = width * 2**stage
            blocks = [Block(before, after, 2 if stage else 1)]
            blocks += [Block(after, after, 1) for _ in range(n - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
            before = after
        self.fc = nn.Identity() if num_classes is None else nn.Linear(before, num_classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class CosineLayer(nn.Module):
    """Weight (F, C), thirty times the cosine."""

    def __init__(self, dim, num_classes):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(dim, num_classes))

    def forward(self, x):
        return 30 * F.normalize(x, dim=1).mm(F.normalize(self.weight, dim=0))


def mlp(*widths, batch_norm):
    layers = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after)]
        layers += [nn.BatchNorm1d(after)] if batch_norm else []
        layers += [nn.ReLU()]
    return layers[: -2 if batch_norm else -1]


class EncoderHeadFc(nn.Module):
    """ProCo's network, and BCL's with the projector of the class weights."""

    def __init__(self, encoder, dim, hidden, embedding, num_classes, cosine, prototypes=False):
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(*mlp(dim, hidden, embedding, batch_norm=True))
        self.fc = (CosineLayer if cosine else nn.Linear)(dim, num_classes)
        if prototypes:
            self.head_fc = nn.Sequential(*mlp(dim, hidden, embedding, batch_norm=True))

    def forward(self, x):
        features = self.encoder(x)
        return features, F.normalize(self.head(features), dim=1), self.fc(features)


class Moco(nn.Module):
    """PaCo's wrapper, and GPaCo's, which has no momentum encoder."""

    def __init__(self, make_encoder, dim, embedding, num_classes, momentum, hidden=None):
        super().__init__()
        hidden = hidden or dim
        self.encoder_q = self._encoder(make_encoder, dim, hidden, embedding, momentum)
        self.linear = nn.Linear(dim, num_classes)
        if momentum:
            self.encoder_k = self._encoder(make_encoder, dim, hidden, embedding, momentum)
            self.linear_k = nn.Linear(dim, num_classes)
        self.register_buffer("queue", torch.randn(16, embedding))
        self.register_buffer("queue_l", torch.randint(0, num_classes, (16,)))
        self.register_buffer("queue_ptr", torch.zeros(1, dtype=torch.long))

    @staticmethod
    def _encoder(make_encoder, dim, hidden, embedding, momentum):
        encoder = make_encoder(num_classes=embedding)
        widths = (dim, hidden, embedding) if momentum else (dim, hidden, hidden, embedding)
        encoder.fc = nn.Sequential(*mlp(*widths, batch_norm=momentum))
        return encoder

    def forward(self, x):
        caught = []
        hook = self.encoder_q.fc.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        embeddings = F.normalize(self.encoder_q(x), dim=1)
        hook.remove()
        return caught[0], embeddings, self.linear(caught[0])


def lived_in(network):
    """Give batch normalisation statistics that an evaluation mode must not ignore."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor in (module.running_mean, module.weight, module.bias):
                nn.init.normal_(tensor, 0.5, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.eval()


def headless(network):
    network.fc = nn.Identity()
    return network


@cache
def encoder(name, **options):
    """A torchvision network, made once."""
    return getattr(resnet, name)(**options)


def proco_cifar(n=5, num_classes=100, embedding=128, cosine=False):
    return EncoderHeadFc(CifarNet(n), 64, 512, embedding, num_classes, cosine)


def tiny_proco(num_classes=10):
    return proco_cifar(n=1, num_classes=num_classes, embedding=8)


def cifar_moco(momentum):
    return Moco(lambda num_classes: CifarNet(5, num_classes), 64, 32, 100, momentum)


# How it is made, its family and its backbone.
NETWORKS = {
    "proco_cifar": (proco_cifar, "proco", "resnet32"),
    "proco_cifar_cosine": (lambda: proco_cifar(1, 10, 8, cosine=True), "proco", "resnet8"),
    "proco_imagenet": (
        lambda: EncoderHeadFc(headless(encoder("resnet50")), 2048, 64, 32, 20, cosine=True),
        "proco",
        "resnet50",
    ),
    "bcl": (
        lambda: EncoderHeadFc(
            headless(encoder("resnext50_32x4d")), 2048, 64, 32, 20, cosine=True, prototypes=True
        ),
        "bcl",
        "resnext50_32x4d",
    ),
    "paco_cifar": (lambda: cifar_moco(momentum=True), "paco", "resnet32"),
    "gpaco_cifar": (lambda: cifar_moco(momentum=False), "gpaco", "resnet32"),
    "gpaco_imagenet": (
        lambda: Moco(lambda **_: encoder("resnet50"), 2048, 128, 20, momentum=False, hidden=64),
        "gpaco",
        "resnet50",
    ),
}


@contextlib.contextmanager
def authors_loss_module():
    """Make ``loss.proco`` importable while a file is written, and only then."""

    class EstimatorCV:
        def __init__(self):
            self.Ave, self.Amount = torch.randn(10, 8), torch.zeros(10)
            self.kappa, self.logc = torch.ones(10), torch.ones(10, dtype=torch.float64)

    class ProCoLoss(nn.Module):
        def __init__(self):
            super().__init__()
            self.temperature = 0.1
            self.estimator_old, self.estimator = EstimatorCV(), EstimatorCV()

    module = types.ModuleType("loss.proco")
    for cls in (EstimatorCV, ProCoLoss):
        cls.__module__, cls.__qualname__ = "loss.proco", cls.__name__
        setattr(module, cls.__name__, cls)
    package = types.ModuleType("loss")
    package.proco = module
    sys.modules |= {"loss": package, "loss.proco": module}
    try:
        yield module
    finally:
        del sys.modules["loss"], sys.modules["loss.proco"]


def write(path, network, *, wrapper="module.", **content):
    state = {f"{wrapper}{key}": tensor for key, tensor in network.state_dict().items()}
    torch.save({"epoch": 200, "arch": "authors", "state_dict": state, **content}, path)
    return path


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


@pytest.fixture
def tiny_file(tmp_path):
    return write(tmp_path / "tiny.pth.tar", lived_in(tiny_proco()))


@pytest.mark.parametrize("name", NETWORKS)
@torch.inference_mode()
def test_features_embeddings_and_logits_are_the_authors(name, tmp_path):
    make, family, backbone = NETWORKS[name]
    network = lived_in(make())
    release = load_release(write(tmp_path / "ckpt.best.pth.tar", network))
    images = torch.randn(2, 3, 32, 32)
    features, embeddings, logits = network(images)
    ours = release.backbone(images)
    assert_close(ours, features, rtol=1e-4, atol=1e-5)
    assert_close(release.projector(ours), embeddings, rtol=1e-4, atol=1e-5)
    assert_close(release.classifier(ours), logits, rtol=1e-4, atol=1e-4)
    assert_close(release.predict(images), logits, rtol=1e-4, atol=1e-4)
    assert not release.training
    info = release.info
    assert (info["family"], info["backbone"], info["unmatched"]) == (family, backbone, [])
    assert (info["feature_dim"], info["num_classes"]) == (features.shape[1], logits.shape[1])
    assert info["embedding_dim"] == embeddings.shape[1]


@pytest.mark.parametrize("wrapper", ["", "module.", "module.module."])
def test_prefixes_of_data_parallel_are_taken_off(wrapper, tmp_path):
    network = tiny_proco()
    release = load_release(write(tmp_path / "file.pth", network, wrapper=wrapper))
    assert torch.equal(release.classifier.weight, network.fc.weight)


def test_a_bare_state_dict_is_read(tmp_path):
    torch.save(tiny_proco().state_dict(), tmp_path / "bare.pth")
    info = load_release(tmp_path / "bare.pth").info
    assert (info["epoch"], info["accuracy"]) == (None, {})


def test_a_projector_of_one_layer_is_read(tmp_path):
    network = Moco(lambda num_classes: CifarNet(1, num_classes), 64, 8, 10, momentum=False)
    network.encoder_q.fc = nn.Linear(64, 8)
    release = load_release(write(tmp_path / "file.pth", lived_in(network)))
    images = torch.randn(2, 3, 32, 32)
    assert_close(release.projector(release.backbone(images)), network(images)[1])


def test_reading_draws_no_random_numbers(tiny_file):
    before = torch.get_rng_state()
    load_release(tiny_file)
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_may_be_trained_further(tiny_file):
    release = load_release(tiny_file)
    release.predict(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in release.backbone.parameters())


TORCHVISION = {
    "resnet50": resnet.resnet50,
    "resnet101": resnet.resnet101,
    "resnet152": resnet.resnet152,
    "resnet200": lambda: resnet.ResNet(resnet.Bottleneck, [3, 24, 36, 3]),
    "resnext50_32x4d": resnet.resnext50_32x4d,
    "resnext101_32x4d": lambda: resnet.ResNet(
        resnet.Bottleneck, [3, 4, 23, 3], groups=32, width_per_group=4
    ),
}
CIFAR_DEPTHS = {f"resnet{6 * n + 2}": n for n in (1, 3, 5, 7, 9, 18)}


@pytest.mark.parametrize("name", [*TORCHVISION, *CIFAR_DEPTHS])
def test_the_backbone_is_inferred_from_keys_and_shapes(name):
    with torch.device("meta"):
        encoder = TORCHVISION[name]() if name in TORCHVISION else CifarNet(CIFAR_DEPTHS[name])
        network = EncoderHeadFc(headless(encoder), 64 if name in CIFAR_DEPTHS else 2048, 8, 4, 5, 0)
    assert assemble(network.state_dict(), scale=30.0).backbone_name == name


def test_every_backbone_is_among_those_inferred():
    # A backbone with another's shapes cannot be told from it, and is in no released file.
    assert set(BACKBONES) - {"resnet8_stride2"} == {*TORCHVISION, *CIFAR_DEPTHS}


def test_proco_file_with_pickled_criterion_and_numpy_scalars_is_read_by_stand_ins(tmp_path):
    network = tiny_proco()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    with authors_loss_module() as loss:
        path = write(
            tmp_path / "ckpt.pth.tar",
            network,
            best_acc1=52.8,
            best_many=np.float64(69.9),
            best_med=np.float32(52.5),
            best_few=np.float64(33.0),
            optimizer=optimizer.state_dict(),
            criterion_scl=loss.ProCoLoss(),
        )
    info = load_release(path).info
    assert "loss.proco" not in sys.modules
    assert info["epoch"] == 200
    wanted = {"all": 0.528, "many": 0.699, "medium": 0.525, "few": 0.33}
    assert info["accuracy"] == pytest.approx(wanted)
    assert info["classifier_scale"] is None


def test_numpy_scalars_of_numpy_1_are_read(tmp_path):
    path = write(tmp_path / "new.pth", tiny_proco(), best_acc1=np.float64(57.25))
    old = tmp_path / "old.pth"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(old, "w") as target:
        for entry in source.infolist():
            content = source.read(entry)
            if entry.filename.endswith("data.pkl"):
                assert b"numpy._core.multiarray" in content
                content = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            target.writestr(entry, content)
    assert load_release(old).info["accuracy"] == {"all": 0.5725}


@pytest.mark.parametrize("value", [np.float64(2.5), np.float32(2.5), np.float16(2.5), np.int64(2)])
@pytest.mark.parametrize("order", ["<", ">"])
def test_numpy_scalars_keep_their_value(value, order, tmp_path):
    scalar = np.array(value).astype(np.dtype(type(value)).newbyteorder(order))[()]
    path = write(tmp_path / "file.pth", tiny_proco(), best_acc1=scalar)
    assert load_release(path).info["accuracy"] == {"all": float(value) / 100}


def test_paco_file_keeps_accuracy_and_names_what_only_training_needs(tmp_path):
    network = Moco(lambda num_classes: CifarNet(1, num_classes), 64, 8, 10, momentum=True)
    release = load_release(write(tmp_path / "moco_ckpt.pth.tar", network, acc=torch.tensor([58.5])))
    assert release.info["accuracy"] == pytest.approx({"all": 0.585})
    aside = {"encoder_k", "linear_k", "queue", "queue_l", "queue_ptr"}
    assert set(release.info["set_aside"]) == aside


def test_bcl_file_names_the_projector_of_its_prototypes(tmp_path):
    network = EncoderHeadFc(CifarNet(), 64, 16, 8, 10, cosine=True, prototypes=True)
    info = load_release(write(tmp_path / "bcl_ckpt.pth.tar", network, best_acc1=57.2)).info
    assert list(info["set_aside"]) == ["head_fc"]
    assert (info["classifier"], info["classifier_scale"]) == ("cosine", 30.0)


def changed(network, *, drop=(), **replaced):
    state = network.state_dict() | {k.replace("__", "."): v for k, v in replaced.items()}
    return types.SimpleNamespace(
        state_dict=lambda: {k: v for k, v in state.items() if k not in drop}
    )


def test_every_key_without_a_place_is_named(tmp_path, caplog):
    strangers = {"encoder__gate__weight", "head__9__bias", "fc__norm", "teacher__conv"}
    network = changed(tiny_proco(), **{name: torch.ones(3) for name in strangers})
    release = load_release(write(tmp_path / "file.pth", network))
    assert set(release.info["unmatched"]) == {name.replace("__", ".") for name in strangers}
    assert "keys without a place: 4" in caplog.text
    assert all(f"unmatched   {key}" in release.describe() for key in release.info["unmatched"])


MISMATCHES = {
    "narrower backbone": (
        lambda: changed(tiny_proco(), encoder__conv1__weight=torch.ones(8, 3, 3, 3)),
        r"encoder\.conv1\.weight is \(8, 3, 3, 3\) instead of \(16, 3, 3, 3\)",
    ),
    "missing key": (
        lambda: changed(proco_cifar(), drop=["encoder.layer3.4.bn2.bias"]),
        r"resnet32, the nearest backbone: encoder\.layer3\.4\.bn2\.bias is missing",
    ),
    "missing convolution": (
        lambda: changed(proco_cifar(), drop=["encoder.layer3.4.conv2.weight"]),
        r"resnet32, the nearest backbone: encoder\.layer3\.4\.conv2\.weight is missing",
    ),
    "wider CIFAR network": (
        lambda: EncoderHeadFc(CifarNet(5, width=32), 128, 8, 4, 10, cosine=False),
        r"encoder\.conv1\.weight is \(32, 3, 3, 3\) instead of \(16, 3, 3, 3\), .* and \d+ more",
    ),
    "another ResNet": (
        lambda: EncoderHeadFc(headless(resnet.resnet18()), 512, 8, 4, 10, cosine=False),
        r"does not fit resnet20, the nearest backbone",
    ),
    "projector of other features": (
        lambda: changed(tiny_proco(), head__0__weight=torch.ones(512, 32)),
        r"head\.0\.weight is \(512, 32\) instead of \(512, 64\)",
    ),
    "projector without a linear layer": (
        lambda: changed(tiny_proco(), drop=["head.0.weight", "head.3.weight"]),
        r"head\.\* holds no linear layer",
    ),
    "linear classifier of other features": (
        lambda: changed(tiny_proco(), fc__weight=torch.ones(10, 32)),
        r"fc\.weight is \(10, 32\) instead of \(10, 64\)",
    ),
    "cosine classifier the other way round": (
        lambda: changed(tiny_proco(), drop=["fc.bias"]),
        r"fc\.weight is \(10, 64\); .*cosine.* 64 features",
    ),
    "classifier without weight": (
        lambda: changed(tiny_proco(), drop=["fc.weight"]),
        r"fc\.weight is missing",
    ),
    "PaCo without bias": (
        lambda: changed(
            Moco(lambda num_classes: CifarNet(1, num_classes), 64, 8, 10, momentum=False),
            drop=["linear.bias"],
        ),
        r"linear\.bias is missing",
    ),
    "no head": (
        lambda: changed(tiny_proco(), drop=[k for k in tiny_proco().state_dict() if "head" in k]),
        r"unknown layout, it holds encoder, fc; known are encoder\.\* head\.\* fc\.\* \(bcl\)",
    ),
    "a vision transformer": (lambda: nn.Sequential(nn.Linear(3, 4)), "unknown layout, it holds 0;"),
}


@pytest.mark.parametrize("case", MISMATCHES)
def test_what_does_not_fit_is_refused_by_name(case, tmp_path):
    make, sentence = MISMATCHES[case]
    path = write(tmp_path / "file.pth", make())
    with pytest.raises(ValueError, match=sentence) as refusal:
        load_release(path)
    assert str(refusal.value).startswith(f"{path}: ")
    assert "\n" not in str(refusal.value)


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, marker, how):
        self.marker, self.how = marker, how

    def __reduce__(self):
        if self.how == "os.system":
            return os.system, (f"touch {self.marker}",)
        if self.how == "eval":
            return builtins.eval, (f"open({str(self.marker)!r}, 'w').close()",)
        return subprocess.check_call, (["touch", str(self.marker)],)


@pytest.mark.parametrize("how", ["os.system", "eval", "subprocess"])
@pytest.mark.parametrize("place", ["top", "epoch", "weight", "criterion"])
def test_code_in_a_file_does_not_run(how, place, tmp_path):
    marker = tmp_path / "ran"
    payload = Payload(marker, how)
    path = tmp_path / "ckpt.pth.tar"
    if place == "top":
        torch.save(payload, path)
    elif place == "epoch":
        write(path, tiny_proco(), epoch=payload)
    elif place == "weight":
        write(path, changed(tiny_proco(), fc__bias=payload))
    else:
        with authors_loss_module() as loss:
            criterion = loss.ProCoLoss()
            criterion.estimator.Ave = payload
            write(path, tiny_proco(), criterion_scl=criterion)
    with pytest.raises(ValueError, match=r"asks for \S+, which .* nothing of it was loaded"):
        load_release(path)
    assert not marker.exists()

    with authors_loss_module():  # the payload is live: an unsafe reader does run it
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_code_in_a_plain_pickle_does_not_run(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "ckpt.pth"
    path.write_bytes(pickle.dumps(Payload(marker, "os.system"), protocol=2))
    with pytest.raises(ValueError, match=r"ckpt\.pth"):
        load_release(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes())
    assert marker.exists()


def test_an_object_hidden_in_a_numpy_scalar_is_refused(tmp_path):
    # NumPy itself would unpickle what a scalar of type object holds.
    class ObjectScalar:
        def __reduce__(self):
            return np._core.multiarray.scalar, (np.dtype("O"), pickle.dumps(print))

    path = write(tmp_path / "file.pth", tiny_proco(), best_acc1=ObjectScalar())
    with pytest.raises(ValueError, match="damaged"):
        load_release(path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9, 0.999])
def test_a_truncated_file_ends_in_one_sentence(share, tiny_file):
    content = tiny_file.read_bytes()
    tiny_file.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match="is damaged, or no checkpoint") as refusal:
        load_release(tiny_file)
    assert "\n" not in str(refusal.value)


def test_bytes_changed_at_random_load_or_end_in_a_value_error(tiny_file):
    with zipfile.ZipFile(tiny_file) as source:
        entries = [(entry, source.read(entry)) for entry in source.infolist()]
    rng, outcomes = np.random.default_rng(0), set()
    for _ in range(60):
        # Written anew, so that the checksums agree and the pickle itself is what is wrong.
        with zipfile.ZipFile(tiny_file, "w") as target:
            for entry, content in entries:
                changed_content = bytearray(content)
                if entry.filename.endswith("data.pkl"):
                    place = rng.integers(len(content))
                    changed_content[place] = rng.integers(256)
                target.writestr(entry, bytes(changed_content))
        try:
            load_release(tiny_file)
            outcomes.add("read")
        except ValueError as error:
            outcomes.add(str(error).count("\n"))
    assert outcomes == {"read", 0}


NO_CHECKPOINTS = {
    "empty": b"",
    "text": b"Not Found: the link has expired\n",
    "web page": b"<!DOCTYPE html><html><title>Google Drive - Virus scan warning</title></html>",
    "picture": b"\x89PNG\r\n\x1a\n" + bytes(64),
    "json": b'{"state_dict": {}}',
    "pickle of today": pickle.dumps({"state_dict": {"a": 1}}, protocol=5),
}


@pytest.mark.parametrize("what", NO_CHECKPOINTS)
def test_a_file_that_is_no_checkpoint_is_refused(what, tmp_path):
    path = tmp_path / "file.pth.tar"
    path.write_bytes(NO_CHECKPOINTS[what])
    with pytest.raises(ValueError, match=r"file\.pth\.tar"):
        load_release(path)


def test_a_zip_of_something_else_is_refused(tmp_path):
    path = tmp_path / "file.pth.tar"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("readme.txt", "hello")
    with pytest.raises(ValueError, match="damaged"):
        load_release(path)


@pytest.mark.parametrize(
    "content",
    [
        [torch.ones(2)],
        torch.ones(2),
        {"state_dict": 3},
        {"epoch": 3},
        {},
        {"state_dict": {1: torch.ones(2)}},
        {"state_dict": {"fc.weight": "text"}},
        {"state_dict": {"fc.weight": torch.eye(3).to_sparse()}},
        {"state_dict": {"fc.weight": torch.ones(2, dtype=torch.complex64)}},
        {"state_dict": {"fc.weight": torch.ones(0, 2)}},
    ],
    ids=str,
)
def test_contents_without_weights_are_refused(content, tmp_path):
    torch.save(content, tmp_path / "file.pth")
    with pytest.raises(ValueError, match="holds no state dict|unknown layout"):
        load_release(tmp_path / "file.pth")


def test_a_missing_file_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
        load_release(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("name", ["proco_cifar", "proco_cifar_cosine", "gpaco_cifar"])
@torch.inference_mode()
def test_a_saved_release_comes_back_whole(name, tmp_path):
    network = lived_in(NETWORKS[name][0]())
    release = load_release(write(tmp_path / "ckpt.pth.tar", network, best_acc1=np.float64(52.8)))
    file = save_release(release, tmp_path / "converted" / "authors-if0.01")
    assert file == tmp_path / "converted" / "authors-if0.01.safetensors"
    card = json.loads((tmp_path / "converted" / "authors-if0.01.json").read_text())
    assert card == release.info
    assert len(list(file.parent.iterdir())) == 2

    again = load_release(str(file))
    assert again.info == release.info
    ours, theirs = again.state_dict(), release.state_dict()
    assert ours.keys() == theirs.keys() == load_file(file).keys()
    for key in ours:
        assert torch.equal(ours[key], theirs[key]), key
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.predict(images), release.predict(images))
    assert_close(again.predict(images), network(images)[2], rtol=1e-4, atol=1e-4)


def test_the_card_keeps_the_scale_of_the_cosine_classifier(tmp_path):
    path = write(tmp_path / "ckpt.pth", proco_cifar(1, 10, 8, cosine=True))
    release = load_release(path)
    release.classifier.scale = release.info["classifier_scale"] = 16.0
    assert load_release(save_release(release, tmp_path / "a")).classifier.scale == 16.0


@pytest.mark.parametrize(
    ("card", "sentence"),
    [
        (b"{", r"saved\.json is damaged"),
        (b"[]", r"saved\.json is damaged"),
        (b"{}", r"saved\.json is damaged: family"),
        (None, "scale"),
    ],
)
def test_a_damaged_card_ends_in_one_sentence(card, sentence, tiny_file, tmp_path):
    file = save_release(load_release(tiny_file), tmp_path / "saved.safetensors")
    path = file.with_suffix(".json")
    wrong = json.loads(path.read_text()) | {"classifier_scale": "much"}
    path.write_bytes(json.dumps(wrong).encode() if card is None else card)
    with pytest.raises(ValueError, match=sentence) as refusal:
        load_release(file)
    assert "\n" not in str(refusal.value)


def test_a_missing_card_is_said_to_be_missing(tiny_file, tmp_path):
    file = save_release(load_release(tiny_file), tmp_path / "saved.safetensors")
    file.with_suffix(".json").unlink()
    with pytest.raises(FileNotFoundError, match=r"saved\.json"):
        load_release(file)


def test_damaged_safetensors_end_in_one_sentence(tiny_file, tmp_path):
    file = save_release(load_release(tiny_file), tmp_path / "saved.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"saved\.safetensors is damaged"):
        load_release(file)
    save_file({"a": torch.ones(2)}, file)
    with pytest.raises(ValueError, match=r"saved\.safetensors: unknown layout, it holds a;"):
        load_release(file)


def test_the_newest_whole_checkpoint_is_read(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for step in range(3):
        save_checkpoint(tmp_path, {"step": step})
    assert load_checkpoint(tmp_path) == {"step": 2}
    (tmp_path / "checkpoint.pt").write_bytes(b"half")
    assert load_checkpoint(tmp_path) == {"step": 1}


def test_exported_weights_are_the_modules(tmp_path):
    module = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
    export_weights(module, tmp_path / "model.safetensors")
    assert_close(load_file(tmp_path / "model.safetensors")["weight"], module.weight.detach())
    assert [path.name for path in tmp_path.iterdir()] == ["model.safetensors"]


DIGITS = DataConfig(dataset="digits", imbalance_factor=20)


@torch.inference_mode()
def expected_accuracy(network):
    counts = np.bincount(load_dataset(DIGITS, None, True).targets)
    predictions, targets = [], []
    for images, labels in loader_of(load_dataset(DIGITS, None, False)):
        predictions += network(images)[2].argmax(1).tolist()
        targets += labels.tolist()
    right = np.equal(predictions, targets)
    by_class = np.array([right[np.equal(targets, c)].mean() for c in range(10)])
    splits = {"many": counts > 100, "medium": (counts >= 20) & (counts <= 100), "few": counts < 20}
    return {"all": right.mean()} | {name: by_class[of].mean() for name, of in splits.items()}


def test_measured_accuracy_is_that_of_the_authors_network(tmp_path):
    network = lived_in(tiny_proco())
    release = load_release(write(tmp_path / "file.pth", network))
    measured = evaluate_release(release, DIGITS, device="cpu")
    assert measured == pytest.approx(expected_accuracy(network))


def test_a_data_set_of_other_classes_is_refused(tmp_path):
    release = load_release(write(tmp_path / "file.pth", tiny_proco(num_classes=7)))
    with pytest.raises(ValueError, match=r"file\.pth answers 7 classes, digits has 10"):
        evaluate_release(release, DIGITS)


def run_cli(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["ltlib", "import", *map(str, arguments)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    captured = capsys.readouterr()
    return end.value.code, captured.out, captured.err


def test_the_command_describes_measures_and_saves(tmp_path, monkeypatch, capsys):
    network = lived_in(tiny_proco())
    stranger = changed(network, extra=torch.ones(1))
    path = write(tmp_path / "ckpt.pth.tar", stranger, best_acc1=np.float64(52.8))
    options = ["--evaluate", "digits", "--imbalance-factor", "20", "--device", "cpu"]
    code, out, _ = run_cli(monkeypatch, capsys, path, *options, "--save", tmp_path / "saved")
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "proco, from ckpt.pth.tar, epoch 200"
    assert "backbone    resnet8, features of 64" in lines
    assert "unmatched   extra" in lines
    assert "accuracy in the file: all 52.80 %" in lines
    wanted = expected_accuracy(network)
    shares = ", ".join(f"{name} {100 * share:.2f} %" for name, share in wanted.items())
    assert f"accuracy on digits: {shares}" in lines
    assert lines[-1] == str(tmp_path / "saved.safetensors")
    assert isinstance(load_release(tmp_path / "saved.safetensors"), Release)


def test_the_command_ends_in_one_sentence(tmp_path, monkeypatch, capsys):
    path = tmp_path / "ckpt.pth"
    path.write_text("no checkpoint")
    code, out, err = run_cli(monkeypatch, capsys, path)
    assert (code, out) == (1, "")
    assert err == f"error: {path} is damaged, or no checkpoint of torch.save\n"
