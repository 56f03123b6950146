"""The header of an array in NumPy's format, checked against the bytes that are there before any memory is taken."""

import math
import warnings
from typing import IO, Any, Literal

import numpy as np
from numpy.lib import format as npy


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
