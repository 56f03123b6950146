"""Confident learning: which given labels are wrong, by out-of-sample probabilities (Northcutt et al. 2021, JAIR).

Names, arguments and results are those of cleanlab, the authors' code. `labels` are int [N], from 0 to C - 1, and
`pred_probs` [N, C] what a classifier that did not train on a row says of it, of any float type; nothing is trained, and
beside the probabilities no array of their size is made. Scores are low where a label is doubtful.
"""

import logging
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np

logger = logging.getLogger(__name__)

Filter = Literal[
    "prune_by_noise_rate",
    "prune_by_class",
    "both",
    "confident_learning",
    "predicted_neq_given",
    "low_self_confidence",
    "low_normalized_margin",
]
Score = Literal["self_confidence", "normalized_margin", "confidence_weighted_entropy"]

BLOCK = 1 << 20  # probabilities that are looked at at once
CLOSE = 1e-6  # probabilities that differ by less are alike
LEAST = 1e-6  # of a prior, and of a self-confidence that is divided by
SUM = 1e-2  # by which the probabilities of a row may miss 1


def get_confident_thresholds(labels: np.ndarray, pred_probs: np.ndarray) -> np.ndarray:
    """The mean probability float64 [C] of a class over the rows that were given it; 2, which none reaches, where none
    was.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none.
    """
    _check(labels, pred_probs)
    return _thresholds(labels, pred_probs)


def compute_confident_joint(labels: np.ndarray, pred_probs: np.ndarray, *, calibrate: bool = True) -> np.ndarray:
    """How many rows int64 [C, C] were given the class of the row and are confidently of the class of the column.

    A row is confidently of a class whose threshold its probability reaches; of several, as in the authors' code, it
    counts for the most probable of all classes, where the paper takes the most probable of those. Each class has at
    least one row on the diagonal. `calibrate`: scaled so that each class has as many rows as were given it.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none.
    """
    _check(labels, pred_probs)
    joint, _ = _joint(labels, pred_probs)
    return _calibrated(joint, labels) if calibrate else joint


def estimate_latent(confident_joint: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(py [C], noise_matrix [C, C], inverse_noise_matrix [C, C]), float64, of a confident joint.

    py: P(true class). noise_matrix: P(given i | true j) in [i, j]; inverse_noise_matrix: P(true i | given j) in [i, j];
    columns sum to 1, but for those of a class that was never counted, which are 0.
    """
    joint = np.asarray(confident_joint, np.float64)
    noise = _shares(joint, 0)
    inverse = _shares(joint.T, 0)
    given = np.bincount(labels, minlength=len(joint)) / len(labels)
    prior = np.divide(inverse.diagonal(), noise.diagonal(), out=np.zeros(len(joint)), where=noise.diagonal() > 0)
    prior = (prior * given).clip(LEAST, 1)
    return prior / prior.sum(), noise, inverse


def find_label_issues(
    labels: np.ndarray, pred_probs: np.ndarray, *, filter_by: Filter = "prune_by_noise_rate"
) -> np.ndarray:
    """Whether each label is likely to be wrong, bool [N].

    filter_by:
      "prune_by_noise_rate": of each class given and each other class, as many rows as the calibrated joint has, those
        by which the other class is ahead the most.
      "prune_by_class": of each class given, as many rows as the joint has off its diagonal, the least probable.
      "both": what these two agree on.
      "confident_learning": rows that are confidently of another class than was given.
      "predicted_neq_given": rows whose most probable class is another.
      "low_self_confidence", "low_normalized_margin": as many rows as "confident_learning" finds, of the lowest scores.

    But for the last two, no row whose most probable class is the given one. Of equal rows some are taken, which ones is
    not said; classes of a single row keep it.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none; all labels are alike; another filter.
    """
    _check(labels, pred_probs)
    _one_of("filter_by", filter_by, Filter)
    if (labels == labels[0]).all():
        raise ValueError(f"all labels are class {labels[0]}: errors are found by a second class that was given")
    return _issues(labels, pred_probs, filter_by)


def get_label_quality_scores(
    labels: np.ndarray,
    pred_probs: np.ndarray,
    *,
    method: Score = "self_confidence",
    adjust_pred_probs: bool = False,
) -> np.ndarray:
    """How likely each label is right, [N] in [0, 1], of the type of the probabilities.

    method:
      "self_confidence": the probability of the given class.
      "normalized_margin": (1 + it - the largest of the others) / 2.
      "confidence_weighted_entropy": log(1 + q) / q of the entropy over log C, divided by the self-confidence, q.
    adjust_pred_probs: each probability is compared with the threshold of its class first; not with the entropy.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none; another method; an adjusted entropy.
    """
    _check(labels, pred_probs)
    _one_of("method", method, Score)
    if adjust_pred_probs and method == "confidence_weighted_entropy":
        raise ValueError("adjust_pred_probs: not with confidence_weighted_entropy, whose probabilities must sum to 1")
    limits = _thresholds(labels, pred_probs) if adjust_pred_probs else None
    return _scores(labels, pred_probs, method, limits)


def find_multilabel_issues(
    labels: np.ndarray, pred_probs: np.ndarray, *, filter_by: Filter = "prune_by_noise_rate"
) -> np.ndarray:
    """Whether any of the labels of a row is likely to be wrong, bool [N] (Thyagarajan et al. 2022).

    Each class is a pair of classes, not it and it. Classes that are not given both, which find nothing, are logged. The
    filters "low_..." take as many rows as "confident_learning" finds, of the lowest `get_multilabel_quality_scores`.

    Args:
      labels: [N, C], 1, 0, or -1 where it is not known.
      pred_probs: [N, C], the probability of each label.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none; another filter.
    """
    _check_multilabel(labels, pred_probs)
    _one_of("filter_by", filter_by, Filter)
    found, skipped = np.zeros(len(labels), bool), []
    by = "confident_learning" if filter_by.startswith("low_") else filter_by
    for c, given in enumerate(labels.T):
        known = given >= 0
        if len(np.unique(given[known])) < 2:
            skipped.append(c)
            continue
        binary = np.stack([1 - pred_probs[known, c], pred_probs[known, c]], 1)
        found[known] |= _issues(given[known], binary, by)
    if skipped:
        logger.warning("labels %s are not both given and not given: no errors are looked for", skipped)
    if filter_by == by:
        return found
    return _lowest(get_multilabel_quality_scores(labels, pred_probs), int(found.sum()))


def get_multilabel_quality_scores(
    labels: np.ndarray, pred_probs: np.ndarray, *, method: Score = "self_confidence", alpha: float = 0.8
) -> np.ndarray:
    """How likely all labels of a row are right, [N] in [0, 1] (Thyagarajan et al. 2022): an exponential moving average
    of the scores of its labels from high to low, each entering with weight `alpha`, so that the lowest counts most.

    Args: as `find_multilabel_issues`, and the method of `get_label_quality_scores`. What is not known is left out; a
      row of which nothing is known has a NaN.

    Raises:
      ValueError: labels and probabilities do not fit one another, or are none; another method; alpha is not in [0, 1].
    """
    _check_multilabel(labels, pred_probs)
    _one_of("method", method, Score)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha = {alpha}: must be in [0, 1]")
    scores = np.empty(pred_probs.shape, np.result_type(pred_probs, np.float32))
    for c, given in enumerate(labels.T):
        binary = np.stack([1 - pred_probs[:, c], pred_probs[:, c]], 1)
        scores[:, c] = np.where(given >= 0, _scores(given.clip(0), binary, method), np.nan)
    scores = -np.sort(-scores, axis=1)  # NaNs come last
    average = scores[:, 0]
    for score in scores.T[1:]:
        average = np.where(np.isnan(score), average, alpha * score + (1 - alpha) * average)
    return average


def _blocks(pred_probs: np.ndarray) -> Iterator[slice]:
    size = max(1, BLOCK // pred_probs.shape[1])
    for first in range(0, len(pred_probs), size):
        yield slice(first, first + size)


def _own(labels: np.ndarray, pred_probs: np.ndarray) -> np.ndarray:
    return pred_probs[np.arange(len(labels)), labels]


def _thresholds(labels: np.ndarray, pred_probs: np.ndarray) -> np.ndarray:
    classes = pred_probs.shape[1]
    count = np.bincount(labels, minlength=classes)
    total = np.bincount(labels, _own(labels, pred_probs), classes)
    return np.divide(total, count, out=np.full(classes, 2.0), where=count > 0).clip(2 * CLOSE)


def _joint(labels: np.ndarray, pred_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The confident joint, not calibrated, and what rows are confidently of another class than was given."""
    classes, others = pred_probs.shape[1], np.zeros(len(labels), bool)
    joint = np.zeros((classes, classes), np.int64)
    limits = (_thresholds(labels, pred_probs) - CLOSE).astype(pred_probs.dtype)
    for block in _blocks(pred_probs):
        confident = pred_probs[block] >= limits
        count = confident.sum(1)
        guess = np.where(count > 1, pred_probs[block].argmax(1), confident.argmax(1))
        kept = count > 0
        joint += np.bincount(labels[block][kept] * classes + guess[kept], minlength=classes**2).reshape(joint.shape)
        others[block] = kept & (guess != labels[block])
    np.fill_diagonal(joint, joint.diagonal().clip(1))
    return joint, others


def _calibrated(joint: np.ndarray, labels: np.ndarray) -> np.ndarray:
    scaled = _shares(joint, 1) * np.bincount(labels, minlength=len(joint))[:, None]
    return np.stack([_whole(row) for row in scaled])


def _whole(row: np.ndarray) -> np.ndarray:
    """The row in whole numbers of the same sum: those that rounding moved the most are moved back."""
    rounded = np.rint(row)
    missing = int(np.rint(row.sum()) - rounded.sum())
    order = np.argsort(row - rounded)[:: -1 if missing > 0 else 1]
    rounded[order[: abs(missing)]] += np.sign(missing)
    return rounded.astype(np.int64)


def _shares(counts: np.ndarray, axis: int) -> np.ndarray:
    total = counts.sum(axis, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def _issues(labels: np.ndarray, pred_probs: np.ndarray, filter_by: Filter) -> np.ndarray:
    joint, others = _joint(labels, pred_probs)
    agrees = np.empty(len(labels), bool)
    for block in _blocks(pred_probs):
        agrees[block] = _own(labels[block], pred_probs[block]) >= pred_probs[block].max(1) - CLOSE
    if filter_by == "predicted_neq_given":
        return ~agrees
    if filter_by == "confident_learning":
        return others & ~agrees
    if filter_by == "low_self_confidence" or filter_by == "low_normalized_margin":
        method: Score = "self_confidence" if filter_by == "low_self_confidence" else "normalized_margin"
        return _lowest(_scores(labels, pred_probs, method), int((others & ~agrees).sum()))
    return _pruned(labels, pred_probs, _calibrated(joint, labels), filter_by) & ~agrees


def _pruned(labels: np.ndarray, pred_probs: np.ndarray, joint: np.ndarray, filter_by: Filter) -> np.ndarray:
    found = np.zeros(len(labels), bool)
    order = np.argsort(labels, kind="stable")
    start = np.concatenate([[0], np.bincount(labels, minlength=len(joint)).cumsum()])
    for given, counts in enumerate(joint):
        rows = order[start[given] : start[given + 1]]
        if len(rows) < 2:
            continue
        probs = np.ascontiguousarray(pred_probs[rows].T)
        by_class, by_rate = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        if filter_by != "prune_by_noise_rate":
            by_class = _lowest(probs[given], len(rows) - max(counts[given], 1))
        if filter_by != "prune_by_class":
            # What the diagonal was raised by is taken from the others alike.
            raised = max(1 - counts[given], 0) / max(np.count_nonzero(counts) - 1, 1)
            for other in np.flatnonzero((counts - raised >= 1) & (np.arange(len(joint)) != given)):
                by_rate |= _lowest(probs[given] - probs[other], int(counts[other] - raised))
        either = filter_by == "both"
        found[rows] = by_class & by_rate if either else by_class | by_rate
    return found


def _lowest(scores: np.ndarray, count: int) -> np.ndarray:
    """Which are the `count` lowest."""
    found = np.zeros(len(scores), bool)
    if count > 0:
        found[np.argpartition(scores, count - 1)[:count] if count < len(scores) else slice(None)] = True
    return found


def _scores(labels: np.ndarray, pred_probs: np.ndarray, method: Score, limits: np.ndarray | None = None) -> np.ndarray:
    found = np.empty(len(labels), np.result_type(pred_probs, np.float32))
    for block in _blocks(pred_probs):
        given, probs = labels[block], pred_probs[block]
        if limits is not None:
            probs = probs - limits + limits.max()
            probs /= probs.sum(1, keepdims=True)
        own = _own(given, probs)
        if method == "normalized_margin":
            others = probs.copy()
            others[np.arange(len(given)), given] = -np.inf
            own = (1 + own - others.max(1)) / 2
        elif method == "confidence_weighted_entropy":
            logs = np.log(probs, out=np.zeros(probs.shape), where=probs > 0)
            q = -(probs * logs).sum(1) / np.log(probs.shape[1]) / own.clip(LEAST)
            own = np.log1p(q) / q.clip(LEAST)
        found[block] = own
    return found


def _one_of(name: str, value: str, allowed: object) -> None:
    if value not in get_args(allowed):
        raise ValueError(f"{name} = {value!r}: must be one of {', '.join(get_args(allowed))}")


def _check_shapes(labels: np.ndarray, pred_probs: np.ndarray, shape: tuple[int, ...]) -> None:
    if pred_probs.ndim != 2 or not pred_probs.size or labels.shape != shape:
        raise ValueError(f"labels {labels.shape} and pred_probs {pred_probs.shape}: of N rows and C classes each")
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"labels are {labels.dtype}: must be integers")
    for block in _blocks(pred_probs):
        low, high = pred_probs[block].min(), pred_probs[block].max()
        if not (low >= -CLOSE and high <= 1 + CLOSE):
            raise ValueError(f"pred_probs lie in {low}..{high}: must be probabilities in 0..1")


def _check(labels: np.ndarray, pred_probs: np.ndarray) -> None:
    _check_shapes(labels, pred_probs, pred_probs.shape[:1])
    classes = pred_probs.shape[1]
    if classes < 2:
        raise ValueError("pred_probs are of one class: two or more are needed")
    if not 0 <= labels.min() <= labels.max() < classes:
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}: allowed 0..{classes - 1}, leave out others")
    for block in _blocks(pred_probs):
        total = pred_probs[block].sum(1)
        worst = int(np.abs(total - 1).argmax())
        if abs(total[worst] - 1) > SUM:
            raise ValueError(f"pred_probs of row {block.start + worst} sum to {total[worst]:.4g}: must sum to 1")


def _check_multilabel(labels: np.ndarray, pred_probs: np.ndarray) -> None:
    _check_shapes(labels, pred_probs, pred_probs.shape)
    if not -1 <= labels.min() <= labels.max() <= 1:
        raise ValueError(f"labels lie in {labels.min()}..{labels.max()}: allowed 1, 0, and -1 where it is not known")
