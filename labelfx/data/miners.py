"""Batch miners: which rows the unlabelled stream puts side by side."""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import numpy as np

from labelfx.evals import features
from labelfx.models import Model, backbone
from labelfx.types import Limit

ClusterCount = Annotated[int, Limit("an integer >= 2", lambda v: 2 <= v < 2**31)]


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


def clusters(model: Model, *, clusters: ClusterCount) -> Miner:
    """Half of a batch in shuffled order; beside each of these rows one of its hard-negative cluster.

    Rows are clustered by k-means over their L2-normalised features. A row's hard negatives are the cluster whose
    centroid is its second nearest: close, yet not its own, whose members are likely false negatives (Deng et al. 2023,
    ClusterNS, section 3.2, which contrasts with that cluster's centroid; a batch of images takes a member instead).
    Table, int32 [N] each: a row's `cluster`, the rows in `order` of their clusters, and where in that order its
    hard-negative cluster begins (`hard_first`) and how many rows it has (`hard_count`).
    """

    def refresh(variables, source, rng):
        from sklearn.cluster import MiniBatchKMeans

        points = features(model, backbone(variables), source.images)
        points = points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
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
