"""Fewer weights, without more misses of the classes that matter."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.annotations import Fraction, Probability
from labelfx.data import known
from labelfx.derived import Derived, Finished, check_classifiers, count_runs, logits, recalibrate

PASSES = 100  # over the important classes, whose thresholds move against each other


def prune(runs: tuple[Finished, ...], *, share: Fraction, important: tuple[str, ...], budget: Probability) -> Derived:
    """Sets the smallest weights to 0, and moves the thresholds of important classes so far that no more of their rows
    are missed than before (class-dependent compression: Entezari and Saukh 2019, "Class-dependent Compression of Deep
    Neural Networks").

    Weights are entries of kernels, by their size in the whole network; those that are 0 already count for none. Of each
    important class the bias of the head grows until its recall on the labelled rows is that of the run, less `budget`:
    false positives pay for it. The published way goes on in rounds: tune the result (`finetune` with `head="kept"` and
    the optimiser `keep_zeros`), prune that again. It also rewinds weights to those of an early step, which a run does
    not keep. derived.json has the share of the weights that are left, and of each class the recall on the labelled rows
    before and after, and the move of its threshold.

    Args:
      runs: the one to prune.
      share: of the weights that are not 0.
      important: names of classes; () for plain pruning by magnitude.
      budget: of recall, that an important class may lose.

    Raises:
      ConfigError: no such class, or no labelled row of it; its head is not linear.
    """
    count_runs(runs, 1, 1, "the run to prune")
    check_classifiers(runs)
    (run,) = runs
    names = run.encoder.class_names
    inputs, labels = run.labelled
    inputs, labels = inputs[known(labels)], labels[known(labels)]
    for name in important:
        if name not in names:
            raise ConfigError(f"derive.important: no class {name!r}; {configs.nearest(name, names)}")
        if not (labels == names.index(name)).any():
            raise ConfigError(
                f"derive.important: no labelled row of the class {name!r}, which would say what it misses"
            )
    params, left = without_smallest(run.variables["params"], share)
    variables = recalibrate(run.network, {**run.variables, "params": params}, run.images)
    said: dict[str, Any] = {"left": left}
    if important:
        if {*params["head"]} != {"Dense_0"}:
            raise ConfigError(f"{run.place}: its head is not linear, so that it has no thresholds")
        before, after = (logits(run.network, v, inputs) for v in (run.variables, variables))
        recalls = recall(before, labels)
        moves = thresholds(
            after, labels, {names.index(name): recalls[names.index(name)] - budget for name in important}
        )
        head = params["head"]["Dense_0"]
        variables["params"] = {**params, "head": {"Dense_0": {**head, "bias": head["bias"] + moves.astype(np.float32)}}}
        measured = (recalls, recall(after, labels), recall(after + moves, labels), moves)
        found = zip(names, *([None if np.isnan(x) else float(x) for x in each] for each in measured), strict=True)
        keys = ("class", "recall_before", "recall_pruned", "recall", "threshold")
        said["classes"] = [dict(zip(keys, row, strict=True)) for row in found]
    return Derived(variables, said=said)


def without_smallest(params: Any, share: float) -> tuple[Any, float]:
    """Parameters whose kernels' smallest entries are 0, `share` of those that are not 0, by size over all kernels; and
    the share of all kernels' entries that are left."""
    kernels = [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == "kernel"]
    sizes = np.concatenate([np.abs(np.ravel(leaf)) for leaf in kernels])
    present = np.sort(sizes[sizes > 0])
    count = int(share * len(present))
    least = present[count] if count < len(present) else np.inf

    def one(path: Any, leaf: Any) -> np.ndarray:
        return np.where(np.abs(leaf) < least, 0, leaf).astype(leaf.dtype) if path[-1].key == "kernel" else leaf

    left = np.sum(sizes >= least) / len(sizes)
    return jax.tree_util.tree_map_with_path(one, params), float(left)


def thresholds(scores: np.ndarray, labels: np.ndarray, wanted: Mapping[int, float]) -> np.ndarray:
    """The least numbers >= 0 to add to the scores of some classes, so that each is named for a share `wanted` of its
    rows: float64 [C], 0 of other classes. Where classes need more than each other leaves them, the last has it.

    Args:
      scores: float [L, C].
      labels: int [L], 0 to C - 1.
    """
    moves = np.zeros(scores.shape[1])
    for _ in range(PASSES):
        before = moves.copy()
        for c, share in wanted.items():
            rows = scores[labels == c].astype(np.float64) + moves
            count = int(np.ceil(share * len(rows) - 1e-9))
            short = np.sort(np.delete(rows, c, 1).max(1) - rows[:, c])  # what each row lacks
            if count > 0 and short[count - 1] >= 0 and np.mean(rows.argmax(1) == c) < share - 1e-9:
                moves[c] += short[count - 1] + 1e-4 * (1 + abs(short[count - 1]))  # beyond rounding to float32
        if (moves == before).all():
            break
    return moves


def recall(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Of each class the share of its rows that are named so, float64 [C]; NaN where it has none."""
    right, rows = (np.bincount(labels[keep], minlength=scores.shape[1]) for keep in (scores.argmax(1) == labels, ...))
    return np.where(rows > 0, right / np.maximum(rows, 1), np.nan)
