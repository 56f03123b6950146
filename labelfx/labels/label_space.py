"""How labels of a set relate, by how often rows have both: the same twice, one within another, never together."""

import logging
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import scipy.stats

logger = logging.getLogger(__name__)

Kind = Literal["identical", "subsumed", "exclusive"]

LEVEL = 0.05  # of all tests together: the probability that any relation of independent labels is found
FEW = 5  # positives of a label below which nothing is said of it


class Relation(NamedTuple):
    """kind: "identical", "subsumed" (whoever has the first has the second) or "exclusive" (nobody has both). first,
    second: of the labels; names: theirs. together: rows with both; expected: how many, were the two independent.
    p_value: of the exact test against that, corrected for all pairs."""

    kind: Kind
    first: int
    second: int
    names: tuple[str, str]
    together: int
    expected: float
    p_value: float


def relations(labels: np.ndarray, names: Sequence[str], *, expected: float, share: float) -> list[Relation]:
    """Pairs of labels that are not independent and stand in a relation, in order of their labels ("Cleaning and
    Structuring the Label Space of the iMet Collection 2020", whose authors pick them by hand).

    Identical: the Jaccard index is at least `share`. Subsumed: not identical, and at least this share of the rows with
    the first has the second, but not the other way round. Exclusive: no row has both, where at least `expected` would.
    Each must be significant at 5 % by the exact hypergeometric test of its side, corrected for both sides of every pair
    by Holm's method: rare labels are seldom together by chance.

    Args:
      labels: int8 [N, C]: 1, 0, or -1 for unknown. A pair is judged by the rows in which both are known. Labels with
        fewer than 5 positives are in no relation; a log line names them.
      names: of the C labels.

    Raises:
      ValueError: labels are not [N, C], or names not C.
    """
    if labels.ndim != 2 or len(names) != labels.shape[1]:
        raise ValueError(f"labels must be [N, C] with C names, got {labels.shape} and {len(names)} names")
    positive, known = (labels > 0).astype(np.int64), (labels >= 0).astype(np.int64)
    enough = positive.sum(0) >= FEW
    if not enough.all():
        logger.info(
            "too few positives, below %d: %s", FEW, ", ".join(names[c] for c in np.flatnonzero(~enough).tolist())
        )
    judged = np.flatnonzero(enough)
    first, second = (judged[each] for each in np.triu_indices(len(judged), 1))
    rows, both = (known.T @ known)[first, second], (positive.T @ positive)[first, second]
    alone = positive.T @ known  # positives of a label, of the rows in which the other is known
    ones, others = alone[first, second], alone[second, first]
    more = scipy.stats.hypergeom.sf(both - 1, rows, ones, others)
    fewer = scipy.stats.hypergeom.cdf(both, rows, ones, others)
    more, fewer = np.split(_holm(np.concatenate([more, fewer])), 2)
    chance = ones * others / np.maximum(rows, 1)
    forth, back = both / np.maximum(ones, 1), both / np.maximum(others, 1)
    same = both >= share * np.maximum(ones + others - both, 1)
    found: list[tuple[Kind, np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = [
        ("identical", same, more, first, second),
        ("subsumed", ~same & (forth >= share) & (back < share), more, first, second),
        ("subsumed", ~same & (back >= share) & (forth < share), more, second, first),
        ("exclusive", (both == 0) & (chance >= expected), fewer, first, second),
    ]
    listed = []
    for kind, there, p, a, b in found:
        for i in np.flatnonzero(there & (p < LEVEL)):
            one, other = int(a[i]), int(b[i])
            pair = names[one], names[other]
            listed.append(Relation(kind, one, other, pair, int(both[i]), float(chance[i]), float(p[i])))
    return sorted(listed, key=lambda each: (each.first, each.second))


def close(labels: np.ndarray, relations: Sequence[Relation]) -> np.ndarray:
    """The labels, to which those are added that follow from subsumed and identical ones, however many steps away: int8
    [N, C]. None is taken away, and exclusive labels say nothing."""
    implies = np.eye(labels.shape[1], dtype=bool)
    for kind, first, second, *_ in relations:
        implies[first, second] |= kind != "exclusive"
        implies[second, first] |= kind == "identical"
    for via in range(len(implies)):
        implies |= implies[:, via, None] & implies[None, via]
    return np.where((labels > 0) @ implies, 1, labels).astype(np.int8)


def _holm(p: np.ndarray) -> np.ndarray:
    """P-values [M] so that those below a level are false with at most that probability, all of them together."""
    order = np.argsort(p)
    found = np.empty_like(p)
    found[order] = np.minimum(np.maximum.accumulate((len(p) - np.arange(len(p))) * p[order]), 1)
    return found
