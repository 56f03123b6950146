"""The loop: phases one after the other, and in each of them steps, logs, evals and saves."""

import dataclasses
import sys
import time
from typing import Any

import jax
import numpy as np
from clu.parameter_overview import count_parameters
from jax.experimental import multihost_utils

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.finished import weights
from labelfx.loop import asking, choice, distributed, metrics, results
from labelfx.loop.checkpoint import Checkpoints
from labelfx.loop.dispatch import Dispatcher, complete, dispatches
from labelfx.loop.mesh import on_every_device, place_inputs, split_state, whole
from labelfx.loop.phases import Experiment, Phase
from labelfx.loop.record import Record
from labelfx.loop.state import fold_in_name
from labelfx.loop.stopping import Asked, stop


@dataclasses.dataclass
class Loop(Experiment):
    """An experiment, and where it stands."""

    checkpoints: Checkpoints = dataclasses.field(init=False)
    asked: Asked = dataclasses.field(default_factory=Asked)
    phase: Phase = dataclasses.field(init=False)
    fixed: dict[str, Any] = dataclasses.field(default_factory=dict)  # on the devices: images, the phase's frozen arrays
    state: Any = None
    table: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    done: int = 0  # finished steps
    seconds: float = 0.0  # spent in the loop, over all resumes
    compilations: int = 0  # signatures that a phase's step was compiled for; 1 unless something is wrong
    bad: Any = None  # metric -> the first step at which it was not finite
    record: Record = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        total = sum(phase["steps"] for phase in configs.phases(self.config))
        self.record = Record(metrics.Progress(self.config.name, total))

    def resume(self) -> None:
        """Takes up the newest whole checkpoint, or stands before the first phase."""
        last = self.checkpoints.restore(lambda meta: self.shapes(self.build(meta["phase"])))
        self.phase = self.build(last.meta["phase"] if last else 0)
        if last:
            if self.stored() != last.meta.get("stored", self.stored()):  # older checkpoints do not say
                raise ConfigError(
                    f"config.method.soft_labels: other labels are stored there than those that {self.workdir} has "
                    "learnt from; put these back, or begin in another workdir"
                )
            self.state, self.table, self.done, self.seconds = last.state, last.table, last.step, last.meta["seconds"]
            self.record.progress.seen, self.record.progress.took = last.meta["seen"], last.meta["took"]
            if jax.process_index() == 0:
                print(f"resumes after step {self.done} of {self.record.progress.total}", file=sys.stderr)

    def stored(self) -> str:
        """How the stored labels of this phase were made; "" without any."""
        return self.phase.method.stored.made if self.phase.method.stored else ""

    def enter(self, index: int) -> None:
        """Starts a phase: fresh parameters, and a table made by the network of the phase before where that is the same.
        Does nothing where a checkpoint of this phase was taken up."""
        asked = asking.view_of_phase(self, index)
        self.view = self.view if asked is self.view else self.shown(asked)
        before, self.phase = self.phase, self.build(index)
        self.fixed = {name: self.fixed[name] for name in ("inputs",) if name in self.fixed}
        if self.on_device and not self.fixed:
            self.fixed["inputs"] = place_inputs(self.mesh, self.view.split.inputs)
        method = self.phase.method
        if method.stored:
            method.stored.check(self.view.split.inputs)
        if method.frozen is not None:
            self.fixed["frozen"] = jax.device_put(method.frozen, split_state(self.mesh, method.frozen))
        if self.state is not None and before.index == index:
            return
        rng = jax.random.fold_in(fold_in_name(self.root, "init"), index)
        where = jax.tree.map(lambda x: x.sharding, self.shapes(self.phase))
        blank = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), self.example(self.phase, {}))
        with metrics.telling("making the network"):
            fresh = jax.jit(method.init, out_shardings=where)(rng, complete(blank, self.fixed))
        variables = method.variables(fresh)
        if index == len(configs.phases(self.config)) - 1:
            results.check_evals(self.config, self.phase.config["method"]["name"], variables)
        trained = None if self.state is None else before.method.variables(self.state)
        if trained is None or not _alike(trained, variables):
            if method.follows:
                raise ConfigError(
                    f"config.phases[{index}].method: {method.follows}, and there is no phase before it whose network "
                    "has the same backbone and classifier; train one first, as the recipe does"
                )
            trained = variables
        begin = time.perf_counter()
        self.refresh(trained)
        self.seconds += time.perf_counter() - begin
        self.state = fresh

    def refresh(self, variables: Any) -> None:
        """Makes the table anew; its time is not the steps', though the loop's."""
        begin = time.perf_counter()
        before = self.table if self.done > self.phase.start else {}
        self.table = self.make_table(self.phase, variables, self.done, before)
        self.record.progress.leave_out(time.perf_counter() - begin)

    def run(self) -> None:
        """Runs the phase from where it stands to its last step, saves, and exports its variables."""
        phase, everywhere = self.phase, on_every_device(self.mesh)
        key = jax.jit(lambda: fold_in_name(jax.random.key(self.config.seed), "step"), out_shardings=everywhere)()
        names, reads = self.look(phase, self.state, self.table)
        self.bad = jax.device_put({name: np.int32(metrics.NEVER) for name in names}, everywhere)
        dispatch = Dispatcher(
            phase.method, self.mesh, self.state, self.config.steps_per_dispatch, phase.batch_size, self.record.progress
        )
        self.clock = time.perf_counter()
        every = phase.config["refresh_every"] or phase.config["steps"]
        while self.done < phase.stop:
            into = (self.done - phase.start) % every
            if into == 0 and self.done > phase.start:
                self.refresh(phase.method.variables(jax.block_until_ready(self.state)))
            until = min(self.done + every - into, phase.stop)
            how = self.how(phase, self.table) | {"reads": reads}
            for count, batch in dispatches(self.config, self.mesh, how, self.done, until):
                arguments = self.state, self.bad, self.fixed, batch, key, np.int32(self.done)
                self.state, self.bad, values = dispatch(count, *arguments)
                self.done += count
                self.after(values)
        self.compilations = max(self.compilations, dispatch.compilations)
        variables = self.variables()
        if jax.process_index() == 0:
            weights.save(self.workdir / "weights" / f"{phase.index}.safetensors", variables)
        if jax.process_count() > 1:  # the next phase may start from them, in every process
            multihost_utils.sync_global_devices(f"weights of phase {phase.index}")

    def after(self, values: dict[str, jax.Array]) -> None:
        """What is due after a dispatch with these metrics: a log, evals, a checkpoint, the end."""
        config, ends = self.config, self.done == self.phase.stop
        if self.done % config.log_every == 0 or ends:
            self.log(values)
        elif self.record.writer is not None:
            self.record.alive(self.done)
        # Before the save, whose step's metrics must be whole: a resume starts after it.
        if config.eval_every and self.done % config.eval_every == 0 and self.done < self.record.progress.total:
            self.evaluate()
        elif config.keep_best and self.done == self.record.progress.total:
            self.choose(self.variables())
        asked = self.asked.now()
        if self.done % config.save_every == 0 or ends or asked:
            self.save()
        if asked:
            self.checkpoints.wait()
            stop(asked, self.done)

    def log(self, values: dict[str, jax.Array]) -> None:
        self.record.keep(self.done, values, self.bad)

    def save(self) -> None:
        """Starts a checkpoint of a state that is finite."""
        self.record.stop_if_not_finite(self.done, self.bad, self.state)
        now = time.perf_counter()
        self.seconds, self.clock = self.seconds + now - self.clock, now
        meta: dict[str, Any] = {"phase": self.phase.index, "seconds": self.seconds}
        meta |= {"seen": self.record.progress.seen, "took": self.record.progress.took, "stored": self.stored()}
        if self.record.writer is not None:
            self.record.writer.send()
        self.checkpoints.save(self.done, self.state, self.table, meta)

    def variables(self) -> dict[str, Any]:
        return self.phase.method.variables(whole(self.mesh, self.state))

    def summary(self) -> dict[str, Any]:
        """What `results.json` says of the training."""
        return {
            "steps": self.done,
            "seconds": self.seconds,
            "images_per_second": self.record.progress.mean,  # None: nothing was left to do
            "compilations": self.compilations,
            "parameters": int(count_parameters(self.phase.method.variables(self.state)["params"])),
        }

    def evaluate(self) -> None:
        """Writes the evals of this moment to the metrics; their time is not the loop's."""
        self.record.stop_if_not_finite(self.done, self.bad, self.state)
        begin = time.perf_counter()
        variables = self.variables()
        what = self.config, self.dataset, self.view, self.model, self.whole(variables), self.phase.index
        found = distributed.by_the_first(lambda: results.run_evals(*what))
        if self.record.writer is not None:
            self.record.writer.write(self.done, metrics.scalars_of(found))
        self.choose(variables)
        seconds = time.perf_counter() - begin
        self.clock += seconds
        self.record.progress.leave_out(seconds)

    def choose(self, variables: dict[str, Any]) -> None:
        """Keeps these variables of the last phase's network where they are the best on the validation rows."""
        config, index = self.config, self.phase.index
        if not config.keep_best or index < len(configs.phases(config)) - 1:
            return

        what = config, self.dataset, self.view, self.model, self.whole(variables), index
        distributed.by_the_first(lambda: choice.keep(self.workdir, self.done, choice.validate(*what), variables))


def _alike(one: Any, other: Any) -> bool:
    """Whether two networks have the same arrays."""
    shapes = [jax.tree.map(lambda x: (x.shape, x.dtype), tree) for tree in (one, other)]
    return shapes[0] == shapes[1]
