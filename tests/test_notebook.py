from pathlib import Path

import pytest

from ltlib import notebook

ROOT = Path(__file__).parents[1]


def setup(table="proco_cifar_lt", cells=(), **parameters):
    return notebook.setup(parameters | {"In": list(cells)}, notebook="page", table=table)


def test_relative_folders_start_at_the_projects_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = setup(runs_dir="runs", figures_dir="figures", data_root="")
    assert settings.runs_dir == ROOT / "runs"
    assert settings.figures_dir == ROOT / "figures" / "page"
    assert settings.execution["data_root"] is None
    assert setup(runs_dir=str(tmp_path)).runs_dir == tmp_path


def test_lists_and_dicts_arrive_as_text():
    settings = setup(seeds="[3, 4]", overrides='{"optim.epochs": 2}')
    assert settings.seeds == [3, 4]
    assert settings.overrides == {"optim.epochs": 2}


@pytest.mark.parametrize(
    ("parameters", "sentence"),
    [
        ({"seeds": "[1, x]"}, "parameter 'seeds': not JSON .*got"),
        ({"seeds": []}, "parameter 'seeds': .*at least 1 item"),
        ({"seeds": "7"}, "parameter 'seeds': .*valid list, got '7'"),
        ({"num_processes": "two"}, "parameter 'num_processes': .*got 'two'"),
        ({"overrides": {"data.datasett": 1}}, "did you mean 'data.dataset'"),
        ({"preset": "smok"}, "preset must be 'paper' or 'smoke'"),
    ],
)
def test_bad_values_are_one_sentence(parameters, sentence):
    with pytest.raises(ValueError, match=sentence):
        setup(**parameters)


def test_unknown_injected_name_is_an_error_but_other_globals_are_not():
    cells = ["preset = 'paper'", "# Parameters\nseed = 3\n"]
    with pytest.raises(ValueError, match="unknown parameter 'seed'; did you mean 'seeds'"):
        setup(cells=cells, seed=3)
    assert setup(cells=["x = 1"], x=1).preset == "paper"


def test_smoke_runs_are_marked():
    assert setup(preset="smoke").watermark == "smoke run on digits, not a result"
    assert setup(preset="paper").watermark is None
