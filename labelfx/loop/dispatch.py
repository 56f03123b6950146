"""What the devices run in one dispatch, and the batches that it is given."""

import collections
import functools
import itertools
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data.batches import batches
from labelfx.loop import distributed
from labelfx.loop.mesh import on_every_device, own_rows, place_batches, split_state
from labelfx.loop.metrics import Progress, first_bad, telling
from labelfx.methods import Method

IN_FLIGHT = 16  # steps dispatched but not waited for: bounds memory, and collectives on CPU hang with hundreds


def jit_step(method: Method, mesh: Mesh, state: Any, count: int = 1) -> Any:
    """What the devices run in one dispatch: `(state, bad, fixed, batches, key, number) -> (state, bad, metrics)`.

    Jitted. `count` steps of the method, from step `number` on, with the run's key and `first_bad` beside them;
    the metrics are those of the last. The new state takes the memory of the old one. `state` gives the shapes,
    `batches` have a leading dimension of `count`, and `fixed` is what no step changes (see `Loop.fixed`).
    """
    everywhere = on_every_device(mesh)
    # XLA's CPU backend runs convolutions inside a loop, even one of a single round, tens of times slower. 0: no loop.
    unroll = 0 if count == 1 or mesh.devices.flat[0].platform == "cpu" else 1

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(split_state(mesh, state), everywhere, everywhere))
    def steps(state, bad, fixed, batches, key, number):
        def one(carry, each):
            (state, bad), (number, batch) = carry, each
            state, values = method.step(state, complete(batch, fixed), jax.random.fold_in(key, number))
            return (state, first_bad(values, bad, number)), values

        numbers = number + jnp.arange(count, dtype=jnp.int32)
        (state, bad), values = jax.lax.scan(one, (state, bad), (numbers, batches), unroll=unroll)
        return state, bad, jax.tree.map(lambda x: x[-1], values)

    return steps


def complete(batch: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """A batch with what lies on the devices already: its images, by their index, and the method's frozen arrays."""
    if "inputs" in fixed:
        inputs = {name: fixed["inputs"][batch[name]["index"]] for name in batch["audit"]}
        batch = batch | {name: batch[name] | {"input": rows} for name, rows in inputs.items()}
    return batch | {name: fixed[name] for name in ("frozen",) if name in fixed}


class Dispatcher:
    """Sends the steps of a phase to the devices, where a bounded number of them is on its way."""

    def __init__(self, method: Method, mesh: Mesh, state: Any, longest: int, batch_size: int, progress: Progress):
        self.programs = {count: jit_step(method, mesh, state, count) for count in {1, longest}}
        self.batch_size, self.progress = batch_size, progress
        self.compiled: set[int] = set()
        self.in_flight: collections.deque = collections.deque()

    def __call__(self, count: int, *arguments: Any) -> tuple[Any, Any, Any]:
        """Takes `count` steps; arguments and what is returned are those of `jit_step`."""
        found = self.programs[count](*arguments) if count in self.compiled else self._first(count, *arguments)
        self.in_flight.append(found[-1])
        if len(self.in_flight) * count > IN_FLIGHT:
            jax.block_until_ready(self.in_flight.popleft())
        return found

    def _first(self, count: int, *arguments: Any) -> tuple[Any, Any, Any]:
        """Compiles, which is not in the speed, though in the seconds."""
        jax.block_until_ready(arguments)
        distributed.meet("the first batch is read")
        begin = time.perf_counter()
        with telling("compiling the step"):
            found = jax.block_until_ready(self.programs[count](*arguments))
        if self.compiled:
            self.progress.leave_out(time.perf_counter() - begin, count)
        else:
            self.progress.start(int(arguments[-1]) + count, self.batch_size)
        self.compiled.add(count)
        return found

    @property
    def compilations(self) -> int:
        """Signatures that a program was compiled for, the most of any; 1 unless something is wrong."""
        return max(program._cache_size() for program in self.programs.values())


def dispatches(
    config: configs.Run, mesh: Mesh, how: dict[str, Any], done: int, until: int
) -> Iterator[tuple[int, Any]]:
    """(number of steps, their batches on the devices) from step `done` to `until`: `steps_per_dispatch` at a time, and
    one at a time where that would run past a step after which the loop has something to do.

    `how` are the arguments of `batch_at`, those left to this process included.
    """
    own = {size: own_rows(mesh, size) for size in how["sizes"].values() if size}
    how = how | {"own": own.__getitem__, "inputs": config.data["placement"] != "device"}  # processes take no mesh
    prepared = batches(done, until, workers=config.workers, **how)
    events = [each for each in (config.log_every, config.save_every, config.eval_every) if each]
    while done < until:
        room = min(until - done, *(each - done % each for each in events))
        count = config.steps_per_dispatch if room >= config.steps_per_dispatch else 1
        some = list(itertools.islice(prepared, count))
        stacked = jax.tree.map(lambda *each: np.stack(each) if len(each) > 1 else each[0][None], *some)
        yield count, place_batches(mesh, stacked)
        done += count


def check_divisible(config: configs.Run, devices: int) -> None:
    """ConfigError where a batch cannot be split over this many devices."""
    for index, phase in enumerate(configs.phases(config)):
        path = f"config.phases[{index}]" if "batch" in (config.phases or ({},))[index] else "config"
        for stream, size in phase["batch"].items():
            if size % devices:
                raise ConfigError(
                    f"{path}.batch.{stream} = {size}: must be a multiple of the {devices} devices of the mesh"
                )
