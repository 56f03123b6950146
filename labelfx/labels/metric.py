"""Predictions among labels that have distances, of which training saw only some: Loki (Roberts et al. 2023, NeurIPS,
"Geometry-Aware Adaptation for Pretrained Models")."""

import numpy as np
import scipy.optimize

CLOSE = 1e-9  # of squared distances relative to the largest: what ties


def frechet_mean(probs: np.ndarray, distances: np.ndarray) -> np.ndarray:
    """The label m of least sum_k probs[k] distances[k, m]^2 for each row, the first of those that tie: int64 [N].

    It may be a label that no probability is of. Where all labels are equally far from each other it is the argmax.

    Args:
      probs: float [N, K], of the labels that were observed.
      distances: float [K, M], from each of these to every label.

    Raises:
      ValueError: shapes differ, or a distance is negative or not finite.
    """
    if probs.ndim != 2 or distances.ndim != 2 or probs.shape[1] != len(distances):
        raise ValueError(f"probs [N, K] and distances [K, M] must share K, got {probs.shape} and {distances.shape}")
    if not (np.isfinite(distances).all() and (distances >= 0).all()):
        raise ValueError("distances must be finite and from 0 up")
    return np.argmin(probs @ np.square(distances), axis=1)


def locus(distances: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Which labels some distribution over the observed ones has as a Fréchet mean, ties counting: bool [M].

    A linear programme a label: is there a p over `rows` with sum_k p_k (d[k, m]^2 - d[k, j]^2) <= 0 for all j?

    Args:
      distances: float [M, M], symmetric, 0 on the diagonal alone.
      rows: int [K], the labels that were observed.

    Raises:
      ValueError: these are no distances, or no label was observed.
    """
    _check(distances)
    if not len(rows):
        raise ValueError("rows: no label was observed")
    square = np.square(distances[rows]) / max(float(np.square(distances).max()), 1e-300)
    every = np.ones((1, len(rows)))
    found = [
        scipy.optimize.linprog(
            np.zeros(len(rows)),
            A_ub=(own[:, None] - square).T,
            b_ub=np.full(len(square.T), CLOSE),
            A_eq=every,
            b_eq=[1],
        )
        for own in square.T
    ]
    return np.array([each.status == 0 for each in found])


def next_class(distances: np.ndarray, rows: np.ndarray) -> int:
    """The label to observe next: with it the locus is largest, the first of those that tie.

    Arguments and errors as those of `locus`; also a ValueError where all labels were observed.
    """
    others = np.setdiff1d(np.arange(len(distances)), rows)
    if not len(others):
        raise ValueError(f"rows: all {len(distances)} labels were observed")
    reached = [int(locus(distances, np.append(rows, other)).sum()) for other in others]
    return int(others[np.argmax(reached)])


def _check(distances: np.ndarray) -> None:
    if distances.ndim != 2 or len(set(distances.shape)) != 1 or not np.isfinite(distances).all():
        raise ValueError(f"distances must be finite [M, M], got {distances.shape}")
    off = ~np.eye(len(distances), dtype=bool)
    if (distances != distances.T).any() or (np.diag(distances) != 0).any() or (distances[off] <= 0).any():
        raise ValueError("distances must be symmetric, 0 on the diagonal and above 0 elsewhere")
