"""A run without its data: the shapes of everything that its steps take, and the steps, ready to compile."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.checks import find
from labelfx.data import Dataset, Split, merged
from labelfx.data.batches import View, label_view
from labelfx.data.miners import uniform
from labelfx.data.weak import Said
from labelfx.graphs import Graph
from labelfx.loop import networks, run
from labelfx.loop.dispatch import check_divisible, jit_step
from labelfx.loop.frozen import Trunk
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows, split_state
from labelfx.loop.metrics import NEVER
from labelfx.loop.phases import Experiment, Phase
from labelfx.models import Trained, stack

# (shape of a row, classes, training rows) of the data sources that are one data set, or several by name.
SHAPES = {
    "digits": ((8, 8, 1), 10, 1415),
    "digits_corrupted": ((8, 8, 1), 10, 1415),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "diabetes": ((10,), 0, 332),
    "breast_cancer": ((30,), 2, 427),
    "cifar10": ((32, 32, 3), 10, 50_000),
    "cifar10n": ((32, 32, 3), 10, 50_000),
    "cifar10h": ((32, 32, 3), 10, 8000),
    "musk1": ((166,), 2, 476),  # less those of the test fold
    "multilabel:yeast": ((103,), 14, 1629),
    "multilabel:emotions": ((72,), 6, 396),
    "multilabel:enron": ((1001,), 53, 1132),
    "multilabel:cal500": ((68,), 174, 329),
    "planetoid:cora": ((1,), 7, 1708),
    "planetoid:citeseer": ((1,), 6, 2327),
}
# (classes, training texts)
TEXTS = {
    "sts": (0, 20_190),
    "sick": (0, 4802),
    "cranfield": (0, 1400),
    "banking77": (77, 10_003),
    "clinc150": (150, 15_000),
    "goemotions": (28, 43_410),
    "wrench:youtube": (2, 1586),
    "wrench:sms": (2, 4502),
    "wrench:trec": (6, 4965),
    "wrench:semeval": (9, 1749),
}
CLINC150 = {"full": 15_000, "small": 7500, "imbalanced": 10_525}
SEVERAL = ("multilabel", "goemotions")
# What a row's columns are beside its label: shape and dtype.
COLUMNS: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {
    "cifar10n": {name: ((), "int32") for name in ("aggre", "random1", "random2", "random3", "worse")},
    "cifar10h": {"target": ((10,), "float32")},
    "musk1": {"bag": ((), "int32"), "bag_target": ((2,), "float32")},
    "wrench:youtube": {"votes": ((10,), "int8")},
    "wrench:sms": {"votes": ((73,), "int8")},
    "wrench:trec": {"votes": ((68,), "int8")},
    "wrench:semeval": {"votes": ((164,), "int8")},
}
GRAPHS = {"planetoid:cora": (2708, 1433, 10_556), "planetoid:citeseer": (3327, 3703, 9104)}  # nodes, words, edges


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

    def seen(self) -> None:
        """No row goes through an encoder."""

    def one_trained(self, field: str, folder: Path, phase: int | None) -> Any:
        own = field == "backbone" or phase is not None
        config = self.config if own else run.load_config(folder)
        network = self.model if own else networks.build_model(config, self.dataset)
        model = stack(backbone=network, head=networks.build_head(config, self.dataset.num_outputs))
        images = self.view.split.inputs
        dtype = np.float32 if images.dtype == np.uint8 else images.dtype  # as augmentation leaves them
        image = jax.ShapeDtypeStruct((1, *images.shape[1:]), dtype)
        shapes = jax.eval_shape(model.init, self.root, image)
        variables = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)
        return Trained(model, variables, (*range(self.dataset.num_outputs),)) if field == "teacher" else variables

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
        phase = self.build(index)
        phase = dataclasses.replace(phase, miner=phase.miner._replace(rows=uniform().rows, refresh=None))
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
    """The shapes of the data set, as far as they matter, without its content.

    Raises:
      ConfigError: a flag of these sizes is needed, or one is given and the source says itself what it is.
    """
    given = {"image_shape": image_shape, "num_classes": num_classes, "num_examples": num_examples}
    data = config.data
    source, argument = find(configs.DATA, data["name"], "config.data.name")
    if own := vars(sys.modules[source.__module__]).get(f"blank_{source.__name__}"):
        if flags := [flag for flag, value in given.items() if value]:
            raise ConfigError(f"--{flags[0]}: {own.__name__} says it; leave it out")
        keys = {key: data[key] for key in configs.parameters(own)[1]}
        dataset = own(*([argument] if argument else []), **keys)
        return merged(dataset, data["merge"]) if data["merge"] else dataset
    kind, which = data["name"].partition(":")[0], data["name"].lower()
    shape: Sequence[int] | None
    shape, classes, count = SHAPES.get(which, (None, *TEXTS.get(which, (None, None))))
    task = "several" if kind in SEVERAL else "class"
    if kind == "folder":
        shape = (data["image_size"], data["image_size"], data["channels"])
    if kind in ("csv", "jsonl", "parquet"):
        shape, task = (len(data["inputs"]),), data["task"]
        classes = None if task == "class" and data["labels"] else len(data["labels"])
    if data.get("vocab_size"):
        shape = (data["max_length"],)
    if kind == "cranfield" and data["rows"] == "title_body":
        shape, count = (2, data["max_length"]), 1398  # two documents have no body
    if kind == "clinc150":
        more = data["out_of_scope"]
        classes, count = 150 + more, CLINC150[data["variant"]] + 100 * more
    if kind == "pasted":
        (_, _, channels), classes, _ = SHAPES[data["of"]]
        shape, count, task = (data["canvas"], data["canvas"], channels), data["train"], data["label"]
        task = "class" if task == "one" else task
        classes += task == "dense"
    found: dict[str, Any] = {
        "image_shape": image_shape or shape,
        "num_classes": num_classes or classes,
        "num_examples": num_examples or count,
    }
    for flag, value in found.items():
        if value is None:
            raise ConfigError(f"--{flag}: missing; {data['name']!r} is not read, so it must be given")
    count, classes = found["num_examples"], found["num_classes"]
    ids = bool(data.get("vocab_size")) or which in GRAPHS
    dtype = np.dtype(np.int32 if ids else np.float32 if len(found["image_shape"]) == 1 else np.uint8)
    labels: Any = (np.arange(count) % max(1, classes)).astype(np.int32)
    if task == "several":
        labels = np.zeros((count, classes), np.int8)
    elif task == "dense":
        labels = np.zeros((count, *found["image_shape"][:2]), np.int32)
    elif task == "boxes":
        labels = np.zeros((count, data["high"], 5), np.float32)
    elif task == "target" or kind == "diabetes":
        labels = np.zeros((count, classes) if classes > 1 else count, np.float32)
    columns = {name: np.zeros((count, *of), type_) for name, (of, type_) in COLUMNS.get(which, {}).items()}
    train = Split(Blanks((count, *found["image_shape"]), dtype), labels, columns)
    names = () if task == "target" and classes < 2 else tuple(map(str, range(classes)))
    side: dict[str, Any] = {}
    if which in GRAPHS:
        nodes, words, edges = GRAPHS[which]
        side["graph"] = Graph(np.zeros((nodes, words), np.uint8), np.zeros((edges, 2), np.int32))
    if data.get("vocab_size"):
        side["tokenizer"] = lambda texts: np.ones((len(texts), *found["image_shape"]), np.int32)
    dataset = Dataset(train, train, names, side)
    return merged(dataset, data["merge"]) if data["merge"] else dataset


def blank_view(config: configs.Run, dataset: Dataset) -> View:
    """All rows, with the columns that are said of them: what is said of a few stands for all, each a bag by itself."""
    train, count = dataset.train, len(dataset.train.inputs)
    how = config.labels["weak"]
    if how is None:
        return label_view(train, np.arange(count))
    few = np.arange(min(count, 64))
    said = configs.build(
        configs.WEAK,
        how,
        label=train.labels[few],
        rng=np.random.default_rng(0),
        num_classes=len(dataset.class_names),
        rows=few,
        inputs=Blanks((len(few), *train.inputs.shape[1:]), train.inputs.dtype),
        columns={name: column[few] for name, column in train.columns.items()},
    )
    columns = {name: np.broadcast_to(x[:1], (count, *x.shape[1:])) for name, x in said.columns.items()}
    columns |= {"bag": np.arange(count, dtype=np.int32)} if "bag" in columns else {}
    if "client" in columns:
        columns["client"] = np.arange(count, dtype=np.int32) % (said.columns["client"].max() + 1)
    return label_view(train, np.arange(count), Said(columns))


def blank_loop(config: configs.Run, dataset: Dataset, devices: Sequence[Any]) -> Blank:
    """The loop on these devices, which need not be there. ConfigError where the batch cannot be split over them."""
    check_divisible(config, len(devices))
    view, model, trunk = blank_view(config, dataset), networks.build_model(config, dataset), None
    if config.model.get("frozen"):  # steps see features
        count, *row = view.split.inputs.shape
        x, trunk = jax.ShapeDtypeStruct((1, *row), np.float32), Trunk(model, {})
        x = x.update(dtype=np.int32) if view.split.inputs.dtype == np.int32 else x
        shape = jax.eval_shape(lambda x: model.apply(model.init(jax.random.key(0), x), x, train=False)[0], x).shape
        view = view._replace(split=view.split._replace(inputs=Blanks((count, shape[-1]), np.dtype(np.float32))))
    return Blank(
        config=config,
        workdir=Path(),
        dataset=dataset,
        view=view,
        model=model,
        mesh=make_mesh(0, config.fsdp, among=devices),
        root=jax.random.key(config.seed),
        trunk=trunk,
    )
