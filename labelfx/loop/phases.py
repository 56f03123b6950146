"""A run before it starts: what it is made of, and its phases, each built and checked by shape."""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, known
from labelfx.data.augment import to_float
from labelfx.data.batches import View, batch_at
from labelfx.data.miners import Miner, uniform
from labelfx.evals import features
from labelfx.loop import run
from labelfx.loop.blame import blame, named
from labelfx.loop.dispatch import complete
from labelfx.loop.frozen import Trunk, sample
from labelfx.loop.mesh import device_memory, on_every_device, split_state, whole
from labelfx.loop.metrics import telling
from labelfx.loop.networks import head_of
from labelfx.loop.state import fold_in_name
from labelfx.methods import Method, shapes_of_step
from labelfx.models import Model, Trained, stack
from labelfx.models.backbones import mlp

NO_STEPS = 2**20  # the length of schedules where no step asks for them


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
class Experiment:
    """What a run is made of, and how each phase is built from it."""

    config: configs.Run
    workdir: Path
    dataset: Dataset
    view: View
    model: Model  # the backbone, which reads raw rows
    mesh: Mesh
    root: jax.Array  # the key of config.seed; the step's key is fold_in(fold_in_name(root, "step"), step)
    trunk: Trunk | None = None  # of a frozen encoder: steps read its features

    def build(self, index: int) -> Phase:
        """Builds a phase; ConfigError where its parts do not fit together."""
        fields = configs.phases(self.config)
        config = fields[index]
        start = sum(phase["steps"] for phase in fields[:index])
        self.check_streams(config)
        steps = config["steps"] or NO_STEPS
        with named("config.optimizer"):
            tx = configs.build(configs.OPTIMIZERS, config["optimizer"])(steps)
        provided = {
            "model": self.trained_model,
            "classifier": self.classifier,
            "tx": tx,
            "steps": steps,
            "num_classes": len(self.dataset.class_names),
            "num_examples": len(self.view.truth),
            "bag": self.view.split.columns.get("bag"),
            "task": self.dataset.task,
            "client": self.view.split.columns.get("client"),
            "rows": self.view.rows,
            "class_counts": self.class_counts,
        }
        provided |= {argument: self.trained(field, index, config[field]) for field, argument in configs.TRAINED.items()}
        self.check_teachers(config, provided["teachers"])
        with named("config.method"):
            method = configs.build(configs.METHODS, config["method"], **provided)
        # Traced once for shapes, for what is read and for each program, which calls it.
        method = method._replace(**{name: jax.jit(getattr(method, name)) for name in ("init", "step")})
        with named("config.batches"):
            miner = configs.build(configs.MINERS, config["batches"], **provided)
        phase = Phase(index, config, method, miner, start, start + config["steps"])
        with blame(config):
            shapes = jax.eval_shape(method.init, self.root, self.example(phase, {}))
        self.check_memory(shapes)
        return phase

    def check_streams(self, config: Mapping[str, Any]) -> None:
        """ConfigError where the data have not what a phase's batches or its method ask for."""
        for stream, size in config["batch"].items():
            if size > len(self.view.truth):
                raise ConfigError(
                    f"config.batch.{stream} = {size}: more than the {len(self.view.truth)} training images"
                )
            if size and stream == "labelled" and not len(self.view.rows):
                raise ConfigError(f"config.batch.labelled = {size}: must be 0 where config.labels labels nothing")
        name = config["method"]["name"]
        takes = configs.parameters(configs.function(configs.METHODS, name))[0]
        lacks = {"num_classes": not self.dataset.class_names, "classifier": not self.dataset.num_outputs}
        if any(lacks.get(each) for each in takes):
            raise ConfigError(
                f"config.method.name = {name!r}: needs classes, but {self.config.data['name']!r} has none"
            )

    def check_teachers(self, config: Mapping[str, Any], teachers: Sequence[Trained]) -> None:
        """ConfigError where nobody says anything of a class: no teacher knows it, and no labelled row is of it."""
        if not teachers or self.dataset.task != "class" or self.config.labels["weak"]:
            return
        labels = self.view.split.labels[self.view.rows] if config["batch"]["labelled"] else np.array([], int)
        known = {*labels.tolist(), *(c for each in teachers for c in each.classes)}
        for c, name in enumerate(self.dataset.class_names):
            if c not in known:
                raise ConfigError(
                    f"config.teacher: none of the {len(teachers)} knows the class {name!r}, of which no labelled row "
                    "is either; must be known to one, or have a label and config.batch.labelled above 0"
                )

    def check_memory(self, shapes: Any) -> None:
        """ConfigError where a device cannot even hold the state, or not its share of the images."""
        images, have = self.view.split.inputs, device_memory(self.mesh)
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

    @functools.cached_property
    def classifier(self) -> Model:
        """The backbone with the head of the configuration."""
        return stack(backbone=self.trained_model, head=head_of(self.config, self.dataset, self.view, self.seen()))

    @property
    def class_counts(self) -> np.ndarray | None:
        """How many labels each class has in the label view, int [C]; None where a label is no class."""
        if self.dataset.task != "class":
            return None
        labels = self.view.split.labels[self.view.rows]
        return np.bincount(labels[known(labels)], minlength=len(self.dataset.class_names))

    def seen(self) -> np.ndarray | None:
        """Features of some rows, float32 [S, F], by which a head on a pretrained encoder standardises them: as the
        encoder is before it is trained."""
        inputs, rows = self.view.split.inputs, sample(len(self.view.split.inputs))
        if self.trunk:
            return inputs[rows]
        if not self.config.model.get("file"):
            return None
        with named("config.model"):
            return features(self.model, self.model.init(self.root, to_float(inputs[rows[:1]])), inputs, rows)

    @property
    def trained_model(self) -> Model:
        """The backbone that steps train: of a frozen encoder none, which leaves features as they are."""
        return mlp(hidden=(), dtype="float32") if self.trunk else self.model

    def shown(self, view: View) -> View:
        """The view as steps see it."""
        return self.trunk.features(self.config, view) if self.trunk else view

    def whole(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Variables of the network that reads raw rows, which evals look at."""
        return self.trunk.whole(variables) if self.trunk else variables

    @property
    def on_device(self) -> bool:
        """Whether the training images lie on the devices."""
        return self.config.data["placement"] == "device"

    def trained(self, field: str, index: int, where: str | Sequence[str]) -> Any:
        """The variables that a phase starts from, or the teachers that it learns from, of each run named; None without
        one to start from."""
        found = []
        for each in configs.places(where):
            own = each == "previous"
            folder = self.workdir if own else configs.place(each)
            try:
                found.append(self.one_trained(field, folder, index - 1 if own else None))
            except FileNotFoundError as error:
                raise ConfigError(f"config.{field} = {each!r}: {error}") from error
        return tuple(found) if field == "teacher" else next(iter(found), None)

    def one_trained(self, field: str, folder: Path, phase: int | None) -> Any:
        """Of one run, or of a phase of this one."""
        if field == "backbone":
            return run.load_variables(folder, phase)
        own = None if phase is None else (self.classifier, phase)
        return run.load_teacher(folder, self.dataset.class_names, own=own)

    def how(self, phase: Phase, table: dict[str, Any]) -> dict[str, Any]:
        """The arguments of `batch_at` but the step and what is left to this process."""
        sizes = phase.config["batch"]
        fixed = {"view": self.view, "sizes": sizes, "seed": self.config.data_seed, "stored": phase.method.stored}
        return fixed | {"miner": phase.miner, "table": table}

    def example(self, phase: Phase, table: dict[str, Any]) -> dict[str, Any]:
        """The shapes of a method's batch; before the first refresh there is no table to mine by."""
        how = self.how(phase, table)
        if not table:
            how["miner"] = phase.miner._replace(rows=uniform().rows)
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

    def make_table(
        self, phase: Phase, variables: Any, done: int, before: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """The table that batches are made with after step `done`, by a network of these variables; `before` is that of
        the same phase until now."""
        method, miner = phase.method, phase.miner
        if not (method.refresh or miner.refresh):
            return {}
        variables = whole(self.mesh, variables)
        table: dict[str, np.ndarray] = {}
        progress = (done - phase.start) / max(1, phase.stop - phase.start)
        source = self.view.split._replace(columns={**self.view.split.columns, **before})
        with telling("refreshing the table of the training rows"):
            if method.refresh:
                rng = jax.random.fold_in(fold_in_name(self.root, "refresh"), done)
                table |= method.refresh(variables, source, rng, progress)
            if miner.refresh:
                # The 1 keeps this apart from the generator that chose the labels: NumPy fills a seed up with zeros.
                generator = np.random.default_rng([self.config.seed, done, 1])
                with named("config.batches"):
                    table |= miner.refresh(variables, self.view.split, generator, progress)
        # Machines of one kind agree to the bit; batches must not hang on that.
        return multihost_utils.broadcast_one_to_all(table) if jax.process_count() > 1 else table

    def metrics(self, phase: Phase, state: Any, table: dict[str, Any]) -> list[str]:
        """The names of a step's metrics. ConfigError where the step cannot work on these rows."""
        return self.look(phase, state, table)[0]

    def look(self, phase: Phase, state: Any, table: dict[str, Any]) -> tuple[list[str], frozenset[str]]:
        """The names of a step's metrics, and the columns that it reads: no other travels to the devices."""
        everywhere = on_every_device(self.mesh)  # as programs see it, or the step would be traced again
        batch, key = (
            jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere), tree)
            for tree in (self.example(phase, table), self.root)
        )
        with blame(phase.config):
            found, read = shapes_of_step(phase.method, state, batch, key)
            return list(found[1]), read
