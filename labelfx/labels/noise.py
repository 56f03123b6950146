"""Noise of labels: how often a class is called another, how well that is known, and which labels it leaves plausible.

A transition T is float64 [C, C]: in row i the probabilities of labels given where the true class is i. A label given is
int [N], 0 to C - 1.
"""

import numpy as np
import scipy.stats

TRIES = 100  # of each draw of plausible labels before it is given up


def count_transitions(given: np.ndarray, true: np.ndarray, num_classes: int, *, smoothing: float) -> np.ndarray:
    """T from pairs of a label given and a true one, of a few rows that somebody has looked at; or of the class that a
    network predicts in place of the truth (Hedderich, Zhu and Klakow 2021, AAAI).

    smoothing: is added to each count.

    Raises:
      ValueError: a class is in no pair, and nothing is added.
    """
    counts = np.full((num_classes, num_classes), smoothing, np.float64)
    np.add.at(counts, (true, given), 1)
    total = counts.sum(1, keepdims=True)
    if (total == 0).any():
        raise ValueError(f"class {total[:, 0].argmin()} is in no pair of a given and a true label: add a smoothing")
    return counts / total


def anchor_transitions(probs: np.ndarray, *, quantile: float) -> np.ndarray:
    """T from anchors: row i is what a network that has learnt the labels given makes of the row that is surest to be an
    i (Patrini et al. 2017, CVPR, eq. 12 and 13).

    probs: float [N, C]. quantile: of the probabilities of a class where its anchor is, which at 1 is the largest; they
      take 0.97 where that may be an outlier.
    """
    place = int(round(quantile * (len(probs) - 1)))
    anchors = np.argsort(probs, axis=0, kind="stable")[place]
    found = probs[anchors].astype(np.float64)
    return found / found.sum(1, keepdims=True)


def expected_squared_error(
    transition: np.ndarray,
    *,
    counts: np.ndarray | None = None,
    total: int | None = None,
    prior: np.ndarray | None = None,
) -> float:
    """The mean of |T' - T|^2, its entries' squares, over draws of the pairs that T' is counted from: sum_ij T_ij
    (1 - T_ij) E[1 / n_i] (Hedderich, Zhu and Klakow 2021, AAAI, "Analysing the Noise Model Error for Realistic Noisy
    Label Data").

    The pairs are `counts` [C] of each true class or, of that many in `total` from all rows, binomial with the shares
    `prior` [C]; a class without a pair has no error then. The authors' code leaves out that all pairs are of one class.

    Raises:
      ValueError: neither or both are given, or a class has no pair.
    """
    if (counts is None) == (total is None or prior is None):
        raise ValueError("take counts of each class, or the total and the prior of classes")
    if counts is not None:
        if np.min(counts) < 1:
            raise ValueError(f"counts = {np.asarray(counts).tolist()}: of each class there must be a pair")
        inverse = 1 / np.asarray(counts, np.float64)
    else:
        assert total is not None
        number = np.arange(1, total + 1)
        chance = scipy.stats.binom.pmf(number[:, None], total, np.asarray(prior)[None])
        inverse = (chance / number[:, None]).sum(0)
    return float(((transition * (1 - transition)).sum(1) * inverse).sum())


def true_shares(given_shares: np.ndarray, transition: np.ndarray) -> np.ndarray:
    """Shares of the true classes [C] that explain those of the labels given [C], as near as shares from 0 up can."""
    found = np.linalg.lstsq(transition.T, given_shares, rcond=None)[0].clip(0)
    return found / found.sum()


def posterior(prior: np.ndarray, transition: np.ndarray, given: np.ndarray) -> np.ndarray:
    """P(true class | label given), float64 [N, C], by Bayes' rule.

    prior: float [N, C], of each row, such as a network's probabilities, or [C] of all.

    Raises:
      ValueError: a label is given that no class of the row's prior is called.
    """
    joint = np.atleast_2d(prior) * transition[:, given].T
    total = joint.sum(1, keepdims=True)
    if (total == 0).any():
        row = int(total[:, 0].argmin())
        raise ValueError(f"row {row} is called {given[row]}, which by the transition no class that it may have is")
    return joint / total


def plausible_labels(
    rng: np.random.Generator, posterior: np.ndarray, given: np.ndarray, *, draws: int, typical: float
) -> np.ndarray:
    """Labels that may be the true ones, int [D, N], drawn from the posterior [N, C] row by row and kept where they are
    typical: the share of rows whose label is not the given one within a fraction `typical` of what is expected (Nagaraj
    et al. 2025, ICLR, "Regretful Decisions under Label Noise").

    Raises:
      ValueError: of 100 tries for each draw too few are typical.
    """
    expected = 1 - posterior[np.arange(len(given)), given].mean()
    found: list[np.ndarray] = []
    edges = posterior.cumsum(1)
    for _ in range(TRIES * draws):
        label = (edges <= rng.random((len(given), 1))).sum(1).clip(max=posterior.shape[1] - 1)
        if abs((label != given).mean() - expected) <= typical * expected:
            found.append(label)
        if len(found) == draws:
            return np.stack(found).astype(given.dtype)
    raise ValueError(f"typical = {typical}: {len(found)} of {TRIES * draws} draws are; take a larger one")


def ambiguity(predictions: np.ndarray, plausible: np.ndarray) -> np.ndarray:
    """Of each row the share of D networks that call it other than the labels they learnt from, or that it may have,
    both [D, N] (Nagaraj et al. 2025): float64 [N]."""
    return (predictions != plausible).mean(0)


def regret(predictions: np.ndarray, given: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Of each row the share of mistakes that its given label does not foretell: predictions that are wrong and agree
    with it, or are right and do not (Nagaraj et al. 2025): float64 [N].

    predictions: int [N], or [D, N] of D networks. true: int [N] where somebody knows it, or [D, N], plausible labels.
    """
    return np.atleast_2d((predictions != given[None]) != (predictions != true)).mean(0)
