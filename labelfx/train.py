"""The one training loop. Command: `python -m labelfx.train --config=hard_negative --workdir=DIR [--config.a.b=v]`."""

import collections
import contextlib
import dataclasses
import functools
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
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from labelfx import command, metrics, results, run, weights
from labelfx import config as configs
from labelfx.checkpoint import Checkpoints
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.data.batches import View, batch_at, batches
from labelfx.data.miners import Miner, uniform
from labelfx.mesh import device_memory, make_mesh, on_every_device, split_rows, split_state
from labelfx.methods import Method
from labelfx.models import Model, backbone
from labelfx.state import fold_in_name

IN_FLIGHT = 16  # steps dispatched but not waited for: bounds memory, and collectives on CPU hang with hundreds


class Preempted(SystemExit):
    """SIGTERM came and the state is saved. The process exits with 143, as a terminated one does."""


def train(config: ConfigDict | Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
    """Trains, evaluates, and returns what it writes to `workdir/results.json`. Started again, it resumes.

    Raises:
      ConfigError: the configuration cannot run, or is not the one that the workdir was started with.
      NonFinite, CheckpointError: training stopped; the message names the last good checkpoint.
      Preempted: SIGTERM came; the same call resumes.
    """
    checked = configs.check(config)
    folder = Path(workdir)
    mesh = make_mesh(checked.devices, checked.fsdp)
    check_divisible(checked, mesh.size)
    configs.compare(checked, folder)
    folder.mkdir(parents=True, exist_ok=True)
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
        run.begin(checked, folder, view)  # not before all of it is known to be right
        loop.writer = stack.enter_context(contextlib.closing(metrics.Writer(folder, start=loop.done)))
        for index in range(loop.phase.index, len(configs.phases(checked))):
            loop.enter(index)
            loop.run()
    return results.finish(checked, folder, dataset, view, loop.model, loop.variables(), loop.summary())


def jit_step(method: Method, mesh: Mesh, state: Any) -> Any:
    """What runs on the devices: `(state, bad, batch, key, number) -> (state, bad, metrics)`, jitted.

    The method's step with the run's key and the number of the step, and `metrics.first_bad` beside it. The new state
    takes the memory of the old one. `state` gives the shapes.
    """
    everywhere = on_every_device(mesh)

    @functools.partial(jax.jit, donate_argnums=0, out_shardings=(split_state(mesh, state), everywhere, everywhere))
    def step(state, bad, batch, key, number):
        state, values = method.step(state, batch, jax.random.fold_in(key, number))
        return state, metrics.first_bad(values, bad, number), values

    return step


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
    writer: metrics.Writer = dataclasses.field(init=False)
    phase: Phase = dataclasses.field(init=False)
    state: Any = None
    table: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    done: int = 0  # finished steps
    seconds: float = 0.0  # spent in the loop, over all resumes
    compilations: int = 0  # signatures that a phase's step was compiled for; 1 unless something is wrong
    bad: Any = None  # metric -> the first step at which it was not finite
    progress: metrics.Progress = dataclasses.field(init=False)
    late: Any = None  # the metrics of the last log, fetched at the next one so that logging never waits

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
        try:
            tx = configs.build(configs.OPTIMIZERS, config["optimizer"])(config["steps"])
        except ValueError as error:
            raise ConfigError(f"config.optimizer: {error}") from error
        provided = {
            "model": self.model,
            "tx": tx,
            "num_classes": len(self.dataset.class_names),
            "num_examples": len(self.view.truth),
        }
        if config["backbone"]:
            provided["backbone"] = self.pretrained(index, config["backbone"])
        method = configs.build(configs.METHODS, config["method"], **provided)
        miner = configs.build(configs.MINERS, config["batches"], **provided)
        phase = Phase(index, config, method, miner, start, start + config["steps"])
        with self.blame(phase):
            shapes = jax.eval_shape(method.init, self.root, self.example(phase, {}))
        self.check_memory(shapes)
        return phase

    def check_memory(self, shapes: Any) -> None:
        """ConfigError where a device cannot even hold the state."""
        need = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(shapes)) / self.config.fsdp
        have = device_memory(self.mesh)
        if need > have:
            raise ConfigError(
                f"config.model: the state takes {need / 1e9:.3g} GB of a device's {have / 1e9:.3g} GB; "
                "must be a smaller network or a larger config.fsdp"
            )

    def pretrained(self, index: int, where: str) -> dict[str, Any]:
        """The backbone that a phase starts from."""
        if where == "previous":
            return backbone(run.load_variables(self.workdir, index - 1))
        return backbone(run.load_variables(Path(where)))

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
        except (OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"config.method: {str(error).splitlines()[0]}") from error

    def how(self, phase: Phase, table: dict[str, np.ndarray]) -> dict[str, Any]:
        """The arguments of `batch_at` but the step."""
        sizes = phase.config["batch"]
        return {"view": self.view, "sizes": sizes, "seed": self.config.data_seed, "miner": phase.miner, "table": table}

    def example(self, phase: Phase, table: dict[str, np.ndarray]) -> dict[str, Any]:
        """The shapes of a batch; before the first refresh there is no table to mine by."""
        how = self.how(phase, table) | ({} if table else {"miner": uniform()})
        return jax.eval_shape(lambda: batch_at(phase.start, **how))

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

    def enter(self, index: int) -> None:
        """Starts a phase: fresh parameters, and a table made by the network of the phase before where it is of the
        same method. Does nothing where a checkpoint of this phase was taken up."""
        before, self.phase = self.phase, self.build(index)
        if self.state is not None and before.index == index:
            return
        rng = jax.random.fold_in(fold_in_name(self.root, "init"), index)
        where = jax.tree.map(lambda x: x.sharding, self.shapes(self.phase))
        init = jax.jit(self.phase.method.init, out_shardings=where)
        fresh = init(rng, jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.example(self.phase, {})))
        follows = self.state is not None and before.config["method"]["name"] == self.phase.config["method"]["name"]
        last = index == len(configs.phases(self.config)) - 1
        if last and "head" in self.config.evals and not results.has_classifier(self.phase.method.variables(fresh)):
            name = self.phase.config["method"]["name"]
            raise ConfigError(f"config.evals.head: {name} trains no classifier; take linear_probe instead")
        self.table = self.refresh(self.state if follows else fresh)
        self.state = fresh

    def refresh(self, state: Any) -> dict[str, np.ndarray]:
        """The table that batches are made with from here on."""
        method, miner = self.phase.method, self.phase.miner
        table: dict[str, np.ndarray] = {}
        if method.refresh:
            rng = jax.random.fold_in(fold_in_name(self.root, "refresh"), self.done)
            table |= method.refresh(state, self.view.split, rng)
        if miner.refresh:
            generator = np.random.default_rng([self.config.seed, self.done])
            table |= miner.refresh(method.variables(state), self.view.split, generator)
        return table

    def run(self) -> None:
        """Runs the phase from where it stands to its last step, saves, and exports its variables."""
        phase, everywhere, split = self.phase, on_every_device(self.mesh), split_rows(self.mesh)
        key = jax.device_put(fold_in_name(self.root, "step"), everywhere)
        step = jit_step(phase.method, self.mesh, self.state)
        with self.blame(phase):
            values = jax.eval_shape(phase.method.step, self.state, self.example(phase, self.table), key)[1]
        self.bad = jax.device_put({name: np.int32(metrics.NEVER) for name in values}, everywhere)
        self.clock, first = time.perf_counter(), self.done
        in_flight: collections.deque = collections.deque()
        every = phase.config["refresh_every"] or phase.config["steps"]
        while self.done < phase.stop:
            into = (self.done - phase.start) % every
            if into == 0 and self.done > phase.start:
                self.table = self.refresh(self.state)
            until = min(self.done + every - into, phase.stop)
            for number, batch in batches(self.done, until, workers=self.config.workers, **self.how(phase, self.table)):
                self.state, self.bad, values = step(
                    self.state, self.bad, jax.device_put(batch, split), key, np.int32(number)
                )
                self.done = number + 1
                if number == first:  # the step is compiled: speed counts from here
                    jax.block_until_ready(values)
                    total = sum(phase["steps"] for phase in configs.phases(self.config))
                    self.progress = metrics.Progress(self.config.name, self.done, total, phase.batch_size)
                in_flight.append(values)
                if len(in_flight) > IN_FLIGHT:
                    jax.block_until_ready(in_flight.popleft())
                if self.done % self.config.log_every == 0 or self.done == phase.stop:
                    self.log(values)
                # Before the save, whose step's metrics must be whole: a resume starts after it.
                if self.config.eval_every and self.done % self.config.eval_every == 0 and self.done < phase.stop:
                    self.evaluate()
                terminated = self.terminated.is_set()
                if self.done % self.config.save_every == 0 or self.done == phase.stop or terminated:
                    self.save()
                if terminated:
                    self.checkpoints.wait()
                    print(f"SIGTERM: step {self.done} is saved; the same command resumes", file=sys.stderr)
                    raise Preempted(143)
        self.compilations = max(self.compilations, step._cache_size())
        weights.save(self.workdir / "weights" / f"{phase.index}.safetensors", self.variables())

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
        scalars = {name: float(value) for name, value in values.items()}
        self.progress.show(step, speed, scalars)
        self.writer.write(step, {**scalars, "images_per_second": speed})

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
        self.checkpoints.save(self.done, self.state, self.table, {"phase": self.phase.index, "seconds": self.seconds})

    def variables(self) -> dict[str, Any]:
        return self.phase.method.variables(self.state)

    def summary(self) -> dict[str, Any]:
        """What `results.json` says of the training."""
        return {
            "steps": self.done,
            "seconds": self.seconds,
            "images_per_second": self.progress.mean
            if hasattr(self, "progress")
            else None,  # None: nothing was left to do
            "compilations": self.compilations,
        }

    def evaluate(self) -> None:
        """Writes the evals of this moment to the metrics; their time is not the loop's."""
        self.stop_if_not_finite()
        begin = time.perf_counter()
        found = results.run_evals(self.config, self.dataset, self.view, self.model, self.variables())
        scalars = {f"{name}/{key}": v for name, part in found.items() for key, v in part.items() if type(v) is float}
        self.writer.write(self.done, scalars)
        self.clock += time.perf_counter() - begin


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
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def main() -> None:
    command.run(lambda flags: train(flags.config, flags.workdir), config=True)


class _Module(types.ModuleType):
    """Lets `labelfx.train(config, workdir)` and `python -m labelfx.train` be the same name."""

    def __call__(self, config: ConfigDict | Mapping[str, Any], workdir: str | Path) -> dict[str, Any]:
        return train(config, workdir)


sys.modules[__name__].__class__ = _Module

if __name__ == "__main__":
    main()
