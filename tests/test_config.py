import pytest
from hypothesis import given
from hypothesis import strategies as st

from ltlib.config import (
    BalancedContrastConfig,
    DataConfig,
    ExperimentConfig,
    OptimConfig,
    ParametricContrastConfig,
    config_hash,
    flatten,
    override,
)
from ltlib.recipes import RECIPES

BCL = RECIPES["bcl-cifar100-if100"]


def test_override_changes_one_field_and_leaves_the_original():
    changed = override(BCL, {"optim.epochs": 2})
    assert changed.optim.epochs == 2
    assert BCL.optim.epochs == 200
    assert override(changed, {"optim.epochs": 200}) == BCL


@pytest.mark.parametrize(
    ("field", "text", "value"),
    [
        ("optim.lr", "1e-4", 1e-4),
        ("optim.drop_last", "true", True),
        ("method.class_averaging", "false", False),
        ("data.views", '["test", "test", "test"]', ("test",) * 3),
        ("method.projector.embedding_dim", "64", 64),
        ("seed", "7", 7),
    ],
)
def test_override_reads_text_as_the_field_type(field, text, value):
    node = override(BCL, {field: text})
    for name in field.split("."):
        node = getattr(node, name)
    assert node == value


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"optim.epoch": 2}, "unknown field 'optim.epoch'; did you mean 'optim.epochs'?"),
        ({"optim": 2}, "optim: "),
        ({"optim.epochs.x": 2}, "unknown field"),
        ({"optim.epochs": "many"}, "optim.epochs: .*integer.*got 'many'"),
        ({"method.temperature": -1}, "method.temperature: .*greater than 0, got -1"),
        ({"method.anchor_average": "batch"}, "'sample' or 'class', got 'batch'"),
        ({"data.imbalance_factor": 0.01}, "greater than or equal to 1, got 0.01"),
        ({"method.name": "ce"}, "start from a recipe of that method"),
    ],
)
def test_bad_override_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        override(BCL, changes)
    assert "\n" not in str(caught.value)


def test_config_is_frozen_and_refuses_unknown_fields():
    with pytest.raises(ValueError, match="frozen"):
        BCL.optim.epochs = 3
    with pytest.raises(ValueError, match="Extra inputs"):
        OptimConfig(epoch=3)


def test_queue_must_hold_whole_batches():
    with pytest.raises(ValueError, match="multiple of optim.batch_size, got 1000 and 256"):
        ExperimentConfig(method=ParametricContrastConfig(queue_size=1000))


def test_hash_ignores_the_seed_and_nothing_else():
    assert config_hash(override(BCL, {"seed": 5})) == config_hash(BCL)
    hashes = {config_hash(config) for config in RECIPES.values()}
    different = {config.model_dump_json() for config in RECIPES.values()}
    assert len(hashes) == len(different)


@given(
    field=st.sampled_from([f for f in flatten(BCL) if f not in ("seed", "method.name")]),
    value=st.integers(min_value=2, max_value=10**6),
)
def test_hash_changes_with_any_field_that_changes(field, value):
    try:
        changed = override(BCL, {field: value})
    except ValueError:
        return  # the field is not a number, or out of its range
    assert (config_hash(changed) == config_hash(BCL)) == (changed == BCL)


PINNED = {
    "ce-cifar10-if100": "0a5f57a14e",
    "bcl-cifar100-if100": "235faf2930",
    "proco-cifar100-if100-400ep": "3065502cb6",
    "paco-cifar100-if50": "e3618c06aa",
    "gpaco-digits-if50": "d5bb9ed34c",
    "ldam_drw-digits-if50": "13a5cefd3f",
}


@pytest.mark.parametrize(("name", "pinned"), PINNED.items())
def test_runs_of_earlier_versions_keep_their_folders(name, pinned):
    assert config_hash(RECIPES[name]) == pinned


def test_hash_tells_methods_with_equal_fields_apart():
    names = {name: RECIPES[f"{name}-digits-if50"] for name in ("ce", "la")}
    equal = [ExperimentConfig(data=DataConfig(), method=config.method) for config in names.values()]
    assert config_hash(equal[0]) != config_hash(equal[1])


def test_config_survives_json():
    for config in RECIPES.values():
        assert ExperimentConfig.model_validate_json(config.model_dump_json()) == config


def test_flatten_names_every_field_that_override_takes():
    values = flatten(BCL)
    assert values["method.projector.hidden_dim"] == 512
    for name, value in values.items():
        if name != "method.name":
            assert override(BCL, {name: value}) == BCL


def test_every_field_with_a_choice_is_documented():
    fields = BalancedContrastConfig.model_fields
    assert fields["anchor_average"].description
