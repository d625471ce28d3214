"""Every recipe of the large data sets trains two steps and evaluates, on a miniature tree."""

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from trees import NUM_CLASSES, build_tree

from ltlib.config import override
from ltlib.models import build_backbone
from ltlib.recipes import smoke
from ltlib.recipes.large import LARGE_RECIPES
from ltlib.runs import load_arrays, open_run, read_json
from ltlib.trainer import train

pytestmark = pytest.mark.slow

# Each backbone at its depth once; the other recipes on a small one, else all else as published.
AT_DEPTH = {
    "ce-imagenet_lt-resnet50",
    "la-imagenet_lt-resnext50",
    "paco-imagenet_lt-resnext101",
    "paco-imagenet-resnet101",
    "paco-places_lt-resnet152",
    "paco-imagenet-resnet200",
}
BATCH = 4


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    """Eleven training images of ten classes and ten test images of each data set."""
    folder = tmp_path_factory.mktemp("trees")
    names = {config.data.dataset for config in LARGE_RECIPES.values()}
    return {n: build_tree(n, folder / n, per_class=2, test_per_class=1) for n in names}


def test_every_backbone_of_the_recipes_is_run_at_its_depth():
    deep = {LARGE_RECIPES[name].model.backbone for name in AT_DEPTH}
    assert deep == {config.model.backbone for config in LARGE_RECIPES.values()}


@pytest.mark.parametrize("name", LARGE_RECIPES)
def test_recipe_trains_and_evaluates(name, trees, tmp_path, monkeypatch):
    recipe = LARGE_RECIPES[name]
    changes: dict[str, object] = {"optim.batch_size": BATCH, "optim.epochs": 1}
    if hasattr(recipe.method, "queue_size"):
        changes["method.queue_size"] = 2 * BATCH
    if name not in AT_DEPTH:
        changes["model.backbone"] = "resnet8_stride2"
        changes["model.batch_norm"] = f"ghost:{BATCH // 2}"
    config = override(recipe, changes)
    if config.model.pretrained:
        start = build_backbone(config.model.backbone)[0].state_dict()
        torch.save(start, tmp_path / "start.pth")
        monkeypatch.setenv("LTLIB_PRETRAINED", str(tmp_path / "start.pth"))

    run_dir = open_run(config, name, tmp_path)
    result = train(
        config, run_dir, data_root=trees[config.data.dataset], device="cpu", num_workers=0
    )

    assert 0 <= result["last"]["all"] <= 1
    history = pd.read_csv(run_dir / "history.csv")
    assert history.filter(like="loss").notna().all(axis=None)
    assert load_arrays(run_dir / "predictions.npz")["logits"].shape == (10, NUM_CLASSES)
    trained = load_file(run_dir / "model.safetensors")
    # BCL, and CE and LA beside it, keep the last batch; GPaCo passes its two views apart.
    steps = 2 if config.optim.drop_last else 3
    passes = 2 if config.method.name == "gpaco" else 1
    assert trained["backbone.bn1.num_batches_tracked"] == steps * passes
    if config.model.pretrained:
        assert read_json(run_dir / "provenance.json")["pretrained"]["file"] == "start.pth"
        frozen, learnt = "layer1.0.conv1.weight", "bn1.weight"
        assert torch.equal(trained[f"backbone.{frozen}"], start[frozen])
        assert not torch.equal(trained[f"backbone.{learnt}"], start[learnt])


@pytest.mark.parametrize(
    "name",
    [
        "bcl-imagenet_lt-resnext50-rand-rand",
        "proco-inaturalist18-resnet50",
        "paco-places_lt-resnet152",
        "gpaco-imagenet-resnet50",
    ],
)
def test_smoke_of_a_large_recipe_needs_neither_images_nor_weights(name, tmp_path, monkeypatch):
    monkeypatch.delenv("LTLIB_PRETRAINED", raising=False)
    config = smoke(LARGE_RECIPES[name], epochs=1)
    result = train(config, open_run(config, name, tmp_path), device="cpu", num_workers=0)
    assert 0 <= result["last"]["all"] <= 1
