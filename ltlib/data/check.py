"""Check a data set: its lists, how many images a class has, which are missing or damaged."""

import hashlib
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm

from ltlib.config import DataConfig
from ltlib.data.datasets import DATASETS, cut, find_dataset
from ltlib.data.images import EncodedImages, ImageError, ImageSet
from ltlib.data.listed import ListedDataset
from ltlib.data.pack import Pack
from ltlib.data.sources import each_row
from ltlib.metrics import SPLITS, shots

_NAMED = 5
"""Missing or damaged images that a report names; the manifest has all."""


@dataclass
class SplitReport:
    """What was found of one split.

    Args:
        split: "train", "val" or "test".
        class_counts: Images of each class, C of them.
        list_file: Path of the list, if there is one.
        blob_id: Git's id of the list.
        judgement: What the list is: official or not.
        pack_file: Path of the pack, if it is used.
        digest: SHA-256 of the sorted names and sizes of the files, or of the pixels in memory.
        missing: Images that are not there.
        damaged: Images that cannot be decoded, and why.
        stale: What a pack has otherwise than the files that were packed.
    """

    split: str
    class_counts: list[int]
    list_file: str = ""
    blob_id: str = ""
    judgement: str = ""
    pack_file: str = ""
    digest: str = ""
    missing: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    stale: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the split can be used."""
        return not (self.missing or self.damaged or self.stale)

    def __str__(self) -> str:
        """Say it in one line, and in lines below from where it was read and what is wrong."""
        counts = np.array(self.class_counts)
        first = (
            f"{self.split}: {counts.sum():,} images of {len(counts):,} classes, "
            f"{counts.max():,} to {counts.min():,} a class"
        )
        if self.split == "train":
            first += "; " + ", ".join(f"{(shots(counts) == s).sum():,} {s}" for s in SPLITS)
        lines = [first]
        if self.list_file:
            lines.append(f"{self.list_file} is {self.judgement}")
        if self.pack_file:
            lines.append(f"images of {self.pack_file}")
        if self.stale:
            lines.append(self.stale)
        for fault, images in (("missing", self.missing), ("damaged", self.damaged)):
            if images:
                named = ", of which" if len(images) > _NAMED else ""
                lines.append(f"{len(images):,} {fault}{named}:")
                lines += [f"  {image}" for image in images[:_NAMED]]
        # A terminal refuses the bytes of a path that are no UTF-8.
        return "\n  ".join(lines).encode(errors="backslashreplace").decode()


def check_dataset(
    config: DataConfig, root: Path | None, *, decode: bool = True
) -> tuple[list[SplitReport], Path]:
    """Look at every image of a data set.

    Args:
        config: Which data set, how long its tail.
        root: The only folder searched, if given.
        decode: Whether to decode every image; else only its size is asked for.

    Returns:
        A report of each split, and the folder that holds them.

    Raises:
        FileNotFoundError: If the data set is not there.
        ValueError: If a list, or a file of many images, is damaged.
    """
    name = config.dataset
    train_set, folder = find_dataset(name, root, train=True)
    test_set, _ = find_dataset(name, root, train=False)
    reports = []
    for split, used in (("train", train_set), ("val", None), ("test", test_set)):
        report = SplitReport(split, [])
        loose = _describe_list(report, name, folder)
        images = loose if used is None else used
        if images is None:
            continue
        _compare_pack(report, images, loose)
        chosen = cut(images, config) if split == "train" else images
        report.class_counts = chosen.class_counts.tolist()
        _examine(report, chosen, decode)
        reports.append(report)
    return reports, folder


def manifest_of(name: str, reports: list[SplitReport]) -> dict[str, object]:
    """Return what a later check, or another machine's, can be compared with."""
    return {"dataset": name, "splits": [asdict(report) for report in reports]}


def _describe_list(report: SplitReport, name: str, folder: Path) -> ImageSet | None:
    """Say what the list of a split is, and return its images, or those in folders, if any."""
    reader = DATASETS[name]
    try:
        if not isinstance(reader, ListedDataset):
            return None if report.split == "val" else reader(folder, report.split == "train")
        read = reader.read(folder, report.split) if report.split in reader.lists else None
    except FileNotFoundError:  # of a pack alone, or of validation images, which nothing needs
        return None
    if read is None:
        return None
    found, images = read
    report.list_file, report.blob_id = str(found.path), found.blob_id
    report.judgement = reader.lists[report.split].describe(found)
    return images


def _compare_pack(report: SplitReport, images: ImageSet, loose: ImageSet | None) -> None:
    """Say whether the images are packed, and whether the pack fits the files."""
    packed = images.images
    if isinstance(packed, EncodedImages) and isinstance(packed.sources, Pack):
        report.pack_file = str(packed.sources.path)
        if loose is not None and _contents(loose) != _contents(images):
            report.stale = "the pack holds other images than the files beside it; pack again"


def _contents(image_set: ImageSet) -> list[tuple[str, int]]:
    images = image_set.images
    assert isinstance(images, EncodedImages)
    keys = [images.sources.key(row) for row in range(len(images))]
    return list(zip(keys, image_set.targets.tolist(), strict=True))


def _examine(report: SplitReport, image_set: ImageSet, decode: bool) -> None:
    """Look at every image, and sum the names and sizes up in the digest."""
    images = image_set.images
    if not isinstance(images, EncodedImages):
        content = np.ascontiguousarray(images).tobytes() + image_set.targets.tobytes()
        report.digest = hashlib.sha256(content).hexdigest()
        return

    def look(index: int) -> tuple[str, int, str]:
        row = images.rows[index]
        key = images.sources.key(row)
        try:
            size = images.sources.size(row)
            if decode or not size:
                images.picture(index)
        except FileNotFoundError:
            return key, 0, "missing"
        except (ImageError, OSError) as error:
            return key, 0, str(error)
        return key, size, ""

    looks = each_row(look, len(images))
    found = list(tqdm(looks, f"checking {report.split}", len(images), disable=None))
    report.missing = [key for key, _, fault in found if fault == "missing"]
    report.damaged = [fault for _, _, fault in found if fault not in ("", "missing")]
    lines = sorted(f"{key} {size}\n" for key, size, _ in found)
    report.digest = hashlib.sha256("".join(lines).encode(errors="surrogateescape")).hexdigest()
