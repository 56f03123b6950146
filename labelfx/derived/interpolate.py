"""Between two networks, weight by weight: an old one and one that was fine-tuned from it on more data."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import ConfigError
from labelfx.config.annotations import NonNegativeInt, Probability
from labelfx.data import known
from labelfx.data.augment import to_float
from labelfx.derived import Derived, Finished, check_alike, check_classifiers, count_runs, logits, recalibrate
from labelfx.evals.updates import negative_flips
from labelfx.models import Model

AT_ONCE = 16  # rows whose gradients, an array of every parameter each, are in memory together


def interpolate(
    runs: tuple[Finished, ...],
    *,
    kind: Literal["linear", "fisher", "slerp"],
    weight: Probability,
    curve: NonNegativeInt,
) -> Derived:
    """Between an old network and a new one that was fine-tuned from it on more data or classes: fewer negative flips
    for as much accuracy (Schumann et al. 2024, EACL, "Backward Compatibility During Data Updates by Weight
    Interpolation").

    Classes are those of the new one, and whatever the old one has not is the new one's. Two encoders that were
    fine-tuned from one in different ways are fused likewise, by "slerp" (Schopf et al. 2024, "Efficient Few-shot
    Learning for Multi-label Classification of Scientific Documents with Many Classes").

    Args:
      runs: OLD, NEW, and perhaps further NEW of other seeds, whose mean (`soup`) is the new network then.
      kind: "linear", "slerp", or "fisher", which weighs the old network's parameters by `fisher`, `relative` to its
        mean, on the labelled rows that it learnt from.
      weight: of the old network: 0 is the new one, 1 the old one.
      curve: for as many weights from 0 to 1 derived.json says accuracy and negative flips, on the rows that NEW holds
        out to choose by, or else on the test split; 0 leaves it out.

    Raises:
      ConfigError: the networks cannot be merged, or OLD has a class that NEW has not.
    """
    count_runs(runs, 2, None, "OLD,NEW or OLD,NEW,NEW2...")
    old, new, *_ = runs
    check_alike(runs)
    if kind == "fisher" or curve:
        check_classifiers((old, new))
    names = new.encoder.class_names
    after = soup([renamed(run.variables, run.encoder.class_names, names, new.variables) for run in runs[1:]])
    before = renamed(old.variables, old.encoder.class_names, names, after)
    mix: Callable[[Any, Any, float], Any] = slerp if kind == "slerp" else linear
    if kind == "fisher":
        inputs, labels = old.labelled
        said = known(labels)
        importance = relative(fisher(old.network, old.variables, inputs[said], labels[said]))
        ones = jax.tree.map(np.ones_like, before["params"])  # of classes that the old network has not
        importance = renamed({"params": importance}, old.encoder.class_names, names, {"params": ones})["params"]
        mix = functools.partial(weighted, importance=importance)

    def at(share: float) -> dict[str, Any]:
        mixed = {**after, "params": mix(before["params"], after["params"], share)}
        if "batch_stats" in after:
            mixed["batch_stats"] = linear(before["batch_stats"], after["batch_stats"], share)
        return mixed

    said_of = {"curve": _curve(old, new, at, np.linspace(0, 1, curve))} if curve else {}
    return Derived(at(weight), of=1, said=said_of)


def linear(a: Any, b: Any, weight: float) -> Any:
    """`weight a + (1 - weight) b`, leaf by leaf; ValueError where a leaf is no float."""
    return _leaf_by_leaf(lambda x, y: weight * x + (1 - weight) * y, a, b)


def weighted(a: Any, b: Any, weight: float, importance: Any) -> Any:
    """`(w F a + (1 - w) b) / (w F + 1 - w)` with the importance F >= 0 of each parameter of `a`; of weight 1 it is `a`,
    also where F is 0. F = 1 is `linear`."""

    def mix(x, y, f):
        total = weight * f + 1 - weight
        return np.where(total > 0, (weight * f * x + (1 - weight) * y) / np.where(total > 0, total, 1), x)

    return _leaf_by_leaf(mix, a, b, importance)


def relative(importance: Any) -> Any:
    """The importance over its mean of all parameters, as the authors' code scales it: a Fisher information has no scale
    that a weight from 0 to 1 could be chosen on. Of a mean of 0 it is as it is."""
    leaves = jax.tree.leaves(importance)
    mean = sum(float(np.sum(leaf, dtype=np.float64)) for leaf in leaves) / sum(np.size(leaf) for leaf in leaves)
    return jax.tree.map(lambda leaf: (leaf / (mean or 1.0)).astype(leaf.dtype), importance)


def slerp(a: Any, b: Any, weight: float) -> Any:
    """Leaf by leaf on the arc between two arrays: `(sin(w W) a + sin((1 - w) W) b) / sin W`, W the angle between them
    as vectors. Unlike `linear` it keeps the norm of arrays of equal norm. Where the angle is near 0 or pi
    (|cos W| > 0.9995) or an array is 0 it is `linear`."""

    def mix(x, y):
        norms = np.linalg.norm(x) * np.linalg.norm(y)
        cosine = np.vdot(x, y) / norms if norms else 1.0
        if abs(cosine) > 0.9995:
            return weight * x + (1 - weight) * y
        angle = np.arccos(cosine)
        return (np.sin(weight * angle) * x + np.sin((1 - weight) * angle) * y) / np.sin(angle)

    return _leaf_by_leaf(mix, a, b)


def soup(trees: Sequence[Any]) -> Any:
    """The mean of as many trees, leaf by leaf (Wortsman et al. 2022, ICML, "Model soups"): one alone is as it was."""
    return _leaf_by_leaf(lambda *leaves: np.mean(leaves, 0), *trees)


def fisher(network: Model, variables: Any, inputs: np.ndarray, labels: np.ndarray) -> Any:
    """The diagonal of the Fisher information, `E[(d log p(label | input) / d theta)^2]` over rows, in evaluation mode.

    With labels that are true it is the empirical one, with labels drawn from the network's own probabilities the
    Fisher information itself.

    Args:
      network: a classifier, `labelfx.derived.Finished.network`.
      inputs: [L, ...] as in `labelfx.data.Split`.
      labels: int [L], every one known.

    Returns:
      A tree as `variables["params"]`, float32.

    Raises:
      ValueError: there are no rows.
    """
    if not len(labels):
        raise ValueError("the Fisher information wants labelled rows; there are none")
    total = jax.tree.map(np.zeros_like, variables["params"])
    for start in range(0, len(labels), AT_ONCE):
        rows, classes = inputs[start : start + AT_ONCE], labels[start : start + AT_ONCE]
        missing = AT_ONCE - len(rows)
        counts = np.arange(AT_ONCE) < len(rows)
        padded = np.pad(rows, [(0, missing), *[(0, 0)] * (rows.ndim - 1)])
        found = _squares(variables, padded, np.pad(classes, (0, missing)), counts, network)
        total = jax.tree.map(np.add, total, found)
    return jax.tree.map(lambda x: np.asarray(x / len(labels), np.float32), total)


@functools.partial(jax.jit, static_argnums=4)
def _squares(variables, inputs, labels, counts, network):
    def log_likelihood(params, row, label):
        found = network.apply({**variables, "params": params}, row[None], train=False)[0]["head"][0]
        return jax.nn.log_softmax(found)[label]

    of_rows = jax.vmap(jax.grad(log_likelihood), (None, 0, 0))(variables["params"], to_float(inputs), labels)
    return jax.tree.map(lambda x: jnp.sum(jnp.square(x), 0, where=counts.reshape(-1, *[1] * (x.ndim - 1))), of_rows)


def renamed(variables: Any, names: Sequence[str], to: Sequence[str], others: Any) -> Any:
    """Variables whose linear head has the classes `to`, each by its name; what `names` lack has the values of
    `others`, the variables of a network with the classes `to`.

    Raises:
      ConfigError: a class is not among `to`, or the head is not linear and the classes are others.
    """
    if "head" not in variables["params"] or tuple(names) == tuple(to):
        return variables
    if gone := [name for name in names if name not in to]:
        raise ConfigError(f"--runs: the class {gone[0]!r} of one run is none of the new one's: {', '.join(to)}")
    head = variables["params"]["head"]
    if {*head} != {"Dense_0"}:
        raise ConfigError("--runs: other classes, and the heads are not linear; only those of linear heads are mapped")
    places = [to.index(name) for name in names]

    def put(own: np.ndarray, other: np.ndarray) -> np.ndarray:
        found = np.array(other)
        found[..., places] = own
        return found

    mapped = jax.tree.map(put, head, others["params"]["head"])
    return {**variables, "params": {**variables["params"], "head": mapped}}


def _curve(old: Finished, new: Finished, at: Callable[[float], Any], weights: np.ndarray) -> list[dict[str, Any]]:
    inputs, labels, split = new.judged
    names = new.encoder.class_names
    places = np.array([names.index(name) for name in old.encoder.class_names])
    before = logits(old.network, old.variables, inputs)
    rows = []
    for weight in weights:
        variables = recalibrate(new.network, at(weight), new.images)
        found = negative_flips(logits(new.network, variables, inputs), before, labels, places)
        rows.append({"weight": float(weight)} | {k: found[k] for k in ("accuracy", "nfr", "relative_nfr")})
        rows[-1] |= {"split": split, "n": found["n"]}
    return rows


def _leaf_by_leaf(mix: Callable[..., Any], *trees: Any) -> Any:
    def one(path: Any, *leaves: Any) -> np.ndarray:
        wide = [np.asarray(leaf, np.float64) for leaf in leaves]
        for leaf in leaves:
            if not jnp.issubdtype(leaf.dtype, jnp.floating):
                raise ValueError(f"{jax.tree_util.keystr(path)} is {leaf.dtype}; only floats can be merged")
        return np.asarray(mix(*wide), leaves[0].dtype)

    return jax.tree_util.tree_map_with_path(one, *trees)
