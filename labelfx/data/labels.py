"""Label views: which training rows a run is told something of; `labelfx.data.weak` says what.

Every view takes the labels [N, ...] (see `labelfx.data.Split`; rows of which nothing is known are chosen by `every`
alone) and a generator seeded by the run's `label_seed`, and returns sorted int64 row indices. Budgets nest: for one
seed a smaller one is a subset of a larger one, because each is a prefix of the same permutation. They are thus compared
on paired draws. (The tails of `long_tail` do not nest, whose classes shrink and grow apart.)
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated

import numpy as np

from labelfx.config import local
from labelfx.config.annotations import Limit, NonNegativeInt, PositiveInt, Query
from labelfx.data import labelled
from labelfx.data.npy import read_header
from labelfx.labels.answers import answers
from labelfx.labels.queries import next_batch

AtLeastOne = Annotated[float, Limit("a number, 1 or larger", lambda v: 1 <= v < float("inf"))]
Share = Annotated[float, Limit("a number in (0, 1]", lambda v: 0 < v <= 1)]


def all_labels(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every row whose label is known: full supervision.

    Raises:
      ValueError: no label is known.
    """
    rows = np.flatnonzero(labelled(labels))
    if not rows.size:
        raise ValueError(
            f"no training row has a label: all {len(labels)} are -1 (unknown); the view none asks for none"
        )
    return rows


def every(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Every row, whether its label is known or not: what is said of them need not be a label."""
    return np.arange(len(labels))


def none(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """No row at all: for text without classes, and methods that learn without labels."""
    return np.empty(0, np.int64)


def per_class(labels: np.ndarray, rng: np.random.Generator, *, k: PositiveInt) -> np.ndarray:
    """`k` random rows of each class 0..max(labels): the usual few-label protocol, e.g. CIFAR-10 with k = 4.

    Of several labels (int8 [N, C]), rows until each has `k` positives, the rarest label first: commoner ones come along
    with those rows, and overshoot.

    Raises:
      ValueError: a class has fewer than `k` labelled rows.
    """
    if labels.dtype == np.int8 and labels.ndim == 2:
        return _positives(labels, rng.permutation(all_labels(labels, rng)), k)
    classes = _permuted_classes(labels, rng)
    sizes = [len(rows) for rows in classes]
    if min(sizes) < k:
        rarest = int(np.argmin(sizes))
        raise ValueError(f"k = {k}: class {rarest} has {sizes[rarest]} labelled rows; at most k = {sizes[rarest]}")
    return np.sort(np.concatenate([rows[:k] for rows in classes]))


def fraction(labels: np.ndarray, rng: np.random.Generator, *, fraction: Share, balanced: bool) -> np.ndarray:
    """A share of the labelled rows, rounded half up and never 0.

    balanced: take the share of every class by itself, so that class proportions are kept and no class that has labels
      loses all; otherwise of all labelled rows together, as when random images are sent to be labelled.

    Raises:
      ValueError: no label is known.
    """
    groups = _permuted_classes(labels, rng) if balanced else [rng.permutation(all_labels(labels, rng))]
    kept = [rows[: max(1, int(fraction * len(rows) + 0.5))] for rows in groups]
    return np.sort(np.concatenate(kept))


def uniform(labels: np.ndarray, rng: np.random.Generator, *, n: PositiveInt) -> np.ndarray:
    """`n` of the labelled rows at random, whatever their class: what one gets who sends that many to be labelled.

    Raises:
      ValueError: fewer have a label.
    """
    return np.sort(_first(rng.permutation(all_labels(labels, rng)), n))


def queried(
    labels: np.ndarray,
    rng: np.random.Generator,
    encode: Callable[[str], np.ndarray],
    *,
    n: PositiveInt,
    start: PositiveInt,
    query: Query,
    encoder: str,
) -> np.ndarray:
    """`n` of the labelled rows, which a query chooses in rounds by what is known so far: `start` rows in the first
    round, in each of the others as many as were chosen before it. So budgets of `start` times a power of 2 nest.

    encode: the path of an encoder -> features of all rows, float32 [N, F]; of "" the rows as they are.
    query: one of `labelfx.labels.queries`; it goes by logistic regression on the features of the rows chosen so far.
      One that goes by probabilities draws uniformly until two classes are known.
    encoder: what `labelfx.load` takes, or "".

    Raises:
      ValueError: fewer rows have a label, or labels are no classes.
    """
    left, told = _of_classes(labels, rng), np.empty(0, np.int64)
    _first(left, n)
    features = encode(encoder)
    while len(told) < n:
        count = min(max(start, len(told)), n - len(told))
        others = np.setdiff1d(left, told)
        told = np.concatenate([told, next_batch(query, features, labels, told, others, count, rng)])
    return np.sort(told)


def first(labels: np.ndarray, rng: np.random.Generator, *, n: PositiveInt) -> np.ndarray:
    """The first `n` labelled rows in the order of the data set, the same for every seed.

    Raises:
      ValueError: fewer have a label.
    """
    return _first(all_labels(labels, rng), n)


def classes(labels: np.ndarray, rng: np.random.Generator, *, classes: tuple[int, ...]) -> np.ndarray:
    """Every labelled row of these classes: the others are to be discovered, or met for the first time in the test.

    Raises:
      ValueError: one of the classes has no labelled row.
    """
    counts = np.bincount(labels[all_labels(labels, rng)])
    for c in classes:
        if not (0 <= c < len(counts) and counts[c]):
            raise ValueError(f"classes has {c}, which has no labelled row; allowed {np.flatnonzero(counts).tolist()}")
    return np.flatnonzero(np.isin(labels, classes))


def long_tail(labels: np.ndarray, rng: np.random.Generator, *, imbalance: AtLeastOne) -> np.ndarray:
    """The largest long-tailed part of the labelled rows: class c of C has n imbalance^(-c / (C - 1)) of them, so that
    the first has `imbalance` times as many as the last (Cui et al. 2019, section 5.1, "Class-Balanced Loss Based on
    Effective Number of Samples").

    `n` is the size of the first class, or as many as leave every class enough; sizes are rounded down, and never 0.

    Raises:
      ValueError: a class has no labelled row.
    """
    every = _permuted_classes(labels, rng)
    sizes = np.array([len(rows) for rows in every])
    if not sizes.all():
        raise ValueError(f"class {int(np.argmin(sizes))} has no labelled row")
    shares = imbalance ** (-np.arange(len(sizes)) / max(1, len(sizes) - 1))
    n = np.min(sizes / shares) * (1 + 1e-12)  # lest a quotient that is whole be rounded to the number below
    taken = np.maximum(1, np.floor(n * shares).astype(int))
    return np.sort(np.concatenate([rows[:k] for rows, k in zip(every, taken, strict=True)]))


def fixmatch_fold(
    labels: np.ndarray, rng: np.random.Generator, *, size: PositiveInt, fold: NonNegativeInt
) -> np.ndarray:
    """The authors' fold of Sohn et al. (2020), whatever the `label_seed`: `scripts/create_split.py` of their code.

    `size` rows in the proportions of the classes. Rows are those published where the data set has its original order,
    as CIFAR-10's binary version has. Of folds 1 to 5 the published means are; 0 takes the first rows of each class.

    Raises:
      ValueError: a class would have to give more rows than it has, or has none.
    """
    counts = np.bincount(labels[all_labels(labels, rng)])
    taken = np.zeros_like(counts)
    for _ in range(size):
        taken[np.argmax(counts / counts.max() - taken / max(taken.max(), 1))] += 1
    if (taken > counts).any() or not counts.all():
        raise ValueError(f"size = {size}: the classes have {', '.join(map(str, counts))} labelled rows")
    shuffler = np.random.RandomState(fold)  # NumPy keeps its stream as it was
    classes = [np.flatnonzero(labels == c) for c in range(len(counts))]
    for rows in classes if fold else ():
        shuffler.shuffle(rows)
    return np.sort(np.concatenate([rows[:n] for rows, n in zip(classes, taken, strict=True)]))


def indices(labels: np.ndarray, rng: np.random.Generator, *, rows: tuple[int, ...]) -> np.ndarray:
    """Exactly `rows`: a published split, or what an annotator has labelled.

    Raises:
      ValueError: `rows` is empty, repeats a row, or names one that does not exist or has no label.
    """
    chosen, counts = np.unique(np.asarray(rows, np.int64), return_counts=True)
    if not chosen.size:
        raise ValueError("rows is empty; name at least one labelled row")
    outside = chosen[(chosen < 0) | (chosen >= len(labels))]
    if outside.size:
        raise ValueError(f"rows has {outside[0]}; allowed 0..{len(labels) - 1}")
    if counts.max() > 1:
        raise ValueError(f"rows has {chosen[counts.argmax()]} {counts.max()} times; name each row once")
    unknown = chosen[~labelled(labels[chosen])]
    if unknown.size:
        raise ValueError(f"rows has {unknown[0]}, whose label is unknown; {unknown.size} of {chosen.size} rows are")
    return chosen


def file(labels: np.ndarray, rng: np.random.Generator, names: Sequence[str] = (), *, path: str) -> np.ndarray:
    """Exactly the rows that a file names: a `.npy` of integers [n], the `rows` of a JSON file, such as the
    `labels.json` of a run, or the rows of a `.csv` that have a label there, such as a filled `suggested.csv`, whose
    labels are then what is known of them (`labelfx.labels.answers.answered`).

    names: of every row (`labelfx.data.row_names`), for a `.csv`.

    Raises:
      ValueError: it cannot be read or holds no row numbers; or as for `indices`.
    """
    if path.endswith(".csv"):
        places = {name: row for row, name in enumerate(names)}
        return indices(labels, rng, rows=tuple(places[name] for name in answers(path)))
    try:
        with local(path).open("rb") as stream:
            if path.endswith(".npy"):
                dtype, shape, _ = read_header(stream, os.fstat(stream.fileno()).st_size)
                found = np.frombuffer(stream.read(), dtype).reshape(shape)
            else:
                found = np.asarray(json.load(stream)["rows"])
    except (KeyError, OSError, RecursionError, TypeError, ValueError) as error:
        why = "no rows there" if isinstance(error, KeyError | TypeError) else getattr(error, "strerror", None) or error
        raise ValueError(f"path = {path!r}: {why}") from error
    if found.ndim != 1 or found.dtype.kind not in "iu":
        raise ValueError(f"path = {path!r}: {found.dtype} {list(found.shape)}; must be row numbers, integers [n]")
    return indices(labels, rng, rows=tuple(found.tolist()))


def rows_hash(rows: np.ndarray) -> str:
    """sha256 over the chosen rows (int64, little-endian): runs that were told of the same rows are paired."""
    return hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()


def said_hash(rows: np.ndarray, labels: np.ndarray, columns: Mapping[str, np.ndarray]) -> str:
    """sha256 over the chosen rows and every label and column said of any row: the same on every machine if and only if
    a run was told the same."""
    found = hashlib.sha256(rows.astype("<i8").tobytes())
    for name, column in sorted({"label": labels, **columns}.items()):
        found.update(f"{name} {column.dtype.str.lstrip('<>=|')} {list(column.shape)} ".encode())
        for some in np.array_split(column, max(1, column.nbytes >> 26)):  # a copy of 64 MB at a time
            found.update(np.ascontiguousarray(some, column.dtype.newbyteorder("<")).data)
    return found.hexdigest()


def target_scale(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the known targets of a regression, float [N] or [N, T], NaN where unknown; the
    latter is 1 where all are equal."""
    deviation = np.nanstd(labels, 0)
    return np.nanmean(labels, 0), np.where(deviation == 0, 1, deviation)


def _first(rows: np.ndarray, n: int) -> np.ndarray:
    if len(rows) < n:
        raise ValueError(f"n = {n}: {len(rows)} training rows have a label")
    return rows[:n]


def _permuted_classes(labels: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The labelled rows of each class in random order, one draw a class whatever the budget."""
    highest = labels[_of_classes(labels, rng)].max()
    return [rng.permutation(np.flatnonzero(labels == c)) for c in range(highest + 1)]


def _of_classes(labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labelled rows.

    Raises:
      ValueError: a label is no class.
    """
    if labels.ndim > 1 or labels.dtype.kind != "i":
        raise ValueError(f"a label is {labels.dtype} {list(labels.shape[1:])}, no class; take uniform or first")
    return all_labels(labels, rng)


def _positives(labels: np.ndarray, rows: np.ndarray, k: int) -> np.ndarray:
    """Of the rows, in their order, as many as give each label `k` positives, or all that it has."""
    positive = labels[rows] == 1
    taken = np.zeros(len(rows), bool)
    if (positive.sum(0) < k).any():
        rarest = int(positive.sum(0).argmin())
        raise ValueError(f"k = {k}: label {rarest} has {positive[:, rarest].sum()} positives; at most k is that number")
    for label in np.argsort(positive.sum(0), kind="stable"):
        missing = k - positive[taken, label].sum()
        taken[np.flatnonzero(positive[:, label] & ~taken)[: max(0, missing)]] = True
    return np.sort(rows[taken])
