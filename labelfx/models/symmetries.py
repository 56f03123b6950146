"""Which axes of which arrays the units of a layer are: a permutation of all of them at once changes no output.

Arrays are named by their paths in the variables of a classifier, `stack(backbone=..., head=...)`, with one affine map
of the features as its head.
"""

import functools
import itertools
import operator
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from labelfx.config import ConfigError
from labelfx.config.schema import nearest

HEAD = "head/Dense_0"


class Axis(NamedTuple):
    """Where an array holds the units of a group: along `axis` of the array at `path`, from 0 up or, from the end, below
    0; of that axis in the places of `block`, (first, stop), or all of them where it is None. Places that are a multiple
    of the units hold them again and again, as the flattened map of a convolution does."""

    path: str
    axis: int
    block: tuple[int, int] | None = None


Groups = dict[str, tuple[Axis, ...]]


def groups(model_config: Mapping[str, Any]) -> Groups:
    """The groups of units of the network in `config.model` that may be permuted, each with every axis that holds it.

    Of an mlp and of conv3 a group is a layer. Of a ResNet the inside of each block has its own, and the residual stream
    has one from a change of its channels to the next. Of a ViT they are the hidden units of each MLP, and the channels
    inside of each head, of queries with keys and of values; its stream has none, for positions are added to it, and
    whole heads are left in order.

    Raises:
      ConfigError: no groups of that network are known, or it has no hidden units.
    """
    known = {"mlp": _mlp, "conv3": _conv3, "resnet18": _resnet, "resnet50": _resnet, "wrn28": _wrn28, "vit": _vit}
    name = model_config["name"]
    if name not in known:
        raise ConfigError(
            f"config.model.name = {name!r}: no permutations of its units are known; {nearest(name, known)}"
        )
    found: dict[str, list[Axis]] = {}
    for group, axis in known[name](model_config):
        found.setdefault(group, []).append(axis)
    if not found:
        raise ConfigError(f"config.model.name = {name!r}: it has no hidden units to permute")
    return {group: tuple(axes) for group, axes in found.items()}


def size(axes: tuple[Axis, ...], variables: dict[str, Any]) -> int:
    """How many units a group has."""
    return min(len(_places(axis, leaf(variables, axis.path))) for axis in axes)


def leaf(variables: dict[str, Any], path: str) -> Any:
    """The array at a path such as "params/head/Dense_0/kernel"."""
    return functools.reduce(operator.getitem, path.split("/"), variables)


def of_units(axis: Axis, variables: dict[str, Any], units: int) -> np.ndarray:
    """What an array holds of each unit, float64 [units, ...]."""
    array = np.asarray(leaf(variables, axis.path), np.float64)
    rows = np.moveaxis(array, axis.axis, 0)[_places(axis, array)]
    return np.moveaxis(rows.reshape(-1, units, rows[0].size), 1, 0).reshape(units, -1)


def permute(groups: Groups, variables: dict[str, Any], permutations: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The variables with unit `permutations[group][i]` in place i: the same function, of other weights.

    permutations: int [units] of some of the groups or of all.
    """
    moves: dict[str, list[tuple[int, np.ndarray]]] = {}
    for group, permutation in permutations.items():
        for axis in groups[group]:
            array = leaf(variables, axis.path)
            places, order = _places(axis, array), np.arange(array.shape[axis.axis])
            order[places] = places.reshape(-1, len(permutation))[:, permutation].reshape(-1)
            moves.setdefault(axis.path, []).append((axis.axis, order))

    def moved(keys, array):
        for axis, order in moves.get(jax.tree_util.keystr(keys, simple=True, separator="/"), ()):
            array = array.take(order, axis)
        return array

    return jax.tree_util.tree_map_with_path(moved, variables)


def _places(axis: Axis, array: Any) -> np.ndarray:
    return np.arange(*(axis.block or (0, array.shape[axis.axis])))


def _given(layer: str, *, bias: bool = False) -> Iterator[Axis]:
    yield Axis(f"params/{layer}/kernel", -1)
    if bias:
        yield Axis(f"params/{layer}/bias", 0)


def _taken(layer: str) -> Axis:
    return Axis(f"params/{layer}/kernel", -2)


def _norm(layer: str) -> Iterator[Axis]:
    for name in ("params/{}/scale", "params/{}/bias", "batch_stats/{}/mean", "batch_stats/{}/var"):
        yield Axis(name.format(layer), 0)


def _mlp(config):
    layers = [*(f"backbone/Dense_{i}" for i in range(len(config["hidden"]))), HEAD]
    for i, (layer, after) in enumerate(itertools.pairwise(layers)):
        for axis in (*_given(layer, bias=True), _taken(after)):
            yield f"hidden_{i}", axis


def _conv3(config):
    layers = [*(f"backbone/Conv_{i}" for i in range(3)), HEAD]
    for i, (layer, after) in enumerate(itertools.pairwise(layers)):
        for axis in (*_given(layer), *_norm(f"backbone/BatchNorm_{i}"), _taken(after)):
            yield f"hidden_{i}", axis


def _resnet(config):
    stages, convolutions = {"resnet18": ((2, 2, 2, 2), 2), "resnet50": ((3, 4, 6, 3), 3)}[config["name"]]
    stream = "stream_0"
    for axis in (*_given("backbone/Conv_0"), *_norm("backbone/BatchNorm_0")):
        yield stream, axis
    first = {sum(stages[:stage]) for stage in range(4)} - ({0} if convolutions == 2 else set())
    for i in range(sum(stages)):
        block, before = f"backbone/_Block_{i}", stream
        if i in first:
            stream = f"stream_{i + 1}"
            yield before, _taken(f"{block}/shortcut")
            for axis in (*_given(f"{block}/shortcut"), *_norm(f"{block}/shortcut_norm")):
                yield stream, axis
        inside = [before, *(f"block_{i}_{j}" for j in range(convolutions - 1)), stream]
        for j, (taken, given) in enumerate(itertools.pairwise(inside)):
            yield taken, _taken(f"{block}/Conv_{j}")
            for axis in (*_given(f"{block}/Conv_{j}"), *_norm(f"{block}/BatchNorm_{j}")):
                yield given, axis
    yield stream, _taken(HEAD)


def _wrn28(config):
    stream = "stream_0"
    yield from ((stream, axis) for axis in _given("backbone/Conv_0"))
    for i in range(12):
        block, before = f"backbone/_WrnBlock_{i}", stream
        if i % 4 == 0 and (i or config["width"] > 1):  # the stem has the channels of a first stage of width 1
            stream = f"stream_{i + 1}"
            yield before, _taken(f"{block}/shortcut")
            yield from ((stream, axis) for axis in _given(f"{block}/shortcut"))
        for j, (taken, given) in enumerate(itertools.pairwise([before, f"block_{i}", stream])):
            for axis in (*_norm(f"{block}/BatchNorm_{j}"), _taken(f"{block}/Conv_{j}")):
                yield taken, axis
            yield from ((given, axis) for axis in _given(f"{block}/Conv_{j}"))
    for axis in (*_norm("backbone/BatchNorm_0"), _taken(HEAD)):
        yield stream, axis


def _vit(config):
    heads, channels = {"ti": 3, "s": 6}[config["size"]], 64
    for i in range(12):
        block = f"backbone/_VitBlock_{i}"
        for axis in (*_given(f"{block}/hidden", bias=True), _taken(f"{block}/mlp_out")):
            yield f"hidden_{i}", axis
        for head in range(heads):
            inside = (head * channels, (head + 1) * channels)
            for name, layers in {"scores": ("query", "key"), "values": ("value",)}.items():
                for axis in itertools.chain(*(_given(f"{block}/{layer}", bias=True) for layer in layers)):
                    yield f"{name}_{i}_{head}", axis._replace(block=inside)
            yield f"values_{i}_{head}", _taken(f"{block}/out")._replace(block=inside)
