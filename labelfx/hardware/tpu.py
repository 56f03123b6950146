"""TPU chips, the slices that they come in, and their compiler, which needs none of them."""

import fcntl
import functools
import importlib.util
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from labelfx.config import ConfigError, nearest

GIB = 2**30


class Chip(NamedTuple):
    """Published figures of a chip."""

    flops: float  # peak FLOP/s in bfloat16
    hbm: int  # bytes
    bandwidth: float  # of HBM, bytes/s
    interconnect: float  # bytes/s out of a chip over all its ICI links: half of the bidirectional figure


# docs.cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "System architecture", read in 2026. The page of v4 has no
# interconnect of a chip: 6 links of 50 GB/s are from table 4 of Jouppi et al. 2023, "TPU v4: An Optically
# Reconfigurable Supercomputer", and go with the page's 24 TB/s through the middle of a pod, which 512 links cross.
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1200e9, 300e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1638e9, 400e9),
}
# The slices that the same pages list, smallest first.
_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16".split()
_CUBIC = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16".split()
SLICES = {"v4": _CUBIC, "v5e": _FLAT, "v5p": [*_CUBIC, "16x16x24"], "v6e": _FLAT}


def chip_of(topology: str) -> Chip:
    return CHIPS[topology.partition(":")[0]]


def larger(topology: str) -> list[str]:
    """The slices of the same chips that are larger, smallest first."""
    generation, _, shape = topology.partition(":")
    return [f"{generation}:{other}" for other in SLICES[generation][SLICES[generation].index(shape) + 1 :]]


def check_topology(name: str) -> None:
    """ConfigError with the nearest names unless there is such a slice."""
    generation, _, shape = name.partition(":")
    if shape not in SLICES.get(generation, ()):
        known = [generation] if generation in SLICES else SLICES
        allowed = [f"{chip}:{shape}" for chip in known for shape in SLICES[chip]]
        raise ConfigError(f"--topology={name}: no such slice; {nearest(name, allowed)}")


@functools.cache
def take_compiler() -> int:
    """Takes the TPU compiler for this process, until it ends: libtpu lets one process of a machine use it at a time.

    Returns the descriptor of the file whose lock says so.

    Raises:
      ConfigError: it is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("the TPU compiler is not installed: pip install 'labelfx[plan]' (Linux only)")
    # Without these it looks for a TPU machine's metadata server, and says at length that there is none.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
    for name, value in {**quiet, "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"}.items():
        os.environ.setdefault(name, value)
    path = Path(tempfile.gettempdir(), "labelfx_plan.lock")
    if not path.exists():  # another user's cannot be touched, and need not be
        path.touch()
    lock = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(f"another plan is being made on this machine ({path}); waiting for it", file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return lock


def devices_of(topology: str) -> Sequence[Any]:
    """The slice's chips, each as one device, as JAX shows them on a TPU machine; `take_compiler` first."""
    settings: dict[str, Any] = {}
    if topology.startswith("v4:"):  # unless told so, the two cores of a chip are devices of their own
        settings["chip_config_name"] = "megacore"
    if topology.endswith(":1x1"):  # nor is a host of fewer than four chips expected
        settings["chips_per_host_bounds"] = (1, 1, 1)
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology, **settings).devices
    except jax.errors.JaxRuntimeError as error:  # such as another program that uses libtpu
        raise ConfigError(f"--topology={topology}: {str(error).splitlines()[0]}") from error
