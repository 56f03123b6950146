"""Folders of image files, and pictures however they are given, as rows of one shape: as the runs read them."""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from labelfx.config import local
from labelfx.data import DataError
from labelfx.data.decode import check_depth, fitted, image_files, listing, read_all
from labelfx.data.decoders import decoded

BLOCK = 256  # images that are held at once


def read_images(folder: str | Path, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Every image of a folder in any layout, as runs read it (`labelfx.data.decode.decode`): `shape` may be that of an
    encoder, `labelfx.read_images(FOLDER, encoder.shape)`.

    What is no image or cannot be read is left out, with one line on standard error that names it; hidden files are
    ignored.

    Returns:
      names: strings [N], paths below the folder with `/`, sorted.
      images: uint8 [N, H, W, C] of shape = (H, W, C), C 1 (grey) or 3 (RGB).

    Raises:
      FileNotFoundError, DataError: it is no folder, or none of its files can be read as an image.
    """
    found = list(blocks_of(local(folder), shape))
    return np.concatenate([names for names, _ in found]), np.concatenate([images for _, images in found])


def blocks_of(root: Path, shape: tuple[int, int, int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """What `read_images` returns, of up to `BLOCK` files at a time."""
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder")

    def read(some: Sequence[str]) -> Iterator[np.ndarray | DataError]:
        return decoded([f"{root / name}" for name in some], shape)

    files, left_out = image_files(root)
    count, any_read = len(files) + len(left_out), False
    results = read_all(read, files, root)
    for start in range(0, len(files), BLOCK):
        found = dict(zip(files[start : start + BLOCK], results, strict=False))
        left_out |= {name: str(value) for name, value in found.items() if isinstance(value, DataError)}
        images = {name: value for name, value in found.items() if not isinstance(value, DataError)}
        if images:
            any_read = True
            yield np.array([*images]), np.stack([*images.values()])
    if left_out:
        print(f"{root}: {len(left_out):,} of {count:,} files left out: {listing(root, left_out)}", file=sys.stderr)
    if not any_read:
        raise DataError(f"{root}: not one of its {count} files can be read as an image")


def pictures(given: Sequence[Any], shape: tuple[int, int, int]) -> Iterator[np.ndarray]:
    """Images uint8 [B, H, W, C] of shape = (H, W, C), up to `BLOCK` at a time, of files (str or Path), Pillow's images
    and arrays uint8 [h, w] or [h, w, c] with c 1, 3 or 4, of any size: fitted as files are.

    Raises:
      DataError, ValueError: a file cannot be read, or something is no such image.
    """
    for start in range(0, len(given), BLOCK):
        some = given[start : start + BLOCK]
        files = decoded([str(each) for each in some if isinstance(each, str | Path)], shape)
        yield np.stack([_read(next(files)) if isinstance(each, str | Path) else _picture(each, shape) for each in some])


def _read(found: np.ndarray | DataError) -> np.ndarray:
    if isinstance(found, DataError):
        raise found
    return found


def _picture(given: Any, shape: tuple[int, int, int]) -> np.ndarray:
    if isinstance(given, Image.Image):
        check_depth("an image", given)
        return fitted(ImageOps.exif_transpose(given), shape)
    image = np.asarray(given)
    if not is_image(image):
        raise ValueError(f"{image.dtype} {list(image.shape)}: an image is uint8 [H, W] or [H, W, C], C 1, 3 or 4")
    if image.shape == shape:
        return image
    return fitted(Image.fromarray(image[..., 0] if image.shape[2:] == (1,) else image), shape)


def is_image(array: np.ndarray) -> bool:
    """Whether it is one picture, uint8 [h, w] or [h, w, c] with c 1, 3 or 4."""
    return array.dtype == np.uint8 and array.ndim in (2, 3) and array.shape[2:] in ((), (1,), (3,), (4,))
