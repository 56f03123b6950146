"""From a source to batches: data sets, label views, miners that choose rows, augmentation on the device.

A source gives every row and the labels it knows; a label view says which training rows a run may learn from
(`labelfx.data.labels`) and what it is told of them (`labelfx.data.weak`). Hidden labels stay in the arrays, for audits
only.
"""

from typing import Any, Literal, NamedTuple

import numpy as np


class DataError(ValueError):
    """A file of the data that cannot be used; the message is one line for the user."""


class Split(NamedTuple):
    """Rows in a fixed order.

    inputs: an ndarray or, where that would not fit in memory, an object with `shape`, `dtype`, `len()` and
      `inputs[rows]`, which reads int rows [B] as an ndarray, and perhaps `which`, a hash of what the rows are.
      Images are uint8 or float32 [N, H, W, C]; vectors float32 [N, F]; ids (tokens, nodes of a graph) int32 [N, L], 0
      where there is no token, or [N, 2, L] for pairs of texts.
    labels: the truth, by its rank (see `known` for what is unknown, in training splits only):
      int32 [N]: a class in 0..len(class_names) - 1;
      int8 [N, C]: 1 and 0 for each of several labels;
      int32 [N, H, W]: the class of every pixel;
      int32 [N, L]: a tag for every token;
      float32 [N, K, 5]: boxes of class, top, left, height, width, the class -1 where there is no further box;
      float32 [N] or [N, T]: targets of a regression.
    columns: what the source itself says of its rows beside the truth, leading dimension N; those whose name is in
      `labelfx.data.weak.COLUMNS` are said as they are, others only where `weak.column` gives them a role.
    """

    inputs: Any
    labels: np.ndarray
    columns: dict[str, np.ndarray] = {}


class Judgements(NamedTuple):
    """What people have judged of pairs of texts: for evals only.

    pairs: int64 [P, 2], rows of the test split: two sentences, or a query and a document.
    scores: float64 [P], the higher the more similar or relevant.
    task: int64 [P], which of the tasks `names` a pair belongs to.
    documents: int64 [D], the rows of the test split that a search goes through.
    """

    pairs: np.ndarray
    scores: np.ndarray
    task: np.ndarray
    names: tuple[str, ...]
    documents: np.ndarray


Task = Literal["class", "several", "dense", "tags", "boxes", "target", "none"]


class Dataset(NamedTuple):
    """A training and a test split whose rows are alike; neither is empty.

    test: None where there is nothing to test on: evals then need no labels.
    class_names: of classes or labels, and of the targets of a regression that has several; () where there are none.
    side: what belongs to no single row, by the name that builders and evals ask for it: `judgements` (`Judgements`),
      `graph`, ...
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    side: dict[str, Any] = {}

    @property
    def task(self) -> Task:
        """What a label is, by the rank and type of the labels."""
        return task(self.train.labels, self.class_names)

    @property
    def num_outputs(self) -> int:
        """How many numbers a classifier or a regressor gives for a row, or for each of its pixels or tokens."""
        labels = self.train.labels
        return (labels.shape[1] if labels.ndim == 2 else 1) if self.task == "target" else len(self.class_names)


def task(labels: np.ndarray, class_names: tuple[str, ...]) -> Task:
    """What labels say of a row, see `Split.labels`; "none" where they name no class."""
    if np.issubdtype(labels.dtype, np.floating):
        return "boxes" if labels.ndim == 3 else "target"
    if labels.dtype == np.int8 and labels.ndim == 2:
        return "several"
    by_rank: dict[int, Task] = {2: "tags", 3: "dense"}
    return by_rank.get(labels.ndim, "class" if class_names else "none")


def merged(dataset: Dataset, merge: tuple[tuple[int, ...], ...]) -> Dataset:
    """The data set with these classes as one each, and without the rows of other classes.

    Raises:
      ValueError: the labels are no classes, or a class is not there or stands twice.
    """
    classes = [c for each in merge for c in each]
    if dataset.task != "class":
        raise ValueError("merge: the labels are no classes")
    if len({*classes}) < len(classes) or not all(0 <= c < len(dataset.class_names) for c in classes) or not all(merge):
        raise ValueError(f"merge = {merge}: must be classes 0..{len(dataset.class_names) - 1}, each once")
    to = np.full(len(dataset.class_names) + 1, -2, np.int32)
    to[-1] = -1  # unknown stays unknown
    for new, old in enumerate(merge):
        to[list(old)] = new

    def one(split: Split) -> Split:
        labels = to[split.labels]
        rows = np.flatnonzero(labels > -2)
        if len(rows) == len(labels):
            return split._replace(labels=labels)
        inputs = split.inputs[rows] if isinstance(split.inputs, np.ndarray) else Some(split.inputs, rows)
        return Split(inputs, labels[rows], {name: column[rows] for name, column in split.columns.items()})

    names = tuple("/".join(dataset.class_names[c] for c in each) for each in merge)
    test = None if dataset.test is None else one(dataset.test)
    return dataset._replace(train=one(dataset.train), test=test, class_names=names)


class Some:
    """Some rows of inputs, read when they are asked for: those of ImageNet fit in no memory."""

    def __init__(self, inputs: Any, rows: np.ndarray):
        self.inputs, self.rows = inputs, rows
        self.shape, self.dtype = (len(rows), *inputs.shape[1:]), inputs.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.inputs[self.rows[rows]]


def row_names(inputs: Any) -> list[str]:
    """What training rows are called in tables that people fill in: the file that one is read from, below its folder, or
    `train/ROW`. Rows that are read from one file have one name."""
    name = getattr(inputs, "name", "train/{}".format)
    return [name(row) for row in range(len(inputs))]


def known(labels: Any) -> Any:
    """Where a label says something, bool of the labels' shape: unknown is -1, or NaN of a target. Boxes: `labels[...,
    0]`. Arrays of NumPy or JAX."""
    return labels == labels if np.issubdtype(labels.dtype, np.floating) else labels >= 0


def labelled(labels: np.ndarray) -> np.ndarray:
    """Rows of which any entry is known, bool [N]."""
    entries = known(labels)
    return entries.reshape(len(entries), -1).any(1)


def unknown(labels: np.ndarray) -> np.ndarray:
    """Labels of this shape that say nothing."""
    return np.full_like(labels, np.nan if np.issubdtype(labels.dtype, np.floating) else -1)
