"""A folder of image files: which are labelled, which are read, and what is said of the others."""

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np

from labelfx.config import ConfigError, cache_folder, local, read_json, write_text
from labelfx.config.annotations import PositiveInt
from labelfx.data import DataError, Dataset, Split
from labelfx.data.decode import (
    IMAGE_SUFFIXES,
    OTHER_SUFFIXES,
    check_header,
    image_files,
    listing,
    read_all,
    shortened,
)
from labelfx.data.decoders import decoded
from labelfx.data.files import Files, hash_of, stamp, warn_once
from labelfx.data.sources.images import _dataset

UNLABELLED = "unlabelled/"
SETTLED = 2 * 10**9  # ns: a file written later may be written again at the same time by the file system's clock


def folder(path: str, *, image_size: PositiveInt, channels: Literal[1, 3]) -> Dataset:
    """Your own images, all or a few of them labelled by the folder they lie in; decoded on access.

    Either `path/train/CLASS/...` with `path/test/CLASS/...`, or `path/CLASS/...`. In the latter an image is a test
    image if the first 8 bytes of the sha256 of its name (`CLASS/...`, with `/`), read as a big-endian number, are below
    2^64 / 5: about 20 % of each class, and adding images never moves another. `path/unlabelled/...` holds training
    images without a label; so does `path` itself in the latter layout. Hidden files are ignored; rows follow the sorted
    names, the unlabelled ones last. Where no training image has a label, as before the first are asked for
    (`labelfx.suggest`), the classes are those of `path/test/`; without that there are none and no test split, and
    methods and evals that need none remain.

    image_size: images are turned as their EXIF orientation says, resized (bicubic, antialiased) until the short side
      fits, and cropped to the central square; of several frames or pages it is the first, of 16 bits a channel the
      upper 8 (`labelfx.data.decode.decode`).
    channels: 1 (grey) or 3 (RGB); transparency is dropped.

    At the start the header of every image is read, and labelled and test images are decoded once; of what could be read
    name, size and time are kept in the user's cache. One warning a process names what is left out: files that are no
    images, and unlabelled images that cannot be read, whose rows the next one that can be read takes.

    Raises:
      ValueError: no image; an image outside a class folder in the former layout, a single class, a class without a
        training image, where others have one, or, in the former layout, a test image; labelled or test images that
        cannot be read, all in one line; on access for one that was damaged since.
    """
    root = local(path)
    if not root.is_dir():
        raise FileNotFoundError(f"{root.absolute()}: no such folder; it should hold a folder of images for each class")
    images, others = image_files(root)
    own_split = (root / "train").is_dir() or (root / "test").is_dir()
    names: dict[str, list[str]] = {"train": [], "test": []}
    classes: dict[str, list[str]] = {"train": [], "test": []}
    unlabelled, misplaced = [], []
    for name in images:
        split, *below = (name if own_split else f"{_hashed_split(name)}/{name}").split("/")
        if _without_label(name) and not (own_split and "/" not in name):
            unlabelled.append(name)
        elif split in names and len(below) > 1:  # a class folder, perhaps others, the file
            names[split].append(name)
            classes[split].append(below[0])
        else:
            misplaced.append(name)
    if misplaced:
        allowed = "train/CLASS/, test/CLASS/" if own_split else "CLASS/"
        raise ValueError(f"{root}: {shortened(misplaced)}: must lie in {allowed} or {UNLABELLED}")
    class_names = sorted({*classes["train"], *classes["test"]})
    if class_names or not unlabelled:
        checked = {"test": classes["test"]} if own_split and unlabelled and not classes["train"] else classes
        _check_classes(root, checked, own_split, f" ({listing(root, others)})" if others else "")
    shape = (image_size, image_size, channels)
    unreadable = _unreadable(root, images, shape)
    _account_for(root, others | unreadable, len(images) + len(others))
    number = {class_name: i for i, class_name in enumerate(class_names)}
    splits = []
    for rows, labels in (
        (names["train"] + unlabelled, [number[c] for c in classes["train"]] + [-1] * len(unlabelled)),
        (names["test"], [number[c] for c in classes["test"]]),
    ):
        files = Files(root, rows, int(np.count_nonzero(np.array(labels) >= 0)), shape, unreadable)
        splits.append(Split(files.images(), np.array(labels)))
    return _dataset(path, splits[0], splits[1] if class_names else None, class_names)


def _check_classes(root: Path, classes: dict[str, list[str]], own_split: bool, others: str) -> None:
    """ValueError where the classes of the images of a split cannot be those of a run, with what else there is."""
    class_names = sorted({name for present in classes.values() for name in present})
    if len(class_names) < 2:
        raise ValueError(f"{root}: images of {len(class_names)} classes {class_names}; at least 2 are needed{others}")
    for class_name in class_names:
        if class_name in ("unlabelled", "unlabeled"):
            raise ValueError(f"{root}: has a class {class_name!r}; images without a label go to {root / UNLABELLED}")
    for split, present in classes.items():
        if own_split and not present:
            raise ValueError(
                f"{root}: there is no image in {split}/CLASS/; make {split}/ with a folder for each class, or put them "
                f"in {root} itself: a fifth of their images is then for testing{others}"
            )
        if missing := [repr(name) for name in sorted({*class_names} - {*present})]:
            why = "" if own_split else " by the 20 % rule; choose yourself with train/CLASS/ and test/CLASS/"
            line = f"{root}: no {split} image of {shortened(missing)}{why}"
            if own_split or split == "train" or not present:
                raise ValueError(line + others)
            warn_once(line)  # a few labels a class


def _unreadable(root: Path, names: list[str], shape: tuple[int, int, int]) -> dict[str, str]:
    """A line for each image that cannot be read: by its header, of labelled and test images by all that they hold.

    What could be read, with its size and time, is kept for the next start. What could not is tried again: rights and
    disks are mended without a trace in either.
    """

    def read(some: Sequence[str]) -> Iterator[str]:
        whole = decoded([f"{root / name}" for name in some if not _without_label(name)], shape)
        with ThreadPoolExecutor() as pool:  # they wait for the disk
            headers = pool.map(_header, [root / name for name in some if _without_label(name)])
            for name in some:
                found = next(headers if _without_label(name) else whole)
                yield str(found) if isinstance(found, DataError) else ""

    settled = time.time_ns() - SETTLED
    file = cache_folder() / "folders" / f"{hash_of([str(root.resolve())])}.json"
    try:
        kept = read_json(file)
    except (ConfigError, OSError):  # none, or a damaged one
        kept = {}
    stamps = {name: stamp(root / name) for name in names}
    new = [name for name, stamp in stamps.items() if stamp is None or stamp != kept.get(name)]
    unreadable = {name: error for name, error in zip(new, read_all(read, new, root), strict=True) if error}
    keep = {name: s for name, s in stamps.items() if s and s[1] < settled and name not in unreadable}
    if keep != kept:
        with contextlib.suppress(OSError):  # it is only for speed
            file.parent.mkdir(parents=True, exist_ok=True)
            write_text(file, json.dumps(keep))
    return unreadable


def _without_label(name: str) -> bool:
    return name.startswith(UNLABELLED) or "/" not in name


def _header(path: Path) -> DataError | None:
    """What the header of an image shows to be wrong with it."""
    try:
        check_header(path)
    except DataError as error:
        return error
    return None


def _account_for(root: Path, errors: dict[str, str], count: int) -> None:
    """One warning for those of `count` files that are left out, ValueError for labelled and test images among them."""
    needed = {
        name: error
        for name, error in errors.items()
        if name.lower().endswith(IMAGE_SUFFIXES + OTHER_SUFFIXES) and not _without_label(name)
    }
    if rest := {name: error for name, error in errors.items() if name not in needed}:
        warn_once(f"{root}: {len(rest):,} of {count:,} files left out: {listing(root, rest)}")
    if needed:
        raise ValueError(
            f"{root}: {len(needed):,} labelled or test images cannot be read; mend or remove them: "
            f"{listing(root, needed)}"
        )


def _hashed_split(name: str) -> str:
    digest = hashlib.sha256(os.fsencode(name)).digest()
    return "test" if int.from_bytes(digest[:8], "big") < 2**64 / 5 else "train"
