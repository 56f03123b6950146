"""What NT-Xent takes as the batch grows, loss and gradients: in blocks of anchors, round a ring of devices, plainly.

python -m experiments.benchmarks.blocked --workdir=/tmp/labelfx/benchmarks
"""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from labelfx.config import command
from labelfx.loop.mesh import make_mesh, split_rows
from labelfx.objectives.contrastive import nt_xent
from labelfx.objectives.ring import ring

from . import common

TEMPERATURE = 0.5
SIZES = {
    "cpu": {
        "batches": tuple(2**n for n in range(10, 18)),
        "plain_up_to": 16384,
        "timed_up_to": 8192,
        "dim": 128,
        "block_size": 512,
        "cpu_devices": 4,
        "repeats": 3,
    },
    "accelerator": {
        "batches": tuple(2**n for n in range(10, 18)),
        "plain_up_to": 16384,
        "timed_up_to": 131072,
        "dim": 128,
        "block_size": 4096,
        "cpu_devices": 1,
        "repeats": 5,
    },
}


def blocked(
    workdir: str | Path,
    *,
    batches: Sequence[int],
    plain_up_to: int,
    timed_up_to: int,
    dim: int,
    block_size: int,
    cpu_devices: int,
    repeats: int,
) -> dict:
    """Images a second, and memory beside arguments and results on each device, with its exponent of growth.

    Args:
      workdir: where `blocked.json` goes.
      batches: B, rising; there are 2B anchors.
      plain_up_to: the largest of them that all similarities are kept for at once.
      timed_up_to: the largest of them that is run; above it programs are compiled only, which tells their memory.
      dim: D, of the embeddings.
      block_size: anchors at a time, of all or of one device of the ring.
      cpu_devices: on CPU, how many devices its cores are made to be; the ring is over all devices.
      repeats: rounds.
    """
    settings = {
        "batches": batches,
        "plain_up_to": plain_up_to,
        "timed_up_to": timed_up_to,
        "dim": dim,
        "block_size": block_size,
        "cpu_devices": cpu_devices,
        "repeats": repeats,
    }
    environment = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={cpu_devices}",
        "NPROC": "16",  # threads for collectives: with as few as cores, they can wait for one another for ever
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # this process may have a device of its own open
    }
    table = common.in_new_process(_measure, settings, **environment)
    return common.report("blocked", workdir, settings | {"temperature": TEMPERATURE}, table)


def _measure(settings: dict[str, Any]) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = []
    before: dict[str, tuple[int, float]] = {}  # side -> the batch before this one and its memory
    for batch in settings["batches"]:
        work, memory = {}, {}
        for side, (function, arrays) in _sides(batch, **settings).items():
            program = jax.jit(jax.value_and_grad(function, argnums=(0, 1))).lower(*arrays).compile()
            about: Any = program.memory_analysis()
            memory[side] = about.temp_size_in_bytes / 1e6
            work[side] = common.speed(batch, functools.partial(program, *arrays))
        found: list[dict[str, Any]] = [{"batch": batch, "side": side} for side in work]
        if batch <= settings["timed_up_to"]:
            found = common.rows(common.interleave(work, settings["repeats"]), batch=batch)
        for row in found:
            side = row["side"]
            row["MB a device"] = memory[side]
            smaller = before.get(side)
            row["growth"] = smaller and math.log(memory[side] / smaller[1]) / math.log(batch / smaller[0])
            before[side] = batch, memory[side]
        table += found
    return table


def _sides(batch: int, *, plain_up_to: int, dim: int, block_size: int, **_: Any) -> dict[str, Any]:
    """Side -> its loss and the two views, where that loss wants them."""
    mesh = make_mesh(0, 1)
    views = jnp.unstack(jax.random.normal(jax.random.key(0), (2, batch, dim)))
    split = jax.device_put(views, split_rows(mesh))

    def in_blocks(size: int) -> Any:
        return lambda z_a, z_b: nt_xent(z_a, z_b, temperature=TEMPERATURE, block_size=size)

    def over_devices(z_a: jax.Array, z_b: jax.Array) -> jax.Array:
        return ring(z_a, z_b, mesh=mesh, axis=mesh.axis_names, temperature=TEMPERATURE, block_size=block_size)

    sides = {"blocked": (in_blocks(block_size), views), f"ring of {mesh.size}": (over_devices, split)}
    return sides | ({"plain": (in_blocks(2 * batch), views)} if batch <= plain_up_to else {})


if __name__ == "__main__":
    command.run(lambda flags: blocked(flags.workdir, **common.for_this_device(SIZES)), config=False)
