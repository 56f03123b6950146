"""Arrays in NumPy's formats, nothing pickled: headers are checked against the bytes before any memory is taken."""

import math
import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy

from labelfx.data import DataError

KINDS = {"U": "strings", "iu": "integers", "biu": "0 or 1", "fiu": "numbers"}


def read_header(stream: IO[bytes], size: int) -> tuple[np.dtype, tuple[int, ...], Literal["C", "F"]]:
    """dtype, shape and order of the array in a stream of `size` bytes, which is left at the array's first byte.

    Raises:
      ValueError: it is none, it is of Python objects, or it is shorter or longer than its header says; one line.
    """
    try:
        version = npy.read_magic(stream)
        readers: dict[Any, Any] = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            shape, fortran, dtype = readers[version](stream)
    except Exception as error:  # also of tokenize and ast, which read the header
        raise ValueError(f"no header of an array: {' '.join(str(error).split())[:200]}") from error
    if dtype.hasobject:
        raise ValueError("an array of Python objects, which are pickled")
    expected, held = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if min(shape, default=0) < 0 or expected != held:
        raise ValueError(f"header says {dtype} {list(shape)}, {expected} bytes; there are {held}")
    return dtype, shape, "F" if fortran else "C"


def read_npz(path: Path, *names: str, also: Callable[[str], bool] = lambda name: False) -> dict[str, np.ndarray]:
    """The arrays `names` of an .npz, and others whose name is `also` wanted. What else it holds is not looked at.

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it is no such archive; one line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.absolute()}: no such file; it should be an .npz with {', '.join(names)}")
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
            _check_count(path, len(archive.infolist()))
            wanted = [name for name in members if name in names or also(name)]
            arrays = {name: _member(archive, members[name]) for name in wanted}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: must be an .npz of plain arrays, nothing pickled ({error})") from error
    missing = [name for name in names if name not in arrays]
    if missing:
        raise ValueError(f"{path}: no array {', '.join(missing)}")
    return arrays


def read_arrays(path: Path, **what: tuple[str, int]) -> list[np.ndarray]:
    """The arrays of an .npz that are named, each with its kind, of `KINDS`, and its rank. Numbers are finite.

    Raises:
      FileNotFoundError, ValueError: as `read_npz`, or an array is of another kind or rank.
    """
    arrays = read_npz(path, *what)
    for name, (kind, rank) in what.items():
        found = arrays[name]
        if found.dtype.kind not in kind or found.ndim != rank:
            raise DataError(
                f"{path}: {name} is {found.dtype} {list(found.shape)}; must be {KINDS[kind]} of rank {rank}"
            )
        if "f" in kind and not np.isfinite(found).all():
            raise DataError(f"{path}: {name} holds numbers that are not finite")
        if kind == "biu" and found.size and not (0 <= found.min() and found.max() <= 1):
            raise DataError(f"{path}: {name} holds {found.min()}..{found.max()}; allowed 0 and 1")
    return [arrays[name] for name in what]


def read_npy(path: Path, kind: str, rank: int) -> np.ndarray:
    """The array of a .npy file, of this kind and rank.

    Raises:
      FileNotFoundError, ValueError: there is no such file, or it holds something else; one line.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path.absolute()}: no such file")
    try:
        with path.open("rb") as stream:
            dtype, shape, order = read_header(stream, path.stat().st_size)
            found = np.frombuffer(stream.read(), dtype).reshape(shape, order=order)
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: {error}") from error
    if found.dtype.kind not in kind or found.ndim != rank:
        raise DataError(f"{path}: {found.dtype} {list(found.shape)}; must be {KINDS[kind]} of rank {rank}")
    return found


def _check_count(path: Path, count: int) -> None:
    """ValueError where an archive's last record counts other members than its directory names: `zipfile` takes a
    damaged directory for a short one, and what may be missing would be taken for missing."""
    with path.open("rb") as stream:
        stream.seek(-22, os.SEEK_END)
        signature, *_, said, _, _, _ = struct.unpack("<4s4H2LH", stream.read())
    if signature == b"PK\5\6" and said not in (count, 0xFFFF):  # that many and more are counted elsewhere
        raise ValueError(f"its directory has {count} of {said} members")


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as stream:
        dtype, shape, order = read_header(stream, info.file_size)
        return np.frombuffer(stream.read(), dtype).reshape(shape, order=order)  # to the end, where the checksum is
