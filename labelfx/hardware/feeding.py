"""Images a second: what a step takes, and what the cores of this machine decode."""

import contextlib
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from labelfx import config as configs
from labelfx.data import DataError
from labelfx.data.decode import IMAGE_SUFFIXES, decode
from labelfx.data.decoders import usable_cores

SAMPLE, SECONDS = 48, 2.0  # files that are decoded, or as many as can be in this time


class Rate(NamedTuple):
    """Of one core, measured."""

    images: float  # decoded a second of its time; waiting for the disk is none
    size: float  # bytes of a file, on average
    files: int  # looked at


def note(config: configs.Run, wanted: Mapping[str, tuple[float, int]]) -> str:
    """What steps want and this machine gives, where images are read and decoded while the run trains; else nothing.

    wanted: for each step's name its images a second, and the machines that share them.
    """
    source, _, root = config.data["name"].partition(":")
    if source not in ("folder", "tfds") or config.data["placement"] == "device":
        return ""
    rate = _measure(config, root) if source == "folder" else None
    parts = ["Images are read while it trains, at most as many as the step takes in the time of what binds."]
    for name, (images, machines) in wanted.items():
        each = f", {images / machines:,.0f} on each of {machines} machines" if machines > 1 else ""
        size = f", {images * rate.size / 1e6:,.0f} MB of files" if rate else ""
        parts.append(f"{name}: {images:,.0f} images a second{each}{size}.")
    if rate is None:
        return " ".join([*parts, "What this machine decodes is measured where they are a folder of files on it."])
    cores = usable_cores()
    parts.append(
        f"A core of this machine decodes {rate.images:,.0f} a second, measured on {rate.files} of them with "
        f"{rate.size / 1e3:,.0f} kB each; its {cores} cores {rate.images * cores:,.0f}, an estimate, if the disk gives "
        f"{rate.images * cores * rate.size / 1e6:,.0f} MB a second."
    )
    return " ".join(parts)


def _measure(config: configs.Run, root: str) -> Rate | None:
    """How fast a core decodes the run's own files; None where there are none."""
    shape = (config.data["image_size"], config.data["image_size"], config.data["channels"])
    sizes: list[int] = []
    begin, until = 0.0, time.monotonic() + SECONDS
    for path in itertools.islice(_images(root), 1 + SAMPLE):
        with contextlib.suppress(DataError):
            decode(path, shape)
            if begin:
                sizes.append(path.stat().st_size)
            else:  # the first starts Pillow
                begin = time.thread_time()
        if time.monotonic() > until:
            break
    return Rate(len(sizes) / (time.thread_time() - begin), sum(sizes) / len(sizes), len(sizes)) if sizes else None


def _images(root: str) -> Iterator[Path]:
    """Some images, without a list of all, as `image_files` makes it: ImageNet's takes longer than what is measured."""
    for where, _, names in os.walk(root):
        yield from (Path(where, name) for name in names if name.lower().endswith(IMAGE_SUFFIXES))
