"""The mesh: one data axis. Batches are split over it, the state is on every device; jit inserts the collectives."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from labelfx.config import ConfigError


def make_mesh(devices: int) -> Mesh:
    """A mesh over this many devices, 0 for all.

    Raises:
      ConfigError: there are fewer.
    """
    found = jax.devices()
    if devices > len(found):
        raise ConfigError(f"config.devices = {devices}: this machine has {len(found)} ({found[0].platform})")
    count = devices or len(found)
    return jax.make_mesh((count,), ("data",), axis_types=(AxisType.Auto,), devices=found[:count])


def on_every_device(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_over_data(mesh: Mesh) -> NamedSharding:
    """Leading dimension split over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))
