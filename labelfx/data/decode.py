"""Image files to uint8 arrays of one shape."""

import contextlib
import io
import os
import re
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from labelfx.data import DataError

T = TypeVar("T")

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff")
OTHER_SUFFIXES = (".heic", ".heif", ".avif", ".jp2", ".jxl")  # images too, which are not read
LISTED = 20  # names that a line has of one kind, at most
FEW, AHEAD, SECONDS = 100, 1024, 5  # images not worth a line; images read before they are asked for; between two lines
# Of an interlaced PNG: first column and row of each pass, and the steps to the next.
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
PIXELS_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
MOST_PIXELS = 89_478_485  # where Pillow begins to warn


def decode(path: Path, shape: tuple[int, int, int]) -> np.ndarray:
    """An image file as uint8 `shape` = (height, width, channels), with channels 1 (grey) or 3 (RGB).

    Turned as its EXIF orientation says, resized (bicubic, antialiased) until it covers the shape, and cropped to its
    centre; transparency is dropped. Of several frames or pages it is the first. Of 16 bits a channel the upper 8 are
    kept: levels 0 to 65,535 become 0 to 255, whichever of them the image has.

    Raises:
      DataError: not an image of 8 or 16 bits a channel; one line with the file.
    """
    image = load_image(path)
    check_depth(path, image)
    return fitted(image, shape)


def decode_bytes(encoded: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """What an image file holds, as uint8 `shape`: fitted as `decode` does, but neither turned nor checked.

    Raises:
      DataError: not an image; why.
    """
    try:
        return fitted(Image.open(io.BytesIO(encoded)), shape)
    except Exception as error:
        raise DataError(f"cannot be read as an image ({_why(error)})") from error


def fitted(image: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """An upright image as uint8 `shape`, as `decode` makes it."""
    height, width, channels = shape
    if image.mode == "P":
        image = image.convert("RGBA")  # a palette with transparency does not convert cleanly to the others
    if image.mode.startswith("I;16"):  # which Pillow would clip at 255; of colours it keeps the upper 8 bits itself
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    image = ImageOps.fit(image.convert("L" if channels == 1 else "RGB"), (width, height))
    return np.asarray(image).reshape(shape)


def load_image(path: Path) -> Image.Image:
    """Upright pixels of an image file. DataError where it cannot be read; one line with the file."""
    with _opened(path) as image:
        if image.format in CHECKS:
            with open(path, "rb") as stream:
                CHECKS[image.format](stream)
        return ImageOps.exif_transpose(image)


def check_header(path: Path) -> None:
    """DataError where the header of an image file, or where its file ends, shows that `decode` cannot read it."""
    with _opened(path) as image:
        if image.format in ENDS:
            end = ENDS[image.format]
            with open(path, "rb") as stream:
                stream.seek(-len(end), os.SEEK_END)
                if stream.read() != end:  # cut short, or something stands behind the image
                    stream.seek(0)
                    CHECKS[image.format](stream)
    check_depth(path, image)


def size_of(path: Path) -> tuple[int, int]:
    """Width and height of an image file by its header, as it lies there. DataError where it cannot be read."""
    with _opened(path) as image:
        return image.size


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """An image file whose header is read. What is raised there or within is a DataError, one line with the file."""
    try:
        if not path.is_file():
            raise OSError("no file, or a link to none")  # a pipe would be waited for
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="PIL")  # bombs are an error below; odd tags of scanners are none
            opened = Image.open(path)
        with opened as image:
            if (size := image.width * image.height) > MOST_PIXELS:
                raise ValueError(f"Image size ({size} pixels) exceeds limit of {MOST_PIXELS} pixels")
            yield image
    except Exception as error:  # Pillow raises nearly anything: OSError, SyntaxError, DecompressionBombError
        raise DataError(f"{path}: cannot be read as an image ({_why(error)})") from error


def _why(error: Exception) -> str:
    return "of no known format" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())


def check_depth(path: Path | str, image: Image.Image) -> None:
    """DataError where an image's levels are neither 8 nor 16 bits; `path` is what it is called."""
    if image.mode in ("I", "F"):  # integers of 32 bits and floats, which Pillow would clip at 255 without a word
        raise DataError(f"{path}: pixels are of mode {image.mode}; must have 8 or 16 bits a channel")


def _check_png(stream: IO[bytes]) -> None:
    """Checksums, and as many bytes as the header says: Pillow looks at neither where the pixels are."""
    stream.seek(8)
    kind, inflate, held = b"", zlib.decompressobj(), 0
    while kind != b"IEND":
        length, kind = struct.unpack(">I4s", stream.read(8))
        data = stream.read(length)
        if stream.read(4) != struct.pack(">I", zlib.crc32(data, zlib.crc32(kind))):
            raise ValueError(f"wrong checksum in {kind!r}")
        if kind == b"IHDR":
            width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", data)
        while kind == b"IDAT" and data:
            held += len(inflate.decompress(data, 2**20))
            data = inflate.unconsumed_tail
    bits = depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    sizes = [
        (-((x - width) // dx), -((y - height) // dy)) for x, y, dx, dy in (ADAM7 if interlaced else ((0, 0, 1, 1),))
    ]
    expected = sum(rows * (1 + -(-columns * bits // 8)) for columns, rows in sizes if columns > 0)
    if held != expected:
        raise ValueError(f"header says {expected} bytes of pixels; there are {held}")


def _check_jpeg(stream: IO[bytes]) -> None:
    """Segment by segment to the end: libjpeg skips what lies between them and makes up what is missing."""
    content = stream.read()
    at = 2
    while True:
        while content[at : at + 2] == b"\xff\xff":  # may stand before a marker
            at += 1
        marker = content[at : at + 2]
        if marker == b"\xff\xd9":
            return
        (length,) = struct.unpack(">H", content[at + 2 : at + 4])
        if marker[:1] != b"\xff" or length < 2:
            raise ValueError(f"no segment at byte {at}")
        at += 2 + length
        if marker == b"\xff\xda":  # the pixels, up to what is neither an escaped 0xff nor a restart
            end = PIXELS_END.search(content, at)
            if end is None:
                raise ValueError("cut short")
            at = end.start()


CHECKS = {"PNG": _check_png, "JPEG": _check_jpeg, "MPO": _check_jpeg}
ENDS = {"PNG": b"IEND\xaeB`\x82", "JPEG": b"\xff\xd9", "MPO": b"\xff\xd9"}


def visible_files(root: Path) -> list[str]:
    """Sorted names below `root`, with `/`, of what is not hidden and not a folder. Links are followed.

    Raises:
      DataError: a link points to a folder that holds it.
      OSError: a folder cannot be read.
    """

    def stop(error):
        raise error

    found: list[str] = []
    for where, folders, files in os.walk(root, onerror=stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(where, name) for name in folders):
            if path.is_symlink() and Path(where).resolve().is_relative_to(path.resolve()):
                raise DataError(f"{path}: links to a folder that holds it")
        found += [Path(where, name).relative_to(root).as_posix() for name in files if not name.startswith(".")]
    return sorted(found)


def image_files(root: Path) -> tuple[list[str], dict[str, str]]:
    """Of `visible_files(root)` those with the suffix of an image that is read, and a line for each of the others."""
    images, others = [], {}
    for name in visible_files(root):
        if name.lower().endswith(IMAGE_SUFFIXES):
            images.append(name)
        else:
            other = name.lower().endswith(OTHER_SUFFIXES)
            why = f"only {' '.join(IMAGE_SUFFIXES)} are read" if other else "not an image"
            others[name] = f"{root / name}: {why}"
    return images, others


def listing(root: Path, errors: Mapping[str, str]) -> str:
    """In one line what is wrong with files below `root`, from a line for each that begins with its path."""
    kinds: dict[str, list[str]] = {}
    for name in sorted(errors):
        kinds.setdefault(errors[name].removeprefix(f"{root / name}: "), []).append(name)
    return "; ".join(f"{shortened(names)}: {why}" for why, names in kinds.items())


def shortened(names: Sequence[str]) -> str:
    """The first `LISTED` names, on one line, and how many more there are."""
    more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
    return " ".join(", ".join(names[:LISTED]).split()) + more


def read_all(read: Callable[[Sequence[str]], Iterable[T]], names: Sequence[str], root: Path) -> Iterator[T]:
    """What `read` finds of each of some names, for all `names`, in order. Standard error says what takes its time."""

    def say(what: str) -> None:
        import jax  # by whoever has read it already: the processes that decode images do without

        if jax.process_index() == 0:
            print(f"{what} {len(names):,} images of {root}", file=sys.stderr, flush=True)

    said = time.monotonic()
    if len(names) > FEW:
        say("reading")
    for start in range(0, len(names), AHEAD):
        for done, result in enumerate(read(names[start : start + AHEAD]), start + 1):
            yield result
            if time.monotonic() - said > SECONDS:
                say(f"read {done:,} of")
                said = time.monotonic()
