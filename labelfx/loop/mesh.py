"""The mesh: a data axis and an fsdp axis. jit splits the step over it and inserts the collectives.

Batches are split over both axes. The state (parameters, optimiser, moving averages, queues) is on every device along
`data` and split along `fsdp`, by one rule for every array: its largest dimension that the axis divides.
"""

import contextlib
import functools
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from labelfx.config import ConfigError

NVIDIA = Path("/dev/nvidiactl")  # there once the driver is
SMALL = 2**10  # arrays of fewer elements are on every device: splitting them saves nothing

logger = logging.getLogger(__name__)


def make_mesh(devices: int, fsdp: int, among: Sequence[Any] = ()) -> Mesh:
    """A mesh over this many devices, 0 for all: `fsdp` of them along that axis, the rest of the division along `data`.

    `among`: the devices to take them from, those of this machine by default.

    Raises:
      ConfigError: there are fewer devices, `fsdp` does not divide their number, or a process has none of them.
    """
    found = list(among) or jax.devices()
    if devices > len(found):
        raise ConfigError(f"config.devices = {devices}: this machine has {len(found)} ({found[0].platform})")
    count = devices or len(found)
    if count % fsdp:
        raise ConfigError(f"config.fsdp = {fsdp}: must divide the {count} devices of the mesh")
    axes = (AxisType.Auto,) * 2  # the default, Explicit, breaks dropout and z @ z.T
    # As jax.make_mesh, which refuses an axis of 4 in a TPU slice of 8x8x16 chips.
    grid = create_device_mesh((count // fsdp, fsdp), found[:count], allow_split_physical_axes=True)
    if not among and len({device.process_index for device in grid.flat}) < jax.process_count():
        raise ConfigError(
            f"config.devices = {devices}: leaves one of {jax.process_count()} processes without any; use 0"
        )
    return Mesh(grid, ("data", "fsdp"), axis_types=axes)


def device_memory(mesh: Mesh) -> int:
    """Bytes of one device; those of the machine where the device is its processor."""
    stats = mesh.local_devices[0].memory_stats()
    return stats["bytes_limit"] if stats else machine_memory()


def machine_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def products(precision: Literal["default", "highest"]) -> contextlib.AbstractContextManager[None]:
    """Within, products and convolutions of float32 are of full precision by "highest"; "default" is JAX's setting."""
    return jax.default_matmul_precision(precision) if precision != "default" else contextlib.nullcontext()


def matmul_precision() -> str:
    """How products of float32 are computed; by default in TF32 on NVIDIA GPUs, in bfloat16 on TPUs."""
    return jax.config.jax_default_matmul_precision or "default"  # type: ignore[attr-defined]


def announce(mesh: Mesh, dtype: str) -> None:
    """Says what a run is on, and warns where that is the processor of a machine with a GPU."""
    device = mesh.local_devices[0]
    products = "" if device.platform == "cpu" or dtype != "float32" else f", products of {matmul_precision()} precision"
    memory = f"{device_memory(mesh) / 1e9:.3g} GB"
    if jax.process_index() == 0:
        print(f"on {mesh.size} x {device.device_kind}, {memory}, {dtype}{products} ...", file=sys.stderr, flush=True)
    if device.platform == "cpu" and NVIDIA.exists() and os.environ.get("JAX_PLATFORMS") != "cpu":
        logger.warning(
            "this machine has an NVIDIA GPU, and the run is on its processor: pip install 'labelfx[gpu]' (driver 580 "
            "or newer) or 'labelfx[gpu12]'; JAX_PLATFORMS=cpu if that is what you want"
        )


def on_every_device(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_rows(mesh: Mesh, axis: int = 0) -> NamedSharding:
    """This dimension split over all devices: batches."""
    return NamedSharding(mesh, PartitionSpec(*(None,) * axis, ("data", "fsdp")))


@functools.lru_cache(maxsize=8)
def own_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Which rows of a batch of this size this process's devices hold, int64, rising."""
    where = split_rows(mesh).addressable_devices_indices_map((size,))
    return np.unique(np.concatenate([np.arange(size)[rows] for rows in where.values()]))


def place_batches(mesh: Mesh, batches: Any) -> Any:
    """Batches of some steps (leading dimensions: steps, rows) on the devices; of each this process has its own rows."""
    split = split_rows(mesh, axis=1)
    if jax.process_count() == 1:
        return jax.device_put(batches, split)

    def one(own: np.ndarray) -> jax.Array:
        size = own.shape[1] * mesh.size // len(mesh.local_devices)
        rows = own_rows(mesh, size)

        def part(index: Any) -> np.ndarray:
            first = np.searchsorted(rows, index[1].start or 0)
            return own[:, first : first + size // mesh.size]

        return jax.make_array_from_callback((own.shape[0], size, *own.shape[2:]), split, part)

    return jax.tree.map(one, batches)


def place_inputs(mesh: Mesh, images: Any) -> jax.Array:
    """All images on the devices, each of which holds a share; the last one's is filled up with zeros."""
    count = -(-len(images) // mesh.size) * mesh.size

    def part(index: Any) -> np.ndarray:
        found = images[index[0]]
        missing = (index[0].stop or count) - (index[0].start or 0) - len(found)
        return np.pad(found, [(0, missing), *[(0, 0)] * (found.ndim - 1)])

    return jax.make_array_from_callback((count, *images.shape[1:]), split_rows(mesh), part)


def whole(mesh: Mesh, tree: Any) -> Any:
    """The tree as arrays of this process alone; every process must call it."""
    if jax.process_count() == 1:
        return tree
    copies = jax.jit(lambda tree: tree, out_shardings=on_every_device(mesh))(tree)
    return jax.tree.map(lambda x: np.asarray(x.addressable_data(0)), copies)


def split_state(mesh: Mesh, state: Any) -> Any:
    """The sharding of each array of a state (or of its shapes). A graph, as a whole, is on every device: its edges lead
    anywhere."""

    def one(path: Any, array: Any) -> NamedSharding:
        if any(getattr(key, "key", None) == "graph" for key in path):
            return on_every_device(mesh)
        fits = [axis for axis, size in enumerate(array.shape) if size % mesh.shape["fsdp"] == 0]
        if array.size < SMALL or not fits or mesh.shape["fsdp"] == 1:
            return on_every_device(mesh)
        largest = max(fits, key=lambda axis: array.shape[axis])
        return NamedSharding(mesh, PartitionSpec(*(None,) * largest, "fsdp"))

    return jax.tree_util.tree_map_with_path(one, state)
