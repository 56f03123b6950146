"""Which rows to have labelled, before there is any label, and which answers to keep.

LLM-GNN (Chen et al. 2024, ICLR, "Label-free Node Classification on Graphs with Large Language Models"): nodes are asked
for that are worth a label, as by `pagerank`, and easy to answer, as by `density`; `rank_mean` puts the two together
(section 3.2). Of the answers those are kept that are sure and leave the classes diverse, by `diverse_filter` (section
3.4).
"""

import numpy as np
import scipy.sparse
import scipy.stats

from labelfx.graphs import Graph


def rank_mean(scores: tuple[np.ndarray, ...], weights: tuple[float, ...]) -> np.ndarray:
    """The weighted mean of the ranks of scores that have no common unit: float64 [N], in (0, 1]. Equal scores rank
    alike.

    Args:
      scores: float [N] each, the higher the better.
      weights: one a score, from 0 up.

    Raises:
      ValueError: the weights are not one a score, or are all 0.
    """
    if len(weights) != len(scores) or min(weights) < 0 or not sum(weights):
        raise ValueError(f"weights = {weights}: must be {len(scores)} numbers from 0 up, not all 0")
    ranks = [scipy.stats.rankdata(score) / len(score) for score in scores]
    return np.average(ranks, axis=0, weights=weights)


def density(features: np.ndarray, clusters: int, rng: np.random.Generator) -> np.ndarray:
    """1 / (1 + distance to the nearest of the centroids of k-means): float64 [N]. A row that is typical of its cluster
    is easily named; LLM-GNN has as many clusters as classes.

    Args:
      features: float [N, F].
      rng: of the first centroids.
    """
    from sklearn.cluster import KMeans  # slow to import

    means = KMeans(clusters, n_init=1, random_state=int(rng.integers(2**31))).fit(features)
    return 1 / (1 + means.transform(features).min(1))


def pagerank(graph: Graph, *, damping: float) -> np.ndarray:
    """Where a walk is found that follows a random edge with probability `damping` and else jumps to any node: float64
    [num_nodes], of sum 1 (Brin and Page 1998, who take 0.85). From a node without edges it always jumps."""
    count = graph.num_nodes
    sender, receiver = graph.edges.T
    degree = np.bincount(sender, minlength=count)
    walk = scipy.sparse.csr_array((1 / degree[sender], (receiver, sender)), shape=(count, count))
    lone = degree == 0
    found, before = np.full(count, 1 / count), np.zeros(count)
    while np.abs(found - before).sum() > 1e-12:
        before = found
        found = damping * (walk @ before + before[lone].sum() / count) + (1 - damping) / count
    return found


def diverse_filter(votes: np.ndarray, confidence: np.ndarray, keep: int) -> np.ndarray:
    """The rows, int64 [keep], sorted, that are left when one after another goes whose rank by confidence and rank by
    how much the entropy of the votes falls without it have the least sum; the first of equal ones goes.

    Public code (CurryTang/LLMGNN) takes the entropy of the true classes for that of the votes, and turns the order of
    confidences around each time a row goes.

    Args:
      votes: int [N], a class, or -1 of rows that were not answered: these are never kept.
      confidence: float [N].

    Raises:
      ValueError: fewer than `keep` rows were answered.
    """
    left = np.flatnonzero(votes >= 0)
    if keep > len(left):
        raise ValueError(f"keep = {keep}: {len(left)} of {len(votes)} rows were answered")
    while len(left) > keep:
        count = np.bincount(votes[left])
        entropies = np.array([_entropy(count - own) for own in np.eye(len(count), dtype=int)])
        score = rank_mean((confidence[left], -entropies[votes[left]]), (1, 1))
        left = np.delete(left, score.argmin())
    return left


def _entropy(count: np.ndarray) -> float:
    """Of the shares that counts have; of none it is 0."""
    share = count[count > 0] / max(1, count.sum())
    return float(-np.sum(share * np.log(share)))


def robust_query(gains: np.ndarray, wrong: float) -> np.ndarray:
    """The distribution of rows to ask a teacher about, float64 [N], whose expected gain is the largest where `wrong` of
    the answers are of no use and an adversary picks which (Robust Active Distillation, Baykal et al. 2023, ICLR).

    max over p of min over sets W of `wrong` rows of sum_{i not in W} p_i g_i. With the gains in falling order the best
    p is 1 / g, scaled to sum 1, on the first k rows, and the value (k - wrong) / sum_{j <= k} 1 / g_j, which k makes
    the largest: rows that are worth much, and so many of them that what each brings is the same.

    Args:
      gains: float [N], from 0 up, such as one minus the student's margin; of rows without any the chance is 0, but
        where no row has any all are alike.
      wrong: how many answers may be wrong, from 0 to less than N.

    Raises:
      ValueError: a gain is below 0 or none; all N answers, or more, may be wrong.
    """
    gains = np.asarray(gains, np.float64)
    if not (gains >= 0).all() or not 0 <= wrong < len(gains):
        raise ValueError(f"gains must be from 0 up, and wrong from 0 to less than their number, {len(gains)}: {wrong}")
    order = np.argsort(-gains, kind="stable")
    order = order[gains[order] > 0]
    if not len(order):
        return np.full(len(gains), 1 / len(gains))
    costs = np.cumsum(1 / gains[order])
    count = 1 + np.argmax((np.arange(1, len(order) + 1) - wrong) / costs)
    chance = np.zeros(len(gains))
    chance[order[:count]] = 1 / gains[order[:count]] / costs[count - 1]
    return chance
