"""The one training loop. Command: `python -m labelfx.train --config=hard_negative --workdir=DIR [--config.a.b=v]`."""

import collections
import contextlib
import dataclasses
import functools
import itertools
import math
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from ml_collections import ConfigDict

from labelfx import command, distributed, metrics, results, run, weights
from labelfx import config as configs
from labelfx.checkpoint import Checkpoints
from labelfx.config import ConfigError
from labelfx.data import DataError, Dataset
from labelfx.data.batches import View, batch_at, batches
from labelfx.data.miners import Miner, uniform
from labelfx.mesh import (
    device_memory,
    make_mesh,
    on_every_device,
    own_rows,
    place_batches,
    place_images,
    split_state,
    whole,
)
from labelfx.methods import Method
from labelfx.models import Model
from labelfx.state import fold_in_name

IN_FLIGHT = 16  # steps dispatched but not waited for: bounds memory, and collectives on CPU hang with hundreds


class Preempted(SystemExit):
    """SIGTERM came and the state is saved. The process exits with 143, as a terminated one does."""


def train(config: ConfigDict | Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains, evaluates, and returns what it writes to `workdir/results.json`. Started again, it resumes.

    Raises:
      ConfigError: the configuration cannot run, or is not the one that the workdir was started with, or another
        process is at work in there.
      NonFinite, CheckpointError: training stopped; the message names the last good checkpoint.
      Preempted: SIGTERM came; the same call resumes.
    """
    checked = configs.check(config)
    folder = Path(workdir)
    run.keep_compiled_programs()
    mesh = make_mesh(checked.devices, checked.fsdp)
    check_divisible(checked, mesh.size)
    folder.mkdir(parents=True, exist_ok=True)
    with run.claim(folder):
        configs.compare(checked, folder)
        dataset, view = run.load_data(checked, folder)
        with contextlib.ExitStack() as stack:
            loop = Loop(
                config=checked,
                workdir=folder,
                dataset=dataset,
                view=view,
                model=run.build_model(checked),
                mesh=mesh,
                root=jax.random.key(checked.seed),
            )
            loop.checkpoints = stack.enter_context(Checkpoints(folder, keep=checked.keep))
            loop.terminated = stack.enter_context(_sigterm())
            loop.resume()
            first = loop.phase.index
            for index in range(first, len(configs.phases(checked))):
                loop.enter(index)
                if index == first:
                    loop.metrics(loop.phase)  # of a step that does not fit the images this is a ConfigError
                    run.begin(checked, folder, view)  # not before all of it is known to be right
                    if jax.process_index() == 0:
                        loop.writer = stack.enter_context(contextlib.closing(metrics.Writer(folder, start=loop.done)))
                loop.run()
        return results.finish(checked, folder, dataset, view, loop.model, loop.variables(), loop.summary())


def jit_step(method: Method, mesh: Mesh, state: Any, count: int = 1) -> Any:
    """What the devices run in one dispatch: `(state, bad, fixed, batches, key, number) -> (state, bad, metrics)`.

    Jitted. `count` steps of the method, from step `number` on, with the run's key and `metrics.first_bad` beside them;
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
            return (state, metrics.first_bad(values, bad, number)), values

        numbers = number + jnp.arange(count, dtype=jnp.int32)
        (state, bad), values = jax.lax.scan(one, (state, bad), (numbers, batches), unroll=unroll)
        return state, bad, jax.tree.map(lambda x: x[-1], values)

    return steps


def complete(batch: dict[str, Any], fixed: dict[str, Any]) -> dict[str, Any]:
    """A batch with what lies on the devices already: its images, by their index, and the method's frozen arrays."""
    if "images" in fixed:
        images = {name: fixed["images"][batch[name]["index"]] for name in batch["audit"]}
        batch = batch | {name: batch[name] | {"image": image} for name, image in images.items()}
    return batch | {name: fixed[name] for name in ("frozen",) if name in fixed}


@dataclasses.dataclass(frozen=True)
class Phase:
    """One phase of a run, built from its configuration. Steps are counted over the whole run."""

    index: int
    config: Mapping[str, Any]
    method: Method
    miner: Miner
    start: int
    stop: int

    @property
    def batch_size(self) -> int:
        return sum(self.config["batch"].values())


@dataclasses.dataclass
class Loop:
    """The one loop: what a run is made of, and where it stands."""

    config: configs.Run
    workdir: Path
    dataset: Dataset
    view: View
    model: Model
    mesh: Mesh
    root: jax.Array  # the key of config.seed; the step's key is fold_in(fold_in_name(root, "step"), step)
    checkpoints: Checkpoints = dataclasses.field(init=False)
    terminated: threading.Event = dataclasses.field(init=False)
    phase: Phase = dataclasses.field(init=False)
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)  # on the devices: images, the phase's frozen arrays
    writer: metrics.Writer | None = None  # only the first process of several has one
    state: Any = None
    table: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    done: int = 0  # finished steps
    seconds: float = 0.0  # spent in the loop, over all resumes
    compilations: int = 0  # signatures that a phase's step was compiled for; 1 unless something is wrong
    bad: Any = None  # metric -> the first step at which it was not finite
    progress: metrics.Progress = dataclasses.field(init=False)
    late: Any = None  # the metrics of the last log, fetched at the next one so that logging never waits
    dispatches: int = 0  # by this process

    def __post_init__(self) -> None:
        self.progress = metrics.Progress(self.config.name, sum(phase["steps"] for phase in configs.phases(self.config)))

    def build(self, index: int) -> Phase:
        """Builds a phase; ConfigError where its parts do not fit together."""
        fields = configs.phases(self.config)
        config = fields[index]
        start = sum(phase["steps"] for phase in fields[:index])
        for stream, size in config["batch"].items():
            if size > len(self.view.truth):
                raise ConfigError(
                    f"config.batch.{stream} = {size}: more than the {len(self.view.truth)} training images"
                )
            if size and stream == "labelled" and not len(self.view.rows):
                raise ConfigError(f"config.batch.labelled = {size}: must be 0 where config.labels labels nothing")
        name = config["method"]["name"]
        takes = configs.parameters(configs.function(configs.METHODS, name))[0]
        if "num_classes" in takes and not self.dataset.class_names:
            raise ConfigError(
                f"config.method.name = {name!r}: needs classes, but {self.config.data['name']!r} has none"
            )
        try:
            tx = configs.build(configs.OPTIMIZERS, config["optimizer"])(config["steps"])
        except ValueError as error:
            raise ConfigError(f"config.optimizer: {error}") from error
        provided = {
            "model": self.model,
            "tx": tx,
            "steps": config["steps"],
            "num_classes": len(self.dataset.class_names),
            "num_examples": len(self.view.truth),
        }
        for field in configs.TRAINED:
            if config[field]:
                provided[field] = self.trained(field, index, config[field])
        try:
            method = configs.build(configs.METHODS, config["method"], **provided)
        except ValueError as error:
            raise ConfigError(f"config.method: {error}") from error
        try:
            miner = configs.build(configs.MINERS, config["batches"], **provided)
        except ValueError as error:
            raise ConfigError(f"config.batches: {error}") from error
        phase = Phase(index, config, method, miner, start, start + config["steps"])
        with self.blame(phase):
            shapes = jax.eval_shape(method.init, self.root, self.example(phase, {}))
        self.check_memory(shapes)
        return phase

    def check_memory(self, shapes: Any) -> None:
        """ConfigError where a device cannot even hold the state, or not its share of the images."""
        images, have = self.dataset.train.images, device_memory(self.mesh)
        needs = {
            "config.model: the state": (
                sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes)) / self.config.fsdp,
                "a smaller network or a larger config.fsdp",
            ),
            "config.data.placement: the images": (
                math.prod(images.shape) * images.dtype.itemsize / self.mesh.size,
                "'host'",
            ),
        }
        for what, (need, instead) in list(needs.items())[: 1 + self.on_device]:
            if need > have:
                raise ConfigError(
                    f"{what} take{'' if what.endswith('images') else 's'} {need / 1e9:.3g} GB of a device's "
                    f"{have / 1e9:.3g} GB; must be {instead}"
                )

    @property
    def on_device(self) -> bool:
        """Whether the training images lie on the devices."""
        return self.config.data["placement"] == "device"

    def trained(self, field: str, index: int, where: str) -> Any:
        """The variables that a phase starts from, or the teacher that it learns from."""
        own = where == "previous"
        folder = self.workdir if own else Path(where)
        if field == "teacher":
            before = (self.model, index - 1) if own else None
            return run.load_teacher(folder, len(self.dataset.class_names), own=before)
        return run.load_variables(folder, index - 1 if own else None)

    @contextlib.contextmanager
    def blame(self, phase: Phase) -> Iterator[None]:
        """Names the part of the configuration at fault where a method cannot work on these images."""
        try:
            yield
        except KeyError as error:
            if error.args[0] not in ("labelled", "unlabelled"):
                raise
            stream, name = error.args[0], phase.config["method"]["name"]
            raise ConfigError(f"config.batch.{stream} = 0: {name} reads {stream} images; must be at least 1") from None
        except DataError:
            raise
        except (OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"config.method: {str(error).splitlines()[0]}") from error

    def how(self, phase: Phase, table: dict[str, np.ndarray]) -> dict[str, Any]:
        """The arguments of `batch_at` but the step and what is left to this process."""
        sizes = phase.config["batch"]
        return {"view": self.view, "sizes": sizes, "seed": self.config.data_seed, "miner": phase.miner, "table": table}

    def example(self, phase: Phase, table: dict[str, np.ndarray]) -> dict[str, Any]:
        """The shapes of a method's batch; before the first refresh there is no table to mine by."""
        how = self.how(phase, table) | ({} if table else {"miner": uniform()})
        fixed = {} if phase.method.frozen is None else {"frozen": phase.method.frozen}
        return jax.eval_shape(lambda: complete(batch_at(phase.start, **how), fixed))

    def shapes(self, phase: Phase) -> Any:
        """The state's shapes, with where its arrays lie on the mesh."""
        shapes = jax.eval_shape(phase.method.init, self.root, self.example(phase, {}))
        return jax.tree.map(
            lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
            shapes,
            split_state(self.mesh, shapes),
        )

    def resume(self) -> None:
        """Takes up the newest whole checkpoint, or stands before the first phase."""
        last = self.checkpoints.restore(lambda meta: self.shapes(self.build(meta["phase"])))
        self.phase = self.build(last.meta["phase"] if last else 0)
        if last:
            self.state, self.table, self.done, self.seconds = last.state, last.table, last.step, last.meta["seconds"]
            self.progress.seen, self.progress.took = last.meta.get("seen", 0), last.meta.get("took", 0.0)

    def enter(self, index: int) -> None:
        """Starts a phase: fresh parameters, and a table made by the network of the phase before where it is of the
        same method. Does nothing where a checkpoint of this phase was taken up."""
        before, self.phase = self.phase, self.build(index)
        self.fixed = {name: self.fixed[name] for name in ("images",) if name in self.fixed}
        if self.on_device and not self.fixed:
            self.fixed["images"] = place_images(self.mesh, self.view.split.images)
        if (frozen := self.phase.method.frozen) is not None:
            self.fixed["frozen"] = jax.device_put(frozen, split_state(self.mesh, frozen))
        if self.state is not None and before.index == index:
            return
        rng = jax.random.fold_in(fold_in_name(self.root, "init"), index)
        where = jax.tree.map(lambda x: x.sharding, self.shapes(self.phase))
        init = jax.jit(self.phase.method.init, out_shardings=where)
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.example(self.phase, {}))
        fresh = init(rng, complete(blank, self.fixed))
        follows = self.state is not None and before.config["method"]["name"] == self.phase.config["method"]["name"]
        last = index == len(configs.phases(self.config)) - 1
        for each in self.config.evals if last else ():
            if part := results.lacks(each, self.phase.method.variables(fresh)):
                name = self.phase.config["method"]["name"]
                raise ConfigError(f"config.evals.{each}: {name} trains no {part}; take linear_probe instead")
        begin = time.perf_counter()
        self.table = self.refresh(self.state if follows else fresh)
        self.seconds += time.perf_counter() - begin
        self.state = fresh

    def refresh(self, state: Any) -> dict[str, np.ndarray]:
        """The table that batches are made with from here on."""
        method, miner = self.phase.method, self.phase.miner
        if not (method.refresh or miner.refresh):
            return {}
        state = whole(self.mesh, state)
        table: dict[str, np.ndarray] = {}
        if method.refresh:
            rng = jax.random.fold_in(fold_in_name(self.root, "refresh"), self.done)
            table |= method.refresh(state, self.view.split, rng)
        if miner.refresh:
            generator = np.random.default_rng([self.config.seed, self.done])
            progress = (self.done - self.phase.start) / (self.phase.stop - self.phase.start)
            try:
                table |= miner.refresh(method.variables(state), self.view.split, generator, progress)
            except ValueError as error:
                raise ConfigError(f"config.batches: {error}") from error
        # Machines of one kind agree to the bit; batches must not hang on that.
        return multihost_utils.broadcast_one_to_all(table) if jax.process_count() > 1 else table

    def run(self) -> None:
        """Runs the phase from where it stands to its last step, saves, and exports its variables."""
        phase, everywhere = self.phase, on_every_device(self.mesh)
        key = jax.jit(lambda: fold_in_name(jax.random.key(self.config.seed), "step"), out_shardings=everywhere)()
        longest = self.config.steps_per_dispatch
        step = {count: jit_step(phase.method, self.mesh, self.state, count) for count in {1, longest}}
        self.bad = jax.device_put({name: np.int32(metrics.NEVER) for name in self.metrics(phase)}, everywhere)
        self.clock, first = time.perf_counter(), self.done
        compiled: set[int] = set()
        in_flight: collections.deque = collections.deque()
        every = phase.config["refresh_every"] or phase.config["steps"]
        while self.done < phase.stop:
            into = (self.done - phase.start) % every
            if into == 0 and self.done > phase.start:
                jax.block_until_ready(self.state)
                begin = time.perf_counter()
                self.table = self.refresh(self.state)
                self.progress.leave_out(time.perf_counter() - begin)
            until = min(self.done + every - into, phase.stop)
            for count, batch in self.dispatches_of(phase, until):
                compiles = count not in compiled
                if compiles:
                    jax.block_until_ready(self.state)
                begin = time.perf_counter()
                self.state, self.bad, values = step[count](
                    self.state, self.bad, self.fixed, batch, key, np.int32(self.done)
                )
                self.done += count
                if compiles:  # which is not in the speed, though in the seconds
                    compiled.add(count)
                    jax.block_until_ready(values)
                    if self.done == first + count:
                        self.progress.start(self.done, phase.batch_size)
                    else:
                        self.progress.leave_out(time.perf_counter() - begin, count)
                in_flight.append(values)
                if len(in_flight) * count > IN_FLIGHT:
                    jax.block_until_ready(in_flight.popleft())
                if self.done % self.config.log_every == 0 or self.done == phase.stop:
                    self.log(values)
                # Before the save, whose step's metrics must be whole: a resume starts after it.
                if (
                    self.config.eval_every
                    and self.done % self.config.eval_every == 0
                    and self.done < self.progress.total
                ):
                    self.evaluate()
                preempted = self.preempted()
                if self.done % self.config.save_every == 0 or self.done == phase.stop or preempted:
                    self.save()
                if preempted:
                    self.checkpoints.wait()
                    print(f"SIGTERM: step {self.done} is saved; the same command resumes", file=sys.stderr)
                    raise Preempted(143)
        self.compilations = max(self.compilations, *(each._cache_size() for each in step.values()))
        variables = self.variables()
        if jax.process_index() == 0:
            weights.save(self.workdir / "weights" / f"{phase.index}.safetensors", variables)
        if jax.process_count() > 1:  # the next phase may start from them, in every process
            multihost_utils.sync_global_devices(f"weights of phase {phase.index}")

    def metrics(self, phase: Phase) -> list[str]:
        """The names of a step's metrics."""
        with self.blame(phase):
            return list(jax.eval_shape(phase.method.step, self.state, self.example(phase, self.table), self.root)[1])

    def dispatches_of(self, phase: Phase, until: int) -> Iterator[tuple[int, Any]]:
        """(number of steps, their batches on the devices) from here to step `until`: `steps_per_dispatch` at a time,
        and one at a time where that would run past a step after which the loop has something to do."""
        own = {size: own_rows(self.mesh, size) for size in phase.config["batch"].values() if size}
        how = self.how(phase, self.table) | {
            "own": own.__getitem__,  # processes take no mesh
            "images": not self.on_device,
        }
        prepared = batches(self.done, until, workers=self.config.workers, **how)
        events = [each for each in (self.config.log_every, self.config.save_every, self.config.eval_every) if each]
        done, longest = self.done, self.config.steps_per_dispatch
        while done < until:
            room = min(until - done, *(each - done % each for each in events))
            count = longest if room >= longest else 1
            some = list(itertools.islice(prepared, count))
            stacked = jax.tree.map(lambda *each: np.stack(each) if len(each) > 1 else each[0][None], *some)
            yield count, place_batches(self.mesh, stacked)
            done += count

    def preempted(self) -> bool:
        """Whether SIGTERM came; several processes agree on the step at which they say so."""
        self.dispatches += 1
        if jax.process_count() == 1:
            return self.terminated.is_set()
        return multihost_utils.reached_preemption_sync_point(self.dispatches)

    def log(self, values: dict[str, jax.Array]) -> None:
        """Writes the metrics handed in before and keeps these for the next time."""
        self.flush()
        self.late = (self.done, self.progress.images_per_second(self.done), values, self.bad)

    def flush(self) -> None:
        if self.late is None:
            return
        (step, speed, *arrays), self.late = self.late, None
        values, bad = jax.device_get(arrays)
        self.stop_if_bad(bad)
        if self.writer is not None:
            scalars = {name: float(value) for name, value in values.items()}
            self.progress.show(step, speed, scalars)
            self.writer.write(step, scalars | ({"images_per_second": speed} if speed else {}))

    def stop_if_bad(self, bad: dict[str, np.ndarray]) -> None:
        name = min(bad, key=lambda name: bad[name])
        if bad[name] != metrics.NEVER:
            raise metrics.NonFinite(
                f"{name} is NaN or infinite at step {bad[name] + 1}; {self.checkpoints.last_good()}"
            )

    def stop_if_not_finite(self) -> None:
        """A look at every metric up to now and at the state itself."""
        self.flush()
        self.stop_if_bad(jax.device_get(self.bad))
        if not metrics.finite(self.state):
            raise metrics.NonFinite(
                f"the state after step {self.done} holds NaN or Inf; {self.checkpoints.last_good()}"
            )

    def save(self) -> None:
        """Starts a checkpoint of a state that is finite."""
        self.stop_if_not_finite()
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        meta = {"phase": self.phase.index, "seconds": self.seconds}
        meta |= {"seen": self.progress.seen, "took": self.progress.took}
        self.checkpoints.save(self.done, self.state, self.table, meta)

    def variables(self) -> dict[str, Any]:
        return self.phase.method.variables(whole(self.mesh, self.state))

    def summary(self) -> dict[str, Any]:
        """What `results.json` says of the training."""
        return {
            "steps": self.done,
            "seconds": self.seconds,
            "images_per_second": self.progress.mean,  # None: nothing was left to do
            "compilations": self.compilations,
        }

    def evaluate(self) -> None:
        """Writes the evals of this moment to the metrics; their time is not the loop's."""
        self.stop_if_not_finite()
        begin = time.perf_counter()
        variables = self.variables()
        found = results.run_evals(self.config, self.dataset, self.view, self.model, variables, self.phase.index)
        scalars = {f"{name}/{key}": v for name, part in found.items() for key, v in part.items() if type(v) is float}
        if self.writer is not None:
            self.writer.write(self.done, scalars)
        seconds = time.perf_counter() - begin
        self.clock += seconds
        self.progress.leave_out(seconds)


def check_divisible(config: configs.Run, devices: int) -> None:
    """ConfigError where a batch cannot be split over this many devices."""
    for index, phase in enumerate(configs.phases(config)):
        path = f"config.phases[{index}]" if "batch" in (config.phases or ({},))[index] else "config"
        for stream, size in phase["batch"].items():
            if size % devices:
                raise ConfigError(
                    f"{path}.batch.{stream} = {size}: must be a multiple of the {devices} devices of the mesh"
                )


@contextlib.contextmanager
def _sigterm() -> Iterator[threading.Event]:
    """An event that SIGTERM sets; only a process's main thread can listen."""
    event = threading.Event()
    # Several processes are told of it by JAX's preemption service, which listens itself.
    if jax.process_count() > 1 or threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    def start(flags: Any) -> None:
        distributed.connect(Path(flags.workdir))
        with distributed.together(Path(flags.workdir)):
            train(flags.config, flags.workdir)

    command.run(start, config=True)


class _Module(types.ModuleType):
    """Lets `labelfx.train(config, workdir)` and `python -m labelfx.train` be the same name."""

    def __call__(self, config: ConfigDict | Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
        return train(config, workdir)


sys.modules[__name__].__class__ = _Module

if __name__ == "__main__":
    main()
