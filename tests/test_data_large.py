"""ImageNet-LT, iNaturalist, Places-LT and ImageNet: lists, layouts, odd images, native sizes."""

import logging
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms as T
from trees import PLACES, WORDNET_IDS, build_tree

from ltlib import data
from ltlib.config import DataConfig
from ltlib.data import ImageError, ImageSet, load_dataset, train_loader
from ltlib.data.images import EncodedImages
from ltlib.data.listed import IMAGENET_LT, PLACES_LT
from ltlib.data.lists import OfficialList, blob_id, find_list, read_list, search_folders
from ltlib.data.sources import Files
from ltlib.views import VIEWS

NAMES = ("imagenet_lt", "inaturalist18", "places_lt", "imagenet")
TAIL = [20, 15, 11, 9, 7, 5, 4, 3, 2, 2]


@pytest.fixture(scope="module")
def trees(tmp_path_factory) -> dict[str, Path]:
    """One tree of each data set, which tests only read."""
    root = tmp_path_factory.mktemp("trees")
    return {name: build_tree(name, root / name) for name in NAMES}


def _load(name: str, folder: Path, train: bool = True) -> ImageSet:
    return load_dataset(DataConfig(dataset=name), folder, train)


def _pixels(image_set: ImageSet) -> list[bytes]:
    return [image_set.picture(index).tobytes() for index in range(len(image_set))]


@pytest.mark.parametrize("name", NAMES)
def test_counts_and_targets_are_those_of_the_tree(trees, name):
    train, test = (_load(name, trees[name], part) for part in (True, False))
    assert train.class_counts.tolist() == TAIL
    assert test.class_counts.tolist() == [2] * 10
    assert train.targets.dtype == np.int64
    assert train.pixel_format.size == 224
    # Each file, named by the class it shows, has the target of that class.
    for image_set in (train, test):
        sources, names = image_set.images.sources, image_set.class_names
        for row, target in enumerate(image_set.targets):
            folder = names[target].replace("/", os.sep)
            assert folder in sources.name(row) or sources.key(row).startswith("val_256/")


def test_each_data_set_has_its_class_names_and_statistics(trees):
    train = {name: _load(name, trees[name]) for name in NAMES}
    assert train["imagenet_lt"].class_names == train["imagenet"].class_names == tuple(WORDNET_IDS)
    assert train["places_lt"].class_names == tuple(PLACES.split())
    assert train["inaturalist18"].class_names[4] == "Insecta/4"
    assert train["inaturalist18"].mean == (0.466, 0.471, 0.380)
    assert train["inaturalist18"].std == (0.195, 0.194, 0.192)
    for name in ("imagenet_lt", "places_lt", "imagenet"):
        assert (train[name].mean, train[name].std) == (
            (0.485, 0.456, 0.406),
            (0.229, 0.224, 0.225),
        )


def test_images_keep_their_own_size_and_the_test_view_is_torchvisions(trees):
    test = _load("places_lt", trees["places_lt"], train=False)
    view = T.Compose(
        [T.Resize(256), T.CenterCrop(224), T.ToTensor(), T.Normalize(test.mean, test.std)]
    )
    files = [Path(test.images.sources.name(row)) for row in range(len(test))]
    originals = [Image.open(file).convert("RGB") for file in files]
    assert len({image.size for image in originals}) > 5
    for index, original in enumerate(originals):
        np.testing.assert_array_equal(np.asarray(test.picture(index)), np.asarray(original))
    for num_workers in (0, 2):
        batches = list(data.test_loader(test, batch_size=7, num_workers=num_workers))
        assert torch.equal(torch.cat([images for images, _ in batches]),
                           torch.stack([view(image) for image in originals]))  # fmt: skip
        assert torch.cat([targets for _, targets in batches]).tolist() == test.targets.tolist()


def test_a_batch_of_large_test_images_fits_64_mebibytes_and_arrays_need_no_workers(trees):
    test = _load("imagenet", trees["imagenet"], train=False)
    assert data.test_loader(test, num_workers=2).batch_sampler.batch_size == 111
    digits = load_dataset(DataConfig(), None, train=False)
    loader = data.test_loader(digits, num_workers=2)
    assert (loader.num_workers, loader.batch_sampler.batch_size) == (0, 500)


def test_views_start_from_one_decoding_of_the_native_image(trees, monkeypatch):
    train = _load("imagenet_lt", trees["imagenet_lt"])
    seen, reads = [], []

    def spy(pixel_format):
        def view(image):
            seen.append(image)
            return torch.zeros(3)

        return view

    monkeypatch.setitem(VIEWS, "spy", spy)
    read = train.images.sources.read
    monkeypatch.setattr(train.images.sources, "read", lambda row: reads.append(row) or read(row))
    loader = train_loader(train, ["spy"] * 3, batch_size=78, seed=0, drop_last=True)
    next(iter(loader))
    assert sorted(reads) == list(range(78))
    assert len(seen) == 3 * 78
    for start in range(0, len(seen), 3):
        assert seen[start] is seen[start + 1] is seen[start + 2]
    assert len({image.size for image in seen}) > 20


def test_training_batches_do_not_depend_on_workers(trees):
    train = _load("inaturalist18", trees["inaturalist18"])
    batches = []
    for num_workers in (0, 2):
        loader = train_loader(
            train, ["sim_proco", "sim_paco"], batch_size=16, seed=0, drop_last=True,
            num_workers=num_workers,
        )  # fmt: skip
        batches.append(list(loader))
    for (views, targets), (others, other_targets) in zip(*batches, strict=True):
        assert views[0].shape == (16, 3, 224, 224)
        assert all(torch.equal(a, b) for a, b in zip(views, others, strict=True))
        assert torch.equal(targets, other_targets)


def test_lists_lie_in_a_clone_and_images_in_another_folder(trees, tmp_path):
    clone = tmp_path / "Parametric-Contrastive-Learning" / "PaCo" / "LT" / "a" / "data" / "LT"
    images = tmp_path / "pictures" / "imagenet"
    shutil.copytree(trees["imagenet_lt"], images)
    clone.mkdir(parents=True)
    for file in images.glob("*.txt"):
        # As an editor of Windows leaves it, with blank lines.
        content = "\ufeff".encode() + file.read_bytes().replace(b"\n", b"\r\n") + b"\r\n"
        clone.joinpath(file.name).write_bytes(content)
        file.unlink()
    moved, plain = (_load("imagenet_lt", path) for path in (tmp_path, trees["imagenet_lt"]))
    assert moved.targets.tolist() == plain.targets.tolist()
    assert _pixels(moved) == _pixels(plain)


def test_folders_of_images_are_not_searched_for_lists(tmp_path):
    for folder in ("train/a", "b/c", ".git/d", "b/data_256/e"):
        (tmp_path / folder).mkdir(parents=True)
    for number in range(201):
        (tmp_path / "b" / "c" / str(number)).mkdir()
    assert search_folders(tmp_path) == [tmp_path, tmp_path / "b", tmp_path / "b" / "c"]


@pytest.mark.parametrize("lists", ["original", "easy"])
@pytest.mark.parametrize("images", ["original", "easy"])
def test_either_list_of_places_reads_either_layout(trees, tmp_path, lists, images):
    for layout in ("original", "easy"):
        build_tree("places_lt", tmp_path / layout, easy_places=layout == "easy")
    for file in (tmp_path / lists).glob("*.txt"):
        shutil.copy(file, tmp_path)
    for file in tmp_path.glob("*/*.txt"):
        file.unlink()
    for file in tmp_path.glob("*.txt"):
        file.rename(tmp_path / images / file.name)
    for train in (True, False):
        mixed = _load("places_lt", tmp_path / images, train)
        plain = _load("places_lt", trees["places_lt"], train)
        assert _pixels(mixed) == _pixels(plain)
        assert mixed.class_names == plain.class_names
        assert mixed.targets.tolist() == plain.targets.tolist()


@pytest.mark.parametrize("name", ["imagenet_lt", "imagenet"])
def test_validation_images_may_lie_in_one_folder(trees, tmp_path, name):
    shutil.copytree(trees["imagenet_lt"], tmp_path, dirs_exist_ok=True)
    plain = _load("imagenet_lt", tmp_path, train=False)
    expected = _pixels(plain)
    for file in list((tmp_path / "val").rglob("*.JPEG")):
        file.rename(tmp_path / "val" / file.name)
    for folder in list((tmp_path / "val").glob("n*")):
        folder.rmdir()
    flat = _load(name, tmp_path, train=False)
    assert _pixels(flat) == expected
    assert flat.targets.tolist() == plain.targets.tolist()
    if name == "imagenet":
        (tmp_path / "ImageNet_LT_test.txt").unlink()
        with pytest.raises(FileNotFoundError, match=r"no folder per class .* ImageNet_LT_test.txt"):
            _load(name, tmp_path, train=False)


def test_an_own_list_may_name_any_path_and_leave_classes_out_of_the_test(tmp_path):
    for name in ("Kätzchen 1", "dog", "bird"):
        (tmp_path / "own").mkdir(exist_ok=True)
        Image.new("RGB", (70, 90)).save(tmp_path / "own" / f"{name}.jpg")
    (tmp_path / "ImageNet_LT_train.txt").write_text("own/Kätzchen 1.jpg 0\nown/dog.jpg 1\n")
    (tmp_path / "ImageNet_LT_test.txt").write_text("own/bird.jpg 1\n")
    train, test = (_load("imagenet_lt", tmp_path, part) for part in (True, False))
    assert train.class_names == ("0", "1")
    assert train.picture(0).size == (70, 90)
    assert test.class_counts.tolist() == [0, 1]


def test_blob_ids_are_those_of_git():
    assert blob_id(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
    assert blob_id(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"


def test_the_official_list_is_preferred_to_a_nearer_one_of_its_name(tmp_path):
    official = OfficialList("list.txt", 1, (blob_id(b"a.jpg 0\n"),))
    (tmp_path / "clone").mkdir()
    (tmp_path / "list.txt").write_text("b.jpg 0\n")
    folders = search_folders(tmp_path)
    found = find_list(folders, official)
    assert found.names == ["b.jpg"]
    assert official.describe(found) == "an unknown list; the official one names 1 images"
    (tmp_path / "clone" / "list.txt").write_bytes(b"a.jpg 0\r\n")
    found = find_list(folders, official)
    assert found.path == tmp_path / "clone" / "list.txt"
    assert official.describe(found) == "the official list"


def test_without_a_known_id_the_length_decides(tmp_path):
    (tmp_path / "list.txt").write_text("a.jpg 0\n")
    found = read_list(tmp_path / "list.txt")
    assert OfficialList("list.txt", 1).describe(found) == "as long as the official list"
    assert not OfficialList("list.txt", 2).is_like(found)


def test_the_official_lists_have_the_published_lengths():
    lengths = {s: each.num_images for s, each in IMAGENET_LT.lists.items()}
    assert lengths == {"train": 115_846, "val": 20_000, "test": 50_000}
    lengths = {s: each.num_images for s, each in PLACES_LT.lists.items()}
    assert lengths == {"train": 62_500, "val": 7_300, "test": 36_500}
    ids = [
        i for reader in (IMAGENET_LT, PLACES_LT) for e in reader.lists.values() for i in e.blob_ids
    ]
    assert all(len(blob) == 40 for blob in ids)
    assert len(set(ids)) == len(ids)


def test_an_unknown_list_is_warned_of(trees, caplog):
    with caplog.at_level(logging.WARNING):
        _load("places_lt", trees["places_lt"])
    assert [record.message for record in caplog.records] == [
        f"{trees['places_lt']}/Places_LT_train.txt is an unknown list; the official one names "
        "62,500 images"
    ]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a/b.jpg\n", "line 1 of .*train.txt must be 'path target', it is 'a/b.jpg'"),
        ("a/b.jpg 0\n\nc.jpg -1\n", "line 3 of .* it is 'c.jpg -1'"),
        (" 4\n", "line 1 of .* it is ' 4'"),
        ("a.jpg 20240131123000\n", "line 1 of .* it is 'a.jpg 20240131123000'"),
        ("\n\n", "train.txt names no image"),
        ("nowhere/b.jpg 0\n", "none of the images that .* names is below .* nowhere/b.jpg"),
        ("train/n01440764/n01440764_1.JPEG 1\n", "class '0' of .* has no training image"),
    ],
)
def test_faulty_lists_are_described(trees, tmp_path, content, sentence):
    shutil.copytree(trees["imagenet_lt"], tmp_path, dirs_exist_ok=True)
    (tmp_path / "ImageNet_LT_train.txt").write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=sentence):
        _load("imagenet_lt", tmp_path)


def test_absent_lists_are_named(trees, tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"'imagenet_lt' is not in .* ImageNet_LT_train.txt"
    ):
        _load("imagenet_lt", trees["places_lt"])
    shutil.copy(trees["imagenet_lt"] / "ImageNet_LT_train.txt", tmp_path)
    with pytest.raises(FileNotFoundError, match="but not ImageNet_LT_test.txt; any clone of BCL"):
        _load("imagenet_lt", tmp_path, train=False)


def test_half_a_million_paths_are_one_array_that_workers_share():
    names = [f"train_val2018/Plantae/{number % 8142}/{number:032x}.jpg" for number in range(50_000)]
    files = Files(Path("root"), [*names, "Vögel/ä.jpg"])
    assert files.names.nbytes < 70 * len(files)
    assert len(pickle.dumps(files)) < 1.1 * files.names.nbytes
    assert files.key(50_000) == "Vögel/ä.jpg"
    assert files.name(3) == os.path.join("root", names[3])


def _only(folder: Path, name: str) -> EncodedImages:
    return EncodedImages(Files(folder, [name]), 224, own_size=True)


def test_orientation_in_exif_is_ignored_as_by_the_authors(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by 90 degrees
    Image.new("RGB", (80, 60), (200, 10, 10)).save(tmp_path / "a.jpg", exif=exif)
    assert _only(tmp_path, "a.jpg").picture(0).size == (80, 60)


@pytest.mark.parametrize(
    ("mode", "file_format"),
    [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("I;16", "PNG"), ("1", "PNG")],
)
def test_every_mode_becomes_rgb_by_pil_whatever_the_file_is_called(tmp_path, mode, file_format):
    ramp = Image.linear_gradient("L").resize((90, 70))
    if mode == "I;16":
        image = Image.fromarray(np.asarray(ramp).astype(np.uint16) * 257)
    else:
        image = ramp.convert("RGB").convert(mode)
    image.save(tmp_path / "n01440764_1.JPEG", file_format)
    picture = _only(tmp_path, "n01440764_1.JPEG").picture(0)
    with Image.open(tmp_path / "n01440764_1.JPEG") as stored:
        assert stored.mode == mode
        expected = stored.convert("RGB")
    assert (picture.mode, picture.size) == ("RGB", (90, 70))
    assert picture.tobytes() == expected.tobytes()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be decoded: it is empty"),
        (b"hello", "cannot be decoded: cannot identify image file"),
        ("truncated", "cannot be decoded: .*truncated"),
        (None, "is missing; `ltlib data check` names all that are"),
    ],
)
def test_a_bad_file_stops_the_training_with_one_sentence(trees, tmp_path, content, sentence):
    shutil.copytree(trees["imagenet_lt"], tmp_path, dirs_exist_ok=True)
    bad = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    if content == "truncated":
        content = bad.read_bytes()[:-400]
    bad.unlink() if content is None else bad.write_bytes(content)
    train = _load("imagenet_lt", tmp_path)
    loader = train_loader(train, ["sim_proco"], batch_size=78, seed=0, drop_last=True)
    with pytest.raises(ImageError, match=f"^{bad} {sentence}"):
        list(loader)


def test_a_workers_complaint_about_a_file_is_the_same_sentence(tmp_path):
    build_tree("imagenet_lt", tmp_path)
    bad = tmp_path / "train" / "n01440764" / "n01440764_1.JPEG"
    bad.write_bytes(b"")
    train = _load("imagenet_lt", tmp_path)
    options = {"batch_size": 78, "seed": 0, "drop_last": True, "num_workers": 1}
    with pytest.raises(ImageError) as caught:
        list(train_loader(train, ["sim_proco"], **options))
    assert str(caught.value) == f"{bad} cannot be decoded: it is empty"


def test_a_tail_is_cut_from_full_imagenet_without_copying_paths(trees):
    full = _load("imagenet", trees["imagenet"])
    config = DataConfig(dataset="imagenet", imbalance_factor=20)
    tail = load_dataset(config, trees["imagenet"])
    assert tail.class_counts.max() == 20
    assert tail.class_counts.min() == 1
    assert len(tail.images.sources) == len(full)
    assert tail.picture(0).tobytes() in _pixels(full)
