"""A pack: the encoded images of a split in one Arrow file, mapped into memory when read.

A data set of half a million files costs a disk, and a network disk more, half a million look-ups
an epoch; a pack costs none. Row i of a pack is row i of the list, so batches are the same bit for
bit. Anything that reads Arrow's IPC files reads packs.
"""

import json
import os
import zlib
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
from tqdm.auto import tqdm

from ltlib.data.images import EncodedImages, ImageSet
from ltlib.data.sources import Files, each_row

_BATCH_ROWS = 128
"""Rows of one record batch: tens of megabytes, far below Arrow's limit of 2 GiB."""
_FIELDS = {"name": pa.string(), "target": pa.int64(), "crc32": pa.uint32(), "content": pa.binary()}
_ABOUT = b"ltlib"
"""Key of the metadata: class names, mean, std and size, as JSON."""


def pack_path(folder: Path, name: str, train: bool) -> Path:
    """Return where the pack of a data set's training or test images is."""
    return folder / f"{name}-{'train' if train else 'test'}.arrow"


class Pack:
    """The images of a pack; a worker that gets one maps the file again.

    Raises:
        ValueError: If the file is no whole pack.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
            self.about = json.loads(table.schema.metadata[_ABOUT])
            self.targets = table["target"].to_numpy()
            self._names, self._crc32s = table["name"], table["crc32"].to_numpy()
            self._contents = table["content"]
        except (pa.ArrowException, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no whole pack ({error}); delete it") from None

    def __len__(self) -> int:
        return len(self.targets)

    def __reduce__(self) -> tuple:
        return Pack, (self.path,)

    def key(self, row: int) -> str:
        """Return the path of one image below the folder it was packed from."""
        return self._names[row].as_py()

    def name(self, row: int) -> str:
        """Return the same and the pack."""
        return f"{self.key(row)} in {self.path}"

    def size(self, row: int) -> int:
        """Count the bytes of one image."""
        return self._contents[row].as_buffer().size

    def read(self, row: int) -> bytes:
        """Return one image.

        Raises:
            ValueError: If its bytes have changed.
        """
        content = self._contents[row].as_py()
        if zlib.crc32(content) != self._crc32s[row]:
            raise ValueError("its bytes have changed; pack again")
        return content


def read_pack(path: Path) -> ImageSet:
    """Return the images of a pack, as they were packed."""
    pack = Pack(path)
    about = pack.about
    images = EncodedImages(pack, about["size"], own_size=about["own_size"])
    mean, std = tuple(about["mean"]), tuple(about["std"])
    return ImageSet(images, pack.targets, tuple(about["class_names"]), mean, std)


def write_pack(image_set: ImageSet, path: Path) -> None:
    """Write a pack, then read it back; nothing is at ``path`` before all of it is right.

    Args:
        image_set: All images of a split, in files of their own.
        path: Of the pack; its folder is made.

    Raises:
        ValueError: If the images are no files.
        OSError: If a file cannot be read, or the pack not written.
    """
    images = image_set.images
    if not isinstance(images, EncodedImages) or not isinstance(images.sources, Files):
        raise ValueError("only data sets of one file per image can be packed")
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    try:
        with unfinished.open("wb") as file:
            checksums = _write(image_set, images, images.sources, file)
            os.fsync(file.fileno())
        pack = Pack(unfinished)
        contents = each_row(pack.read, len(pack))
        read_back = map(zlib.crc32, tqdm(contents, "verifying", len(pack), disable=None))
        if list(read_back) != checksums:
            raise OSError(f"{path} was not written right; check the disk")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _write(image_set: ImageSet, images: EncodedImages, files: Files, file: BinaryIO) -> list[int]:
    """Write the pack, and return the checksums of all images."""
    about = {
        "class_names": image_set.class_names,
        "mean": image_set.mean,
        "std": image_set.std,
        "size": images.size,
        "own_size": images.own_size,
    }
    schema = pa.schema(_FIELDS, {_ABOUT: json.dumps(about)})
    # One iterator over all: each new one of tqdm's would close the last.
    contents = iter(tqdm(each_row(files.read, len(files)), "packing", len(files), disable=None))
    checksums = []
    with pa.ipc.new_file(file, schema) as writer:
        for start in range(0, len(files), _BATCH_ROWS):
            batch = list(islice(contents, _BATCH_ROWS))
            rows = range(start, start + len(batch))
            names, targets = [files.key(row) for row in rows], image_set.targets[rows]
            checksums += [zlib.crc32(content) for content in batch]
            writer.write(pa.record_batch([names, targets, checksums[start:], batch], schema=schema))
    return checksums
