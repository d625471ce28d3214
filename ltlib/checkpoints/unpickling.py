"""Read what ``torch.save`` wrote without running what the file asks for.

Only tensors and plain values come out. What the authors' files hold besides, ProCo's criterion
(``ProCo_cifar/loss/proco.py`` of LeapLabTHU/ProCo) and NumPy's scalars, is met by stand-ins: no
class of theirs and no function of NumPy is imported or called.
"""

import pickle
import re
import struct
import warnings
from pathlib import Path

import torch
from torch.serialization import safe_globals


def read_pickle(path: Path) -> object:
    """Read a file of ``torch.save``.

    Raises:
        ValueError: If the file is damaged, is none of ``torch.save``, or asks for a Python object
            other than tensors, plain values and those with a stand-in.
    """
    # An odd protocol is announced by a warning, then read or refused all the same.
    with path.open("rb") as file, warnings.catch_warnings(), safe_globals(list(_STAND_INS)):
        warnings.simplefilter("ignore")
        try:
            return torch.load(file, map_location="cpu", weights_only=True)
        except _DAMAGE as error:
            asked = re.search(r"GLOBAL (\S+)", str(error))
    if asked:
        raise ValueError(
            f"{path} asks for {asked[1]}, which weights do not need and which could run code; "
            "nothing of it was loaded"
        )
    raise ValueError(f"{path} is damaged, or no checkpoint of torch.save")


class _Inert:
    """Stand in for an instance of the authors' classes: takes its contents, does nothing."""


class _DType:
    """Stand in for ``numpy.dtype``.

    Args:
        code: Kind and size in bytes, such as "f8".
        flags: Not needed.
    """

    def __init__(self, code: str, *flags: object) -> None:
        self.format = _FORMATS[code]
        self.byteorder = "<"

    def __setstate__(self, state: tuple) -> None:
        if state[1] == ">":
            self.byteorder = ">"


def _scalar(dtype: _DType, content: bytes) -> float:
    """Stand in for NumPy's constructor of scalars: return a Python number."""
    return struct.unpack(dtype.byteorder + dtype.format, content)[0]


_FORMATS = {"f2": "e", "f4": "f", "f8": "d", "i4": "i", "i8": "q", "b1": "?"}

# A stand-in and the name that a file calls it by; NumPy 2 renamed its module.
_STAND_INS = (
    (_Inert, "loss.proco.ProCoLoss"),
    (_Inert, "loss.proco.EstimatorCV"),
    (_DType, "numpy.dtype"),
    (_scalar, "numpy.core.multiarray.scalar"),
    (_scalar, "numpy._core.multiarray.scalar"),
)

# Whatever a damaged or tampered file can make torch's reader stumble over.
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
