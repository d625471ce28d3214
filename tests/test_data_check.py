"""``data check``: what is missing, damaged or stale."""

import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from ltlib import cli
from ltlib.config import DataConfig
from ltlib.data import check_dataset, pack_dataset

CONFIG = DataConfig(dataset="imagenet_lt")


def _check(*arguments) -> tuple[int, list[str]]:
    result = CliRunner().invoke(cli.app, ["data", "check", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.stdout.splitlines()


def test_a_good_tree_is_counted_and_its_manifest_written(tree):
    code, lines = _check("imagenet_lt", "--data-root", tree)
    assert code == 0
    assert lines == [
        "imagenet_lt train: 78 images of 10 classes, 20 to 2 a class; 0 many, 1 medium, 9 few",
        f"  {tree}/ImageNet_LT_train.txt is an unknown list; the official one names 115,846 images",
        "imagenet_lt val: 20 images of 10 classes, 2 to 2 a class",
        f"  {tree}/ImageNet_LT_val.txt is an unknown list; the official one names 20,000 images",
        "imagenet_lt test: 20 images of 10 classes, 2 to 2 a class",
        f"  {tree}/ImageNet_LT_test.txt is an unknown list; the official one names 50,000 images",
        f"manifest: {tree}/imagenet_lt-manifest.json",
    ]
    manifest = json.loads((tree / "imagenet_lt-manifest.json").read_text())
    train = manifest["splits"][0]
    assert train["class_counts"] == [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]
    assert train["missing"] == train["damaged"] == []
    assert len(train["blob_id"]) == 40


def test_a_broken_tree_is_described_and_exits_with_1(tree, tmp_path):
    first = tree / "train" / "n01440764"
    for number in range(2, 9):
        (first / f"n01440764_{number}.JPEG").unlink()
    (first / "n01440764_1.JPEG").write_bytes(b"")
    test = sorted((tree / "val").rglob("*.JPEG"))[0]
    test.write_bytes(test.read_bytes()[:-300])
    code, lines = _check("imagenet_lt", "--data-root", tree, "--manifest", tmp_path / "m.json")
    assert code == 1
    assert lines[2:10] == [
        "  7 missing, of which:",
        *(f"    train/n01440764/n01440764_{number}.JPEG" for number in range(2, 7)),
        "  1 damaged:",
        f"    {first}/n01440764_1.JPEG cannot be decoded: it is empty",
    ]
    damaged = f"{test} cannot be decoded: image file is truncated"
    assert lines[-2].startswith(f"    {damaged}")
    splits = json.loads((tmp_path / "m.json").read_text())["splits"]
    assert [len(split["missing"]) for split in splits] == [7, 0, 0]
    assert splits[2]["damaged"][0].startswith(damaged)
    # Not decoded, a truncated file looks like another.
    code, lines = _check("imagenet_lt", "--data-root", tree, "--no-decode")
    assert (code, sum("damaged" in line for line in lines)) == (1, 1)


def test_the_digest_tells_whether_files_changed_not_where_they_lie(tree, tmp_path):
    def digests(folder):
        reports, _ = check_dataset(CONFIG, folder, decode=False)
        return [report.digest for report in reports]

    before = digests(tree)
    moved = shutil.copytree(tree, tmp_path / "moved")
    assert digests(moved) == before
    pack_dataset("imagenet_lt", moved)
    assert digests(moved) == before
    file = tree / "train" / "n01440764" / "n01440764_1.JPEG"
    file.write_bytes(file.read_bytes() + b"\0")
    after = digests(tree)
    assert after[0] != before[0]
    assert after[1:] == before[1:]


def test_validation_lists_are_not_needed(tree):
    (tree / "ImageNet_LT_val.txt").unlink()
    reports, folder = check_dataset(CONFIG, tree)
    assert [report.split for report in reports] == ["train", "test"]
    assert folder == tree


def test_a_name_that_is_no_utf8_is_found_or_reported(tree):
    file = tree / "ImageNet_LT_train.txt"
    file.write_bytes(file.read_bytes().replace(b"n01440764_1.", b"n01440764_\xe4."))
    code, lines = _check("imagenet_lt", "--data-root", tree)
    assert "    train/n01440764/n01440764_\\udce4.JPEG" in lines
    name = "train/n01440764/n01440764_\udce4.JPEG"
    manifest = json.loads((tree / "imagenet_lt-manifest.json").read_text())
    assert (code, manifest["splits"][0]["missing"]) == (1, [name])
    (tree / "train" / "n01440764" / "n01440764_1.JPEG").rename(tree / name)
    assert _check("imagenet_lt", "--data-root", tree)[0] == 0


def test_a_read_only_folder_is_left_alone_even_by_root(tree):
    before = sorted(tree.iterdir())
    tree.chmod(0o555)
    try:
        code, lines = _check("imagenet_lt", "--data-root", tree)
        assert code == 0
        assert not any("manifest" in line for line in lines)
        with pytest.raises(PermissionError, match="is read-only; name another folder"):
            pack_dataset("imagenet_lt", tree)
    finally:
        tree.chmod(0o755)
    assert sorted(tree.iterdir()) == before


def test_small_data_sets_and_ones_own_folders_are_checked_too(tree):
    code, lines = _check("digits", "--imbalance-factor", 50)
    assert (code, lines[0]) == (
        0,
        "digits train: 390 images of 10 classes, 138 to 2 a class; 1 many, 4 medium, 5 few",
    )
    code, lines = _check("image_folder", "--data-root", tree)
    assert code == 0
    # Its class folders hold the images of the training and of the validation list.
    assert lines[0].startswith("image_folder train: 98 images of 10 classes, 22 to 4 a class")


def test_the_check_finds_a_pack_older_than_its_list(tree):
    pack_dataset("imagenet_lt", tree)
    file = tree / "ImageNet_LT_train.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([*lines[1:], lines[0]]))
    code, lines = _check("imagenet_lt", "--data-root", tree)
    assert code == 1
    assert "  the pack holds other images than the files beside it; pack again" in lines


def test_an_undecodable_image_of_a_parquet_file_is_numbered(tmp_path):
    Image.new("RGB", (32, 32)).save(tmp_path / "a.png")
    rows = [{"bytes": (tmp_path / "a.png").read_bytes()}] * 9 + [{"bytes": b"x"}]
    for split in ("train", "test"):
        table = pa.table({"img": rows, "label": list(range(10))})
        pq.write_table(table, tmp_path / f"{split}-00000-of-00001.parquet")
    reports, _ = check_dataset(DataConfig(dataset="cifar10"), tmp_path)
    assert [report.damaged for report in reports] == [
        ["image 9 cannot be decoded: cannot identify image file"]
    ] * 2
