"""Sets of labels that hold the truth with a promised probability, from scores of rows that training has not seen.

A score is how badly a label suits a row. Whatever the scores are, a set of all labels whose score is at most a
threshold keeps its promise as long as calibration rows and new ones are exchangeable.
"""

import heapq

import numpy as np
from scipy.stats import binom

from labelfx.config.annotations import Fraction, NonNegative, PositiveInt


def conformal_threshold(scores: np.ndarray, *, error: Fraction) -> float:
    """What the score of a new row's true label is at most with probability 1 - error or more, over draws of calibration
    rows and of the new one (split conformal prediction; Vovk et al. 2005).

    It is the ceil((n + 1)(1 - error))-th smallest score, infinity where that is more than n. Of scores without ties
    the coverage of many new rows, given the calibration rows, has the distribution Beta(k, n + 1 - k), k its rank.

    Args:
      scores: float [n], of the true labels of calibration rows.
      error: the share of new rows whose label may be missing.
    """
    rank = _rank(len(scores), error)
    return float(np.sort(scores)[rank - 1]) if rank <= len(scores) else np.inf


def coverage_law(calibration: int, judged: int, error: float) -> tuple[float, float]:
    """Mean and standard deviation of the coverage of `judged` rows by the conformal threshold of `calibration` rows:
    beta-binomial (Angelopoulos & Bates 2023, Foundations and Trends, section 3.2)."""
    mean = _rank(calibration, error) / (calibration + 1)
    spread = mean * (1 - mean) * (judged + calibration + 1) / (judged * (calibration + 2))
    return float(mean), float(np.sqrt(spread))


def pac_threshold(scores: np.ndarray, *, error: Fraction, delta: Fraction) -> float:
    """The least threshold at which, with probability 1 - delta over calibration rows, a new row's true label has a
    higher score with probability `error` at most: probably approximately correct (Park et al. 2020, ICLR, Theorem 1).

    As many of the n calibration rows may have a higher one as a binomial variable of n and `error` exceeds with
    probability 1 - delta.

    Raises:
      ValueError: there are too few rows for the promise, whatever their scores.
    """
    allowed = int(binom.ppf(delta, len(scores), error))
    allowed -= binom.cdf(allowed, len(scores), error) > delta
    if allowed < 0:
        need = int(np.ceil(np.log(delta) / np.log1p(-error))) if 0 < delta and 0 < error else "no number of"
        raise ValueError(f"{len(scores)} calibration rows: error = {error}, delta = {delta} needs {need} at least")
    return float(np.sort(scores)[len(scores) - 1 - allowed])


def hierarchical_set(
    leaf_probs: np.ndarray, parent: np.ndarray, threshold: float, *, most: PositiveInt
) -> tuple[np.ndarray, float]:
    """The nodes of a tree, `most` at most, whose leaves hold at least `threshold` of the probability and are as few as
    can be: a set of classes that can be said in a few words (Khakhar et al. 2023, ICML, which solves it for partial
    programs as MaxSAT; on a tree of classes it is a dynamic programme).

    Args:
      leaf_probs: float [M], of the nodes that are leaves; not read elsewhere.
      parent: int [M], of each node, -1 of the root alone.
      threshold: in [0, 1]. 1 is met by the root, whatever rounding says.
      most: how many nodes may be named, 1 or more.

    Returns:
      The nodes, int [m], in order, none below another, and the probability of their leaves.

    Raises:
      ValueError: `parent` is no tree.
    """
    order = _from_leaves(parent)
    best: list[dict[tuple[int, int], tuple[float, tuple[int, ...]]]] = [{} for _ in parent]
    leaves = np.zeros(len(parent), int)
    mass = np.zeros(len(parent))
    for node in order:
        children = np.flatnonzero(parent == node)
        leaves[node] = leaves[children].sum() if len(children) else 1
        mass[node] = mass[children].sum() if len(children) else leaf_probs[node]
        found: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {(0, 0): (0.0, ())}
        for child in children:  # (leaves, nodes) -> the most probability, and by which nodes
            joined: dict[tuple[int, int], tuple[float, tuple[int, ...]]] = {}
            for (size, count), (held, nodes) in found.items():
                for (more, others), (added, below) in best[child].items():
                    key = size + more, count + others
                    if key[1] <= most and (key not in joined or held + added > joined[key][0]):
                        joined[key] = held + added, nodes + below
            found = joined
        own = int(leaves[node]), 1
        if own not in found or mass[node] > found[own][0]:
            found[own] = float(mass[node]), (int(node),)
        best[node] = found
    root = best[order[-1]]
    enough = [(size, -held, nodes) for (size, _), (held, nodes) in root.items() if held >= threshold - 1e-12]
    _, held, nodes = min(enough, default=(0, -mass[order[-1]], (int(order[-1]),)))
    return np.array(sorted(nodes), int), float(-held)


def power_set(
    probs: np.ndarray, threshold: float, *, power: NonNegative, most: PositiveInt
) -> tuple[np.ndarray, np.ndarray, bool]:
    """All sets of labels of one row whose nonconformity sum_c |y_c - p_c|^power is at most `threshold`, without looking
    at the 2^C others (label powerset; Maltoudoglou et al. 2022, Pattern Recognition).

    They come in order of nonconformity, best first: from the set of what is more probable than not, the flips of labels
    are added in the order of their costs, so that no set is made whose predecessor is beyond the threshold.

    Args:
      probs: float [C], in [0, 1].
      most: how many sets to return at most.

    Returns:
      sets bool [S, C], their nonconformities float [S] from the least, and whether there are more than `most`.
    """
    likely = probs > 0.5
    apart = np.abs(np.stack([likely - probs, ~likely - probs])) ** power
    costs = apart[1] - apart[0]
    order = np.argsort(costs, kind="stable")
    sets: list[tuple[int, ...]] = []
    totals: list[float] = []
    queue: list[tuple[float, tuple[int, ...]]] = [(float(apart[0].sum()), ())]
    while queue and queue[0][0] <= threshold + 1e-12 and len(sets) <= most:
        total, flips = heapq.heappop(queue)  # places in `order`
        sets.append(flips)
        totals.append(total)
        last = flips[-1] if flips else -1
        if last + 1 < len(probs):
            following = costs[order[last + 1]]
            heapq.heappush(queue, (total + following, (*flips, last + 1)))
            if flips:
                heapq.heappush(queue, (total + following - costs[order[last]], (*flips[:-1], last + 1)))
    found = np.tile(likely, (min(len(sets), most), 1))
    for row, flips in zip(found, sets, strict=False):
        row[order[list(flips)]] ^= True
    return found, np.array(totals[:most]), len(sets) > most


def _rank(rows, error):
    """Of the score that is the threshold; rows + 1 where none is large enough."""
    return min(int(np.ceil((rows + 1) * (1 - error) - 1e-9)), rows + 1)


def _from_leaves(parent):
    """The nodes of a tree, children before their parents."""
    parent = np.asarray(parent)
    roots = np.flatnonzero(parent == -1)
    if len(roots) != 1 or ((parent < -1) | (parent >= len(parent))).any():
        raise ValueError(f"parent must be nodes 0..{len(parent) - 1}, and -1 of one root, which {len(roots)} have")
    order = [int(roots[0])]
    for node in order:
        order.extend(np.flatnonzero(parent == node).tolist())
    if len(order) < len(parent):
        raise ValueError(f"parent has a cycle: node {np.setdiff1d(np.arange(len(parent)), order)[0]} has no way up")
    return order[::-1]
