"""Several processes as one run, by `jax.distributed`."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from labelfx.config import ConfigError

# A process that is gone is noticed after HEARTBEAT, and one that stops waits SHUTDOWN for the others: in seconds.
HEARTBEAT, SHUTDOWN = 25, 10
DAY = 24 * 60 * 60 * 1000  # in milliseconds
VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# The runtime writes pages to the standard error of the processes that are left and then aborts them. Nothing of Python
# runs any more by then, so another process has to make one line of it.
FILTER = """
import re, sys
message, foreign = "error: " + sys.argv[1] + "\\n", False
for line in sys.stdin:
    if line == message or "JAX distributed service detected fatal errors" in line:
        print(message, end="", file=sys.stderr, flush=True)
        break
    theirs = re.match(r"([IWE])\\d{4} .* (coordination|preemption)\\w*[.]cc:", line)
    if theirs:
        foreign = theirs[1] == "E"  # and so are the lines below it
        continue
    if re.match("Traceback|error:|SIGTERM:", line):
        foreign = False
    if line.startswith("Additional GRPC error information"):
        foreign = True
    if not foreign:
        print(line, end="", file=sys.stderr, flush=True)
for line in sys.stdin:
    pass
"""


class PeerLost(RuntimeError):
    """Another process of the run died; the message is one line for the user."""


def connect(workdir: Path) -> None:
    """Joins the other processes of a run, where the environment tells of any; the first thing to do in a process.

    Cloud TPU slices, SLURM and what else JAX detects need no word. Elsewhere every process is given
    the environment variables JAX_COORDINATOR_ADDRESS (HOST:PORT of process 0), JAX_NUM_PROCESSES and JAX_PROCESS_ID.
    If a process dies, the others stop within `HEARTBEAT + SHUTDOWN` seconds and say so in one line.

    Raises:
      ConfigError: only some of the variables are set, or they are no numbers.
    """
    how = explicit(os.environ)
    if not how and os.environ.get("SLURM_NTASKS", "1") == "1" and "SLURM_JOB_ID" in os.environ:
        return  # a shell on a SLURM machine, not a job of several processes
    try:
        jax.distributed.initialize(
            **how,
            local_device_ids=own_gpus(os.environ),
            heartbeat_timeout_seconds=HEARTBEAT,
            shutdown_timeout_seconds=SHUTDOWN,
        )
    except ValueError as error:
        if how or "coordinator_address" not in str(error):
            raise
        return  # a machine of its own
    if jax.process_count() > 1:
        reader, writer = os.pipe()
        subprocess.Popen([sys.executable, "-S", "-c", FILTER, lost(workdir)], stdin=reader)
        os.dup2(writer, sys.stderr.fileno())


def own_gpus(environment: Mapping[str, str]) -> list[int] | None:
    """The GPUs of a SLURM task, an equal share of its machine's: JAX by itself would give it one, the rest being idle.

    None where SLURM tells of no GPUs.

    Raises:
      ConfigError: the machine's tasks cannot share its GPUs equally.
    """
    names = ("SLURM_GPUS_ON_NODE", "SLURM_NODEID", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    if "JAX_LOCAL_DEVICE_IDS" in environment or not all(environment.get(name) for name in names):
        return None
    gpus, node, local = (int(environment[name]) for name in names[:3])
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", environment[names[3]])  # of each machine: "8(x2),4" is 8, 8, 4
    tasks = [int(count) for count, times in runs for _ in range(int(times or 1))][node]
    if gpus % tasks:
        raise ConfigError(
            f"--ntasks-per-node={tasks}: must divide the {gpus} GPUs of a machine, which are shared equally"
        )
    share = gpus // tasks
    return list(range(local * share, (local + 1) * share))


def lost(workdir: Path) -> str:
    return f"another process of this run died; the same command resumes from {workdir}/checkpoints"


@contextlib.contextmanager
def together(workdir: Path) -> Iterator[None]:
    """What several processes do together. PeerLost where one of the others is gone in the middle of it."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        raise PeerLost(lost(workdir)) from error


def meet(where: str) -> None:
    """Waits for the other processes, however long they take, which the first collective of some devices does not: on
    CPUs it waits half a minute."""
    multihost.get_barrier_sync_fn()(key=where, timeout_ms=DAY)


def by_the_first(work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
    """What `work` returns in process 0, as JSON in the others, which wait for it, however long it takes.

    A process that ends while another works longer than `SHUTDOWN` would take it down with itself.
    """
    found = work() if jax.process_index() == 0 else {}
    if jax.process_count() == 1:
        return dict(found)
    text = np.frombuffer(json.dumps(found).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(text))))
    return json.loads(multihost_utils.broadcast_one_to_all(np.resize(text, size)).tobytes())


def explicit(environment: Mapping[str, str]) -> dict[str, Any]:
    """The arguments of `jax.distributed.initialize` that the variables give; none if none is set."""
    found = {name: environment[name] for name in VARIABLES if name in environment}
    if not found:
        return {}
    for name in VARIABLES:
        if name not in found:
            raise ConfigError(f"{name}: not set, but {' and '.join(found)}; several processes need all three")
    for name in VARIABLES[1:]:
        if not found[name].isdecimal():
            raise ConfigError(f"{name} = {found[name]!r}: must be an integer >= 0")
    address, count, index = found.values()
    if int(index) >= int(count):
        raise ConfigError(f"JAX_PROCESS_ID = {index}: must be less than JAX_NUM_PROCESSES = {count}")
    return {"coordinator_address": address, "num_processes": int(count), "process_id": int(index)}
