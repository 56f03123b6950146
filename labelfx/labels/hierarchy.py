"""A tree of labels that go together, kept while rows arrive one after another."""

import collections

import numpy as np


class LabelTree:
    """Online divisive and agglomerative clustering of labels by Jaccard distance (iHOMER, "Online hierarchical
    partitioning of the output space in extreme multi-label data stream"; the rules of splitting are those of ODAC,
    Rodrigues et al. 2008, TKDE).

    The distance of two labels is 1 less their Jaccard index among the last `window` rows; a label that none of them has
    is at distance 1 from all. With e = sqrt(log(1 / delta) / 2 n), Hoeffding's bound for n rows, a leaf is split where
    its largest distance is surely above the next, by more than e, or e is below `tie`, and if (d1 - d0) |d1 + d0 - 2 d|
    > e, d1, d0 and d its largest, smallest and mean distance: the two labels that are farthest apart draw the others,
    each to the nearer. A node is taken back, with all below it, where a side's largest distance is above the mean
    between its sides by more than e: then labels have come to go with others. Only the abstract of iHOMER was at hand:
    that rule is labelfx's, in the place of its drift detectors, and learners of leaves are not there.

    Attributes:
      leaves: the groups of labels, tuples of ints, sorted.
    """

    def __init__(self, num_labels: int, *, window: int, delta: float, tie: float):
        if num_labels < 1 or window < 1 or not 0 < delta < 1:
            found = f"num_labels = {num_labels}, window = {window}, delta = {delta}"
            raise ValueError(f"{found}: must be at least 1, at least 1 and in (0, 1)")
        self._root: list = [tuple(range(num_labels))]  # [labels], or [labels, side, side]
        self._rows: collections.deque[np.ndarray] = collections.deque(maxlen=window)
        self._delta, self._tie = delta, tie

    @property
    def leaves(self) -> list[tuple[int, ...]]:
        """The groups of labels."""
        open_, found = [self._root], []
        while open_:
            labels, *sides = open_.pop()
            found += [] if sides else [labels]
            open_ += sides
        return sorted(found)

    def update(self, labels: np.ndarray) -> None:
        """The tree after some more rows.

        Args:
          labels: int8 [B, C]: 1, 0, or -1 for unknown, which counts as 0.

        Raises:
          ValueError: labels are not [B, C].
        """
        if labels.ndim != 2 or labels.shape[1] != len(self._root[0]):
            raise ValueError(f"labels must be [B, {len(self._root[0])}], got {labels.shape}")
        self._rows.extend(labels > 0)
        if not self._rows:
            return
        distance = _jaccard_distance(np.stack(self._rows))
        bound = np.sqrt(np.log(1 / self._delta) / (2 * len(self._rows)))
        self._revise(self._root, distance, bound)

    def _revise(self, node: list, distance: np.ndarray, bound: float) -> None:
        labels, *sides = node
        if sides and _widest(sides, distance) - distance[np.ix_(sides[0][0], sides[1][0])].mean() > bound:
            sides = []
        if not sides:
            sides = [[each] for each in self._halves(labels, distance, bound)]
        node[1:] = sides
        for side in sides:
            self._revise(side, distance, bound)

    def _halves(self, labels: tuple[int, ...], distance: np.ndarray, bound: float) -> list[tuple[int, ...]]:
        """The two sides of a leaf, or none."""
        if len(labels) < 2:
            return []
        one, other = np.triu_indices(len(labels), 1)
        each = distance[np.ix_(labels, labels)][one, other]
        far = np.argmax(each)
        largest, smallest = each[far], each.min()
        second = np.delete(each, far).max(initial=0)
        if largest - second <= bound and bound >= self._tie:
            return []
        if (largest - smallest) * abs(largest + smallest - 2 * each.mean()) <= bound:
            return []
        a, b = labels[one[far]], labels[other[far]]
        nearer = [label != b and (label == a or distance[label, a] <= distance[label, b]) for label in labels]
        return [tuple(label for label, to in zip(labels, nearer, strict=True) if to == side) for side in (True, False)]


def _widest(sides: list[list], distance: np.ndarray) -> float:
    return max(distance[np.ix_(side[0], side[0])].max() for side in sides)


def _jaccard_distance(rows: np.ndarray) -> np.ndarray:
    """Of the columns of rows, bool [N, C]: [C, C], 0 on the diagonal."""
    rows = rows.astype(np.int64)
    both, number = rows.T @ rows, rows.sum(0)
    either = number[:, None] + number[None] - both
    found = 1 - both / np.maximum(either, 1)
    np.fill_diagonal(found, 0)
    return found
