"""Where encoded images come from: bytes in memory, or files below a folder."""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

import numpy as np

T = TypeVar("T")


class Sources(Protocol):
    """N encoded images; must be cheap to hand to a worker."""

    def __len__(self) -> int: ...

    def key(self, row: int) -> str:
        """Name one image wherever the data set lies."""

    def name(self, row: int) -> str:
        """Name one image in an error message."""

    def size(self, row: int) -> int:
        """Count the bytes of one image."""

    def read(self, row: int) -> bytes:
        """Read one image; an OSError or ValueError says why it cannot be had."""


class InMemory:
    """The contents of N files."""

    def __init__(self, contents: Sequence[bytes]) -> None:
        self.contents = contents

    def __len__(self) -> int:
        return len(self.contents)

    def key(self, row: int) -> str:
        """Number the image: it has no file."""
        return f"image {row}"

    def name(self, row: int) -> str:
        """Do the same."""
        return self.key(row)

    def size(self, row: int) -> int:
        """Count the bytes of one image."""
        return len(self.contents[row])

    def read(self, row: int) -> bytes:
        """Return one image."""
        return self.contents[row]


class Files:
    """N files below a folder.

    Their names are one array of bytes: half a million take 35 MB, and a forked worker that reads
    them copies no page, as it would with Python's counted strings.

    Args:
        folder: Of all of them.
        names: Paths relative to the folder.
    """

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder = folder
        self.names = np.array([os.fsencode(name) for name in names], dtype=np.bytes_)

    def __len__(self) -> int:
        return len(self.names)

    def key(self, row: int) -> str:
        """Return the path of one file below the folder."""
        return os.fsdecode(self.names[row])

    def name(self, row: int) -> str:
        """Return the whole path of one file."""
        return os.path.join(self.folder, self.key(row))

    def size(self, row: int) -> int:
        """Count the bytes of one file."""
        return os.stat(self.name(row)).st_size

    def read(self, row: int) -> bytes:
        """Read one file."""
        with open(self.name(row), "rb") as file:
            return file.read()


def each_row(function: Callable[[int], T], num_rows: int) -> Iterator[T]:
    """Call a function with 0 to N-1 in threads, and yield what it returns, in order.

    Threads suffice: waiting for a disk and decoding a JPEG both release the interpreter's lock.
    """
    step = 256  # a pool holds what it has not yielded yet
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, num_rows, step):
            yield from pool.map(function, range(start, min(start + step, num_rows)))
