"""How probable it is that a positive row is observed, by its input: `(inputs, rng) -> probabilities` float64 [N]."""

from typing import Any

import numpy as np

from labelfx.config.annotations import NonNegativeInt, Positive, Probability


def constant(inputs: Any, rng: np.random.Generator, *, frequency: Probability) -> np.ndarray:
    """The same for every row: selected completely at random (Elkan and Noto 2008)."""
    return np.full(len(inputs), frequency, np.float64)


def logistic(
    inputs: Any,
    rng: np.random.Generator,
    *,
    columns: tuple[NonNegativeInt, ...],
    slope: Positive,
    mean: Probability,
) -> np.ndarray:
    """Selected at random given some attributes (Bekker et al. 2019): rises with the mean of the input's entries
    `columns` of its flattened row, of all entries where there are none, standardised over the rows: a logistic curve of
    this slope, shifted so that the probabilities have this mean.

    Raises:
      ValueError: no such entry.
    """
    width = int(np.prod(inputs.shape[1:]))
    if columns and max(columns) >= width:
        raise ValueError(f"columns has {max(columns)}; a row has entries 0..{width - 1}")
    pieces = np.array_split(np.arange(len(inputs)), max(1, len(inputs) // 4096))
    chosen = list(columns) or slice(None)
    x = np.concatenate(
        [np.reshape(inputs[rows], (len(rows), -1))[:, chosen].mean(1, dtype=np.float64) for rows in pieces]
    )
    x = slope * (x - x.mean()) / (x.std() or 1.0)
    low, high = -x.max() - 40, -x.min() + 40
    for _ in range(100):  # the shift, by bisection
        middle = (low + high) / 2
        low, high = (middle, high) if (1 / (1 + np.exp(-x - middle))).mean() < mean else (low, middle)
    return 1 / (1 + np.exp(-x - middle))
