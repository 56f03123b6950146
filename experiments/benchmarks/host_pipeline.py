"""How many images a second the host prepares, and how many the step takes.

    python -m experiments.benchmarks.host_pipeline --workdir=/tmp/labelfx/benchmarks

`batches` alone: a gather from images in memory, and PNG files decoded by threads, by `labelfx.data.decoders`, as runs
do, or by Grain's processes. The files are crops of the two photographs that scikit-learn brings.
"""

import functools
import itertools
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

from labelfx.config import command
from labelfx.data import Dataset, decoders
from labelfx.data.batches import batches, label_view
from labelfx.data.miners import uniform
from labelfx.data.sources import folder

from . import common

SIDE, RESIZED = 96, 32  # pixels of the files, and of the images that training sees
SIZES = {
    "cpu": {
        "model": {"name": "conv3", "width": 32, "dtype": "float32"},
        "files": 2000,
        "batch": 256,
        "count": 24,
        "workers": (1, 2),
        "repeats": 3,
    },
    "accelerator": {
        "model": {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16"},
        "files": 10_000,
        "batch": 1024,
        "count": 40,
        "workers": (2, 4, 8),
        "repeats": 3,
    },
}


def host_pipeline(
    workdir: str | Path,
    *,
    model: Mapping[str, Any],
    files: int,
    batch: int,
    count: int,
    workers: Sequence[int],
    repeats: int,
) -> dict:
    """Images a second of every way to prepare batches, and of the SimCLR step on images that are on the device.

    Args:
      workdir: where `host_pipeline.json` goes.
      model: the backbone of the step.
      files: how many PNG files are made.
      batch: images.
      count: batches in a measurement.
      workers: numbers of Grain's processes.
      repeats: rounds.
    """
    Path(workdir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as root:
        _write_files(Path(root), files)
        lazy = folder(root, image_size=RESIZED, channels=3)
        images = np.random.default_rng(0).integers(0, 256, (files, RESIZED, RESIZED, 3), np.uint8)
        memory = lazy._replace(train=lazy.train._replace(inputs=images[: len(lazy.train.labels)]))
        step = common.Steps(common.simclr(model, batch), images)
        sides = {
            "the step takes": common.speed(4 * batch, functools.partial(step, 4)),
            "gather from memory": _side(memory, batch, count, 0),
            "PNG files, threads": _side(lazy, batch, count, 0, few=10**9),
            "PNG files, decoders": _side(lazy, batch, count, 0, few=0),
            **{f"PNG files, {n} processes": _side(lazy, batch, count, n) for n in workers},
        }
        rounds = common.interleave(sides, repeats)
    settings = {"model": model, "files": files, "batch": batch, "count": count, "workers": workers, "repeats": repeats}
    return common.report("host_pipeline", workdir, settings, common.rows(rounds))


def _side(dataset: Dataset, batch: int, count: int, workers: int, few: int = decoders.FEW) -> Callable[[], float]:
    sizes = {"labelled": 0, "unlabelled": batch}
    view = label_view(dataset.train, np.arange(2))

    def measure() -> float:
        decoders.FEW = few
        prepared = batches(0, 2 * count, workers=workers, view=view, sizes=sizes, seed=0, miner=uniform(), table={})
        # The first half starts threads and processes and fills their queues.
        for _ in itertools.islice(prepared, count):
            pass
        begin = time.perf_counter()
        found = sum(len(each["unlabelled"]["input"]) for each in prepared)
        return found / (time.perf_counter() - begin)

    return measure


def _write_files(root: Path, count: int) -> None:
    photographs = load_sample_images().images
    generator = np.random.default_rng(0)
    for number in range(count):
        photograph = photographs[number % len(photographs)]
        top, left = (generator.integers(size - SIDE) for size in photograph.shape[:2])
        path = root / f"photograph_{number % len(photographs)}" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(photograph[top : top + SIDE, left : left + SIDE]).save(path)


if __name__ == "__main__":
    command.run(lambda flags: host_pipeline(flags.workdir, **common.for_this_device(SIZES)), config=False)
