import pytest

from ltlib.config import config_hash
from ltlib.data import long_tailed_counts
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


def test_every_cifar_row_of_the_papers_has_a_recipe():
    for method in ("ce", "la", "bcl", "proco"):
        for dataset in ("cifar10", "cifar100"):
            for factor in (100, 50, 10):
                config = RECIPES[f"{method}-{dataset}-if{factor}"]
                assert config.method.name == method
                assert (config.data.dataset, config.data.imbalance_factor) == (dataset, factor)
    assert {f"paco-cifar100-if{factor}" for factor in (100, 50, 10)} <= set(RECIPES)
    assert RECIPES["proco-cifar100-if100-400ep"].optim.epochs == 400


@pytest.mark.parametrize("name", ["bcl_cifar_lt", "proco_cifar_lt", "paco_cifar_lt"])
def test_every_row_of_a_paper_table_finds_its_published_number(name):
    for row in TABLES[name].rows:
        published = published_row(row)
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


def test_unknown_names_are_answered_with_near_ones():
    with pytest.raises(ValueError, match="unknown recipe 'bcl-cifar100'.*bcl-cifar100-if100"):
        get_recipe("bcl-cifar100")
    with pytest.raises(ValueError, match="unknown table 'proco_cifar'.*proco_cifar_lt"):
        get_table("proco_cifar")
