"""Long tails, readers of data sets, and the order of batches."""

import gzip
import hashlib
import io
import itertools
import multiprocessing
import os
import pickle
import random
import signal
import struct
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
from PIL import Image
from sklearn.datasets import load_digits
from torch.testing import assert_close
from torchvision import transforms as T

from ltlib import data
from ltlib.config import DataConfig
from ltlib.data import (
    DATASETS,
    EncodedImages,
    EpochBatches,
    ImageSet,
    class_prior,
    epoch_order,
    load_dataset,
    long_tailed_counts,
    long_tailed_indices,
    takes_batched_views,
    train_loader,
)
from ltlib.data.sources import InMemory
from ltlib.views import BatchedViews, MultiView

CIFAR100 = Path(os.environ.get("LTLIB_DATA", "absent")) / "cifar100"


@pytest.fixture(autouse=True)
def _no_data_of_the_machine(monkeypatch, tmp_path, request):
    if "real_data" not in request.fixturenames:
        monkeypatch.delenv("LTLIB_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ltlib.data.datasets._DEBIAN_DATASETS", tmp_path / "debian")


@pytest.fixture
def real_data():
    if not CIFAR100.is_dir():
        pytest.skip("LTLIB_DATA names no folder with cifar100")


@pytest.fixture
def random_pixels() -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (12, 32, 32, 3), dtype=np.uint8)


def _image_set(num_samples: int = 50, num_classes: int = 5) -> ImageSet:
    generator = np.random.RandomState(0)
    images = generator.randint(0, 256, (num_samples, 32, 32, 3), dtype=np.uint8)
    targets = np.arange(num_samples) % num_classes
    names = tuple(f"class {index}" for index in range(num_classes))
    return ImageSet(images, targets, names, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))


@pytest.mark.parametrize(
    ("num_classes", "factor", "total", "smallest", "many_medium_few"),
    [
        (100, 100, 10_847, 5, (35, 35, 30)),
        (100, 50, 12_608, 10, (41, 41, 18)),
        (100, 10, 19_573, 50, (69, 31, 0)),
        (10, 100, 12_406, 50, (8, 2, 0)),
        (10, 50, 13_996, 100, (9, 1, 0)),
        (10, 10, 20_431, 500, (10, 0, 0)),
    ],
)
def test_cifar_tails_have_the_published_counts(
    num_classes, factor, total, smallest, many_medium_few
):
    counts = long_tailed_counts(50_000 // num_classes, factor, num_classes)
    assert (counts.sum(), counts[0], counts[-1]) == (total, 50_000 // num_classes, smallest)
    many, few = (counts > 100).sum(), (counts < 20).sum()
    assert (many, num_classes - many - few, few) == many_medium_few


def test_counts_are_the_authors_arithmetic_to_the_last_image():
    for inverse in (0.01, 0.02, 0.05, 0.1, 0.005):
        authors = [int(5000.0 * inverse ** (index / 99.0)) for index in range(100)]
        assert long_tailed_counts(5000, 1 / inverse, 100).tolist() == authors


def test_a_step_tail_cuts_the_second_half_of_the_classes():
    assert long_tailed_counts(500, 100, 6, "step").tolist() == [500] * 3 + [5] * 3
    assert long_tailed_counts(500, 100, 5, "step").tolist() == [500] * 3 + [5] * 2


def test_a_factor_of_one_keeps_every_image():
    assert long_tailed_counts(7, 1, 3).tolist() == [7, 7, 7]
    assert long_tailed_counts(7, 100, 1).tolist() == [7]


def test_impossible_tails_are_refused_in_one_sentence():
    with pytest.raises(ValueError, match=r"imbalance_factor must be >= 1, got 0.01"):
        long_tailed_counts(500, 0.01, 100)
    with pytest.raises(ValueError, match=r"1000 leaves class 90 without an image.* only 500"):
        long_tailed_counts(500, 1000, 100)
    with pytest.raises(ValueError, match=r"imbalance_type 'linear'; choose from exponential, step"):
        long_tailed_counts(500, 10, 100, "linear")


def test_class_prior_is_the_share_of_each_class():
    for counts in ([6, 3, 1], np.array([6, 3, 1]), torch.tensor([6, 3, 1])):
        assert_close(class_prior(counts), torch.tensor([0.6, 0.3, 0.1]))
    prior = class_prior(long_tailed_counts(500, 100, 100))
    assert prior.dtype == torch.float32
    assert_close(prior.sum(), torch.tensor(1.0))
    with pytest.raises(ValueError, match="class 1 has no training image"):
        class_prior([3, 0])


def test_the_kept_images_are_those_of_the_authors_procedure():
    targets = np.random.RandomState(1).permutation(np.arange(1000) % 10)
    counts = long_tailed_counts(100, 10, 10)
    state = np.random.get_state()
    np.random.seed(0)
    expected = []
    for target in np.unique(targets):
        of_class = np.where(targets == target)[0]
        np.random.shuffle(of_class)
        expected.extend(of_class[: counts[target]])
    np.random.set_state(state)
    assert long_tailed_indices(targets, counts, split_seed=0).tolist() == expected


def test_the_images_kept_with_split_seed_0_never_change():
    targets = np.arange(50_000) % 100
    indices = long_tailed_indices(targets, long_tailed_counts(500, 100, 100), split_seed=0)
    assert hashlib.sha256(indices.astype("<i8").tobytes()).hexdigest()[:16] == "7ebcb6242d814b39"
    assert len(set(indices.tolist())) == 10_847
    assert (np.diff(targets[indices]) >= 0).all()


def test_another_split_seed_keeps_other_images_and_leaves_numpys_generator_alone():
    targets = np.arange(500) % 5
    counts = np.array([100, 50, 20, 10, 5])
    np.random.seed(3)
    expected = np.random.rand()
    np.random.seed(3)
    first, second = (long_tailed_indices(targets, counts, split_seed) for split_seed in (0, 1))
    assert np.random.rand() == expected
    assert np.bincount(targets[second]).tolist() == counts.tolist()
    assert set(first[100:]) != set(second[100:])


def test_an_image_set_counts_its_classes_and_checks_its_targets():
    image_set = _image_set(7, 5)
    assert image_set.class_counts.tolist() == [2, 2, 1, 1, 1]
    assert image_set.take(np.array([5, 0, 1])).class_counts.tolist() == [2, 1, 0, 0, 0]
    assert image_set.pixel_format.size == 32
    images, names = image_set.images, image_set.class_names
    with pytest.raises(ValueError, match="target 5 of image 6 is outside the 5 classes"):
        ImageSet(images, np.array([0, 1, 2, 3, 4, 0, 5]), names, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="target -1 of image 0 is outside the 5 classes"):
        ImageSet(images, np.array([-1, 1, 2, 3, 4, 0, 4]), names, (0.0,) * 3, (1.0,) * 3)
    with pytest.raises(ValueError, match="7 images have 6 targets"):
        ImageSet(images, np.zeros(6, np.int64), names, (0.0,) * 3, (1.0,) * 3)


def _encoded(pixels: np.ndarray, file_format: str = "PNG") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, file_format, lossless=True)
    return stream.getvalue()


@pytest.mark.parametrize("file_format", ["PNG", "WebP"])
def test_encoded_images_decode_to_their_pixels(random_pixels, file_format):
    images = EncodedImages(
        InMemory([_encoded(pixels, file_format) for pixels in random_pixels]), 32
    )
    assert images.shape == (12, 32, 32, 3)
    np.testing.assert_array_equal(images.decoded(), random_pixels)
    np.testing.assert_array_equal(images.take(np.array([3, 1]))[0], random_pixels[3])


def test_other_shapes_are_scaled_and_cropped_to_their_centre():
    # Grey bands left and right of a white square: they are cropped, whatever the kernel's width.
    wide = np.full((64, 128, 3), 90, np.uint8)
    wide[:, 24:104] = 255
    decoded = EncodedImages(InMemory([_encoded(wide), _encoded(wide[..., 0])]), 32).decoded()
    assert decoded.shape == (2, 32, 32, 3)
    assert decoded.min() == 255


def test_digits_hold_out_forty_test_images_per_class():
    train, test = (load_dataset(DataConfig(), train=part) for part in (True, False))
    assert test.class_counts.tolist() == [40] * 10
    counts = np.bincount(load_digits().target)
    assert train.class_counts.tolist() == (counts - 40).tolist()
    assert train.class_names == tuple("0123456789")


def test_digits_are_scikit_learns_images_enlarged():
    train, test = (load_dataset(DataConfig(), train=part) for part in (True, False))
    images = np.concatenate([train.images, test.images])
    targets = np.concatenate([train.targets, test.targets])
    # Averages of 4x4 pixels undo the enlargement up to the blur of the bicubic kernel.
    small = images[..., 0].reshape(-1, 8, 4, 8, 4).mean(axis=(2, 4)) / 255 * 16
    originals = load_digits()
    flat = small.reshape(len(small), -1)
    distances = (flat**2).sum(1)[:, None] + (originals.data**2).sum(1) - 2 * flat @ originals.data.T
    nearest = distances.argmin(axis=1)
    assert len(set(nearest)) > 1790
    assert (originals.target[nearest] == targets).all()
    assert images.min() == 0
    assert images.max() == 255
    assert images[..., 0].mean() / 255 == pytest.approx(train.mean[0], abs=1e-3)
    assert images[..., 0].std() / 255 == pytest.approx(train.std[0], abs=1e-3)


def test_the_tail_is_cut_from_the_training_images_only_and_never_exceeds_a_class():
    config = DataConfig(imbalance_factor=10)
    full, cut = load_dataset(DataConfig()), load_dataset(config)
    expected = np.minimum(long_tailed_counts(full.class_counts.max(), 10, 10), full.class_counts)
    assert cut.class_counts.tolist() == expected.tolist()
    assert load_dataset(config, train=False).class_counts.tolist() == [40] * 10


def test_a_tail_too_long_for_the_data_set_is_refused():
    with pytest.raises(ValueError, match=r"imbalance_factor 500 leaves class \d without an image"):
        load_dataset(DataConfig(imbalance_factor=500))


def _write_pickles(folder: Path, original, monkeypatch, num_classes: int, key: str) -> np.ndarray:
    """Write CIFAR's files with 3 images a class and make torchvision expect their checksums."""
    base = folder / original.base_folder
    base.mkdir(parents=True)
    generator = np.random.RandomState(0)
    rows = []

    def write(name: str, content: dict) -> str:
        (base / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((base / name).read_bytes()).hexdigest()

    for attribute in ("train_list", "test_list"):
        checksums = []
        for name, _ in getattr(original, attribute):
            pixels = generator.randint(0, 256, (3 * num_classes, 3072), dtype=np.uint8)
            targets = [index % num_classes for index in range(len(pixels))]
            checksums.append([name, write(name, {"data": pixels, key: targets})])
            rows.append(pixels)
        monkeypatch.setattr(original, attribute, checksums)
    meta = dict(original.meta)
    meta["md5"] = write(meta["filename"], {meta["key"]: [str(i) for i in range(num_classes)]})
    monkeypatch.setattr(original, "meta", meta)
    return np.concatenate(rows)


@pytest.fixture
def cifar100_pickles(tmp_path, monkeypatch) -> np.ndarray:
    original = torchvision.datasets.CIFAR100
    return _write_pickles(tmp_path, original, monkeypatch, 100, "fine_labels")


def test_cifar100_is_read_from_the_original_files(tmp_path, cifar100_pickles):
    train, test = (load_dataset(DataConfig(dataset="cifar100"), tmp_path, p) for p in (True, False))
    assert (len(train), len(test)) == (300, 300)
    assert train.class_names[:2] == ("apple", "aquarium_fish")
    assert train.class_names[-1] == "worm"
    # A row holds the red plane, then green, then blue.
    for row, column, channel in ((0, 0, 0), (3, 5, 1), (31, 31, 2)):
        flat = channel * 1024 + row * 32 + column
        assert (train.images[:, row, column, channel] == cifar100_pickles[:300, flat]).all()
    assert train.targets.tolist() == [index % 100 for index in range(300)]
    assert (train.mean, train.std) == ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))


def test_cifar10_joins_its_five_files_in_order(tmp_path, monkeypatch):
    original = torchvision.datasets.CIFAR10
    rows = _write_pickles(tmp_path / "cifar10", original, monkeypatch, 10, "labels")
    train, test = (load_dataset(DataConfig(dataset="cifar10"), tmp_path, p) for p in (True, False))
    assert train.class_names[3] == "cat"
    assert (train.images[..., 0].reshape(150, -1) == rows[:150, :1024]).all()
    assert (test.images[..., 2].reshape(30, -1) == rows[150:, 2048:]).all()


def test_the_long_tail_of_original_files_is_the_authors_subset(tmp_path, cifar100_pickles):
    full = load_dataset(DataConfig(dataset="cifar100"), tmp_path)
    cut = load_dataset(DataConfig(dataset="cifar100", imbalance_factor=3), tmp_path)
    indices = long_tailed_indices(full.targets, long_tailed_counts(3, 3, 100), split_seed=0)
    np.testing.assert_array_equal(cut.images, full.images[indices])
    np.testing.assert_array_equal(cut.targets, full.targets[indices])


def test_a_damaged_or_missing_original_file_is_named(tmp_path, cifar100_pickles):
    path = tmp_path / "cifar-100-python" / "train"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cifar-100-python/train is damaged \(its MD5 is not"):
        load_dataset(DataConfig(dataset="cifar100"), tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match="cifar-100-python/train is missing"):
        load_dataset(DataConfig(dataset="cifar100"), tmp_path)


def _write_parquet(path: Path, images: list[bytes], column: str, targets: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"bytes": content, "path": None} for content in images]
    pq.write_table(pa.table({"img": rows, column: targets}), path)


@pytest.mark.parametrize("place", ["cifar10", "cifar10/plain_text", "cifar10/cifar10", "data", "."])
def test_cifar_is_read_from_parquet_wherever_it_may_lie(tmp_path, random_pixels, place):
    images = [_encoded(pixels) for pixels in random_pixels]
    for shard, rows in enumerate((slice(0, 7), slice(7, 12))):
        path = tmp_path / place / f"test-{shard:05d}-of-00002.parquet"
        _write_parquet(path, images[rows], "label", [*range(10), 0, 1][rows])
    test = load_dataset(DataConfig(dataset="cifar10"), tmp_path, train=False)
    np.testing.assert_array_equal(test.images, random_pixels)
    assert test.targets.tolist() == [*range(10), 0, 1]


def test_only_the_rows_of_the_long_tail_are_decoded(tmp_path, random_pixels):
    targets = np.arange(40) % 10
    counts = long_tailed_counts(4, 4, 10)
    kept = long_tailed_indices(targets, counts, split_seed=0)
    images = [_encoded(random_pixels[0]) if row in kept else b"" for row in range(40)]
    assert b"" in images
    _write_parquet(tmp_path / "train-00000-of-00001.parquet", images, "label", targets.tolist())
    train = load_dataset(DataConfig(dataset="cifar10", imbalance_factor=4), tmp_path)
    assert len(train) == counts.sum()
    with pytest.raises(ValueError, match=r"image \d+ cannot be decoded"):
        load_dataset(DataConfig(dataset="cifar10"), tmp_path)


def test_bad_parquet_files_are_named(tmp_path, random_pixels):
    config = DataConfig(dataset="cifar100")
    path = tmp_path / "cifar100" / "test-00000-of-00001.parquet"
    images = [_encoded(random_pixels[0])]

    def load():
        return load_dataset(config, tmp_path, train=False)

    _write_parquet(path, images, "label", [0])
    with pytest.raises(ValueError, match=r"test-00000-of-00001.parquet .* img and fine_label"):
        load()
    pq.write_table(pa.table({"img": images, "fine_label": [0]}), path)
    with pytest.raises(ValueError, match=r"test-00000-of-00001.parquet .* img and fine_label"):
        load()
    _write_parquet(path, images, "fine_label", [100])
    with pytest.raises(ValueError, match="target 100 of image 0 is outside the 100 classes"):
        load()
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"test-00000-of-00001.parquet is damaged"):
        load()
    path.rename(path.with_name("test-00001-of-00002.parquet"))
    with pytest.raises(FileNotFoundError, match="holds 1 of the 2 files"):
        load()


def test_a_class_without_training_images_is_named(tmp_path, random_pixels):
    images = [_encoded(pixels) for pixels in random_pixels[:9]]
    _write_parquet(tmp_path / "train-00000-of-00001.parquet", images, "label", list(range(9)))
    with pytest.raises(ValueError, match="class 'truck' of data set 'cifar10' has no training"):
        load_dataset(DataConfig(dataset="cifar10"), tmp_path)


def test_the_real_cifar100_has_the_published_tail(real_data):
    train = load_dataset(DataConfig(dataset="cifar100", imbalance_factor=100))
    assert train.class_counts.tolist() == long_tailed_counts(500, 100, 100).tolist()
    assert train.images.shape == (10_847, 32, 32, 3)
    # Means of the whole training set as published widely, to the sampling error of a tenth of it.
    assert train.images.mean(axis=(0, 1, 2)) / 255 == pytest.approx([0.507, 0.487, 0.441], abs=0.03)


def _write_idx(path: Path, array: np.ndarray, packed: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}i", *array.shape)
    content += array.tobytes()
    if packed:
        path.with_name(path.name + ".gz").write_bytes(gzip.compress(content))
    else:
        path.write_bytes(content)


@pytest.mark.parametrize(
    ("place", "packed"), [("FashionMNIST/raw", False), ("debian/fashion-mnist", True)]
)
def test_fashion_mnist_is_padded_to_the_size_of_cifar(tmp_path, place, packed):
    images = np.random.RandomState(0).randint(0, 256, (20, 28, 28), dtype=np.uint8)
    targets = np.arange(20, dtype=np.uint8) % 10
    _write_idx(tmp_path / place / "t10k-images-idx3-ubyte", images, packed)
    _write_idx(tmp_path / place / "t10k-labels-idx1-ubyte", targets, packed)
    root = None if place.startswith("debian") else tmp_path
    test = load_dataset(DataConfig(dataset="fashion_mnist"), root, train=False)
    for channel in range(3):
        np.testing.assert_array_equal(test.images[:, 2:30, 2:30, channel], images)
    assert test.images.sum() == 3 * images.astype(int).sum()
    assert test.targets.tolist() == targets.tolist()
    assert test.class_names[9] == "Ankle boot"


def test_a_damaged_or_missing_idx_file_is_named(tmp_path):
    place = tmp_path / "FashionMNIST" / "raw"
    images, targets = place / "train-images-idx3-ubyte", place / "train-labels-idx1-ubyte"
    _write_idx(images, np.zeros((3, 28, 28), np.uint8), False)
    config = DataConfig(dataset="fashion_mnist")
    with pytest.raises(FileNotFoundError, match="train-labels-idx1-ubyte is missing"):
        load_dataset(config, tmp_path)
    _write_idx(targets, np.zeros(2, np.uint8), True)
    with pytest.raises(ValueError, match="3 images have 2 targets"):
        load_dataset(config, tmp_path)
    packed = targets.with_name(targets.name + ".gz")
    for content in (packed.read_bytes()[:-9], b"no gzip", gzip.compress(b"\0\0\x08\1")):
        packed.write_bytes(content)
        with pytest.raises(ValueError, match="train-labels-idx1-ubyte is damaged"):
            load_dataset(config, tmp_path)
    images.write_bytes(b"")
    with pytest.raises(ValueError, match="train-images-idx3-ubyte is damaged"):
        load_dataset(config, tmp_path)


def _write_folder(root: Path, counts: dict[str, int], size: tuple[int, int] = (40, 50)) -> None:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for index in range(count):
            shade = (index * 40, 128, 255)
            Image.new("RGB", size, shade).save(root / name / f"{index}.png")


def test_an_image_folder_counts_its_classes_and_decodes_on_access(tmp_path):
    _write_folder(tmp_path / "train", {"cat": 4, "ant": 2})
    _write_folder(tmp_path / "val", {"ant": 1, "cat": 1})
    (tmp_path / "train" / ".ipynb_checkpoints").mkdir()
    (tmp_path / "train" / "notes.txt").write_text("not a class")
    train, test = (
        load_dataset(DataConfig(dataset="image_folder"), tmp_path, p) for p in (True, False)
    )
    assert train.class_names == ("ant", "cat")
    assert train.class_counts.tolist() == [2, 4]
    assert test.class_counts.tolist() == [1, 1]
    assert isinstance(train.images, EncodedImages)
    assert train.images[4].shape == (32, 32, 3)
    assert train.images[4][7, 9].tolist() == [80, 128, 255]
    views, targets = next(
        iter(train_loader(train, ["flip_crop"], batch_size=6, seed=0, drop_last=True))
    )
    assert views[0].shape == (6, 3, 32, 32)
    assert sorted(targets.tolist()) == [0, 0, 1, 1, 1, 1]


def test_an_image_folder_is_cut_relative_to_its_largest_class(tmp_path):
    _write_folder(tmp_path / "train", {"ant": 4, "bee": 6, "cat": 6})
    config = DataConfig(dataset="image_folder", imbalance_factor=3)
    # 6, 6 / sqrt(3), 2: the ants are only four.
    assert load_dataset(config, tmp_path).class_counts.tolist() == [4, 3, 2]


def test_faulty_image_folders_are_described(tmp_path):
    config = DataConfig(dataset="image_folder")

    def load(train=False):
        return load_dataset(config, tmp_path, train)

    with pytest.raises(FileNotFoundError, match="'image_folder' is not in"):
        load()
    (tmp_path / "train").mkdir()
    with pytest.raises(FileNotFoundError, match="holds train, but neither test nor val"):
        load()
    with pytest.raises(FileNotFoundError, match="train holds no image in a folder per class"):
        load(train=True)
    _write_folder(tmp_path / "train", {"ant": 1})
    _write_folder(tmp_path / "test", {"bee": 1})
    with pytest.raises(ValueError, match="test holds a class that train lacks: bee"):
        load()
    (tmp_path / "train" / "bee").mkdir()
    with pytest.raises(ValueError, match="class 'bee' of data set 'image_folder' has no training"):
        load(train=True)
    (tmp_path / "test" / "bee" / "0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"test/bee/0.png cannot be decoded"):
        load().decoded()


def test_a_given_root_is_the_only_folder_searched(tmp_path, monkeypatch, random_pixels):
    images = [_encoded(pixels) for pixels in random_pixels]
    path = "test-00000-of-00001.parquet"
    _write_parquet(tmp_path / "named" / path, images[:1], "label", [0])
    _write_parquet(tmp_path / "data" / path, images[:2], "label", [0, 1])
    config = DataConfig(dataset="cifar10")
    assert len(load_dataset(config, train=False)) == 2
    monkeypatch.setenv("LTLIB_DATA", str(tmp_path / "named"))
    assert len(load_dataset(config, train=False)) == 1
    assert len(load_dataset(config, tmp_path / "data", train=False)) == 2
    (tmp_path / "elsewhere").mkdir()
    with pytest.raises(FileNotFoundError, match=r"'cifar10' is not in \S*elsewhere; put"):
        load_dataset(config, tmp_path / "elsewhere")


def test_a_missing_data_set_names_the_folders_searched_and_is_not_downloaded(monkeypatch, tmp_path):
    def downloader(root, download):
        raise AssertionError("nobody asked for a download")

    monkeypatch.setitem(data.datasets._DOWNLOADS, "cifar100", downloader)
    monkeypatch.setenv("LTLIB_DATA", str(tmp_path / "named"))
    with pytest.raises(FileNotFoundError, match=r"named or \S*data or .*LTLIB_DATA.*download"):
        load_dataset(DataConfig(dataset="cifar100"))


def test_a_download_goes_to_the_first_folder(monkeypatch, tmp_path, random_pixels):
    def downloader(root, download):
        assert download
        path = root / "test-00000-of-00001.parquet"
        _write_parquet(path, [_encoded(random_pixels[0])], "fine_label", [0])

    monkeypatch.setitem(data.datasets._DOWNLOADS, "cifar100", downloader)
    root = tmp_path / "new"
    test = load_dataset(DataConfig(dataset="cifar100"), root, train=False, download=True)
    assert len(test) == 1


def test_an_unknown_data_set_is_answered_with_the_choices():
    with pytest.raises(ValueError, match=f"unknown data set 'svhn'; .*{', '.join(DATASETS)}"):
        load_dataset(DataConfig(dataset="svhn"))


def test_epoch_order_is_a_permutation_that_never_changes():
    order = epoch_order(10_847, 0, 0)
    assert sorted(order.tolist()) == list(range(10_847))
    assert (
        hashlib.sha256(order.numpy().astype("<i8").tobytes()).hexdigest()[:16] == "b8e5e6ab76741289"
    )
    assert order.equal(epoch_order(10_847, 0, 0))
    assert not order.equal(epoch_order(10_847, 0, 1))
    assert not order.equal(epoch_order(10_847, 1, 0))


def _keys(num_samples=23, batch_size=8, drop_last=False, **more) -> list[list[tuple[int, int]]]:
    batches = EpochBatches(num_samples, batch_size=batch_size, seed=0, drop_last=drop_last, **more)
    batches.set_epoch(4)
    return list(batches)


def test_batches_walk_through_the_order_of_their_epoch():
    keys = _keys()
    assert [len(batch) for batch in keys] == [8, 8, 7]
    indices = [index for batch in keys for _, index in batch]
    assert indices == epoch_order(23, 0, 4).tolist()
    assert {epoch for batch in keys for epoch, _ in batch} == {4}
    assert [len(batch) for batch in _keys(drop_last=True)] == [8, 8]
    assert [len(batch) for batch in _keys(24)] == [8, 8, 8]


@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 7])
def test_the_shares_of_all_ranks_are_the_batch_of_one_process(world_size):
    shares = [_keys(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step, batch in enumerate(_keys()):
        parts = [share[step] for share in shares]
        assert list(itertools.chain(*parts)) == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_an_epoch_resumes_at_any_step():
    batches = EpochBatches(23, batch_size=8, seed=0, drop_last=False)
    batches.set_epoch(4, start_step=2)
    assert list(batches) == _keys()[2:]
    assert len(batches) == 3
    batches.set_epoch(4)
    assert list(batches) == _keys()


def test_batches_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="batch_size 32 exceeds the 23 training images"):
        _keys(batch_size=32, drop_last=True)
    with pytest.raises(ValueError, match="a batch of 7 images cannot be shared by 8 processes"):
        _keys(world_size=8)
    assert len(_keys(batch_size=32)[0]) == 23


def _epoch(loader, epoch=0, start_step=0):
    loader.batch_sampler.set_epoch(epoch, start_step)
    return list(loader)


def _train_loader(**more):
    options = {"batch_size": 16, "seed": 0, "drop_last": True, **more}
    return train_loader(_image_set(), ["cifar_autoaugment", "sim_paco"], **options)


def test_training_batches_are_the_views_of_their_images():
    image_set = _image_set()
    multi_view = MultiView(["cifar_autoaugment", "sim_paco"], image_set.pixel_format, seed=0)
    order = epoch_order(50, 0, 3).tolist()
    batches = _epoch(_train_loader(), epoch=3)
    assert len(batches) == 3
    for step, (views, targets) in enumerate(batches):
        indices = order[16 * step : 16 * step + 16]
        assert targets.tolist() == [index % 5 for index in indices]
        for position, index in enumerate(indices):
            expected = multi_view(Image.fromarray(image_set.images[index]), 3, index)
            assert len(views) == len(expected) == 2
            for view, tensor in zip(views, expected, strict=True):
                assert view.shape == (16, 3, 32, 32)
                assert torch.equal(view[position], tensor)


def _assert_same(batches, others):
    for (views, targets), (other_views, other_targets) in zip(batches, others, strict=True):
        assert torch.equal(targets, other_targets)
        assert all(torch.equal(a, b) for a, b in zip(views, other_views, strict=True))


def test_workers_do_not_change_a_batch_and_outlive_an_epoch():
    alone, helped = _train_loader(), _train_loader(num_workers=2)
    for epoch in range(2):
        _assert_same(_epoch(alone, epoch), _epoch(helped, epoch))
    _assert_same(_epoch(alone, 1)[2:], _epoch(helped, 1, start_step=2))


def _joined(ranks):
    """Put the ranks' shares of each batch together."""
    return [
        (
            [torch.cat(views) for views in zip(*(part[0] for part in parts), strict=True)],
            torch.cat([part[1] for part in parts]),
        )
        for parts in zip(*ranks, strict=True)
    ]


def test_ranks_concatenate_to_the_batch_of_one_process():
    ranks = [_epoch(_train_loader(rank=rank, world_size=3)) for rank in range(3)]
    _assert_same(_epoch(_train_loader()), _joined(ranks))


def test_views_in_batches_depend_on_neither_rank_nor_step():
    device = torch.device("cpu")
    names = ["cifar_autoaugment", "sim_paco"]
    image_set = _image_set()
    whole = _epoch(_train_loader(device=device), epoch=3)
    views = BatchedViews(names, image_set.pixel_format, seed=0)
    for step, (images, targets) in enumerate(whole):
        indices = epoch_order(50, 0, 3)[16 * step : 16 * step + 16]
        assert torch.equal(targets, indices % 5)
        expected = views(torch.from_numpy(image_set.images[indices]), 3, indices.numpy())
        assert all(map(torch.equal, images, expected))
    _assert_same(whole[1:], _epoch(_train_loader(device=device), epoch=3, start_step=1))
    ranks = [_epoch(_train_loader(device=device, rank=r, world_size=3), epoch=3) for r in range(3)]
    _assert_same(whole, _joined(ranks))


def test_only_images_in_memory_take_batched_views(random_pixels):
    image_set = _image_set()
    assert takes_batched_views(image_set, ["cifar_autoaugment", "digits"])
    assert not takes_batched_views(image_set, ["cifar_autoaugment", "randcls"])
    files = EncodedImages(InMemory([_encoded(pixels) for pixels in random_pixels]), 32)
    encoded = ImageSet(files, np.zeros(12, np.int64), ("0",), (0.5,) * 3, (0.5,) * 3)
    assert not takes_batched_views(encoded, ["flip_crop"])


def test_loading_leaves_the_callers_generators_alone():
    def upcoming():
        return torch.rand(2).tolist(), random.random(), np.random.rand()

    def reseed():
        torch.manual_seed(1)
        random.seed(1)
        np.random.seed(1)

    reseed()
    expected = upcoming()
    reseed()
    _epoch(_train_loader())
    list(data.test_loader(_image_set()))
    assert upcoming() == expected


@pytest.mark.parametrize("world_size", [1, 3, 60])
def test_every_test_image_is_loaded_once_whatever_the_number_of_processes(world_size):
    image_set = _image_set()
    ranks = [
        list(data.test_loader(image_set, batch_size=7, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    batches = list(itertools.chain(*ranks))
    assert sum(len(targets) for _, targets in batches) == 50
    assert torch.cat([targets for _, targets in batches]).tolist() == image_set.targets.tolist()
    to_tensor = T.Compose([T.ToTensor(), T.Normalize(image_set.mean, image_set.std)])
    expected = torch.stack([to_tensor(Image.fromarray(image)) for image in image_set.images])
    assert torch.equal(torch.cat([images for images, _ in batches]), expected)


def test_test_images_load_with_workers_and_from_files(random_pixels):
    encoded = EncodedImages(InMemory([_encoded(pixels) for pixels in random_pixels]), 32)
    targets = np.arange(12)
    names = tuple(map(str, range(12)))
    batches = []
    for images, num_workers in ((random_pixels, 0), (encoded, 1)):
        image_set = ImageSet(images, targets, names, (0.5,) * 3, (0.5,) * 3)
        batches.append(list(data.test_loader(image_set, batch_size=5, num_workers=num_workers)))
    for (images, targets), (others, other_targets) in zip(*batches, strict=True):
        assert torch.equal(images, others)
        assert torch.equal(targets, other_targets)


def test_workers_obey_nobody_but_the_main_process():
    loader = _train_loader(num_workers=1, batch_size=4)
    batches = iter(loader)
    next(batches)
    (worker,) = multiprocessing.active_children()
    for name in ("TERM", "INT", "USR1"):
        subprocess.run(["kill", f"-{name}", str(worker.pid)], check=True)
    assert sum(1 for _ in batches) == len(loader) - 1
    assert worker.is_alive()
    # As multiprocessing does at exit, where a deaf worker would hang the main process for ever.
    os.kill(worker.pid, signal.SIGTERM)
    worker.join(timeout=20)
    assert worker.exitcode == 0
