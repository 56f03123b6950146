"""Two networks of other seeds, whose units come in other orders: one is put in the order of the other before the mean.

Weight matching (Ainsworth et al. 2023, ICLR, "Git Re-Basin: Merging Models modulo Permutation Symmetries", Algorithm
1), and what it aligns (Ito et al. 2025, ICLR, "Analysis of Linear Mode Connectivity via Permutation-Based Weight
Matching").
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from scipy.optimize import linear_sum_assignment
from scipy.special import log_softmax

from labelfx.config.annotations import Fraction, NonNegativeInt, Probability
from labelfx.data import known
from labelfx.derived import Derived, Finished, check_mergeable, logits, recalibrate
from labelfx.derived.interpolate import linear
from labelfx.models import Model
from labelfx.models.symmetries import Groups, groups, leaf, of_units, permute, size

LINES = "unmatched", "matched", "recalibrated"


def match(
    runs: tuple[Finished, ...], rng: np.random.Generator, *, weight: Probability, curve: NonNegativeInt, gamma: Fraction
) -> Derived:
    """The mean of two networks that were trained from other seeds, the second with its units in the order of the
    first's (`weight_matching`).

    Args:
      runs: A, B.
      rng: of the order in which groups of units are matched.
      weight: of A: 1 is A, 0 is B in the order of A.
      curve: at as many points from A to B derived.json has the cross-entropy on the rows that A holds out to choose by,
        or else on the test split: with the units as they were, matched, and matched with BatchNorm statistics taken
        anew, which are the result's; with the `barrier` of each. 0 leaves it out.
      gamma: of the `alignment` of each layer, which derived.json has before and after.

    Raises:
      ConfigError: the networks cannot be merged, or no permutations of their units are known.
    """
    check_mergeable(runs)
    a, b = (run.variables for run in runs)
    found = groups(runs[0].config.model)
    matched = permute(found, b, weight_matching(found, a, b, rng))
    said: dict[str, Any] = {"alignment": _alignments(a, b, matched, gamma)}
    if curve:
        said["curve"] = _curve(runs[0], a, b, matched, np.linspace(1, 0, curve))
        said["barriers"] = [{k: barrier(np.array([row[k] for row in said["curve"]])) for k in LINES}]
    return Derived(between(a, matched, weight), said=said)


def between(a: dict[str, Any], b: dict[str, Any], weight: float) -> dict[str, Any]:
    """Variables with parameters and BatchNorm statistics `weight a + (1 - weight) b`, the others of a."""
    return {kind: linear(of, b[kind], weight) if kind in ("params", "batch_stats") else of for kind, of in a.items()}


def cross_entropy(network: Model, variables: Mapping[str, Any], inputs: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the rows whose label is known; inputs [N, ...] as in `Split.inputs`, labels int [N]."""
    said = known(labels)
    log_probs = log_softmax(logits(network, variables, inputs[said]).astype(np.float64), -1)
    return float(-np.mean(log_probs[np.arange(len(log_probs)), labels[said]]))


def _curve(run: Finished, a: Any, b: Any, matched: Any, weights: np.ndarray) -> list[dict[str, Any]]:
    network, images, (inputs, labels, split) = run.network, run.images, run.judged
    rows = []
    for weight in weights:
        merged = between(a, matched, weight)
        trees = between(a, b, weight), merged, recalibrate(network, merged, images)
        losses = [cross_entropy(network, variables, inputs, labels) for variables in trees]
        row = {"weight": float(weight), **dict(zip(LINES, losses, strict=True))}
        rows.append({**row, "split": split, "n": int(known(labels).sum())})
    return rows


def _alignments(a: Any, b: Any, matched: Any, gamma: float) -> list[dict[str, Any]]:
    rows = []
    for keys, kernel in jax.tree_util.tree_leaves_with_path(a["params"]):
        if keys[-1].key == "kernel":
            path = "/".join(key.key for key in keys)
            found = [alignment(kernel, leaf(other["params"], path), gamma) for other in (b, matched)]
            rows.append({"layer": path.removesuffix("/kernel"), "unmatched": found[0], "matched": found[1]})
    return rows


def weight_matching(
    groups: Groups, a: dict[str, Any], b: dict[str, Any], rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """The permutations of b's units, int64 [units] a group, at a local maximum of the inner product of the parameters
    of a and of `permute(groups, b, permutations)`: no permutation of one more group makes it larger.

    Coordinate ascent: each step is the best permutation of one group while the others stand still, a linear assignment;
    the groups come in an order drawn anew in every sweep, until a sweep moves none. Statistics of BatchNorm move along,
    and are not matched. All in float64.

    a, b: variables of one shape.
    """
    found = {name: np.arange(size(axes, a)) for name, axes in groups.items()}
    moving = True
    while moving:
        moving = False
        for name in rng.permutation(list(groups)):
            units = len(found[name])
            gains = np.zeros((units, units))
            for axis in groups[name]:
                if axis.path.startswith("params/"):
                    gains += of_units(axis, a, units) @ of_units(axis, b, units).T
            best = linear_sum_assignment(gains, maximize=True)[1]
            now = np.trace(gains)
            if gains[np.arange(units), best].sum() > now + 1e-9 * abs(gains).max():  # more than rounding
                b, found[name], moving = permute(groups, b, {name: best}), found[name][best], True
    return found


def barrier(losses: np.ndarray) -> float:
    """max_w L(w) - [(1 - w) L(0) + w L(1)], float: how far the loss rises over the straight line between its ends.

    losses: float [points], at equally spaced points from one network to the other.
    """
    losses = np.asarray(losses, np.float64)
    return float(np.max(losses - np.linspace(losses[0], losses[-1], len(losses))))


def alignment(a: np.ndarray, b: np.ndarray, gamma: float) -> float:
    """How alike the directions are in which two kernels act, whatever their singular values: 1 for the same kernel.

        R = sum_ij (u_i^A . u_j^B) (v_i^A . v_j^B) / min(number of i, number of j)

    over the singular vectors of a value above `gamma` times the kernel's largest. A permutation of units turns the
    vectors and leaves the values.

    a, b: float [..., inputs, outputs].
    """
    kept = []
    for kernel in (a, b):
        u, values, v = np.linalg.svd(np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1]), full_matrices=False)
        large = values > gamma * values[0]
        kept.append((u[:, large], v[large]))
    (u_a, v_a), (u_b, v_b) = kept
    return float(np.sum((u_a.T @ u_b) * (v_a @ v_b.T)) / min(len(v_a), len(v_b)))
