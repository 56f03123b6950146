"""What the loop costs the devices: images from the host, images on the devices, several steps a dispatch.

    python -m experiments.benchmarks.dispatch --workdir=/tmp/labelfx/benchmarks --config=simclr

The loop's own batches and steps, on the data and the method of the configuration, for several networks and batch
sizes. On CPU also what labelfx does not do there, a rolled scan, which every accelerator runs.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import jax

from labelfx.config import command, plain

from . import common

CONV3 = {"name": "conv3", "width": 32, "dtype": "float32"}
MLP = {"name": "mlp", "hidden": (256,), "dtype": "float32"}
RESNET = {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "bfloat16"}
SIZES = {
    "cpu": {
        "cases": (
            {"model": CONV3, "batch": 64, "steps": 16, "rolled_steps": 4},
            {"model": CONV3, "batch": 256, "steps": 4},
            {"model": MLP, "batch": 256, "steps": 40, "rolled_steps": 40},
        ),
        "steps_per_dispatch": 4,
        "repeats": 11,
    },
    "accelerator": {
        "cases": (
            {"model": MLP, "batch": 256, "steps": 2000},
            {"model": CONV3, "batch": 256, "steps": 2000},
            {"model": RESNET, "batch": 1024, "steps": 400},
        ),
        "steps_per_dispatch": 50,
        "repeats": 3,
    },
}


def dispatch(
    config: Mapping[str, Any],
    workdir: str | Path,
    *,
    cases: Sequence[Mapping[str, Any]],
    steps_per_dispatch: int,
    repeats: int,
) -> dict:
    """Images a second of each side.

    Args:
      config: a configuration of two-view contrastive learning.
      workdir: where `dispatch.json` goes.
      cases: `model`, `batch` (images) and `steps` (of a measurement); with `rolled_steps`, also that many rolled.
      steps_per_dispatch: k, which divides the numbers of steps.
      repeats: rounds.
    """
    k, table = steps_per_dispatch, []
    settings = {"cases": cases, "steps_per_dispatch": k, "repeats": repeats, "config": plain(config)}
    for case in cases:
        table += _measure(settings["config"], case, k, repeats)
    return common.report("dispatch", workdir, settings, table)


def _measure(config: dict[str, Any], case: Mapping[str, Any], k: int, repeats: int) -> list[dict]:
    config = config | {"model": case["model"], "batch": {"labelled": 0, "unlabelled": case["batch"]}}
    config |= {"optimizer": config["optimizer"] | {"schedule": {"name": "constant", "warmup_steps": 0}}}
    sides: dict[str, Callable[[], float]] = {}
    about: dict[str, dict[str, float | None]] = {}

    def prepare(name: str, placement: str, count: int, steps: int) -> common.Steps:
        changes = {"data": config["data"] | {"placement": placement}, "steps_per_dispatch": count}
        step = common.Steps(config | changes)
        with common.CompileSeconds() as compiled:
            step(count)
        about[name] = {"compile s": compiled.seconds, "peak GB": common.peak_memory()}
        sides[name] = common.speed(steps * case["batch"], functools.partial(step, steps))
        return step

    flops = prepare("host, k = 1", "host", 1, case["steps"]).flops() / case["batch"]
    prepare("device, k = 1", "device", 1, case["steps"])
    prepare(f"device, k = {k}", "device", k, case["steps"])
    if "rolled_steps" in case:
        scan = jax.lax.scan
        with mock.patch.object(jax.lax, "scan", lambda *how, **more: scan(*how, **more | {"unroll": 1})):
            prepare(f"device, k = {k}, rolled", "device", k, case["rolled_steps"])
    rounds = common.interleave(sides | {"matmul": common.matmul_ceiling()}, repeats)
    ceiling = common.spread(rounds.pop("matmul"))["median"]
    found = common.rows(rounds, model=case["model"]["name"], batch=case["batch"])
    for row in found:
        row["share of matmul"] = row["images/s"]["median"] * flops / ceiling
        row |= about[row["side"]]
    return found


if __name__ == "__main__":
    command.run(
        lambda flags: dispatch(flags.config, flags.workdir, **common.for_this_device(SIZES)),
        config=True,
    )
