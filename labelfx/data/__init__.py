"""From a source to batches: data sets, label views, miners that choose rows, augmentation on the device.

A source gives every image and the labels it knows; a label view (`labelfx.data.labels`) says which training rows a run
may learn from. Hidden labels stay in the arrays, for audits only.
"""

from typing import Any, NamedTuple

import numpy as np


class Split(NamedTuple):
    """Rows in a fixed order.

    images: uint8 [N, H, W, C]: an ndarray or, where that would not fit in memory, an object with `shape`, `dtype`,
      `len()` and `images[rows]`, which decodes int rows [B] to a uint8 ndarray [B, H, W, C].
    labels: int32 [N], a class in 0..len(class_names) - 1, or -1 where it is unknown (in training splits only).
    """

    images: Any
    labels: np.ndarray


class Dataset(NamedTuple):
    """A training and a test split with the same image shape and classes; neither is empty."""

    train: Split
    test: Split
    class_names: tuple[str, ...]
