"""What the votes of labelling functions, judges or annotators say of rows: `votes` int [N, M], the class from 0 to
C - 1 that each of M names, -1 where it abstains. Names and conventions are those of snorkel."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

BLOCK = 1 << 22  # one-hot votes that are held at once
FLOOR = 0.01  # of a class given a vote: below, a single vote would rule the class out
PRECISION = 0.7  # of a vote, before anything is known of it
PSEUDO_VOTES = 10  # that a function has cast with this precision before it is seen to vote


class LabelModel(NamedTuple):
    """How M labelling functions vote, each by itself once the class is known.

    prior: float64 [C], P(y).
    joint: float64 [M, C, C], P(function m names l | y) in [m, l, y], jointly with its voting at all: their sum over l
      is its coverage of class y.
    """

    prior: np.ndarray
    joint: np.ndarray


def majority_vote(votes: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities float64 [N, C]: all of the class that most votes name, in equal parts where some tie, and so
    uniform where nobody votes."""
    _check(votes, num_classes)
    most = np.concatenate([(count == count.max(1, keepdims=True)) for count in _counts(votes, num_classes)])
    return most / most.sum(1, keepdims=True)


def fit_label_model(
    votes: np.ndarray,
    num_classes: int,
    *,
    method: Literal["moments", "one_coin"],
    class_balance: np.ndarray | None = None,
    l2: float,
    steps: int,
) -> LabelModel:
    """The label model of votes, without any label.

    "moments" (Ratner et al. 2019, AAAI, "Training Complex Models with Multi-Task Weak Supervision", as in snorkel): the
    joint whose products over two functions are as often as theirs are seen together, and whose sums over classes as
    often as each vote is seen, by least squares from votes of precision 0.7. A class given a vote keeps a probability
    of 0.01: snorkel clips the joint itself, so that a vote which is rare says nothing there, and starts from a random
    multiple of it. Coverage is part of the joint: functions that name one class each are told apart by where they vote.

    "one_coin" (Dawid and Skene 1979, with one accuracy a function): expectation maximisation; an accuracy starts as 7
    of 10 votes, errors are alike in all other classes, and who abstains says nothing of the class. Functions that
    name one class each can be right always or never by it.

    Args:
      votes: int [N, M], M at least 3.
      class_balance: P(y) [C]; None is uniform.
      l2: of "moments" alone, from 0 up.
      steps: at most so many iterations of L-BFGS, or of EM.

    Raises:
      ValueError: fewer than 3 functions, which moments do not determine; a vote for no class; the class balance is not
        C probabilities above 0 of sum 1; or another method.
    """
    prior = np.full(num_classes, 1 / num_classes) if class_balance is None else np.asarray(class_balance, np.float64)
    if prior.shape != (num_classes,) or not (prior > 0).all() or abs(prior.sum() - 1) > 1e-6:
        raise ValueError(f"class_balance = {prior.tolist()}: must be {num_classes} probabilities above 0 of sum 1")
    _check(votes, num_classes)
    if votes.shape[1] < 3:
        raise ValueError(f"votes of {votes.shape[1]} functions: a label model needs 3 or more")
    if method == "one_coin":
        return LabelModel(prior, _one_coin(votes, prior, steps))
    if method != "moments":
        raise ValueError(f"method must be one of moments, one_coin, got {method!r}")
    return LabelModel(prior, _moments(votes, prior, l2, steps))


def predict_proba(model: LabelModel, votes: np.ndarray) -> np.ndarray:
    """P(y | votes) float64 [N, C], the prior where nobody votes. A vote that was never seen in the fit says nothing."""
    largest = model.joint.max(2, keepdims=True)
    log_odds = np.log(np.where(largest > 0, model.joint / np.where(largest > 0, largest, 1), 1))
    _check(votes, len(model.prior))
    return np.concatenate([_posterior(said, model.prior, log_odds) for said in _said(votes, len(model.prior))])


def sample(rng: np.random.Generator, votes: np.ndarray, num_classes: int, *, consensus: float) -> np.ndarray:
    """A class int32 [N] of each row: with probability `consensus` the majority's, drawn among those that tie, else that
    of one vote, drawn without preference; -1 where nobody votes.

    The mean of the gradients of a cross-entropy with such labels is that with the soft label consensus * majority +
    (1 - consensus) * shares of the votes.
    """
    _check(votes, num_classes)
    shares = np.concatenate(list(_counts(votes, num_classes)))
    voted = shares.any(1)
    shares[voted] /= shares[voted].sum(1, keepdims=True)
    chance = consensus * majority_vote(votes, num_classes) + (1 - consensus) * shares
    drawn = (chance.cumsum(1) <= rng.random(len(votes))[:, None]).sum(1).clip(max=num_classes - 1)
    return np.where(voted, drawn, -1).astype(np.int32)


def lf_summary(votes: np.ndarray, labels: np.ndarray | None = None) -> dict[str, Any]:
    """What there is to say of each labelling function: a table of columns of length M.

    polarity: the classes it ever names, a list. A set of functions that name one class each is told apart by coverage
      alone: a confusion matrix of theirs, given that they vote, is the same for every true class.
    coverage, overlaps, conflicts: float64, the share of rows that it votes on; that another votes on too; that another
      names another class of.
    accuracy: float64, of its votes on rows with a label; NaN without any, and where no `labels` int [N] are given (-1
      is unknown).
    """
    cast = votes >= 0
    others = cast.sum(1, keepdims=True) - cast
    agreeing = np.stack([((votes == votes[:, [m]]) & cast).sum(1) - cast[:, m] for m in range(votes.shape[1])], 1)
    counted = cast & (labels >= 0)[:, None] if labels is not None else np.zeros_like(cast)
    right = counted & (votes == labels[:, None]) if labels is not None else counted
    total = counted.sum(0)
    return {
        "polarity": [np.unique(votes[own, m]).tolist() for m, own in enumerate(cast.T)],
        "coverage": cast.mean(0),
        "overlaps": (cast & (others > 0)).mean(0),
        "conflicts": (cast & (others > agreeing)).mean(0),
        "accuracy": np.where(total > 0, right.sum(0) / np.maximum(total, 1), np.nan),
    }


def _check(votes: np.ndarray, num_classes: int) -> None:
    if votes.ndim != 2:
        raise ValueError(f"votes must be [N, M], got {votes.shape}")
    if votes.size and not -1 <= votes.min() <= votes.max() < num_classes:
        raise ValueError(f"votes lie in {votes.min()}..{votes.max()}; allowed -1..{num_classes - 1}")


def _said(votes: np.ndarray, num_classes: int) -> Iterator[np.ndarray]:
    """Blocks of votes one-hot, float32 [n, M, C], 0 where a function abstains."""
    size = max(1, BLOCK // max(1, votes.shape[1] * num_classes))
    for first in range(0, max(1, len(votes)), size):
        yield (votes[first : first + size, :, None] == np.arange(num_classes)).astype(np.float32)


def _counts(votes: np.ndarray, num_classes: int) -> Iterator[np.ndarray]:
    """Votes for each class, float64 [n, C]."""
    return (said.sum(1, dtype=np.float64) for said in _said(votes, num_classes))


def _posterior(said: np.ndarray, prior: np.ndarray, log_odds: np.ndarray) -> np.ndarray:
    """P(y | votes) [n, C] of log odds [M, C, C]."""
    odds = said.reshape(len(said), -1) @ log_odds.reshape(-1, len(prior))
    return scipy.special.softmax(np.log(prior)[None] + odds, 1)


def _moments(votes: np.ndarray, prior: np.ndarray, l2: float, steps: int) -> np.ndarray:
    (count, functions), classes = votes.shape, len(prior)
    seen, single = np.zeros((functions * classes,) * 2), np.zeros(functions * classes)  # P(l, l'), P(l)
    for said in _said(votes, classes):
        rows = said.reshape(len(said), -1)
        seen += rows.T @ rows  # whole numbers below 2^24, exact in float32
        single += rows.sum(0)
    seen, single = seen / count, single / count
    apart = np.kron(1 - np.eye(functions), np.ones((classes, classes)))  # of two different functions
    precision = np.full((classes, classes), (1 - PRECISION) / (classes - 1))
    np.fill_diagonal(precision, PRECISION)  # P(y | vote l) in [l, y]
    most = single[:, None] / prior  # P(l | y) where all votes for l are on rows of y
    start = most * np.tile(precision, (functions, 1))

    def misfit(flat):
        joint = flat.reshape(start.shape)
        together = apart * (joint * prior @ joint.T - seen)
        alone, moved = joint @ prior - single, joint - start
        slope = 4 * together @ joint * prior + 2 * np.outer(alone, prior) + 2 * l2 * moved
        return (together**2).sum() + (alone**2).sum() + l2 * (moved**2).sum(), slope.ravel()

    lowest, highest = FLOOR * most, np.minimum(most, 1)
    bounds = scipy.optimize.Bounds(lowest.ravel(), highest.ravel())
    options: dict[str, Any] = {"maxiter": steps, "ftol": 1e-12, "gtol": 1e-9}
    first = start.clip(lowest, highest).ravel()
    found = scipy.optimize.minimize(misfit, first, jac=True, method="L-BFGS-B", bounds=bounds, options=options)
    return found.x.reshape(functions, classes, classes)


def _one_coin(votes: np.ndarray, prior: np.ndarray, steps: int) -> np.ndarray:
    classes = len(prior)
    cast, same = (votes >= 0).sum(0), np.eye(classes, dtype=bool)
    accuracy = np.full(votes.shape[1], PRECISION)
    for _ in range(steps):
        wrong = (1 - accuracy) / (classes - 1)
        log_odds = np.log(np.where(same, accuracy[:, None, None], wrong[:, None, None]))
        right = np.zeros(len(accuracy))
        for said in _said(votes, classes):
            right += np.einsum("nml,nl->m", said, _posterior(said, prior, log_odds))
        before, accuracy = accuracy, (PRECISION * PSEUDO_VOTES + right) / (PSEUDO_VOTES + cast)
        if np.abs(accuracy - before).max() < 1e-10:
            break
    wrong = (1 - accuracy) / (classes - 1)
    return np.where(same, accuracy[:, None, None], wrong[:, None, None]) * (cast / max(1, len(votes)))[:, None, None]
