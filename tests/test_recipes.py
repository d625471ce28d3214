import pytest

from ltlib.config import ProjectorConfig, config_hash
from ltlib.data import long_tailed_counts
from ltlib.models import BACKBONES
from ltlib.recipes import (
    RECIPES,
    TABLES,
    get_recipe,
    get_table,
    published_results,
    published_row,
    reference_curves,
    smoke,
)
from ltlib.recipes.large import LARGE_RECIPES
from ltlib.views import VIEWS

# The authors' scripts, typed a second time: backbone, images per GPU, epochs, warm-up, global
# batch, learning rate, weight decay, temperature, alpha (weight of the contrast), and the views,
# the classifier's first.
LARGE = """
ce-imagenet_lt-resnet50             resnet50         64  90  0 256 .1  5e-4 -   -    cls
ce-imagenet_lt-resnext50            resnext50_32x4d  64  90  0 256 .1  5e-4 -   -    cls
la-imagenet_lt-resnet50             resnet50         64  90  0 256 .1  5e-4 -   -    cls
la-imagenet_lt-resnext50            resnext50_32x4d  64  90  0 256 .1  5e-4 -   -    cls
bcl-imagenet_lt-resnet50            resnet50         64  90  0 256 .1  5e-4 .07 .35  cls sim sim
bcl-imagenet_lt-resnext50-sim-sim   resnext50_32x4d  64  90  0 256 .1  5e-4 .07 .35  cls sim sim
bcl-imagenet_lt-resnext50-sim-rand  resnext50_32x4d  64  90  0 256 .1  5e-4 .07 .35  cls rand sim
bcl-imagenet_lt-resnext50-rand-rand resnext50_32x4d  64  90  0 256 .1  5e-4 .07 .35  cls rand rand
bcl-inaturalist18-resnet50          resnet50         64 100  0 256 .2  1e-4 .07 .35  cls sim sim
proco-imagenet_lt-resnet50          resnet50         32  90  0 256 .1  5e-4 .07 1    cls sim sim
proco-imagenet_lt-resnet50-180ep    resnet50         32 180  0 256 .1  5e-4 .07 1    cls sim sim
proco-imagenet_lt-resnext50         resnext50_32x4d  32  90  0 256 .1  5e-4 .07 1    cls sim sim
proco-inaturalist18-resnet50        resnet50         32  90  0 256 .2  1e-4 .07 1    cls sim sim
paco-imagenet_lt-resnet50           resnet50         32 400 10 128 .02 5e-4 .2  .05  cls blur
paco-imagenet_lt-resnext50          resnext50_32x4d  32 400 10 128 .02 5e-4 .07 .05  stack blur
paco-imagenet_lt-resnext101         resnext101_32x4d 32 400 10 128 .03 5e-4 .2  .05  stack_n3 blur
paco-inaturalist18-resnet50         resnet50         32 400 10 128 .02 1e-4 .2  .05  cls blur
paco-inaturalist18-resnet152        resnet152        32 400 10 128 .02 1e-4 .2  .05  cls blur
paco-places_lt-resnet152            resnet152        32  30  5 128 .02 5e-4 .2  .05  blur blur
paco-imagenet-resnet50              resnet50         64 400 10 256 .04 1e-4 .2  .05  cls blur
paco-imagenet-resnet101             resnet101        64 400 10 256 .04 1e-4 .2  .05  cls blur
paco-imagenet-resnet200             resnet200        64 400 10 256 .04 1e-4 .2  .05  n3_m12 blur
gpaco-imagenet_lt-resnet50          resnet50         32 400 10 128 .04 5e-4 .2  .045 cls stack
gpaco-imagenet_lt-resnext50         resnext50_32x4d  32 400 10 128 .06 5e-4 .2  .05  cls_n3 stack_n3
gpaco-imagenet_lt-resnext101        resnext101_32x4d 32 400 10 128 .06 5e-4 .2  .05  cls_n5 stack_n5
gpaco-inaturalist18-resnet50        resnet50         16 400 10 128 .04 1e-4 .2  .05  cls blur
gpaco-inaturalist18-resnet152       resnet152        32 400 10 256 .08 1e-4 .2  .05  cls blur
gpaco-places_lt-resnet152           resnet152        32  30  5 128 .02 5e-4 .2  .02  blur blur
gpaco-imagenet-resnet50             resnet50         64 400 10 512 .08 1e-4 .2  .05  cls stack
"""
VIEWS_OF = {
    "cls": "randcls",
    "cls_n3": "randcls_n3",
    "cls_n5": "randcls_n5",
    "sim": "sim_proco",
    "rand": "rand_bcl",
    "blur": "sim_paco_large",
    "stack": "randclsstack",
    "stack_n3": "randclsstack_n3",
    "n3_m12": "randclsstack_n3_m12",
    "stack_n5": "randclsstack_n5",
}


@pytest.mark.parametrize("line", LARGE.split("\n")[1:-1], ids=lambda line: line.split()[0])
def test_large_recipes_are_the_authors_scripts(line):
    name, backbone, per_gpu, *numbers, temperature, alpha = line.split()[:10]
    config = RECIPES[name]
    optim = config.optim
    assert config.data.dataset == name.split("-")[1]
    assert config.data.imbalance_factor == 1
    assert config.data.views == tuple(VIEWS_OF[view] for view in line.split()[10:])
    assert set(config.data.views) <= set(VIEWS)
    assert config.model.backbone == backbone
    assert backbone in BACKBONES
    assert config.model.batch_norm == f"ghost:{per_gpu}"
    given = (optim.epochs, optim.warmup_epochs, optim.batch_size, optim.lr, optim.weight_decay)
    assert given == tuple(map(float, numbers))
    assert (optim.schedule, optim.momentum, optim.late_boundaries) == ("cosine", 0.9, False)
    assert optim.drop_last == (config.method.name in ("proco", "paco", "gpaco"))
    if temperature != "-":
        weight = "alpha" if "paco" in config.method.name else "contrast_weight"
        assert config.method.temperature == float(temperature)
        assert getattr(config.method, weight) == float(alpha)


def test_the_list_of_large_recipes_is_complete():
    assert {line.split()[0] for line in LARGE.split("\n")[1:-1]} == set(LARGE_RECIPES)


@pytest.mark.parametrize("name", LARGE_RECIPES)
def test_heads_queue_and_start_of_large_recipes_are_the_authors(name):
    config = RECIPES[name]
    method, dataset, *_ = name.split("-")
    parametric = method in ("paco", "gpaco")
    assert config.model.classifier == ("linear" if parametric else "cosine")
    assert config.model.classifier_scale == 30
    if method in ("bcl", "proco"):
        assert config.method.projector == ProjectorConfig(hidden_dim=2048, embedding_dim=1024)
        assert config.method.ce_weight == 1
    if method == "bcl":
        assert config.method.anchor_average == "sample"
    if parametric:
        layers = {"num_layers": 3, "batch_norm": False} if method == "gpaco" else {}
        expected = ProjectorConfig(hidden_dim=2048, embedding_dim=128, **layers)
        assert config.method.projector == expected
        assert (config.method.queue_size, config.method.beta, config.method.gamma) == (8192, 1, 1)
        assert config.method.logit_adjustment == (dataset != "imagenet")
    assert getattr(config.method, "momentum", 0.999) == 0.999
    smoothing = 0.1 if name == "gpaco-imagenet-resnet50" else 0
    assert getattr(config.method, "label_smoothing", smoothing) == smoothing
    start = (config.model.pretrained, config.model.trainable_convolutions)
    assert start == ((True, "last_block") if dataset == "places_lt" else (False, "all"))


def test_ce_and_la_on_imagenet_lt_are_bcl_without_contrast():
    for backbone, bcl in (("resnet50", ""), ("resnext50", "-sim-sim")):
        bcl = RECIPES[f"bcl-imagenet_lt-{backbone}{bcl}"]
        data = bcl.data.model_copy(update={"views": bcl.data.views[:1]})
        for name in ("ce", "la"):
            config = RECIPES[f"{name}-imagenet_lt-{backbone}"]
            assert config == bcl.model_copy(update={"data": data, "method": config.method})


def test_every_cifar_row_of_the_papers_has_a_recipe():
    for method in ("ce", "la", "bcl", "proco"):
        for dataset in ("cifar10", "cifar100"):
            for factor in (100, 50, 10):
                config = RECIPES[f"{method}-{dataset}-if{factor}"]
                assert config.method.name == method
                assert (config.data.dataset, config.data.imbalance_factor) == (dataset, factor)
    assert {f"paco-cifar100-if{factor}" for factor in (100, 50, 10)} <= set(RECIPES)
    assert RECIPES["proco-cifar100-if100-400ep"].optim.epochs == 400


@pytest.mark.parametrize("name", [name for name in TABLES if TABLES[name].paper])
def test_every_row_of_a_paper_table_finds_its_published_number(name):
    for row in TABLES[name].rows:
        published = published_row(row)
        if "-imagenet_lt-" in row.recipe and row.recipe[:2] in ("ce", "la"):
            assert published is None  # nobody trained them with this augmentation
            continue
        assert published is not None
        assert 40 < published["value"] < 95
        assert published["source"]
        assert published["confidence"] in ("authors", "quoted")


def test_known_published_numbers():
    values = {row.recipe: published_row(row) for table in TABLES.values() for row in table.rows}
    assert values["proco-cifar100-if100"]["value"] == 52.8
    assert values["proco-cifar100-if100-400ep"]["value"] == 54.2
    assert values["bcl-cifar100-if100"]["value"] == 51.93
    assert values["paco-cifar100-if50"]["value"] == 56.0
    assert values["ldam_drw-cifar100-if100"]["value"] == 48.99
    assert values["ce-digits-if50"] is None


PUBLISHED = {
    "bcl-imagenet_lt-resnet50": 56.0,
    "bcl-imagenet_lt-resnext50-sim-sim": 57.2,
    "bcl-imagenet_lt-resnext50-sim-rand": 57.2,
    "bcl-imagenet_lt-resnext50-rand-rand": 57.8,
    "bcl-inaturalist18-resnet50": 71.8,
    "proco-imagenet_lt-resnet50": 57.3,
    "proco-imagenet_lt-resnet50-180ep": 57.8,
    "proco-imagenet_lt-resnext50": 58.0,
    "proco-inaturalist18-resnet50": 73.5,
    "paco-imagenet_lt-resnet50": 57.0,
    "paco-imagenet_lt-resnext50": 58.2,
    "paco-imagenet_lt-resnext101": 60.0,
    "paco-inaturalist18-resnet50": 73.2,
    "paco-inaturalist18-resnet152": 75.2,
    "paco-places_lt-resnet152": 41.2,
    "paco-imagenet-resnet50": 79.3,
    "paco-imagenet-resnet101": 80.9,
    "paco-imagenet-resnet200": 81.8,
    "gpaco-imagenet_lt-resnet50": 58.5,
    "gpaco-imagenet_lt-resnext50": 58.9,
    "gpaco-imagenet_lt-resnext101": 60.8,
    "gpaco-inaturalist18-resnet50": 75.4,
    "gpaco-inaturalist18-resnet152": 78.1,
    "gpaco-places_lt-resnet152": 41.7,
    "gpaco-imagenet-resnet50": 79.7,
}


def test_every_large_recipe_is_a_row_with_the_papers_number():
    rows = {row.recipe: row for table in TABLES.values() for row in table.rows}
    assert set(LARGE_RECIPES) <= set(rows)
    published = {name: published_row(rows[name]) for name in LARGE_RECIPES}
    found = {name: number["value"] for name, number in published.items() if number is not None}
    assert found == PUBLISHED


def test_baselines_have_the_rerun_under_their_own_augmentation_or_nothing():
    published = {row.recipe: published_row(row) for row in TABLES["baselines_cifar_lt"].rows}
    assert len(published) == 60
    rerun = {"ce", "ldam", "ce_drw", "ldam_drw", "la"}
    for recipe, number in published.items():
        assert (number is not None) == (recipe.split("-")[0] in rerun), recipe
        assert number is None or number["views_or_aug"] == "AutoAug+Cutout"


def test_baselines_differ_from_bcl_in_method_and_classifier_alone():
    bcl, scl = RECIPES["bcl-cifar100-if100"], RECIPES["scl-cifar100-if100"]
    for method in ("ce", "focal", "cb", "ldam", "ce_drw", "ldam_drw", "mixup", "la"):
        config = RECIPES[f"{method}-cifar100-if100"]
        assert config.optim == bcl.optim
        assert config.data == bcl.data.model_copy(update={"views": bcl.data.views[:1]})
    kcl = RECIPES["kcl-cifar100-if100"]
    assert kcl.model_copy(update={"method": scl.method}) == scl


def test_start_here_has_its_seven_methods():
    methods = [row.recipe.split("-")[0] for row in TABLES["start_here"].rows]
    assert methods == ["ce", "la", "scl", "bcl", "proco", "paco", "gpaco"]


def test_published_numbers_name_source_and_confidence():
    results = published_results()
    assert len(results) > 600
    assert results[["source", "confidence", "value"]].notna().all().all()


def test_proco_trains_as_its_logs_say():
    config = RECIPES["proco-cifar100-if100"]
    images = long_tailed_counts(500, 100, 100).sum()
    assert images // config.optim.batch_size == 42
    assert config.optim.drop_last
    milestones = [share * config.optim.epochs for share in config.optim.milestones]
    assert milestones == [160, 180]
    longer = RECIPES["proco-cifar100-if100-400ep"].optim
    assert [share * longer.epochs for share in longer.milestones] == [360, 380]


def test_reference_curves_hold_the_published_maximum():
    best = reference_curves().groupby("recipe")["all"].max()
    for row in TABLES["proco_cifar_lt"].rows:
        assert 100 * best[row.recipe] == pytest.approx(published_row(row)["value"], abs=0.06)


def test_recipes_of_one_name_differ_from_all_others():
    hashes = [config_hash(config) for config in RECIPES.values()]
    assert len(set(hashes)) == len(hashes)


def test_smoke_keeps_the_method_and_shrinks_the_rest():
    for config in RECIPES.values():
        small = smoke(config)
        assert small.method.name == config.method.name
        assert len(small.data.views) == len(config.data.views)
        assert (small.data.dataset, small.optim.epochs) == ("digits", 2)
        model = small.model
        assert (model.backbone, model.pretrained) == ("resnet8_stride2", False)
        assert model.trainable_convolutions == "all"


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ValueError, match="unknown recipe 'bcl-cifar100'.*bcl-cifar100-if100"):
        get_recipe("bcl-cifar100")
    with pytest.raises(ValueError, match="unknown table 'proco_cifar'.*proco_cifar_lt"):
        get_table("proco_cifar")
