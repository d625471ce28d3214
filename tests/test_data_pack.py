"""``data pack``: batches equal to those of the files, and nothing half done or changed is used."""

import pickle
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
import torch
from typer.testing import CliRunner

from ltlib import cli
from ltlib.config import DataConfig
from ltlib.data import ImageError, check_dataset, load_dataset, pack_dataset, train_loader
from ltlib.data import test_loader as loader_of
from ltlib.data.pack import Pack

CONFIG = DataConfig(dataset="imagenet_lt")


def _batches(folder, name="imagenet_lt", num_workers=0) -> list:
    train, test = (load_dataset(DataConfig(dataset=name), folder, part) for part in (True, False))
    assert train.class_names == test.class_names
    options = {"batch_size": 16, "seed": 3, "drop_last": True, "num_workers": num_workers}
    loaders = train_loader(train, ["sim_proco"] * 2, **options), loader_of(test, batch_size=9)
    return [[*loaders[0]], [*loaders[1]], train.pixel_format]


def _equal(one, other) -> bool:
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    return one == other


@pytest.mark.parametrize("name", ["imagenet_lt", "image_folder"])
def test_a_pack_alone_gives_the_batches_of_its_files_bit_for_bit(tree, tmp_path, name):
    loose = _batches(tree, name)
    paths = pack_dataset(name, tree, tmp_path / "fast")
    assert [path.name for path in paths] == [f"{name}-train.arrow", f"{name}-test.arrow"]
    assert sorted((tmp_path / "fast").iterdir()) == sorted(paths)
    shutil.rmtree(tree)
    assert _equal(loose, _batches(tmp_path / "fast", name))
    assert _equal(loose, _batches(tmp_path / "fast", name, num_workers=2))
    reports, _ = check_dataset(DataConfig(dataset=name), tmp_path / "fast")
    assert [report.pack_file for report in reports] == list(map(str, paths))
    assert all(report.is_good for report in reports)


def test_a_tail_is_cut_from_a_pack_as_from_files(tree):
    config = DataConfig(dataset="image_folder", imbalance_factor=5)
    loose = load_dataset(config, tree)
    pack_dataset("image_folder", tree)
    packed = load_dataset(config, tree)
    assert isinstance(packed.images.sources, Pack)
    assert packed.targets.tolist() == loose.targets.tolist()
    np.testing.assert_array_equal(packed.images.decoded(), loose.images.decoded())


def test_a_pack_is_handed_to_a_worker_by_its_path(tree):
    path, _ = pack_dataset("imagenet_lt", tree)
    pack = Pack(path)
    content = pickle.dumps(pack)
    assert len(content) < 500
    again = pickle.loads(content)
    assert [again.read(row) for row in range(78)] == [pack.read(row) for row in range(78)]
    assert again.key(0) == "train/n01440764/n01440764_1.JPEG"
    assert again.size(0) == (tree / again.key(0)).stat().st_size


def test_an_interrupted_pack_leaves_nothing_and_does_not_hurt_a_good_one(tree, monkeypatch):
    (tree / "train" / "n01440764" / "n01440764_9.JPEG").rename(tree / "kept")
    with pytest.raises(FileNotFoundError, match="n01440764_9.JPEG"):
        pack_dataset("imagenet_lt", tree)
    assert not list(tree.glob("*.arrow")) + list(tree.glob("*.unfinished"))
    (tree / "kept").rename(tree / "train" / "n01440764" / "n01440764_9.JPEG")
    path, _ = pack_dataset("imagenet_lt", tree)
    good = path.read_bytes()

    def interrupt(self, row):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pack, "read", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pack_dataset("imagenet_lt", tree)
    assert path.read_bytes() == good
    assert not list(tree.glob("*.unfinished"))


def test_a_pack_that_reads_back_otherwise_is_not_kept(tree, monkeypatch):
    read = Pack.read
    monkeypatch.setattr(Pack, "read", lambda self, row: read(self, row)[:-1])
    with pytest.raises(OSError, match="was not written right; check the disk"):
        pack_dataset("imagenet_lt", tree)
    assert not list(tree.glob("*.arrow"))


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_half_a_pack_is_not_taken_for_a_whole(tree, keep):
    path, _ = pack_dataset("imagenet_lt", tree)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"imagenet_lt-train.arrow is no whole pack .*; delete it"):
        load_dataset(CONFIG, tree)


def test_another_arrow_file_is_no_pack(tree):
    table = pa.table({"name": ["a"], "target": [0]})
    with pa.ipc.new_file(tree / "imagenet_lt-train.arrow", table.schema) as writer:
        writer.write(table)
    with pytest.raises(ValueError, match="is no whole pack"):
        load_dataset(CONFIG, tree)


def test_a_changed_byte_in_a_pack_stops_training_and_is_named_by_the_check(tree):
    path, _ = pack_dataset("imagenet_lt", tree)
    file = tree / "train" / "n01440764" / "n01440764_3.JPEG"
    content = bytearray(path.read_bytes())
    content[content.index(file.read_bytes()) + 700] ^= 1
    path.write_bytes(content)
    sentence = f"train/n01440764/n01440764_3.JPEG in {path} cannot be decoded: its bytes have "
    with pytest.raises(ImageError, match=sentence):
        load_dataset(CONFIG, tree).picture(2)
    reports, _ = check_dataset(CONFIG, tree)
    assert [len(report.damaged) for report in reports] == [1, 0, 0]
    assert reports[0].damaged[0].startswith(sentence)


def test_the_command_prints_the_packs(tree, tmp_path):
    arguments = ["data", "pack", "imagenet_lt", "--data-root", str(tree), "--output", "fast"]
    result = CliRunner().invoke(cli.app, arguments)
    assert result.stdout.splitlines() == [
        "fast/imagenet_lt-train.arrow",
        "fast/imagenet_lt-test.arrow",
    ]


def test_data_sets_in_one_file_are_not_packed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ltlib", "data", "pack", "digits", "--output", "fast"])
    with pytest.raises(SystemExit) as caught:
        cli.main()
    assert caught.value.code == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: only data sets of one file per image can be packed"
    )
    assert not (tmp_path / "fast").exists()
