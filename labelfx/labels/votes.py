"""What the votes of labelling functions, judges or annotators say of rows: `votes` int [N, M], the class from 0 to
C - 1 that each of M names, -1 where it abstains. Names and conventions are those of snorkel."""

from typing import Any, Literal, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

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
    count = _said(votes, num_classes).sum(1)
    most = count == count.max(1, keepdims=True)
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
    said = _said(votes, num_classes)
    if votes.shape[1] < 3:
        raise ValueError(f"votes of {votes.shape[1]} functions: a label model needs 3 or more")
    if method == "one_coin":
        return LabelModel(prior, _one_coin(said, prior, steps))
    if method != "moments":
        raise ValueError(f"method must be one of moments, one_coin, got {method!r}")
    return LabelModel(prior, _moments(said, prior, l2, steps))


def predict_proba(model: LabelModel, votes: np.ndarray) -> np.ndarray:
    """P(y | votes) float64 [N, C], the prior where nobody votes. A vote that was never seen in the fit says nothing."""
    largest = model.joint.max(2, keepdims=True)
    log_odds = np.log(np.where(largest > 0, model.joint / np.where(largest > 0, largest, 1), 1))
    said = _said(votes, len(model.prior))
    return scipy.special.softmax(np.log(model.prior)[None] + np.einsum("nml,mly->ny", said, log_odds), 1)


def sample(rng: np.random.Generator, votes: np.ndarray, num_classes: int, *, consensus: float) -> np.ndarray:
    """A class int32 [N] of each row: with probability `consensus` the majority's, drawn among those that tie, else that
    of one vote, drawn without preference; -1 where nobody votes.

    The mean of the gradients of a cross-entropy with such labels is that with the soft label consensus * majority +
    (1 - consensus) * shares of the votes.
    """
    shares = _said(votes, num_classes).sum(1)
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


def _said(votes: np.ndarray, num_classes: int) -> np.ndarray:
    """Votes one-hot, [N, M, C], 0 where a function abstains.

    Raises:
      ValueError: votes are not [N, M], or name no class.
    """
    if votes.ndim != 2:
        raise ValueError(f"votes must be [N, M], got {votes.shape}")
    if votes.size and not -1 <= votes.min() <= votes.max() < num_classes:
        raise ValueError(f"votes lie in {votes.min()}..{votes.max()}; allowed -1..{num_classes - 1}")
    return (votes[:, :, None] == np.arange(num_classes)).astype(np.float64)


def _moments(said: np.ndarray, prior: np.ndarray, l2: float, steps: int) -> np.ndarray:
    count, functions, classes = said.shape
    rows = said.reshape(count, -1)
    seen, single = rows.T @ rows / count, rows.mean(0)  # P(l, l'), P(l)
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


def _one_coin(said: np.ndarray, prior: np.ndarray, steps: int) -> np.ndarray:
    functions, classes = said.shape[1:]
    cast, same = said.sum((0, 2)), np.eye(classes, dtype=bool)
    accuracy = np.full(functions, PRECISION)
    for _ in range(steps):
        wrong = (1 - accuracy) / (classes - 1)
        joint = np.where(same, accuracy[:, None, None], wrong[:, None, None])
        posterior = scipy.special.softmax(np.log(prior)[None] + np.einsum("nml,mly->ny", said, np.log(joint)), 1)
        right = np.einsum("nml,nl->m", said, posterior)
        before, accuracy = accuracy, (PRECISION * PSEUDO_VOTES + right) / (PSEUDO_VOTES + cast)
        if np.abs(accuracy - before).max() < 1e-10:
            break
    wrong = (1 - accuracy) / (classes - 1)
    return np.where(same, accuracy[:, None, None], wrong[:, None, None]) * (cast / max(1, len(said)))[:, None, None]
