"""Two file formats: Hugging Face's parquet shards of images, and the IDX files of MNIST."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq


def find_parquet(folder: Path, name: str, split: str) -> list[Path]:
    """List the shards ``<split>-00000-of-0000n.parquet`` of a data set, or nothing.

    Raises:
        FileNotFoundError: If some of the shards are missing.
    """
    own = folder / name
    for place in (own, own / name, own / "data", own / "plain_text", folder, folder / "data"):
        shards = sorted(place.glob(f"{split}-*-of-*.parquet"))
        if shards:
            announced = int(re.findall(r"-of-(\d+)", shards[0].name)[-1])
            if len(shards) != announced:
                raise FileNotFoundError(
                    f"{place} holds {len(shards)} of the {announced} files {split}-*.parquet"
                )
            return shards
    return []


def read_parquet(
    shards: list[Path], image_column: str, target_column: str
) -> tuple[list[bytes], np.ndarray]:
    """Read encoded images, N of them, and their targets (N,), int64.

    Raises:
        ValueError: If a file is damaged or lacks a column.
    """
    contents: list[bytes] = []
    targets: list[np.ndarray] = []
    for shard in shards:
        try:
            table = pq.read_table(shard, columns=[image_column, target_column])
            contents += pc.struct_field(table[image_column], "bytes").to_pylist()
            targets.append(table[target_column].to_numpy().astype(np.int64))
        except (pa.ArrowException, KeyError, OSError) as error:
            raise ValueError(
                f"{shard} is damaged or of another data set: expected the columns "
                f"{image_column} and {target_column} ({error})"
            ) from None
    return contents, np.concatenate(targets)


def read_idx(path: Path) -> np.ndarray:
    """Read an IDX file of bytes, as it is or packed with the suffix ``.gz``.

    Raises:
        FileNotFoundError: If there is neither.
        ValueError: If the file is damaged.
    """
    packed = path.with_name(f"{path.name}.gz")
    if not path.exists() and not packed.exists():
        raise FileNotFoundError(f"{path} is missing, and so is {packed.name}")
    try:
        content = path.read_bytes() if path.exists() else gzip.decompress(packed.read_bytes())
        # Two zeros, the type (8: unsigned byte), the number of axes, each axis in four bytes.
        shape = np.frombuffer(content, ">i4", count=content[3], offset=4)
        if content[:3] != b"\0\0\x08" or len(content) != 4 + 4 * len(shape) + shape.prod():
            raise ValueError("its header does not fit its length")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)
    except (ValueError, IndexError, EOFError, OSError, zlib.error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
