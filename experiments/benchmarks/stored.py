"""A student that learns from stored soft labels, beside the same with its teacher: images a second, bytes, seconds.

    python -m experiments.benchmarks.stored --workdir=/tmp/labelfx/benchmarks

Pictures of CIFAR-10's shape, noise; the teacher is a ResNet-18 that was not trained, the student has three
convolutions. What `labelfx.reinforce` writes of ten views is timed, and what CIFAR-10 would take is in proportion.
"""

import contextlib
import functools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import labelfx
from experiments.benchmarks.common import Steps, interleave, report, rows, speed
from labelfx.config import command, plain

SIZES: dict[str, Any] = {"rows": 2048, "width": 32, "batch": 128, "steps": 10, "views": 10, "repeats": 5}
CIFAR10 = 50_000
AUGMENT = {"name": "crop_flip", "padding": 4, "flip": True}


def stored(workdir: Path, sizes: dict[str, Any] = SIZES) -> dict[str, Any]:
    """What is in `workdir/stored.json`."""
    with tempfile.TemporaryDirectory() as name, contextlib.redirect_stdout(sys.stderr):
        folder, rng = Path(name), np.random.default_rng(0)
        images = rng.integers(0, 256, (sizes["rows"], 32, 32, 3), np.uint8)
        label = np.arange(len(images)) % 10
        splits: dict[str, Any] = {f"{name}_images": images for name in ("train", "test")}
        splits |= {f"{name}_labels": label for name in ("train", "test")}
        np.savez(folder / "noise.npz", **splits, class_names=np.array([*map(str, range(10))]))
        common: dict[str, Any] = {"data": {"name": f"npz:{folder / 'noise.npz'}"}, "labels": {"name": "all_labels"}}
        common |= {"method.augment": AUGMENT, "evals": {}, "devices": 1}
        large = {"name": "resnet18", "stem": "cifar", "width": sizes["width"], "remat": False, "dtype": "float32"}
        labelfx.train(
            labelfx.recipe("supervised", common | {"model": large, "steps": 0, "batch.labelled": 1}), folder / "teacher"
        )
        begin = time.perf_counter()
        about = labelfx.reinforce([folder / "teacher"], folder / "soft", views=sizes["views"], top=10)
        seconds = time.perf_counter() - begin
        size = sum((folder / "soft" / each).stat().st_size for each in about["shards"])
        common |= {"batch": {"labelled": 0, "unlabelled": sizes["batch"]}, "method.soft_weight": 1.0}
        live = {"teacher": str(folder / "teacher"), "method.soft_labels.augment": AUGMENT}
        ways = {
            "teacher": labelfx.recipe("distillation", common | live),
            "stored": labelfx.recipe("reinforced", common | {"method.soft_labels.file": str(folder / "soft")}),
        }
        steps, count = sizes["steps"], sizes["batch"] * sizes["steps"]
        sides = {name: speed(count, functools.partial(Steps(plain(way)), steps)) for name, way in ways.items()}
        table = rows(interleave(sides, sizes["repeats"]))
    share = CIFAR10 / sizes["rows"]
    table[1] |= {"bytes a row": size / sizes["rows"], "s to write CIFAR-10's": seconds * share}
    return report("stored", workdir, sizes, table)


def main(values: Any) -> None:
    stored(Path(values.workdir))


if __name__ == "__main__":
    command.run(main, config=False)
