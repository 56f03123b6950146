"""Two networks in one that is as wide as either or up to twice as wide: units that agree are merged, others stay, and
every layer is solved for (Nasery et al. 2025, CVPR, "PLeaS -- Merging Models with Permutations and Least Squares").
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import scipy.linalg
from scipy.optimize import linear_sum_assignment

from labelfx.config.annotations import Positive, PositiveInt, Probability
from labelfx.derived import Derived, Finished, check_mergeable
from labelfx.derived.layers import NORM, Layers, centred, columns, layers_of, matrix, walks
from labelfx.models.symmetries import HEAD, leaf

Join = tuple[np.ndarray, np.ndarray]


def least_squares(
    runs: tuple[Finished, ...], rng: np.random.Generator, *, keep: Probability, rows: PositiveInt, ridge: Positive
) -> Derived:
    """Two networks, perhaps of other rows or classes of the data, merged by partial matching and a least-squares
    problem a layer (`pleas`). `model.hidden` or `model.width` of the new network are wider by the share `keep`.

    Args:
      runs: A, B; of an mlp or conv3.
      rng: of the rows.
      keep: the share of each layer's units that both networks keep for themselves, in [0, 1]: 0 merges them all, 1
        leaves the two networks side by side.
      rows: training rows that activations are of, half of each run; no label is read.
      ridge: of `pleas`.

    Raises:
      ConfigError: the networks cannot be merged, or are of another backbone.
    """
    check_mergeable(runs)
    drawn = []
    for run in runs:
        inputs = run.data[0].train.inputs
        drawn.append(inputs[np.sort(rng.permutation(len(inputs))[: -(-rows // 2)])])
    a, b = (run.variables for run in runs)
    variables, model, said = pleas(runs[0].config.model, a, b, np.concatenate(drawn), keep=keep, ridge=ridge)
    return Derived(variables, config={"model": model}, said={"layers": said})


def pleas(
    model: Mapping[str, Any], a: dict[str, Any], b: dict[str, Any], inputs: np.ndarray, *, keep: float, ridge: float
) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """The merged network's variables, its `config.model`, and what was done a layer.

    1. Units are matched one to one by the correlation of their activations over rows and positions. The share `keep` of
       them that agree least stay in the new layer twice, as A's and as B's; of the others each pair is one unit.
    2. Weights start from blocks: between merged units the mean of the two, from a merged unit to one that stayed those
       of its own network, the other way half of them, and 0 between units of A and of B that stayed.
    3. With inputs Z (the mean over a pair, and what stayed) and the outputs Y before normalisation and ReLU likewise,
       both of the two networks themselves, the layer's kernel and bias W are

           argmin_W |Z W - Y|^2 + ridge m |W - W_0|^2

       where W_0 are the blocks and m is |Z|^2 over the number of its columns: exact normal equations in float64, of a
       convolution over its patches. W is W_0 where the rows do not say otherwise, and what W_0 solves stays exact.

    Every layer keeps the same share of its units, where the paper spends a budget of operations by a quadratic program.
    In its code step 3 is some steps of Adam from W_0 without a ridge, and leaves the zeros of W_0.

    Args:
      model: `config.model` of both, mlp or conv3.
      a, b: their variables, with one affine map as head.
      inputs: [N, ...] as in `Split.inputs`.

    Returns:
      Of a layer: its `units`, how many of each network `stayed`, and |Z W - Y|^2 / |Y|^2 at W_0, `blocks`, and at W,
      `solved`.

    Raises:
      ConfigError: another backbone.
    """
    layers = layers_of(model)
    stayed, wider = _wider(model, keep)
    pixels, outputs = centred(a, inputs[:1]).shape[-1], len(leaf(a, f"params/{HEAD}/bias"))
    merged = [_join(found, stay) for found, stay in zip(_correlations(layers, a, b, inputs), stayed, strict=True)]
    joins = [(np.eye(pixels) / 2,) * 2, *merged, (np.eye(outputs) / 2,) * 2]  # pixels and classes come in one order
    blocks = [_blocks(name, *ends, a, b) for (name, _), ends in zip(layers, itertools.pairwise(joins), strict=True)]
    moments: list[Any] = [0.0] * len(layers)
    for walk in walks(layers, a, b, inputs):
        for i, (taken, made) in enumerate(walk):
            start, shape = blocks[i]
            x = columns(_joined(taken, joins[i]), shape)[..., : len(start)]
            moments[i] = moments[i] + _products(x, _joined(made, joins[i + 1]) - x @ start)

    found, said = {}, []
    for i, ((name, norm), (start, shape), sums) in enumerate(zip(layers, blocks, moments, strict=True)):
        solved, errors = _solve(start, sums, ridge)
        found[f"params/{name}/kernel"] = solved[: math.prod(shape[:-1])].reshape(shape)
        found[f"params/{name}/bias"] = solved[-1]  # that of a layer which has one
        for path in (path.format(norm) for path in NORM if norm):
            found[path] = _joined((leaf(a, path), leaf(b, path)), joins[i + 1])
        said.append({"layer": name, "units": shape[-1], "stayed": [*stayed, 0][i]} | errors)

    def new(keys, old):
        return np.asarray(found.get("/".join(key.key for key in keys), old), old.dtype)

    return jax.tree_util.tree_map_with_path(new, a), wider, said


def _products(*parts: np.ndarray) -> np.ndarray:
    """Sums over rows and positions of the products of all columns of `parts`, [..., d] each."""
    x = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts], 1)
    return x.T @ x


def _wider(model: Mapping[str, Any], keep: float) -> tuple[list[int], dict[str, Any]]:
    """How many units of each hidden layer stay, and `config.model` with those beside the others."""
    if model["name"] == "mlp":
        stayed = [round(keep * units) for units in model["hidden"]]
        return stayed, {**model, "hidden": tuple(map(sum, zip(model["hidden"], stayed, strict=True)))}
    stay = round(keep * model["width"])  # of conv3, whose layers have 1, 2 and 4 times as many
    return [stay, 2 * stay, 4 * stay], {**model, "width": model["width"] + stay}


def _correlations(layers: Layers, a: Any, b: Any, inputs: np.ndarray) -> list[np.ndarray]:
    """Of the activations of each hidden layer, [units of A, units of B]; 0 of a unit that never changes."""
    moments: list[Any] = [0.0] * (len(layers) - 1)
    for walk in walks(layers, a, b, inputs):
        for i, (taken, _) in enumerate(walk[1:]):
            moments[i] = moments[i] + _products(*taken, np.ones((*taken[0].shape[:-1], 1)))
    found = []
    for sums in moments:
        means, units = sums[-1, :-1] / sums[-1, -1], len(sums) // 2
        covariance = sums[:-1, :-1] / sums[-1, -1] - np.outer(means, means)
        deviation = np.sqrt(np.diagonal(covariance).clip(0))
        alive = deviation > 1e-6 * np.abs(means)  # more than rounding
        scale = np.where(alive, 1 / np.where(alive, deviation, 1), 0)
        found.append((covariance * np.outer(scale, scale))[:units, units:])
    return found


def _join(correlation: np.ndarray, stay: int) -> Join:
    """How the units of A and of B make those of the new layer, [units, new units] each: merged pairs, half of each,
    then those of A and those of B that stay."""
    mates = linear_sum_assignment(correlation, maximize=True)[1]
    worst_last = np.argsort(-correlation[np.arange(len(mates)), mates], kind="stable")
    merged, own = np.sort(worst_last[: len(mates) - stay]), np.sort(worst_last[len(mates) - stay :])
    eye, none = np.eye(len(mates)), np.zeros((len(mates), stay))
    a = np.concatenate([eye[:, merged] / 2, eye[:, own], none], 1)
    return a, np.concatenate([eye[:, mates[merged]] / 2, none, eye[:, mates[own]]], 1)


def _joined(both: Any, join: Join) -> np.ndarray:
    return both[0] @ join[0] + both[1] @ join[1]


def _blocks(name: str, before: Join, after: Join, a: Any, b: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """W_0 of a layer between two joins, with the shape of its kernel, as `_matrix`. What either network makes of its
    own units, which each of the new ones stands for whole, is joined."""
    total: Any = 0.0
    for variables, own, new in zip((a, b), before, after, strict=True):
        weights, shape = matrix(variables, name)
        size = math.prod(shape[:-1])
        kernel = (own > 0).T @ weights[:size].reshape(-1, len(own), shape[-1]) @ new
        total = total + np.concatenate([kernel.reshape(-1, new.shape[1]), weights[size:] @ new])
    return total, (*shape[:-2], shape[-2] // len(own) * own.shape[1], new.shape[1])


def _solve(start: np.ndarray, sums: np.ndarray, ridge: float) -> tuple[np.ndarray, dict[str, float]]:
    """W from W_0 and the products of [Z, Y - Z W_0], and the share of |Y|^2 that either leaves."""
    size = len(start)
    gram, cross, left = sums[:size, :size], sums[:size, size:], np.trace(sums[size:, size:])
    whole = left + 2 * np.sum(start * cross) + np.sum(start * (gram @ start))
    damped = gram + np.eye(size) * ridge * (np.trace(gram) / size or 1.0)
    step = scipy.linalg.solve(damped, cross, assume_a="pos")
    solved = left - 2 * np.sum(step * cross) + np.sum(step * (gram @ step))
    return start + step, {"blocks": float(left / whole), "solved": float(solved / whole)}
