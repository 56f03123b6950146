"""From a source to batches: data sets, label views, miners that choose rows, augmentation on the device.

A source gives every image and the labels it knows; a label view (`labelfx.data.labels`) says which training rows a run
may learn from. Hidden labels stay in the arrays, for audits only.
"""

from typing import Any, NamedTuple

import numpy as np


class DataError(ValueError):
    """A file of the data that cannot be used; the message is one line for the user."""


class Split(NamedTuple):
    """Rows in a fixed order.

    images: uint8 [N, H, W, C]: an ndarray or, where that would not fit in memory, an object with `shape`, `dtype`,
      `len()` and `images[rows]`, which decodes int rows [B] to a uint8 ndarray [B, H, W, C], and perhaps `which`, a
      hash of what the rows are. Of text, token ids: int32 [N, L], 0 where there is no token, or [N, 2, L] for pairs of
      texts.
    labels: int32 [N], a class in 0..len(class_names) - 1, or -1 where it is unknown (in training splits only).
      Where there are no classes, the target of a regression, an integer from 0 up, or -1.
    """

    images: Any
    labels: np.ndarray


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


class Dataset(NamedTuple):
    """A training and a test split with the same image shape and classes; neither is empty.

    A regression has no classes, and neither has text, but judgements of the test split's rows.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    judgements: Judgements | None = None
