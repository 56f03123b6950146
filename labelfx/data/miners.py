"""Batch miners: which rows the unlabelled stream puts side by side."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Augment, NonNegativeInt, PositiveInt, Probability, Selection, TwoOrMore
from labelfx.evals import features
from labelfx.mining import rules
from labelfx.mining.search import top_k
from labelfx.models import Model, backbone

DENSE = 32  # rows of a graph up to which all its eigenvectors are computed


class Miner(NamedTuple):
    """A batch miner.

    Attributes:
      rows: `(rng, rows, table) -> rows`. The rows of a batch, int64 [B], given the rows drawn in shuffled order, int64
        [B], and a NumPy generator of the step's own: a pure function, since batches must not depend on the past.
      refresh: `(variables, source, rng, progress) -> table`, as a method's, but from the model's variables; `rng` is a
        NumPy generator.
      labelled: `(draw, size) -> (rows, columns)`, the rows of the labelled stream, int64 [B], with columns [B, ...] of
        its own; `draw(size, pool)` takes the step's share of shuffled passes over a pool. By default it is that of all
        labelled rows.
    """

    rows: Callable[..., np.ndarray]
    refresh: Callable[..., dict[str, Any]] | None = None
    labelled: Callable[..., tuple[np.ndarray, dict[str, np.ndarray]]] | None = None


def uniform() -> Miner:
    """Rows in shuffled order, as they are drawn."""
    return Miner(lambda rng, rows, table: rows)


def whole_bags(bag: np.ndarray | None, *, bags_per_batch: PositiveInt) -> Miner:
    """The labelled stream takes `bags_per_batch` whole bags, in shuffled passes over all of them (the column `bag`).

    Static shapes want a full batch: what is left over repeats its first row, with the column `valid` False there, which
    objectives leave out. BatchNorm would not: take none.

    Raises:
      ValueError: nothing says which rows are a bag, or there are fewer bags than a batch takes.
    """
    if bag is None or not (bag >= 0).any():
        raise ValueError("whole_bags: no column says which rows are a bag; take labels.weak bags or proportions")
    order = np.argsort(bag, kind="stable")
    order = order[bag[order] >= 0]
    members = np.split(order, np.flatnonzero(np.diff(bag[order])) + 1)
    if len(members) < bags_per_batch:
        raise ValueError(f"bags_per_batch = {bags_per_batch}: there are {len(members)} bags")
    largest = sum(sorted(map(len, members))[-bags_per_batch:])

    def labelled(draw, size):
        if size < largest:
            raise ValueError(f"batch.labelled = {size}: the largest {bags_per_batch} bags have {largest} rows")
        rows = np.concatenate([members[each] for each in draw(bags_per_batch, np.arange(len(members)))])
        valid = np.arange(size) < len(rows)
        return np.where(valid, np.resize(rows, size), rows[0]), {"valid": valid}

    return Miner(uniform().rows, labelled=labelled)


def by_client(client: np.ndarray | None, rows: np.ndarray) -> Miner:
    """Both streams give each client (the column `client`) an equal block of the batch, in the order of their numbers.

    A client's labelled rows are in shuffled order; one without labels has rows without one in their place, and one
    without rows those of others. The labelled stream has the column `client_share`, float32 [B, K]: in every row the
    share of all rows that each of the K clients holds, 0 of a client without any. `rows` are those that are labelled.

    Raises:
      ValueError: nothing says which client a row is of; or, with the batch, that K does not divide it.
    """
    if client is None or not (client >= 0).any():
        raise ValueError("by_client: no column says which client a row is of; take labels.weak clients")
    count = int(client.max()) + 1
    every = np.arange(len(client))
    held = [every[client == each] for each in range(count)]
    share = np.array([len(each) for each in held], np.float32) / np.float32(sum(map(len, held)))
    own = [each if len(each) else every for each in held]
    told = [np.intersect1d(each, rows) for each in held]
    told = [some if len(some) else each for some, each in zip(told, own, strict=True)]

    def block(size):
        if size % count:
            raise ValueError(f"a batch of {size} rows: must be a multiple of the {count} clients")
        return size // count

    def labelled(draw, size):
        found = np.concatenate([draw(block(size), each) for each in told])
        return found, {"client_share": np.tile(share, (size, 1))}

    def unlabelled(rng, drawn, table):
        size = block(len(drawn))
        return np.concatenate([rng.choice(each, size, replace=len(each) < size) for each in own])

    return Miner(unlabelled, labelled=labelled)


def clusters(model: Model, *, clusters: TwoOrMore) -> Miner:
    """Half of a batch in shuffled order; beside each of these rows one of its hard-negative cluster.

    Rows are clustered by k-means over their L2-normalised features. A row's hard negatives are the cluster whose
    centroid is its second nearest: close, yet not its own, whose members are likely false negatives (Deng et al. 2023,
    ClusterNS, section 3.2, which contrasts with that cluster's centroid; a batch of images takes a member instead).
    Table, int32 [N] each: a row's `cluster`, the rows in `order` of their clusters, and where in that order its
    hard-negative cluster begins (`hard_first`) and how many rows it has (`hard_count`).
    """

    def refresh(variables, source, rng, progress):
        from sklearn.cluster import MiniBatchKMeans

        points = _unit(_embed(model, variables, source.inputs)[1])
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

    def refresh(variables, source, rng, progress):
        points = _unit(_embed(model, variables, source.inputs)[1])
        return _halved(len(points), cluster_size, lambda part: _halves(points[part], rng))

    return Miner(_whole_clusters, refresh)


def communities(model: Model, *, skip: NonNegativeInt, neighbours: PositiveInt, community_size: TwoOrMore) -> Miner:
    """Batches made of communities of a graph of similar rows, each of them whole (B3, Breaking the Batch Barrier,
    Thirukovalluru et al. 2025, NeurIPS).

    A row is joined to the `neighbours` rows that are most similar to it but for the `skip` nearest, which are likely
    false negatives; edges have no direction. The graph is cut in halves of halves of equal size until no community has
    more than `community_size` rows. The authors' files are named for ranks 30 to 130 or 70 to 170 and size 32, which is
    half of a batch there or less. A batch takes the communities of the rows drawn, as `ngame` its clusters.

    In the paper METIS cuts the graph into parts of one size. Here, without that library, a cut is at the median of the
    second eigenvector of the random walk (spectral bisection: Pothen, Simon & Liou 1990), and then rows change sides to
    where more of their edges go while that cuts fewer: within 4 % of the edges that METIS' recursive bisection cuts, on
    graphs of the digits. There a trained teacher embeds queries and their positives, once; here the run's network
    embeds the rows, at every refresh.

    Table: as that of `ngame`.
    """

    def refresh(variables, source, rng, progress):
        graph = _graph(_embed(model, variables, source.inputs)[1], skip, neighbours)
        return _halved(graph.shape[0], community_size, lambda part: _cut(graph[part][:, part], rng))

    return Miner(_whole_clusters, refresh)


def mined(
    model: Model, *, augment: Augment, candidates: PositiveInt, negatives_per_anchor: PositiveInt, selection: Selection
) -> Miner:
    """Anchors in shuffled order, and beside them the hard negatives that a rule selects for each (ANCE's refreshed
    index, Xiong et al. 2021, ICLR, with the rules of `labelfx.mining.rules`).

    At every refresh all rows are embedded with the run's backbone, as they are, and searched exactly by cosine. Of the
    `candidates` rows most similar to a row (all others where there are fewer) the rule selects its negatives. Its
    positive is an augmented view of the row; with `identity` it scores 1, and thresholds relative to it are absolute.
    Of rows that are pairs of texts the first is searched for among the second, and its own second is the positive.

    A batch of B rows has B / (1 + negatives_per_anchor) anchors, rounded up, and the negatives of each. No row comes
    twice: where one would, or a rule left fewer, rows drawn in shuffled order take the place. A row that is a negative
    of one anchor is an in-batch negative of all.

    Table: `negatives`, int32 [N, negatives_per_anchor], rows, -1 for none.
    """

    def view(variables, x, *, train):
        return model.apply(variables["own"], augment(variables["rng"], x), train=train)

    def select(variables, source, rng, found, progress):
        rng_view, rng = jax.random.split(rng)
        positives = found.index
        if found.queries is positives:
            own = {"own": backbone(variables), "rng": rng_view}
            positives = features(Model(model.init, view), own, source.inputs)
        scores = np.sum(_unit(found.queries) * _unit(positives), axis=-1)
        return selection(rng, found._replace(positive_scores=jnp.asarray(scores)), negatives_per_anchor)

    return _with_negatives(model, candidates, negatives_per_anchor, select)


def curriculum(
    model: Model,
    *,
    candidates: PositiveInt,
    negatives_per_anchor: PositiveInt,
    first: Probability,
    last: Probability,
    levels: TwoOrMore,
) -> Miner:
    """Batches as those of `mined`, whose negatives become harder over a phase (Learnable PINs, Nagrani et al. 2018).

    A row's negatives are the hardest among the easiest share tau of its candidates, and tau has `levels` values from
    `first` to `last`, each for as many steps; it is looked at when the table is refreshed. In the paper candidates are
    the other rows of a random batch; so as many `candidates` as there are rows have its tau, and fewer, which are the
    most similar, are harder at every level. An independent implementation, my-yy/learnable_pins on GitHub, takes 0.3 to
    0.8 in six levels.
    """

    def select(variables, source, rng, found, progress):
        level = int(progress * levels + 1e-6)  # 0.29 x 100 is below 29
        tau = float(np.linspace(first, last, levels)[level])
        return rules.percentile(rng, found, negatives_per_anchor, tau=tau)

    return _with_negatives(model, candidates, negatives_per_anchor, select)


def _embed(model: Model, variables: Any, images: Any) -> tuple[np.ndarray, np.ndarray]:
    """Features of the rows twice, as queries and as an index; of pairs of texts, of the first and of the second."""
    if len(images.shape) == 3:
        queries, index = (features(model, backbone(variables), images[:, side]) for side in range(2))
        return queries, index
    found = features(model, backbone(variables), images)
    return found, found


def _with_negatives(model: Model, candidates: int, count: int, select: Callable[..., jax.Array]) -> Miner:
    """`select` is `(variables, source, rng, found, progress) -> positions`; `found` has no positive scores."""
    if count > candidates:
        raise ValueError(f"negatives_per_anchor = {count}: must be at most candidates = {candidates}")

    def refresh(variables, source, rng, progress):
        queries, index = _embed(model, variables, source.inputs)
        own = np.arange(len(index), dtype=np.int32)[:, None]
        scores, rows = top_k(queries, index, min(candidates, len(index) - 1), similarity="cosine", exclude=own)
        found = rules.Found(queries, index, rows, scores, jnp.full(len(index), jnp.nan))
        chosen = select(variables, source, jax.random.key(int(rng.integers(2**31))), found, progress)
        negatives = jnp.where(chosen < 0, -1, jnp.take_along_axis(rows, chosen, axis=1))
        return {"negatives": np.asarray(negatives, np.int32)}

    def rows(rng, rows, table):
        anchors, spare = np.split(rows, [-(-len(rows) // (1 + count))])
        beside = table["negatives"][anchors].T.ravel()  # the first of every anchor before the second of any
        return _distinct(np.concatenate([anchors, beside[beside >= 0], spare]), len(rows))

    return Miner(rows, refresh)


def _distinct(rows: np.ndarray, size: int) -> np.ndarray:
    """The first `size` rows that differ. A batch that is larger than the pool has too few: they come again."""
    _, first = np.unique(rows, return_index=True)
    return np.resize(rows[np.sort(first)], size).astype(np.int64)


def _halved(count: int, size: int, halve: Callable[[np.ndarray], list[np.ndarray]]) -> dict[str, np.ndarray]:
    """`ngame`'s table, of halves of halves of `count` rows until none has more than `size`."""
    parts = [np.arange(count)]
    while len(parts[0]) > size:  # the first halves are the larger ones
        parts = [part[half] for part in parts for half in halve(part)]
    order, counts = np.concatenate(parts), np.array([len(part) for part in parts])
    cluster = np.repeat(np.arange(len(parts)), counts)[np.argsort(order)]
    table = {
        "cluster": cluster,
        "order": order,
        "first": (np.cumsum(counts) - counts)[cluster],
        "count": counts[cluster],
    }
    return {name: column.astype(np.int32) for name, column in table.items()}


def _whole_clusters(rng: np.random.Generator, rows: np.ndarray, table: dict[str, np.ndarray]) -> np.ndarray:
    """The clusters of these rows, in their order, until the batch is full."""
    _, drawn = np.unique(table["cluster"][rows], return_index=True)
    begins, counts = (table[name][rows[np.sort(drawn)]] for name in ("first", "count"))
    members = np.concatenate([table["order"][b : b + c] for b, c in zip(begins, counts, strict=True)])
    return _distinct(members, len(rows))


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


def _graph(points: np.ndarray, skip: int, neighbours: int):
    """A sparse matrix with 1 where one of two rows has the other among its neighbours; of both directions."""
    import scipy.sparse

    size, own = len(points), np.arange(len(points), dtype=np.int32)[:, None]
    if skip >= size - 1:
        raise ValueError(f"skip = {skip}: must be less than the {size - 1} other rows")
    _, found = top_k(points, points, min(skip + neighbours, size - 1), similarity="cosine", exclude=own)
    near = np.asarray(found)[:, skip:]
    ends = np.repeat(own[:, 0], near.shape[1]), near.ravel()
    graph = scipy.sparse.csr_array((np.ones(near.size), ends), shape=(size, size))
    return graph.maximum(graph.T)


def _cut(graph, rng: np.random.Generator) -> list[np.ndarray]:
    """Halves of equal size, the first one row larger if need be, with few edges between them."""
    halves: list[np.ndarray] = []
    order, most = np.argsort(_second_eigenvector(graph, rng), kind="stable"), -np.inf
    while True:
        found = np.array_split(order, 2)
        side = np.ones(len(order))
        side[found[0]] = -1
        pull = graph @ side  # of a row's edges to either side
        if side @ pull <= most:  # the edges inside are no more
            return halves
        halves, most, order = found, side @ pull, np.argsort(pull, kind="stable")


def _second_eigenvector(graph, rng: np.random.Generator) -> np.ndarray:
    """Of the random walk on a graph: nearly constant on rows that are joined, and different where they are not."""
    import scipy.sparse.linalg

    if not graph.nnz:  # ARPACK refuses it, and with no two rows joined one cut is as good as another
        return rng.standard_normal(graph.shape[0])
    scale = 1 / np.sqrt(np.maximum(graph.sum(axis=0), 1))
    adjacency = graph * scale[:, None] * scale
    if len(scale) <= DENSE:
        return np.linalg.eigh(adjacency.toarray())[1][:, -2] * scale
    start = rng.standard_normal(len(scale))
    return scipy.sparse.linalg.eigsh(adjacency, 2, which="LA", v0=start, tol=1e-3)[1][:, 0] * scale


def _unit(points: np.ndarray) -> np.ndarray:
    return points / np.maximum(np.linalg.norm(points, axis=-1, keepdims=True), 1e-12)
