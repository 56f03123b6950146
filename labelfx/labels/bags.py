"""What the numbers of positives in bags, and likeness of rows, say of each row."""

from typing import Literal

import numpy as np
import scipy.special


def belief_propagation(
    bag: np.ndarray,
    count: np.ndarray,
    edges: np.ndarray,
    similarity: np.ndarray,
    *,
    bag_weight: float,
    similarity_weight: float,
    bag_factor: Literal["count", "pairs"] = "count",
    steps: int,
    damping: float,
) -> np.ndarray:
    """P(y = 1) float64 [N] of labels y in {0, 1}, by sum-product belief propagation in the distribution of LLP-BP:
    exp(-bag_weight sum_bags (sum_i y_i - count)^2 - similarity_weight sum_edges similarity [y_i != y_j]).

    "count" has one factor a bag, whose messages are exact: of S rows by dynamic programming over how many of the others
    are positive, O(S^2). Without edges that is the distribution itself. "pairs", as published, writes the square as
    unary terms and factors of all pairs of a bag, between which messages go in circles: at large weights far off.

    Args:
      bag: int [N], from 0 to K - 1; -1 is none.
      count: int [K], the positives of each bag.
      edges: int [E, 2], pairs of different rows, each once in either order.
      similarity: float [E], from 0 up.
      steps: of all messages at once.
      damping: the share of a message that is the one before, in [0, 1).

    Raises:
      ValueError: a bag without a row, or more positives than rows; an edge from a row to itself, twice, or to no row.
    """
    n, inside = len(bag), np.flatnonzero(bag >= 0)
    size = np.bincount(bag[inside], minlength=len(count))
    if len(size) > len(count) or not size.all():
        raise ValueError(f"bags must be numbered 0..{len(count) - 1}, each with rows, got sizes {size.tolist()}")
    if ((count < 0) | (count > size)).any():
        bad = int(np.argmax((count < 0) | (count > size)))
        raise ValueError(f"count of bag {bad} is {count[bad]}; allowed 0..{size[bad]}, its rows")
    ordered = np.sort(np.reshape(edges, (-1, 2)), axis=1)
    if ordered.size and (ordered.min() < 0 or ordered.max() >= n or (ordered[:, 0] == ordered[:, 1]).any()):
        raise ValueError(f"edges must be pairs of two different rows of 0..{n - 1}")
    if len(np.unique(ordered, axis=0)) < len(ordered):
        raise ValueError("edges name a pair twice")

    # Factors of two rows: a log-odds `unary` of y = 1 each, and `coupling` where both are 1.
    ends, coupling = ordered, 2 * similarity_weight * similarity
    unary = -np.bincount(ordered.ravel(), np.repeat(similarity_weight * similarity, 2), n).astype(float)
    order = inside[np.argsort(bag[inside], kind="stable")]
    if bag_factor == "pairs":
        mates = [rows[np.stack(np.triu_indices(len(rows), 1), 1)] for rows in np.split(order, size.cumsum()[:-1])]
        ends = np.concatenate([ends, *mates])
        coupling = np.append(coupling, np.full(len(ends) - len(coupling), -2 * bag_weight))
        unary[order] -= bag_weight * (1 - 2 * count[bag[order]])
    elif bag_factor != "count":
        raise ValueError(f"bag_factor must be one of count, pairs, got {bag_factor!r}")
    source, target = np.concatenate([ends, ends[:, ::-1]]).T
    coupling = np.tile(coupling, 2)
    back = np.roll(np.arange(len(source)), len(ends))  # the message the other way
    place = bag[order], np.arange(len(order)) - np.repeat(size.cumsum() - size, size)

    messages, of_bags = np.zeros(len(source)), np.zeros(n)
    for _ in range(steps):
        belief = unary + of_bags + np.bincount(target, messages, n)
        cavity = belief[source] - messages[back]
        new = np.logaddexp(0, cavity + coupling) - np.logaddexp(0, cavity)
        messages = (1 - damping) * new + damping * messages
        if bag_factor == "count":
            padded = np.full((len(count), size.max(initial=0)), -np.inf)  # rows that are not there are negative
            padded[place] = (belief - of_bags)[order]
            of_bags[order] = (1 - damping) * _count_messages(padded, count, bag_weight)[place] + damping * of_bags[
                order
            ]
    return scipy.special.expit(unary + of_bags + np.bincount(target, messages, n))


def _count_messages(log_odds: np.ndarray, count: np.ndarray, weight: float) -> np.ndarray:
    """The log-odds [K, S] that exp(-weight (sum y - count)^2) gives each of S rows, by those of the others [K, S]."""
    bags, rows = log_odds.shape
    yes, no = -np.logaddexp(0, -log_odds), -np.logaddexp(0, log_odds)
    never = np.full((bags, 1), -np.inf)

    before = np.full((rows, bags, rows + 1), -np.inf)  # log P(k of the rows before are positive)
    before[:1, :, 0] = 0
    for i in range(rows - 1):
        gain = np.concatenate([never, before[i, :, :-1]], 1) + yes[:, [i]]
        before[i + 1] = np.logaddexp(before[i] + no[:, [i]], gain)
    after = -weight * (np.arange(rows + 1) - count[:, None]) ** 2.0  # log of the factor's mean, k so far
    found = np.empty((bags, rows))
    for i in reversed(range(rows)):
        more = np.concatenate([after[:, 1:], never], 1)
        found[:, i] = np.logaddexp.reduce(before[i] + more, 1) - np.logaddexp.reduce(before[i] + after, 1)
        after = np.logaddexp(after + no[:, [i]], more + yes[:, [i]])
    return found
