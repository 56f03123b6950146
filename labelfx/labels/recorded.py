"""What annotators, people or language models, have answered, as a file: nothing here asks anybody."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from labelfx.data import DataError
from labelfx.data.npy import read_arrays, read_npz


class Votes(NamedTuple):
    """Answers, one an entry; of a row there may be several, by different judges, or none.

    row, judge: int [R].
    vote: int [R], the class that was named; -1 abstains.
    confidence: float [R] in [0, 1]; NaN where none was given.
    """

    row: np.ndarray
    judge: np.ndarray
    vote: np.ndarray
    confidence: np.ndarray


def read(path: Path, num_rows: int, num_classes: int) -> Votes:
    """The `votes.npz` of recorded answers: arrays `row`, `judge`, `vote` and `confidence` (see `Votes`).

    Raises:
      FileNotFoundError, ValueError: there is no such file; it is no archive of these arrays; it names a row or class
        that is not there; a judge answers twice for a row. One line.
    """
    one = ("iu", 1)
    row, judge, vote = read_arrays(path, row=one, judge=one, vote=one)
    confidence = read_npz(path, "confidence")["confidence"]
    if confidence.dtype.kind != "f" or not row.shape == judge.shape == vote.shape == confidence.shape:
        shapes = ", ".join(f"{each.dtype} {list(each.shape)}" for each in (row, judge, vote, confidence))
        raise DataError(f"{path}: {shapes}; row, judge, vote and the floats confidence must be of one length")
    for name, values, lowest, highest in (
        ("row", row, 0, num_rows - 1),
        ("vote", vote, -1, num_classes - 1),
        ("confidence", confidence[~np.isnan(confidence)], 0, 1),
    ):
        if values.size and not (lowest <= values.min() and values.max() <= highest):
            raise DataError(f"{path}: {name} lies in {values.min()}..{values.max()}; allowed {lowest}..{highest}")
    pairs, counts = np.unique(np.stack([row, judge]), axis=1, return_counts=True)
    if counts.max(initial=1) > 1:
        first, by = pairs[:, counts.argmax()]
        raise DataError(
            f"{path}: judge {by} answers {counts.max()} times for row {first}; number each as its own judge"
        )
    return Votes(row, judge, vote, confidence)


def majority(votes: Votes, num_rows: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """The class that most answers name, and how sure those are.

    Of classes with as many answers that of the greater confidence in all is taken, then the lower number.

    Returns:
      label: int32 [num_rows], -1 where nobody names a class.
      weight: float32 [num_rows]: the mean confidence of the answers that name it, 1 where they give none; 0 without a
        label.
    """
    named = votes.vote >= 0
    row, vote, confidence = votes.row[named], votes.vote[named], votes.confidence[named].astype(np.float64)
    sure = ~np.isnan(confidence)
    count, given, total = np.zeros((3, num_rows, num_classes))
    np.add.at(count, (row, vote), 1)
    np.add.at(given, (row, vote), sure)
    np.add.at(total, (row, vote), np.where(sure, confidence, 0))
    label = np.argmax(count + total / (count.sum(1, keepdims=True) + 1), axis=1)
    own = np.arange(num_rows), label
    weight = np.where(given[own] > 0, total[own] / np.maximum(given[own], 1), 1)
    said = count.any(1)
    return np.where(said, label, -1).astype(np.int32), np.where(said, weight, 0).astype(np.float32)
