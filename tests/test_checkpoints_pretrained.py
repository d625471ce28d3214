"""ImageNet weights to start from: found where they are named, read safely, refused if damaged."""

import hashlib

import pytest
import torch
from conftest import tiny
from safetensors.torch import load_file

from ltlib.checkpoints import read_pretrained
from ltlib.config import override
from ltlib.models import build_backbone
from ltlib.runs import open_run, read_json
from ltlib.trainer import loop, train

NAME = "resnet8"  # torchvision has no such weights, so the variable names the file


@pytest.fixture(autouse=True)
def _nothing_named(monkeypatch, tmp_path):
    monkeypatch.delenv("LTLIB_PRETRAINED", raising=False)
    monkeypatch.delenv("LTLIB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))


def write(path, content) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def weights():
    torch.manual_seed(3)
    return build_backbone(NAME)[0].state_dict()


@pytest.fixture
def named(tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    monkeypatch.setenv("LTLIB_PRETRAINED", str(path))
    return path


def test_the_named_file_fills_the_backbone_and_leaves_its_digest(named, weights):
    classifier = {"fc.weight": torch.zeros(1000, 64), "fc.bias": torch.zeros(1000)}
    sha256 = write(named, weights | classifier)
    read, origin = read_pretrained(NAME)
    torch.testing.assert_close(read, dict(weights), rtol=0, atol=0)
    assert origin == {"file": "weights.pth", "sha256": sha256}


def test_files_without_the_counters_of_batch_norm_are_read(named, weights):
    write(named, {k: v for k, v in weights.items() if "num_batches_tracked" not in k})
    backbone = build_backbone(NAME)[0]
    backbone.load_state_dict(read_pretrained(NAME)[0])
    assert torch.equal(backbone.layer3[0].conv1.weight, weights["layer3.0.conv1.weight"])
    assert backbone.bn1.num_batches_tracked == 0


@pytest.mark.parametrize("place", ["data_root", "data", "hub/checkpoints"])
def test_torchvisions_file_is_found_by_its_name(place, tmp_path, monkeypatch):
    # The real digest cannot be met here, so the file has to be found and then refused.
    write(tmp_path / place / "resnet152-394f9c45.pth", {})
    root = tmp_path / "data_root" if place == "data_root" else None
    with pytest.raises(ValueError, match=f"{place}/resnet152-394f9c45.pth is damaged: its SHA"):
        read_pretrained("resnet152", root)


def test_better_weights_of_the_same_network_are_not_taken_for_the_papers(tmp_path):
    write(tmp_path / "resnet152-f82ba261.pth", {})
    with pytest.raises(FileNotFoundError, match=r"resnet152-394f9c45.pth, .* is not in "):
        read_pretrained("resnet152", tmp_path)


def test_a_missing_file_is_one_sentence(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no weights of resnet200; name a file"):
        read_pretrained("resnet200")
    monkeypatch.setenv("LTLIB_PRETRAINED", "nowhere.pth")
    with pytest.raises(FileNotFoundError, match="nowhere.pth, which LTLIB_PRETRAINED names, is"):
        read_pretrained("resnet152")


def test_weights_of_another_backbone_are_refused(named, weights):
    write(named, {key: value for key, value in weights.items() if "layer2" not in key})
    with pytest.raises(ValueError, match="does not fit resnet8: layer2.0.conv1.weight is missing"):
        read_pretrained(NAME)
    write(named, weights | {"conv1.weight": torch.zeros(16, 1, 3, 3)})
    with pytest.raises(ValueError, match=r"conv1.weight is \(16, 1, 3, 3\) instead of \(16, 3"):
        read_pretrained(NAME)
    write(named, [1])
    with pytest.raises(ValueError, match="no state dict but a list"):
        read_pretrained(NAME)


def test_a_truncated_file_is_refused(named, weights):
    write(named, weights)
    named.write_bytes(named.read_bytes()[:5000])
    with pytest.raises(ValueError, match="damaged"):
        read_pretrained(NAME)


def test_a_run_starts_from_the_weights_and_needs_them_once(named, weights, tmp_path, monkeypatch):
    sha256 = write(named, weights)
    still = {"model.pretrained": True, "optim.epochs": 1, "optim.lr": 1e-30}
    config = override(tiny("paco"), still)
    run_dir = open_run(config, "tiny", tmp_path)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "describe_geometry", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train(config, run_dir, device="cpu", num_workers=0)
    named.unlink()
    train(config, run_dir, device="cpu", num_workers=0)
    assert read_json(run_dir / "provenance.json")["pretrained"] == {
        "file": "weights.pth",
        "sha256": sha256,
    }
    trained = load_file(run_dir / "model.safetensors")
    for copy in ("backbone", "momentum_encoder.encoder.0"):
        assert torch.equal(trained[f"{copy}.conv1.weight"], weights["conv1.weight"])
