"""Batch miners: which rows the unlabelled stream puts side by side."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from labelfx.evals import features
from labelfx.models import Model, backbone
from labelfx.types import Limit

TwoOrMore = Annotated[int, Limit("an integer >= 2", lambda v: 2 <= v < 2**31)]


class Miner(NamedTuple):
    """A batch miner.

    Attributes:
      rows: `(rng, rows, table) -> rows`. The rows of a batch, int64 [B], given the rows drawn in shuffled order, int64
        [B], and a NumPy generator of the step's own: a pure function, since batches must not depend on the past.
      refresh: `(variables, source, rng) -> table`, as a method's, but from the model's variables.
    """

    rows: Callable[..., np.ndarray]
    refresh: Callable[..., dict[str, Any]] | None = None


def uniform() -> Miner:
    """Every row once an epoch, in shuffled order."""
    return Miner(lambda rng, rows, table: rows)


def clusters(model: Model, *, clusters: TwoOrMore) -> Miner:
    """Half of a batch in shuffled order; beside each of these rows one of its hard-negative cluster.

    Rows are clustered by k-means over their L2-normalised features. A row's hard negatives are the cluster whose
    centroid is its second nearest: close, yet not its own, whose members are likely false negatives (Deng et al. 2023,
    ClusterNS, section 3.2, which contrasts with that cluster's centroid; a batch of images takes a member instead).
    Table, int32 [N] each: a row's `cluster`, the rows in `order` of their clusters, and where in that order its
    hard-negative cluster begins (`hard_first`) and how many rows it has (`hard_count`).
    """

    def refresh(variables, source, rng):
        from sklearn.cluster import MiniBatchKMeans

        points = _unit(features(model, backbone(variables), source.images))
        means = MiniBatchKMeans(min(clusters, len(points)), random_state=int(rng.integers(2**31)), n_init=1).fit(points)
        nearest = np.argsort(means.transform(points), axis=-1, kind="stable")
        cluster, hard = nearest[:, 0], nearest[:, 1]
        count = np.bincount(cluster, minlength=means.n_clusters)
        table = {
            "cluster": cluster,
            "order": np.argsort(cluster, kind="stable"),
            "hard_first": (np.cumsum(count) - count)[hard],
            "hard_count": count[hard],
        }
        return {name: column.astype(np.int32) for name, column in table.items()}

    def rows(rng, rows, table):
        anchors, spare = np.split(rows, [(len(rows) + 1) // 2])
        first, count = (table[name][anchors[: len(spare)]] for name in ("hard_first", "hard_count"))
        place = first + np.floor(rng.random(len(spare)) * count).astype(np.int64)
        # A cluster that k-means left empty has no row to offer: keep the one that was drawn.
        partners = np.where(count > 0, table["order"][np.minimum(place, len(table["order"]) - 1)], spare)
        return np.concatenate([anchors, partners])

    return Miner(rows, refresh)


def ngame(model: Model, *, cluster_size: TwoOrMore) -> Miner:
    """Batches made of small clusters, each of them whole, so that a row meets its nearest neighbours as negatives
    (NGAME, negative-mining-aware mini-batches; Dahiya et al. 2023, WSDM).

    Rows are clustered by their L2-normalised features, in halves of halves of equal size until none has more than
    `cluster_size`. A batch takes the clusters of the rows drawn, in their order, until it is full; the last may be cut.
    In the paper every row comes once an epoch, here about once on average; its clusters double in size now and then,
    for which there are phases here; and it knows the labels: without them, neighbours of one class are false negatives.

    Table, int32 [N] each: a row's `cluster`, the rows in `order` of their clusters, and where in that order its cluster
    begins (`first`) and how many rows it has (`count`).
    """

    def refresh(variables, source, rng):
        points = _unit(features(model, backbone(variables), source.images))
        parts = [np.arange(len(points))]
        while len(parts[0]) > cluster_size:  # the first halves are the larger ones
            parts = [part[half] for part in parts for half in _halves(points[part], rng)]
        order, count = np.concatenate(parts), np.array([len(part) for part in parts])
        cluster = np.repeat(np.arange(len(parts)), count)[np.argsort(order)]
        table = {"cluster": cluster, "order": order, "first": (np.cumsum(count) - count)[cluster]}
        return {name: column.astype(np.int32) for name, column in (table | {"count": count[cluster]}).items()}

    def rows(rng, rows, table):
        _, drawn = np.unique(table["cluster"][rows], return_index=True)
        begins, counts = (table[name][rows[np.sort(drawn)]] for name in ("first", "count"))
        members = np.concatenate([table["order"][b : b + c] for b, c in zip(begins, counts, strict=True)])
        # Where a batch goes over the end of an epoch, a row may be drawn twice, and the clusters may not fill it.
        return np.resize(members, len(rows)).astype(np.int64)

    return Miner(rows, refresh)


def _halves(points: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """Two clusters of equal size, the first one row larger if need be, by 2-means of unit vectors."""
    centres, best = points[rng.choice(len(points), 2, replace=False)], -np.inf
    while True:
        halves = np.array_split(np.argsort(points @ (centres[1] - centres[0]), kind="stable"), 2)
        centres = _unit(np.stack([points[half].sum(axis=0) for half in halves]))
        similarity = sum((points[half] @ centre).sum() for half, centre in zip(halves, centres, strict=True))
        if similarity - best < 1e-4 * len(points):  # it never falls
            return halves
        best = similarity


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
