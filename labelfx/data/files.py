"""Rows that are read from files when they are asked for."""

import dataclasses
import functools
import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from labelfx.data import DataError
from labelfx.data.decode import image_files, listing
from labelfx.data.decoders import decoded

logger = logging.getLogger(__name__)


class LazyImages:
    """uint8 images that `read(rows)` decodes, indexed along the first axis as an array is. Worker processes pickle
    it. `which` tells two data sets apart, where it can be known without reading the images; `name` is that of a row."""

    dtype = np.dtype(np.uint8)

    def __init__(
        self,
        shape: tuple[int, ...],
        read: Callable[[list[int]], Iterable[np.ndarray]],
        which: str = "",
        name: Callable[[int], str] = "train/{}".format,
    ):
        self.shape = shape
        self.which = which
        self.name = name
        self._read = read

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> np.ndarray:
        rows = np.arange(len(self))[rows]  # slices, masks and negative rows as in an array, and its IndexError
        images = np.empty((rows.size, *self.shape[1:]), self.dtype)
        for slot, image in zip(images, self._read(rows.ravel().tolist()), strict=True):
            slot[...] = image
        return images.reshape(*rows.shape, *self.shape[1:])


@dataclasses.dataclass
class Files:
    """Decodes `names`, of which the first `labelled` have a label and cannot be replaced."""

    root: Path
    names: list[str]
    labelled: int
    shape: tuple[int, int, int]
    unreadable: dict[str, str]  # of them so far, with the reasons

    def __call__(self, rows: list[int]) -> list[np.ndarray]:
        images = []
        names = [self.readable(row) for row in rows]
        found = decoded([f"{self.root / name}" for name in names], self.shape)
        for row, name, image in zip(rows, names, found, strict=True):
            while isinstance(image, DataError):  # said here, in the order of the rows
                if row < self.labelled:
                    raise image
                if name not in self.unreadable:
                    self.unreadable[name] = str(image)
                    warn_once(f"{image}; left out")
                name = self.readable(row)
                (image,) = decoded([f"{self.root / name}"], self.shape)
            images.append(image)
        return images

    def readable(self, row: int) -> str:
        """The name of `row`, or of the next that is not known to be unreadable."""
        if row < self.labelled:
            return self.names[row]
        for other in itertools.chain(range(row, len(self.names)), range(self.labelled, row)):
            if self.names[other] not in self.unreadable:
                return self.names[other]
        first = self.unreadable[self.names[row]]
        raise DataError(f"{self.root}: not one of its unlabelled images can be read (the first: {first})")

    def images(self) -> LazyImages:
        """uint8 [N, H, W, C], decoded on access."""
        return LazyImages((len(self.names), *self.shape), self, hash_of(self.names), self.readable)


def images_of(root: Path, shape: tuple[int, int, int]) -> LazyImages:
    """Every image of a folder in any layout, in the order of their names, none of them labelled: what is no image is
    left out, and of one that cannot be read the row takes the next, each with a warning.

    Raises:
      DataError: there is none; on access where not one can be read.
    """
    names, others = image_files(root)
    if not names:
        raise DataError(f"{root}: not one of its {len(others)} files can be read as an image")
    if others:
        warn_once(f"{root}: {len(others):,} of {len(names) + len(others):,} files left out: {listing(root, others)}")
    return Files(root, names, 0, shape, {}).images()


def stamp(path: Path) -> list[int] | None:
    """Size in bytes and time of the last change in ns of a file, if there is one."""
    try:
        info = path.stat()
    except OSError:
        return None
    return [info.st_size, info.st_mtime_ns]


def hash_of(names: Iterable[str]) -> str:
    """Of names, in their order."""
    return hashlib.sha256(b"\0".join(map(os.fsencode, names))).hexdigest()


@functools.cache
def warn_once(line: str) -> None:
    """Once a process: a benchmark opens the same folder for each of its runs."""
    logger.warning("%s", line)
