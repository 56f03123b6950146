"""Scores without labels: how many different rows there are for a network, and how far a new domain is understood."""

from typing import Any

import numpy as np
import scipy.special

from labelfx.config.annotations import NonNegative

SPECTRUM = 2048  # rows and columns up to which the singular values themselves are a matter of seconds


def vendi(features: np.ndarray, *, q: tuple[NonNegative, ...]) -> dict[str, Any]:
    """Vendi scores: how many different rows the features amount to (Friedman and Dieng 2023, TMLR).

    exp of the Renyi entropy of order q of the eigenvalues of K / N, K the cosines of the N rows; at q = 1 Shannon's, at
    infinity, which a configuration cannot say, 1 / the largest. Low orders count rare kinds of rows, high ones common
    kinds (Pasarkar and Dieng 2024, AISTATS). From 1, all alike, to min(N, F), as many at right angles to each other.

    Args:
      features: float [N, F]; normalised here.
      q: orders; at 0 it is the number of eigenvalues above rounding.

    Returns:
      vendi_q for each q, split, n (= N).

    Raises:
      ValueError: a row is zero or not finite.
    """
    x = features.astype(np.float64)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    if not (norm > 0).all() or not np.isfinite(norm).all():
        row = int(np.flatnonzero(~((norm > 0) & np.isfinite(norm)))[0])
        raise ValueError(f"row {row} of features has norm {norm[row, 0]}; vendi wants finite rows that are not zero")
    x /= norm
    gram = x.T @ x if x.shape[1] < len(x) else x @ x.T  # with the same eigenvalues but for zeros
    p = np.linalg.eigvalsh(gram / len(x))
    p = p[p > len(p) * np.finfo(np.float64).eps]
    return {**{f"vendi_{each:g}": _order(p, each) for each in q}, "split": "train", "n": len(x)}


def matrix_nuclear_norm(features: np.ndarray) -> dict[str, Any]:
    """Matrix nuclear-norm: the column norms' sum, in place of the singular values' (Li et al. 2024).

    Features are centred, then each row has norm 1; the min(N, F) largest L2 norms of columns are summed, over N. It was
    meant to tell collapse by, and hardly does: it depends on the axes, and features of one direction score nearly as
    much as random ones, where the nuclear norm itself falls to the square root of N. So that stands beside it.

    Args:
      features: float [N, F].

    Returns:
      value (the paper's score), nuclear_norm (over N too; None beyond 2,048 rows and columns), bound (the most that
      either can be), split, n (= N).
    """
    x = features.astype(np.float64)
    x -= x.mean(axis=0, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    x = np.divide(x, norm, out=np.zeros_like(x), where=norm > 0)
    number = min(x.shape)
    norms = np.sort(np.linalg.norm(x, axis=0))[-number:]
    exact = float(np.linalg.norm(x, "nuc") / len(x)) if max(x.shape) <= SPECTRUM else None
    return {
        "value": float(norms.sum() / len(x)),
        "nuclear_norm": exact,
        "bound": float(np.sqrt(number / len(x))),  # Cauchy-Schwarz: the squares' sum is N
        "split": "train",
        "n": len(x),
    }


def transfer_score(
    test_features: np.ndarray, test_logits: np.ndarray, head_kernel: np.ndarray, seed: int
) -> dict[str, Any]:
    """Transfer score: how well a classifier fits a domain that has no labels (Yang et al. 2024, ICLR).

    hopkins - uniformity + information. Hopkins' statistic says whether the features form clusters: it compares, for a
    twentieth of the rows, the distance from points drawn uniformly in the features' box to the nearest row with the
    distance from a row to the nearest other: near 0.5 where there are none, near 1 where there are. Uniformity is the
    mean squared difference, over pairs of classes, of the angle between their weights and that of a simplex,
    arccos(-1 / (C - 1)). Information is that of predictions and rows, the entropy of the mean less the mean entropy,
    over log C. The authors' code takes the mean of each batch of its loader in place of that of all rows.

    Args:
      test_features: float [Q, F].
      test_logits: float [Q, C].
      head_kernel: float [F, C], weights of the classifier.
      seed: of the rows and points of Hopkins' statistic.

    Returns:
      value, hopkins (0.5 where all features are equal), uniformity, information, split, n (= Q).

    Raises:
      ValueError: there is one class, or fewer than two rows.
    """
    num_classes = head_kernel.shape[1]
    if num_classes < 2 or len(test_features) < 2:
        raise ValueError(f"transfer_score wants two classes and rows or more, got {num_classes}, {len(test_features)}")
    weights = head_kernel.astype(np.float64)
    weights /= np.maximum(np.linalg.norm(weights, axis=0, keepdims=True), np.finfo(np.float64).tiny)
    cosine = np.clip(weights.T @ weights, -1, 1)[~np.eye(num_classes, dtype=bool)]
    uniformity = np.mean((np.arccos(cosine) - np.arccos(-1 / (num_classes - 1))) ** 2)
    probs = scipy.special.softmax(test_logits.astype(np.float64), axis=1)
    entropy = scipy.special.entr(probs.mean(axis=0)).sum() - scipy.special.entr(probs).sum(axis=1).mean()
    information = entropy / np.log(num_classes)
    hopkins = _hopkins(test_features.astype(np.float64), np.random.default_rng(seed))
    return {
        "value": float(hopkins - uniformity + information),
        "hopkins": float(hopkins),
        "uniformity": float(uniformity),
        "information": float(information),
        "split": "test",
        "n": len(test_features),
    }


def _order(p, q):
    """exp of the Renyi entropy of probabilities p > 0."""
    if q == 1:
        return float(np.exp(scipy.special.entr(p).sum()))
    return float(1 / p.max() if q == np.inf else np.sum(p**q) ** (1 / (1 - q)))


def _hopkins(x, rng):
    from sklearn.neighbors import NearestNeighbors

    count = max(len(x) // 20, 1)
    rows = rng.choice(len(x), count, replace=False)
    points = rng.uniform(x.min(axis=0), x.max(axis=0), (count, x.shape[1]))
    search = NearestNeighbors(n_neighbors=2, algorithm="brute").fit(x)
    to_points = search.kneighbors(points)[0][:, 0].sum()
    to_rows = search.kneighbors(x[rows])[0][:, 1].sum()  # the nearest is the row itself, or one equal to it
    return to_points / (to_points + to_rows) if to_points + to_rows else 0.5
