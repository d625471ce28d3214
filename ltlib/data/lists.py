"""Lists of images, lines ``path target``, and where the images they name lie.

The lists of ImageNet-LT, iNaturalist 2018 and Places-LT are byte for byte the same in the authors'
repositories, so an official list is recognised by its git blob id without being shipped.
"""

import codecs
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ltlib.data.sources import Files

SEARCH_DEPTH = 6
"""Folders below the data root that are searched: that deep PaCo's clone holds its lists."""

_IMAGE_FOLDERS = {"train", "val", "test", "data_256", "val_256", "test_256", "train_val2018"}
_MANY_FOLDERS = 200
"""A folder with more folders than that holds images by class, not lists."""
_MOST_CLASSES = 1_000_000
"""A target beyond is a number of something else, and so many class names would fill the memory."""
_PROBES = 50
"""Images of a list that are looked for to find the folder of all of them."""


@dataclass(frozen=True)
class OfficialList:
    """What is known of one of the authors' lists.

    Args:
        file_name: Its name.
        num_images: Lines.
        blob_ids: Git's ids of its versions; none where none is known.
    """

    file_name: str
    num_images: int
    blob_ids: tuple[str, ...] = ()

    def is_like(self, found: "ImageList") -> bool:
        """Tell whether a list is this one, by its length alone where no id is known."""
        if self.blob_ids:
            return found.blob_id in self.blob_ids
        return len(found.names) == self.num_images

    def describe(self, found: "ImageList") -> str:
        """Say what a list is."""
        if not self.is_like(found):
            return f"an unknown list; the official one names {self.num_images:,} images"
        return "the official list" if self.blob_ids else "as long as the official list"


@dataclass(frozen=True, eq=False)
class ImageList:
    """A list that was read.

    Args:
        path: Of the list.
        blob_id: Git's id of its content as Unix writes it.
        names: Of the images, N of them.
        targets: (N,), int64.
    """

    path: Path
    blob_id: str
    names: list[str]
    targets: np.ndarray


def blob_id(content: bytes) -> str:
    """Return the id that git gives a file of this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def read_list(path: Path) -> ImageList:
    """Read a list; blank lines, the line ends of Windows and its mark of UTF-8 do not matter.

    Raises:
        ValueError: If a line is not a path, a space and a class from 0 on, or there is no line.
    """
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    names, targets = [], []
    for number, line in enumerate(content.decode(errors="surrogateescape").split("\n"), 1):
        if not line.strip():
            continue
        name, _, target = line.rstrip().rpartition(" ")
        if not name or not target.isdecimal() or int(target) >= _MOST_CLASSES:
            raise ValueError(f"line {number} of {path} must be 'path target', it is {line!r}")
        names.append(name)
        targets.append(int(target))
    if not names:
        raise ValueError(f"{path} names no image")
    return ImageList(path, blob_id(content), names, np.array(targets, np.int64))


def find_list(folders: Iterable[Path], official: OfficialList) -> ImageList | None:
    """Read the official list if a folder holds it, else the nearest of its name."""
    paths = [path for folder in folders if (path := folder / official.file_name).is_file()]
    lists = [read_list(path) for path in paths]
    nearest = lists[0] if lists else None
    return next((found for found in lists if official.is_like(found)), nearest)


def search_folders(root: Path) -> list[Path]:
    """Return the folders that may hold lists, or the folders of images: nearest first."""
    found, level = [], [root]
    for _ in range(SEARCH_DEPTH + 1):
        found += level
        level = [child for folder in level for child in _subfolders(folder)]
    return found


def _subfolders(folder: Path) -> list[Path]:
    try:
        entries = [entry for entry in os.scandir(folder) if entry.is_dir()]
    except OSError:  # it is not there, or not ours to read
        return []
    names = sorted(entry.name for entry in entries if entry.name[0] != ".")
    if len(names) > _MANY_FOLDERS:
        return []
    return [folder / name for name in names if name not in _IMAGE_FOLDERS]


Layout = Callable[[str, str], str]
"""From the name of an image in a list and that of its class to its place on disk."""


def locate(
    found: ImageList, class_names: Sequence[str], layouts: Sequence[Layout], folders: list[Path]
) -> Files | None:
    """Find the folder and the layout under which most images of a list are there, if any."""
    classes = [class_names[t] if t < len(class_names) else "" for t in found.targets.tolist()]
    pairs = list(zip(found.names, classes, strict=True))
    probes = [pairs[row] for row in range(0, len(pairs), max(1, len(pairs) // _PROBES))]
    best, most = None, 0
    for layout in layouts:
        expected = [layout(*probe) for probe in probes]
        tops = {name.partition("/")[0] for name in expected}
        for folder in folders:
            if not any((folder / top).exists() for top in tops):
                continue
            hits = sum((folder / name).exists() for name in expected)
            if hits > most:
                best, most = (folder, layout), hits
    if best is None:
        return None
    folder, layout = best
    return Files(folder, [layout(*pair) for pair in pairs])
