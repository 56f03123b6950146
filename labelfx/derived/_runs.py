"""Finished runs as functions of this room take them, and what these have in common."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from labelfx import config as configs
from labelfx import models
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.data.augment import to_float
from labelfx.data.batches import View
from labelfx.finished import weights
from labelfx.finished.encoder import Encoder, load
from labelfx.loop.run import load_config, load_data, load_variables
from labelfx.models import Model

ROWS = 4096  # training rows that BatchNorm statistics are of, at most


class Finished:
    """A finished run, read when it is asked for.

    place: its workdir.
    """

    def __init__(self, place: Path, dataset: Dataset | None = None):
        self.place, self._dataset = configs.absolute(place), dataset

    @functools.cached_property
    def config(self) -> configs.Run:
        return load_config(self.place)

    @functools.cached_property
    def encoder(self) -> Encoder:
        """Its backbone and head, whose variables are checked against its configuration."""
        return load(self.place)

    @functools.cached_property
    def _stored(self) -> dict[str, Any]:
        return load_variables(self.place)

    @property
    def variables(self) -> dict[str, Any]:
        """Those of `network`: {"params": {"backbone": ..., "head": ...}, "batch_stats": ...}, NumPy arrays."""
        read = {kind: {k: of[k] for k in ("backbone", "head") if k in of} for kind, of in self._stored.items()}
        return {kind: of for kind, of in read.items() if of}

    @property
    def sha256(self) -> str:
        """Of its weights, as `labelfx.finished.weights` stores them."""
        return weights.sha256(self._stored)

    @property
    def network(self) -> Model:
        """The stack of its backbone and, where it has one, its head."""
        head = {"head": self.encoder.head[0]} if self.encoder.head else {}
        return models.stack(backbone=self.encoder.model, **head)

    @functools.cached_property
    def data(self) -> tuple[Dataset, View]:
        """Its data set, and the training rows under its label view."""
        return load_data(self.config, self.place, self._dataset)

    @property
    def labelled(self) -> tuple[np.ndarray, np.ndarray]:
        """Inputs [L, ...] and what is said of them, [L, ...], in the order of the label view's rows."""
        split, rows = self.data[1].split, self.data[1].rows
        return split.inputs[rows], split.labels[rows]

    @property
    def judged(self) -> tuple[np.ndarray, np.ndarray, str]:
        """Inputs, labels and the split's name of the rows that curves are measured on: those which the label view holds
        out to choose by or, where it holds none out, the test rows, which nothing may be chosen by."""
        view, test = self.data[1], self.data[0].test
        found, name = (view.held_out, "validation") if view.held_out is not None else (test, "test")
        if found is None:
            raise ConfigError(f"{self.place}: neither validation nor test rows, so that there is no curve")
        return found.inputs[np.arange(len(found.labels))], found.labels, name

    @property
    def images(self) -> np.ndarray:
        """Up to `ROWS` training rows, evenly spaced: what BatchNorm statistics are of."""
        inputs = self.data[0].train.inputs
        return inputs[np.linspace(0, len(inputs) - 1, min(len(inputs), ROWS)).astype(np.int64)]


class Derived(NamedTuple):
    """What a function of this room returns.

    variables: of the new network, as `Finished.variables`.
    of: the place in `runs` of the parent whose configuration, classes and rows it has.
    config: fields of that configuration that change, such as a `model` of other widths.
    said: what derived.json has to say beside the settings, plain values; a list of dicts with the same keys is a table.
    """

    variables: dict[str, Any]
    of: int = 0
    config: dict[str, Any] = {}
    said: dict[str, Any] = {}


def count_runs(runs: tuple[Finished, ...], least: int, most: int | None, words: str) -> None:
    """ConfigError where there are not as many runs as a function takes; `words` name them."""
    if len(runs) < least or (most is not None and len(runs) > most):
        raise ConfigError(f"--runs: {len(runs)} given; must be {words}")


def check_classifiers(runs: tuple[Finished, ...]) -> None:
    """ConfigError where a run trained no classifier that names one class a row."""
    for run in runs:
        if run.encoder.head is None or run.encoder.task != "class":
            raise ConfigError(f"{run.place}: trained no classifier that names one class a row")


def check_alike(runs: tuple[Finished, ...]) -> None:
    """ConfigError, with the first path that differs, where networks cannot be merged: other architectures than the
    first run's, other tokens, arrays of other shapes (the outputs of a head apart), or parameters that are no
    floats."""
    first = runs[0]
    for run in runs:
        one, other = (_architecture(each.config) for each in (first, run))
        for path in sorted(one.keys() | other.keys()):
            if one.get(path) != other.get(path):
                raise ConfigError(
                    f"{run.place}: {path} = {other.get(path)!r}, but {one.get(path)!r} in {first.place}; only networks "
                    "of one architecture can be merged"
                )
        tokens = [each.encoder.tokenizer.text if each.encoder.tokenizer else None for each in (first, run)]
        if tokens[0] != tokens[1]:
            raise ConfigError(f"{run.place}: reads texts in other tokens than {first.place}")
        shapes = [_leaves(models.backbone(each.variables)) for each in (first, run)]
        for path in sorted(shapes[0].keys() | shapes[1].keys()):
            found = [each[path].shape if path in each else None for each in shapes]
            if found[0] != found[1]:
                raise ConfigError(f"{run.place}: {path} is {found[1]}, but {found[0]} in {first.place}")
        for path, leaf in _leaves(run.variables["params"]).items():
            if not np.issubdtype(leaf.dtype, np.floating):
                raise ConfigError(f"{run.place}: params/{path} is {leaf.dtype}; only floats can be merged")


def _architecture(config: configs.Run) -> dict[str, Any]:
    fields = configs.flatten(configs.plain({"model": config.model, "head": config.head}))
    return {path: value for path, value in fields.items() if path not in configs.NEUTRAL}


def _leaves(tree: Any) -> dict[str, np.ndarray]:
    return {"/".join(key.key for key in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def logits(network: Model, variables: Mapping[str, Any], inputs: np.ndarray, *, batch: int = 256) -> np.ndarray:
    """A classifier's logits of rows [N, ...], N > 0, in evaluation mode: float32 [N, classes]."""
    found = []
    for start in range(0, len(inputs), batch):
        chunk = inputs[start : start + batch]
        padded = np.pad(chunk, [(0, batch - len(chunk)), *[(0, 0)] * (chunk.ndim - 1)])
        found.append(np.asarray(_outputs(variables, padded, network))[: len(chunk)])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=2)
def _outputs(variables, inputs, network):
    return network.apply(variables, to_float(inputs), train=False)[0]["head"].astype(jnp.float32)


def recalibrate(model: Model, variables: Mapping[str, Any], images: np.ndarray, *, batch: int = 256) -> dict[str, Any]:
    """The variables with BatchNorm statistics of these rows: of each layer the mean and the variance of what reaches it
    in training mode. Without BatchNorm they are as they were.

    A merged network's activations have other statistics than its parents', and without this it is near chance (Izmailov
    et al. 2018, UAI, section 3.2; Jordan et al. 2023, ICLR).

    Args:
      images: [N, ...] as in `Split.inputs`; what is left of the last batch is not looked at, nor rows that
        `Model.norm_groups` does not divide.

    Raises:
      ValueError: there are fewer rows than `Model.norm_groups`.
    """
    if "batch_stats" not in variables:
        return dict(variables)
    size = min(batch, len(images)) // model.norm_groups * model.norm_groups
    if not size:
        raise ValueError(f"{len(images)} rows; BatchNorm wants {model.norm_groups} or more")
    starts = range(0, len(images) - size + 1, size)
    found = [_of_batch(dict(variables), images[start : start + size], model) for start in starts]
    means = jax.tree.map(lambda *leaves: np.mean(leaves, 0, np.float64), *[each for each, _ in found])
    squares = jax.tree.map(lambda *leaves: np.mean(leaves, 0, np.float64), *[each for _, each in found])
    return {**variables, "batch_stats": _spread(variables["batch_stats"], means, squares)}


@functools.partial(jax.jit, static_argnums=2)
def _of_batch(variables, images, model):
    """The statistics of a batch, and the squares of its means, NaN where training changes none.

    Layers keep `m old + (1 - m) batch`, so that what they make of 0 and of 1 tells m and the batch's."""

    def after(value):
        start = jax.tree.map(lambda x: jnp.full_like(x, value), variables["batch_stats"])
        own = {**variables, "batch_stats": start}
        return model.apply(own, to_float(images), train=True, rng=jax.random.key(0))[1]["batch_stats"]

    batch = jax.tree.map(lambda zero, one: zero / (1 - (one - zero)), after(0.0), after(1.0))
    return batch, jax.tree.map(jnp.square, batch)


def _spread(old: Any, means: Any, squares: Any) -> Any:
    """Over all rows: the variance within batches, and that of the batches' means."""
    if isinstance(old, Mapping):
        found = {key: _spread(old[key], means[key], squares[key]) for key in old}
        if {"mean", "var"} <= old.keys():
            between = (squares["mean"] - means["mean"] ** 2).clip(0)
            found["var"] = np.where(np.isnan(between), old["var"], found["var"] + between).astype(np.float32)
        return found
    return np.where(np.isnan(means), old, means).astype(np.float32)


def check_mergeable(runs: tuple[Finished, ...]) -> None:
    """ConfigError where they are not two classifiers of one architecture, of the same classes and scale of vectors,
    with one affine map as their head."""
    count_runs(runs, 2, 2, "A,B")
    check_alike(runs)
    check_classifiers(runs)
    a, b = runs
    if a.encoder.class_names != b.encoder.class_names:
        raise ConfigError(f"{b.place}: its classes are not those of {a.place}")
    if {*a.variables["params"]["head"]} != {"Dense_0"}:
        raise ConfigError(
            f"{a.place}: config.head.name = {a.config.head['name']!r}: must be one affine map, as linear is"
        )
    scales = [jax.tree.leaves(run.variables.get("scale", {})) for run in runs]
    if any((one != other).any() for one, other in zip(*scales, strict=True)):
        raise ConfigError(f"{b.place}: its vectors were not standardised as those of {a.place}")
