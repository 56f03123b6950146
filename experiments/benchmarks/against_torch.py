"""The same SimCLR step in labelfx and in PyTorch, where PyTorch is installed (`pip install torch`).

    python -m experiments.benchmarks.against_torch --workdir=/tmp/labelfx/benchmarks

Same networks, batches, augmentation on the device, NT-Xent and AdamW; labelfx also computes its metrics. Each side is
measured at every batch size, in a process of its own, in turns. A second table has the convolutions alone.
"""

import contextlib
import functools
import importlib.util
import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import command

from . import common
from .augmentation import AUGMENTATIONS

SIDES = ("labelfx", "torch", "torch.compile")
RESET_PEAK = "/proc/self/clear_refs"  # Linux: writing 5 there lets the peak of resident memory begin again
SIZES = {
    "cpu": {
        "models": (
            {"name": "conv3", "width": 32, "dtype": "float32", "batches": (64, 256, 512), "images": 512},
            {"name": "resnet18", "stem": "cifar", "width": 64, "dtype": "float32", "batches": (16, 32), "images": 32},
        ),
        "convolutions": ((32, 32, 64, 64, 1), (32, 16, 128, 128, 1), (32, 8, 256, 256, 1), (32, 4, 512, 512, 1)),
        "repeats": 3,
    },
    "accelerator": {
        "models": (
            {"name": "conv3", "width": 32, "dtype": "bfloat16", "batches": (512, 2048, 8192), "images": 400_000},
            {
                "name": "resnet18",
                "stem": "cifar",
                "width": 64,
                "dtype": "bfloat16",
                "batches": (256, 512, 1024, 2048),
                "images": 20_000,
            },
        ),
        "convolutions": (
            (1024, 32, 64, 64, 1),
            (1024, 16, 128, 128, 1),
            (1024, 8, 256, 256, 1),
            (1024, 4, 512, 512, 1),
        ),
        "repeats": 5,
    },
}


def against_torch(
    workdir: str | Path,
    *,
    models: Sequence[Mapping[str, Any]],
    convolutions: Sequence[tuple[int, int, int, int, int]],
    repeats: int,
    sides: Sequence[str] = SIDES,
) -> dict:
    """Images a second, memory and the ratio to labelfx of each side at each batch size.

    Args:
      workdir: where `against_torch.json` goes.
      models: backbones, with `batches` to try and how many `images` a measurement takes, about.
      convolutions: (batch, size, channels before, channels after, stride) of 3x3 convolutions.
      repeats: rounds.
      sides: labelfx first, then torch with or without its compiler.

    Raises:
      FileNotFoundError: there is no PyTorch.
    """
    if not importlib.util.find_spec("torch"):
        raise FileNotFoundError("no package torch; pip install torch")
    cores = len(os.sched_getaffinity(0))
    environment = {"OMP_NUM_THREADS": str(cores), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
    table: list[dict[str, Any]] = []
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(common.new_process(**environment)) for name in sides}
        for model in models:
            found = [row for batch in model["batches"] for row in _measure(processes, model, batch, repeats)]
            best = max(row["images/s"]["median"] for row in found if row["side"] == "labelfx")
            table += [row | {"to labelfx's best": row["images/s"]["median"] / best} for row in found]
        for shape in convolutions:
            table += _measure_convolution(processes, shape, repeats)
    settings = {"models": models, "convolutions": convolutions, "repeats": repeats, "threads": cores}
    return common.report("against_torch", workdir, settings, table)


def _measure(sides: Mapping[str, Executor], model: Mapping[str, Any], batch: int, repeats: int) -> list[dict]:
    backbone = {key: value for key, value in model.items() if key not in ("batches", "images")}
    about = {name: side.submit(_build, name, backbone, batch).result() for name, side in sides.items()}
    if len({each["parameters"] for each in about.values()}) != 1:
        raise AssertionError(f"not the same network: {about}")
    count = max(1, model["images"] // batch)
    work = {name: functools.partial(_ask, side, _run, count, batch) for name, side in sides.items()}
    rounds = common.interleave(work | {"matmul": functools.partial(_ask, sides["labelfx"], _matmul)}, repeats)
    ceiling = common.spread(rounds.pop("matmul"))["median"]
    found = common.rows(rounds, model=model["name"], batch=batch)
    for row in found:
        row["share of matmul"] = row["images/s"]["median"] * about["labelfx"]["flops"] / batch / ceiling
        row["first step s"] = about[row["side"]]["seconds"]
        row["peak GB"] = sides[row["side"]].submit(_peak_memory, row["side"]).result()
    return found


def _measure_convolution(sides: Mapping[str, Executor], shape: Sequence[int], repeats: int) -> list[dict]:
    batch, size, before, after, stride = shape
    # Forward, and the gradients of the input and of the weights: as many operations each.
    flops = 3 * 2 * 9 * batch * (size // stride) ** 2 * before * after
    times = min(max(1, int(5e10) // flops), 100)
    names = ("labelfx", "torch")
    for name in names:
        sides[name].submit(_build_convolution, name, shape).result()
    work = {name: functools.partial(_ask, sides[name], _run, times, batch) for name in names}
    what = f"{batch}x{size}x{size}x{before} to {after}"
    found = common.rows(common.interleave(work, repeats), convolution=what)
    for row in found:
        row["GFLOP/s"] = row["images/s"]["median"] * flops / batch / 1e9
    return found


def _ask(side: Executor, function: Callable[..., float], *arguments: Any) -> float:
    return side.submit(function, *arguments).result()


# From here on in a side's own process, which keeps what it measures.
_work: Callable[[int], Any]


def _build(side: str, backbone: Mapping[str, Any], batch: int) -> dict[str, float]:
    """Makes the step and takes it once."""
    global _work
    config = common.simclr(backbone, batch)
    config["method"] |= {"augment": {"name": "simclr", **AUGMENTATIONS["simclr"]}}
    images = np.random.default_rng(0).integers(0, 256, (batch, 32, 32, 3), np.uint8)
    steps: Any
    if side == "labelfx":
        steps = common.Steps(config, images)
        about = {"flops": steps.flops(), "parameters": sum(p.size for p in jax.tree.leaves(steps.state.params))}
    else:
        from . import torch_simclr

        steps = torch_simclr.Steps(config, images, compiled=side == "torch.compile")
        about = {"parameters": steps.parameters()}
    begin = time.perf_counter()
    steps()
    _work = steps
    if os.path.exists(RESET_PEAK):
        Path(RESET_PEAK).write_text("5")
    return about | {"seconds": time.perf_counter() - begin}


def _build_convolution(side: str, shape: Sequence[int]) -> None:
    global _work
    if side == "torch":
        from . import torch_simclr

        _work = torch_simclr.convolution(*shape)
        return
    batch, size, before, after, stride = shape
    dtype = common.for_this_device({"cpu": jnp.float32, "accelerator": jnp.bfloat16})
    image, kernel = jnp.ones((batch, size, size, before), dtype), jnp.ones((3, 3, before, after), dtype)

    def convolve(image: jax.Array, kernel: jax.Array) -> jax.Array:
        layout, padding = ("NHWC", "HWIO", "NHWC"), [(1, 1), (1, 1)]
        return jax.lax.conv_general_dilated(image, kernel, (stride, stride), padding, dimension_numbers=layout)

    @jax.jit
    def forward_and_backward(image: jax.Array, kernel: jax.Array) -> Any:
        output, backward = jax.vjp(convolve, image, kernel)
        return backward(output)

    def work(times: int) -> Any:
        return jax.block_until_ready([forward_and_backward(image, kernel) for _ in range(times)])

    _work = work


def _run(count: int, batch: int) -> float:
    return common.speed(count * batch, lambda: _work(count))()


def _matmul() -> float:
    return common.matmul_ceiling()()


def _peak_memory(side: str) -> float:
    """GB since the step was built: of the GPU, where there is none the resident memory of the process."""
    if side == "labelfx":
        found = common.peak_memory()
    else:
        from . import torch_simclr

        found = torch_simclr.peak_memory()
    if found is not None:
        return found
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["VmHWM"].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    command.run(lambda flags: against_torch(flags.workdir, **common.for_this_device(SIZES)), config=False)
