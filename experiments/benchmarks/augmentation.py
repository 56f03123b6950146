"""What augmentation costs: each builder alone on the device, and its share of a SimCLR step.

python -m experiments.benchmarks.augmentation --workdir=/tmp/labelfx/benchmarks
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx.config import command
from labelfx.data import augment

from . import common

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "identity": {},
    "crop_flip": {"padding": 4, "flip": True},
    "simclr": {"min_scale": 0.08, "flip": True, "jitter_strength": 0.5, "grayscale": 0.2, "blur": 0.0},
    "small_grey": {"min_scale": 0.5, "max_rotation": 15.0, "jitter_strength": 0.5, "cutout": 0.25},
    "randaugment": {
        "padding": 4,
        "flip": True,
        "operations": 2,
        "magnitude": 1.0,
        "probability": 1.0,
        "cutout": 0.5,
    },
}
IMAGES = (
    ((32, 32, 3), ("identity", "crop_flip", "simclr", "randaugment")),
    ((28, 28, 1), ("identity", "crop_flip", "small_grey", "randaugment")),
)
SIZES = {
    "cpu": {
        "images": IMAGES,
        "model": {"name": "conv3", "width": 32, "dtype": "float32"},
        "batch": 256,
        "steps": 4,
        "repeats": 3,
    },
    "accelerator": {
        "images": IMAGES,
        "model": {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16"},
        "batch": 1024,
        "steps": 100,
        "repeats": 5,
    },
}


def augmentation(
    workdir: str | Path,
    *,
    images: Sequence[tuple[tuple[int, int, int], Sequence[str]]],
    model: Mapping[str, Any],
    batch: int,
    steps: int,
    repeats: int,
) -> dict:
    """Views a second of every augmentation, and its share of the step that takes two views of `batch` images.

    Args:
      workdir: where `augmentation.json` goes.
      images: shapes of an image, and the augmentations to measure on it.
      model: the backbone of the step.
      batch: images.
      steps: calls in a measurement.
      repeats: rounds.
    """
    settings = {"images": images, "model": model, "batch": batch, "steps": steps, "repeats": repeats}
    table = [row for shape, names in images for row in _measure(shape, names, model, batch, steps, repeats)]
    return common.report("augmentation", workdir, settings | {"augmentations": AUGMENTATIONS}, table)


def _measure(
    shape: tuple[int, int, int], names: Sequence[str], model: Mapping[str, Any], batch: int, steps: int, repeats: int
) -> list[dict]:
    images = np.random.default_rng(0).integers(0, 256, (batch, *shape), np.uint8)
    on_device = jax.device_put(images)
    config = common.simclr(model, batch)
    alone, whole = {}, {}
    for name in names:
        views = jax.jit(getattr(augment, name)(**AUGMENTATIONS[name]))
        alone[name] = common.speed(steps * batch, functools.partial(_repeat, views, on_device, steps))
        method = config["method"] | {"augment": {"name": name, **AUGMENTATIONS[name]}}
        step = common.Steps(config | {"method": method}, images)
        whole[name] = common.speed(steps * batch, functools.partial(step, steps))
    rounds = common.interleave(alone | {f"step {name}": side for name, side in whole.items()}, repeats)
    found = common.rows({name: rounds[name] for name in alone}, "views/s", shape="x".join(map(str, shape)))
    for row in found:
        steps_of_it = rounds[f"step {row['side']}"]
        row["step images/s"] = common.spread(steps_of_it)
        # Two views of an image for one step of it.
        row["share of the step"] = common.spread(
            [2 * step / views for step, views in zip(steps_of_it, row["rounds"], strict=True)]
        )
        row["step rounds"] = steps_of_it
    return found


def _repeat(views: Callable[..., jax.Array], images: jax.Array, times: int) -> list[jax.Array]:
    return [views(jax.random.key(number), images) for number in range(times)]


if __name__ == "__main__":
    command.run(lambda flags: augmentation(flags.workdir, **common.for_this_device(SIZES)), config=False)
