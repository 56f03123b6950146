"""Sets of labels with a promise, how often they hold the truth and how large they are; and the label in the middle of
them."""

from typing import Any

import numpy as np
import scipy.special

from labelfx.config.annotations import Fraction, NonNegative, Positive, PositiveInt
from labelfx.data import known
from labelfx.labels.metric import frechet_mean
from labelfx.labels.sets import conformal_threshold, coverage_law, hierarchical_set, pac_threshold, power_set


def conformal(
    test_logits: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    *,
    error: Fraction,
    holdout: Fraction,
    repeats: PositiveInt,
) -> dict[str, Any]:
    """Coverage and size of conformal prediction sets of the method's head (score 1 - the class's probability; Sadinle
    et al. 2019, JASA).

    Calibrated on a random share of the test rows and judged on the others, anew in each repeat: coverage of that many
    judged rows varies about the promise by the beta-binomial law, whose deviation is given beside it.

    Args:
      test_logits: float [Q, C].
      test_labels: int32 [Q]; -1, unknown, are left out.
      seed: of the splits.
      error: the share of rows whose class may be missing.
      holdout: the share of test rows that calibrate.
      repeats: how many splits.

    Returns:
      coverage, coverage_std (over repeats), law_mean and law_std (of the beta-binomial law; equal scores raise the
      coverage), mean_set_size, empty (share of sets), worst_class_coverage, split, n, n_calibration.

    Raises:
      ValueError: no rows are left to calibrate or to judge with.
    """
    said = known(test_labels)
    scores, labels = 1 - scipy.special.softmax(test_logits[said].astype(np.float64), axis=1), test_labels[said]
    own = scores[np.arange(len(labels)), labels]
    count = _count(len(labels), holdout)
    covered, sizes, empty = [], [], []
    hits, seen = np.zeros((2, scores.shape[1]))
    for rows in _splits(len(labels), seed, repeats):
        threshold, judged = conformal_threshold(own[rows[:count]], error=error), rows[count:]
        size, right = (scores[judged] <= threshold).sum(1), own[judged] <= threshold
        covered.append(right.mean())
        sizes.append(size.mean())
        empty.append(np.mean(size == 0))
        hits += np.bincount(labels[judged], right, scores.shape[1])
        seen += np.bincount(labels[judged], minlength=scores.shape[1])
    mean, deviation = coverage_law(count, len(labels) - count, error)
    return {
        "coverage": float(np.mean(covered)),
        "coverage_std": float(np.std(covered)),
        "law_mean": mean,
        "law_std": deviation,
        "mean_set_size": float(np.mean(sizes)),
        "empty": float(np.mean(empty)),
        "worst_class_coverage": float(np.min(hits[seen > 0] / seen[seen > 0])),
        "split": "test",
        "n": len(labels) - count,
        "n_calibration": count,
    }


def label_set_conformal(
    test_logits: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    *,
    error: Fraction,
    holdout: Fraction,
    power: Positive,
    most_sets: PositiveInt,
) -> dict[str, Any]:
    """Coverage and number of the label sets that `labels.sets.power_set` finds for rows with several labels: whole
    sets, not label by label.

    Args:
      test_logits: float [Q, C], of independent labels.
      test_labels: int8 [Q, C]; rows with an unknown entry, -1, are left out.
      seed: of the split of test rows into those that calibrate, the share `holdout`, and those judged.
      error: the share of rows whose set of labels may be missing.
      power: of the nonconformity, sum_c |y_c - p_c|^power.
      most_sets: that are counted of a row; those of a row that has more are said to be truncated.

    Returns:
      coverage, mean_sets (at most `most_sets` a row), truncated (share of rows), thresholded_coverage (of the one set
      of labels above 0.5), split, n, n_calibration.

    Raises:
      ValueError: no rows are left to calibrate or to judge with.
    """
    whole = known(test_labels).all(1)
    probs, labels = scipy.special.expit(test_logits[whole].astype(np.float64)), test_labels[whole]
    scores = np.sum(np.abs(labels - probs) ** power, 1)
    count = _count(len(labels), holdout)
    rows = next(_splits(len(labels), seed, 1))
    threshold, judged = conformal_threshold(scores[rows[:count]], error=error), rows[count:]
    found = [power_set(probs[row], threshold, power=power, most=most_sets) for row in judged]
    return {
        "coverage": float(np.mean(scores[judged] <= threshold)),
        "mean_sets": float(np.mean([len(sets) for sets, *_ in found])),
        "truncated": float(np.mean([more for *_, more in found])),
        "thresholded_coverage": float(np.mean(((probs > 0.5) == (labels > 0)).all(1)[judged])),
        "split": "test",
        "n": len(judged),
        "n_calibration": count,
    }


def frechet(
    test_logits: np.ndarray, test_labels: np.ndarray, *, distances: tuple[tuple[NonNegative, ...], ...]
) -> dict[str, Any]:
    """Fréchet means by distances of labels in the place of the likeliest class (Loki; Roberts et al. 2023, NeurIPS).

    Args:
      test_logits: float [Q, C]. test_labels: int32 [Q]; -1, unknown, are left out.
      distances: [C, C], from each class, as predicted, to every class.

    Returns:
      accuracy and squared_distance (to the truth, a mean over rows) of Fréchet means, argmax_accuracy and
      argmax_squared_distance of the likeliest class, split, n.

    Raises:
      ValueError: distances are not [C, C].
    """
    metric, said = np.array(distances, np.float64), known(test_labels)
    classes = test_logits.shape[1]
    if metric.shape != (classes, classes):
        raise ValueError(f"distances must be [{classes}, {classes}], got {list(metric.shape)}")
    logits, labels = test_logits[said].astype(np.float64), test_labels[said]
    found = {"": frechet_mean(scipy.special.softmax(logits, axis=1), metric), "argmax_": logits.argmax(1)}
    return {
        **{f"{name}accuracy": float(np.mean(each == labels)) for name, each in found.items()},
        **{f"{name}squared_distance": float(np.mean(metric[labels, each] ** 2)) for name, each in found.items()},
        "split": "test",
        "n": len(labels),
    }


def hierarchy(
    test_logits: np.ndarray,
    test_labels: np.ndarray,
    seed: int,
    *,
    parent: tuple[int, ...],
    error: Fraction,
    delta: Fraction,
    holdout: Fraction,
    most: PositiveInt,
) -> dict[str, Any]:
    """PAC sets over a hierarchy of classes: each is `most` of its nodes at most (Khakhar et al. 2023, ICML).

    The sets of a row are those of `labels.sets.hierarchical_set` at a grid of thresholds, made nested by uniting those
    of smaller ones; the score of a class is the first threshold at which it is in.

    Args:
      test_logits: float [Q, C]. test_labels: int32 [Q]; -1, unknown, are left out.
      seed: of the split of test rows into those that calibrate, the share `holdout`, and those judged.
      parent: of each node of a tree whose first C nodes are the classes, its leaves; -1 of the root.
      error, delta: as of `labels.sets.pac_threshold`.

    Returns:
      coverage, mean_set_size (classes), threshold (of the probability), split, n, n_calibration.

    Raises:
      ValueError: `parent` is no tree of these leaves, or there are too few rows.
    """
    inner = np.unique([each for each in parent if each >= 0])
    if not np.array_equal(inner, np.arange(test_logits.shape[1], len(parent))):
        raise ValueError(f"parent must have the {test_logits.shape[1]} classes as its leaves, first, and no others")
    said = known(test_labels)
    probs, labels = scipy.special.softmax(test_logits[said].astype(np.float64), axis=1), test_labels[said]
    first = np.stack([first_thresholds(row, np.array(parent), most=most) for row in probs])
    count = _count(len(labels), holdout)
    rows = next(_splits(len(labels), seed, 1))
    own, judged = first[np.arange(len(labels)), labels], rows[count:]
    threshold = pac_threshold(own[rows[:count]], error=error, delta=delta)
    return {
        "coverage": float(np.mean(own[judged] <= threshold)),
        "mean_set_size": float(np.mean((first[judged] <= threshold).sum(1))),
        "threshold": threshold,
        "split": "test",
        "n": len(judged),
        "n_calibration": count,
    }


GRID = np.array([0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99, 0.995, 0.999, 0.9999, 1.0])


def first_thresholds(probs: np.ndarray, parent: np.ndarray, *, most: PositiveInt) -> np.ndarray:
    """The first threshold of a grid at which each class is in the set of a row: float [C], of probabilities [C]."""
    padded = np.concatenate([probs, np.zeros(len(parent) - len(probs))])
    found = np.full(len(parent), 1.0)
    for threshold in GRID[::-1]:
        inside = np.zeros(len(parent), bool)
        inside[hierarchical_set(padded, parent, threshold, most=most)[0]] = True
        for _ in parent:  # down the tree
            inside |= (parent >= 0) & inside[parent]
        found[inside] = threshold
    return found[: len(probs)]


def _count(rows, holdout):
    count = int(holdout * rows)
    if not 0 < count < rows:
        raise ValueError(f"{rows} test rows have labels: holdout = {holdout} leaves {count} to calibrate with")
    return count


def _splits(rows, seed, repeats):
    rng = np.random.default_rng(seed)
    return (rng.permutation(rows) for _ in range(repeats))
