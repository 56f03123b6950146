"""Rows split over the devices of this process, each of which goes through its share a block at a time.

Evals are the first process's own (`labelfx.loop.distributed.by_the_first`), so its devices are all that they have.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from labelfx.loop.mesh import make_mesh, split_rows

BLOCK = 2**27  # numbers, half a gibibyte in float32, that a block of rows may take
CACHED = 2**21  # on processors: what their cache has of a block is read, and cut out of all rows, but once


def own_devices(every: bool) -> Mesh:
    """All devices of this process or, for what is done before several have met, one."""
    return make_mesh(0 if every else 1, 1, jax.local_devices())


def largest(mesh: Mesh) -> int:
    """Numbers that a block may take on these devices."""
    return CACHED if mesh.devices.flat[0].platform == "cpu" else BLOCK


def rows_of_a_block(rows: int, width: int, devices: int, most: int) -> int:
    """Rows of a block of `most` numbers where a row takes `width`: all blocks are alike, and as few as may be."""
    share = math.ceil(rows / devices)
    return math.ceil(share / math.ceil(share * width / most))


def place(mesh: Mesh, size: int, rows: np.ndarray, *, fill: int = 0) -> jax.Array:
    """Rows [N, ...] on the devices, then as many of `fill` as make the blocks of `size` rows equally many on each."""
    total = math.ceil(len(rows) / (size * mesh.size)) * size * mesh.size

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(total)
        found = rows[start:stop]
        missing = stop - start - len(found)
        widths = [(0, missing), *[(0, 0)] * (rows.ndim - 1)]
        return np.pad(found, widths, constant_values=fill) if missing else found

    return jax.make_array_from_callback((total, *rows.shape[1:]), split_rows(mesh), part)


def total(mesh: Mesh, size: int, body: Callable[..., Any], shared: Any, *rows: jax.Array) -> Any:
    """The sum of `body(shared, *block)`, a tree of arrays, over all blocks of the placed `rows`."""

    def of_one_device(shared: Any, *rows: jax.Array) -> Any:
        def block(number: Any) -> list[jax.Array]:  # a slice: cut into blocks beforehand, a TPU would copy all of it
            return [jax.lax.dynamic_slice_in_dim(x, number * size, size) for x in rows]

        def add(number: Any, sums: Any) -> Any:
            return jax.tree.map(jnp.add, sums, body(shared, *block(number)))

        shapes = jax.eval_shape(lambda: body(shared, *block(0)))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return jax.lax.psum(jax.lax.fori_loop(0, len(rows[0]) // size, add, nothing), mesh.axis_names)

    return _split(mesh, of_one_device, PartitionSpec(), len(rows))(shared, *rows)


def change(mesh: Mesh, size: int, body: Callable[..., jax.Array], shared: Any, rows: jax.Array) -> jax.Array:
    """The placed rows with `body(shared, block)`, of the block's own shape, in the place of each block."""

    def of_one_device(shared: Any, rows: jax.Array) -> jax.Array:
        def turn(number: jax.Array, rows: jax.Array) -> jax.Array:
            block = jax.lax.dynamic_slice_in_dim(rows, number * size, size)
            return jax.lax.dynamic_update_slice_in_dim(rows, body(shared, block), number * size, 0)

        return jax.lax.fori_loop(0, len(rows) // size, turn, rows)

    return _split(mesh, of_one_device, PartitionSpec(mesh.axis_names), 1)(shared, rows)


def _split(mesh: Mesh, function: Callable[..., Any], out: PartitionSpec, count: int) -> Callable[..., Any]:
    each = (PartitionSpec(mesh.axis_names),) * count
    return jax.shard_map(function, mesh=mesh, in_specs=(PartitionSpec(), *each), out_specs=out, check_vma=False)
