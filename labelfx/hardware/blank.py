"""A run without its data: the shapes of everything that its steps take, and the steps, ready to compile."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, Split
from labelfx.data.batches import label_view
from labelfx.data.miners import uniform
from labelfx.loop import run
from labelfx.loop.dispatch import check_divisible, jit_step
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows, split_state
from labelfx.loop.metrics import NEVER
from labelfx.loop.phases import Experiment, Phase
from labelfx.models import Trained, stack

# (image shape, classes, training images) of the data sources that are one data set.
SHAPES = {
    "digits": ((8, 8, 1), 10, 1415),
    "digits_corrupted": ((8, 8, 1), 10, 1415),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "diabetes": ((10,), 0, 332),
    "cifar10": ((32, 32, 3), 10, 50_000),
}
TEXTS = {"sts": 20_190, "sick": 4802, "cranfield": 1400}  # training texts


@dataclasses.dataclass
class Blanks:
    """Images of a data set that nobody has read."""

    shape: tuple[int, ...]
    dtype: np.dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.dtype.type(0), (len(rows), *self.shape[1:]))


class Blank(Experiment):
    """A run on blank images, from a blank backbone: what its arrays look like, never what is in them."""

    def trained(self, field: str, index: int, where: str) -> Any:
        own = field == "backbone" or where == "previous"
        config = self.config if own else run.load_config(configs.place(where))
        network = self.model if own else run.build_model(config)
        model = stack(backbone=network, head=run.build_head(config, self.dataset.num_outputs))
        images = self.view.split.inputs
        dtype = np.float32 if images.dtype == np.uint8 else images.dtype  # as augmentation leaves them
        image = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype)
        shapes = jax.eval_shape(model.init, self.root, image)
        variables = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)
        return Trained(model, variables) if field == "teacher" else variables

    def check_memory(self, shapes: Any) -> None:
        """The compiler's to say."""

    def columns(self, phase: Phase) -> dict[str, np.ndarray]:
        """A table as the method makes it of a few blank images. What a miner adds, the step does not read."""
        if phase.method.refresh is None:
            return {}
        shapes = jax.eval_shape(phase.method.init, self.root, self.example(phase, {}))
        variables = phase.method.variables(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))
        images, labels, columns = self.view.split
        few = Split(Blanks((8, *images.shape[1:]), images.dtype), labels[:8], {k: v[:8] for k, v in columns.items()})
        try:
            table = phase.method.refresh(variables, few, self.root, 0.0)
        except ValueError as error:
            raise ConfigError(f"config.method: its table cannot be made without data ({error})") from error
        return {k: np.broadcast_to(np.ones((), x.dtype), (len(images), *x.shape[1:])) for k, x in table.items()}

    def state_bytes(self, index: int) -> int:
        """What a phase's state takes of a device."""
        leaves = jax.tree.leaves(self.shapes(self.build(index)))
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    def trace(self, index: int) -> jax.stages.Traced:
        """A phase's step, ready to lower and compile for the devices of the mesh."""
        phase = dataclasses.replace(self.build(index), miner=uniform())
        table, state = self.columns(phase), self.shapes(phase)
        batch, frozen = self.example(phase, table), phase.method.frozen

        def placed(tree: Any, sharding: NamedSharding) -> Any:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

        everywhere = on_every_device(self.mesh)
        bad, key = placed(
            ({name: np.int32(NEVER) for name in self.metrics(phase, state, table)}, self.root), everywhere
        )
        fixed = {}
        if frozen is not None:
            del batch["frozen"]
            fixed["frozen"] = jax.tree.map(placed, frozen, split_state(self.mesh, frozen))
        if self.on_device:
            count, *shape = self.view.split.inputs.shape
            count = -(-count // self.mesh.size) * self.mesh.size
            fixed["inputs"] = placed(
                jax.ShapeDtypeStruct((count, *shape), self.view.split.inputs.dtype), split_rows(self.mesh)
            )
            for stream in batch["audit"]:
                del batch[stream]["input"]
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
        step = jit_step(phase.method, self.mesh, state)
        return step.trace(state, bad, fixed, placed(batches, split_rows(self.mesh, axis=1)), key, np.int32(0))


def blank_dataset(
    config: configs.Run, image_shape: Sequence[int] | None, num_classes: int | None, num_examples: int | None
) -> Dataset:
    """The shapes of the data set, as far as they matter, without its content."""
    name = config.data["name"].partition(":")[0]
    shape: Sequence[int] | None
    shape, classes, count = SHAPES.get(name, (None, None, TEXTS.get(name)))
    if name == "folder":
        shape = (config.data["image_size"], config.data["image_size"], config.data["channels"])
    if name in TEXTS:
        shape, classes = (config.data["max_length"],), 0
    if name == "cranfield" and config.data["rows"] == "title_body":
        shape, count = (2, config.data["max_length"]), 1398  # two documents have no body
    found: dict[str, Any] = {
        "image_shape": image_shape or shape,
        "num_classes": num_classes or classes,
        "num_examples": num_examples or count,
    }
    for flag, value in found.items():
        if value is None:
            raise ConfigError(f"--{flag}: missing; {config.data['name']!r} is not read, so it must be given")
    count, dtype = found["num_examples"], np.dtype(np.int32 if name in TEXTS else np.uint8)
    train = Split(Blanks((count, *found["image_shape"]), dtype), np.zeros(count, np.int32))
    return Dataset(train, train, tuple(map(str, range(found["num_classes"]))))


def blank_loop(config: configs.Run, dataset: Dataset, devices: Sequence[Any]) -> Blank:
    """The loop on these devices, which need not be there. ConfigError where the batch cannot be split over them."""
    check_divisible(config, len(devices))
    return Blank(
        config=config,
        workdir=Path(),
        dataset=dataset,
        view=label_view(dataset.train, np.arange(len(dataset.train.inputs))),
        model=run.build_model(config),
        mesh=make_mesh(0, config.fsdp, among=devices),
        root=jax.random.key(config.seed),
    )
