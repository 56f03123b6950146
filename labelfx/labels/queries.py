"""Which rows to have labelled next: `(evidence, told, count, rng, *, ...) -> rows`, a batch int64 [count] without
duplicates.

evidence: of all rows [N]; where no row is labelled its probabilities are of no class.
told: int64 [T], the rows whose label is known already; none of them is chosen.
count: from 1 to N - T.

A query is deterministic for one `rng`, and holds no N x N matrix: distances are there in blocks of `BLOCK`. `pick` is
how a caller asks one. `uniform` is what every other has to beat.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from labelfx.config.annotations import Fraction, Positive, PositiveInt, Probability, TwoOrMore
from labelfx.labels.evidence import Evidence, of_features

BLOCK = 2**24  # distances, or numbers of a mask, that are there at once
SMALLEST = 5  # rows of a cluster that may hold nothing but outliers (Hacohen et al. 2022, section 3.2)
MANY = 50  # clusters beyond which k-means goes by minibatches, as in the public code of the same paper
LARGE = 20_000  # rows beyond which it does too: there it would take minutes of a core

# Keys of strategies as published; ProbCover wants as many clusters as there are classes, here those of CIFAR-10.
PUBLISHED: dict[str, dict[str, Any]] = {
    "typiclust": {"neighbours": 20, "max_clusters": 500},
    "probcover": {"clusters": 10, "purity": 0.95},
    "dropquery": {"dropout": 0.75, "passes": 3},
    "clue": {"temperature": 1.0},
}


class NoClasses(ValueError):
    """A query goes by probabilities, and fewer than two classes are labelled."""


def pick(
    query: Callable[..., np.ndarray],
    evidence: Evidence,
    told: np.ndarray,
    left: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """The batch that a query chooses among the rows `left`, int64 [L]; rows that are neither told nor left do not
    exist for it.

    Raises:
      ValueError: fewer than `count` rows are left, or the query goes by probabilities and there are none.
    """
    if len(left) < count:
        raise ValueError(f"count = {count}: {len(left)} rows are left to ask for")
    pool = np.union1d(told, left)
    found = pool[query(evidence.of(pool), np.searchsorted(pool, told), count, rng)]
    if len(found) != count or len(np.setdiff1d(found, told)) < count:  # of code that is not labelfx's
        raise ValueError(f"the query gives {len(found)} rows, of which some are told or twice; must be {count} others")
    return found


def next_batch(
    query: Callable[..., np.ndarray],
    features: np.ndarray,
    label: np.ndarray,
    told: np.ndarray,
    left: np.ndarray,
    count: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """What `pick` chooses by features [N, F] and the labels [N] of the rows told alone; uniformly where the query goes
    by probabilities and fewer than two classes are told."""
    evidence = of_features(features, told, label[told])
    try:
        return pick(query, evidence, told, left, count, rng)
    except NoClasses:
        return pick(uniform, evidence, told, left, count, rng)


def uniform(evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Any row as soon as another: what every query has to beat."""
    return rng.permutation(_left(evidence, told))[:count]


def entropy(evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The rows whose class the network knows least (uncertainty sampling; Settles 2009, section 3.1)."""
    return _highest(_entropy(_probs(evidence)), _left(evidence, told), count)


def margin(evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """The rows whose two most probable classes are the closest (Scheffer et al. 2001)."""
    second, first = np.partition(_probs(evidence), -2, axis=1)[:, -2:].T
    return _highest(second - first, _left(evidence, told), count)


def k_centre(evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """One after the other the row that is farthest from all that are told or chosen: greedy k-centre, or core set
    (Sener and Savarese 2018, algorithm 1). Where none is told the first is any row."""
    x = evidence.features - evidence.features.mean(0, keepdims=True)  # float32 products of what lies far off are coarse
    squares = np.einsum("nf,nf->n", x, x)
    nearest = np.full(len(x), np.inf)  # squared distance to what is told or chosen

    def add(row):
        np.minimum(nearest, squares - 2 * (x @ x[row]) + squares[row], out=nearest)

    for row in told:
        add(row)
    nearest[told] = -np.inf
    found = [] if len(told) else [int(rng.integers(len(x)))]
    while len(found) < count:
        if found:
            add(found[-1])
            nearest[found[-1]] = -np.inf
        found.append(int(np.argmax(nearest)))
    return np.array(found, np.int64)


def typiclust(
    evidence: Evidence,
    told: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    neighbours: PositiveInt,
    max_clusters: PositiveInt,
) -> np.ndarray:
    """The most typical row of each of the largest clusters that hold no labelled row (TypiClust, Hacohen et al. 2022,
    algorithm 1): for the first labels, where uncertainty says little.

    k-means makes T + count clusters of the normalised features, `max_clusters` (500 in the paper) at most. Typical is
    the row whose mean distance to its nearest `neighbours` (20) in the cluster is least, or to half of the cluster
    where that is fewer. Where every cluster holds a labelled row, those that hold the fewest come first; clusters of
    `SMALLEST` rows or fewer come last. The authors' code (avihu111/TypiClust) takes squared distances and leaves such
    clusters out.
    """
    x = _unit(evidence.features)
    cluster = _kmeans(x, min(len(told) + count, max_clusters, len(x)), rng).labels_
    size = np.bincount(cluster)
    labelled = np.bincount(cluster[told], minlength=len(size))
    free = np.ones(len(x), bool)
    free[told] = False
    found: list[int] = []
    while len(found) < count:
        full = np.bincount(cluster[free], minlength=len(size)) == 0
        chosen = np.lexsort((-size, labelled, size <= SMALLEST, full))[0]
        members = np.flatnonzero(free & (cluster == chosen))
        row = members[np.argmin(_mean_distance(x[members], min(neighbours, len(members) // 2)))]
        found.append(int(row))
        free[row] = False
        labelled[chosen] += 1
    return np.array(found, np.int64)


def probcover(
    evidence: Evidence,
    told: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    clusters: TwoOrMore,
    purity: Probability,
) -> np.ndarray:
    """One after the other the row whose ball covers the most rows that no ball of a labelled row does (ProbCover,
    Yehuda et al. 2022, algorithm 1). O(N^2 F) time.

    Balls have the largest radius at which a share `purity` (0.95 in the paper) of them holds rows of one cluster alone,
    k-means of the normalised features into `clusters`, as many as classes (section 3.3). That radius is a quantile of
    the distances to the nearest row of another cluster, where the authors search for it. Of equal rows any is taken.
    """
    x = _unit(evidence.features)
    cluster = _kmeans(x, min(clusters, len(x)), rng).labels_
    # In cosines: a row's ball is pure where no row of another cluster is nearer than the radius.
    closest = np.full(len(x), -1.0)
    for some in _blocks(len(x), len(x)):
        cosines = x[some] @ x.T
        cosines[cluster[some, None] == cluster[None]] = -1
        closest[some] = cosines.max(1)
    impure = len(x) - int(np.ceil(purity * len(x) - 1e-9))
    border = np.sort(closest)[::-1][min(impure, len(x) - 1)] + 1e-6  # that row stays outside, however products round

    def covers(rows):
        """How many of `rows` lie in the ball of each row, int64 [N]."""
        number = np.zeros(len(x), np.int64)
        for some in _blocks(len(rows), len(x)):
            number += np.count_nonzero(x @ x[rows[some]].T > border, axis=1)
        return number

    covered = covers(told) > 0
    degree = covers(np.flatnonzero(~covered)).astype(float)
    degree += rng.random(len(x)) / 2  # which of equal ones
    degree[told] = -np.inf
    found = []
    for _ in range(count):
        found.append(int(np.argmax(degree)))
        new = np.flatnonzero(~covered & (x @ x[found[-1]] > border))
        covered[new] = True
        degree -= covers(new)
        degree[found[-1]] = -np.inf
    return np.array(found, np.int64)


def badge(evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows whose gradients are large and differ: k-means++ over the gradient that the last layer would have if the
    most probable class were the label, (p - y) h^T (BADGE, Ash et al. 2020, algorithm 1).

    Of a gradient, C x F numbers, only its two factors are kept: products of gradients are products of those of the
    factors. As in the authors' code (JordanAsh/badge) the first row is that of the largest gradient, where the paper
    takes any.
    """
    left = _left(evidence, told)
    error, h = _probs(evidence)[left].astype(np.float64), evidence.features[left]
    error[np.arange(len(left)), error.argmax(1)] -= 1
    squares = np.einsum("nc,nc->n", error, error) * np.einsum("nf,nf->n", h, h)
    found, nearest = [int(np.argmax(squares))], np.full(len(left), np.inf)
    while len(found) < count:
        last = found[-1]
        distance = squares - 2 * (error @ error[last]) * (h @ h[last]) + squares[last]
        nearest = np.minimum(nearest, np.maximum(distance, 0))
        nearest[found] = 0
        if not nearest.any():  # what is left equals what is chosen
            found += rng.permutation(np.setdiff1d(np.arange(len(left)), found))[: count - len(found)].tolist()
        else:
            found.append(int(rng.choice(len(left), p=nearest / nearest.sum())))
    return left[found]


def dropquery(
    evidence: Evidence,
    told: np.ndarray,
    count: int,
    rng: np.random.Generator,
    *,
    dropout: Fraction,
    passes: PositiveInt,
) -> np.ndarray:
    """Rows that are taken for another class where a share `dropout` of their features is 0, in more than half of the
    `passes`; of these the ones nearest to the centroids of k-means, `count` clusters (DropQuery, Gupte et al. 2024,
    section 3.2; in the authors' code 0.75 and 3). Where they are fewer than `count`, those that change more often come
    first.
    """
    taken = _probs(evidence).argmax(1)
    if evidence.classify is None:
        raise ValueError("dropquery goes by a classifier of features, and there is none")
    left, h = rng.permutation(_left(evidence, told)), evidence.features
    changed = np.zeros(len(left), np.int64)
    for some in _blocks(len(left), h.shape[1]):
        rows = left[some]
        for _ in range(passes):
            kept = rng.random((len(rows), h.shape[1]), np.float32) >= dropout
            found = evidence.classify(h[rows] * kept / np.float32(1 - dropout)).argmax(1)
            changed[some] += found != taken[rows]
    doubtful = max(count, np.count_nonzero(changed > passes // 2))
    candidates = left[np.argsort(-changed, kind="stable")[:doubtful]]
    return candidates[_central(h[candidates], count, rng)]


def clue(
    evidence: Evidence, told: np.ndarray, count: int, rng: np.random.Generator, *, temperature: Positive
) -> np.ndarray:
    """The rows nearest to the centroids of k-means, `count` clusters of features in which a row weighs as much as the
    entropy of its class, of logits divided by `temperature` (CLUE, Prabhu et al. 2021, equation 4; 1 in the paper).
    Where centroids have one nearest row in common, the next nearest comes too."""
    left = _left(evidence, told)
    probs = _probs(evidence)[left].astype(np.float64)
    probs = (probs / probs.max(1, keepdims=True)) ** (1 / temperature)
    weight = _entropy(probs / probs.sum(1, keepdims=True)) + 1e-8  # as in the authors' code: all may be certain
    return left[_central(evidence.features[left], count, rng, weight)]


def _left(evidence: Evidence, told: np.ndarray) -> np.ndarray:
    return np.setdiff1d(np.arange(len(evidence.features)), told)


def _probs(evidence: Evidence) -> np.ndarray:
    if evidence.probs.shape[1] < 2:
        raise NoClasses("goes by probabilities of classes, which takes labelled rows of two classes or more")
    return evidence.probs


def _highest(scores: np.ndarray, left: np.ndarray, count: int) -> np.ndarray:
    return left[np.argsort(-scores[left], kind="stable")[:count]]


def _entropy(probs: np.ndarray) -> np.ndarray:
    return -np.sum(probs * np.log(np.maximum(probs, 1e-30)), 1)


def _unit(features: np.ndarray) -> np.ndarray:
    return features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)


def _blocks(count: int, width: int) -> Iterator[slice]:
    """Slices of `count` rows of `width` numbers each, as many at a time as fit."""
    step = max(1, BLOCK // width)
    return (slice(start, start + step) for start in range(0, count, step))


def _mean_distance(points: np.ndarray, neighbours: int) -> np.ndarray:
    """Of normalised points [n, F], to the nearest others, [n]; 0 where there are none to be looked at."""
    found = np.zeros(len(points))
    for some in _blocks(len(points) if neighbours else 0, len(points)):
        squared = np.maximum(2 - 2 * (points[some] @ points.T), 0)
        squared[np.arange(len(squared)), np.arange(len(points))[some]] = 0
        found[some] = np.sqrt(np.partition(squared, neighbours, axis=1)[:, : neighbours + 1]).sum(1) / neighbours
    return found


def _kmeans(points: np.ndarray, clusters: int, rng: np.random.Generator, weight: np.ndarray | None = None) -> Any:
    """Fitted by scikit-learn, the same on any number of cores: its threads add up in any order."""
    from sklearn.cluster import KMeans, MiniBatchKMeans  # slow to import
    from sklearn.exceptions import ConvergenceWarning

    how = {"n_clusters": clusters, "n_init": 3, "random_state": int(rng.integers(2**31))}
    few = clusters <= MANY and len(points) <= LARGE
    means = KMeans(**how) if few else MiniBatchKMeans(batch_size=5000, **how)
    with threadpool_limits(1, "openmp"), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than clusters
        return means.fit(points, sample_weight=weight)


def _central(
    points: np.ndarray, count: int, rng: np.random.Generator, weight: np.ndarray | None = None
) -> Sequence[int]:
    """The places of the points nearest to the centroids of k-means, a point once."""
    found: list[int] = []
    for distance in _kmeans(points, count, rng, weight).transform(points).T:
        distance[found] = np.inf
        found.append(int(np.argmin(distance)))
    return found
