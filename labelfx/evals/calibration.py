"""Whether a network is as sure as it is right, and whether it is surer where it is right."""

from typing import Any

import numpy as np
import scipy.special

from labelfx.config.annotations import PositiveInt


def calibration(test_logits: np.ndarray, test_labels: np.ndarray, *, bins: PositiveInt) -> dict[str, Any]:
    """Calibration errors, proper scores and selective risk of the method's head.

    Rows whose label is unknown, -1, are left out. Where rows have several labels each known entry is a decision of its
    own, positive where its sigmoid is above 0.5, and its confidence that of the decision.

    Args:
      test_logits: float [Q, C].
      test_labels: int32 [Q], or int8 [Q, C]: 1, 0, or -1 for unknown.
      bins: of confidence; the field's is 15.

    Returns:
      ece (expected calibration error: the mean of |accuracy - confidence| over bins of equal width, by their number of
      rows; Guo et al. 2017, ICML), mce (its greatest), adaptive_ece (bins of equally many rows, in the order of
      confidence; Nixon et al. 2019), classwise_ece (the mean over classes of the ece of each class's probability; Kull
      et al. 2019, NeurIPS), brier (squared distance to the one-hot label, and for several labels to the label), nll (in
      nats), aurc (area under the risk-coverage curve: the mean over n of the error among the n most confident; Geifman
      et al. 2019, ICLR) and e_aurc (what it has above the least for as many errors), overconfidence (mean confidence -
      accuracy), split, n (decisions).

    Raises:
      ValueError: no label is known.
    """
    logits = test_logits.astype(np.float64)
    known = test_labels >= 0
    if not known.any():
        raise ValueError("test_labels has no known label")
    if test_labels.ndim == 2:
        probs, truth = scipy.special.expit(logits), test_labels > 0
        confidence, right = np.maximum(probs, 1 - probs)[known], ((probs > 0.5) == truth)[known]
        brier = np.mean((probs - truth)[known] ** 2)
        nll = np.mean((np.logaddexp(0, logits) - truth * logits)[known])
        by_class = [(probs[rows, c], truth[rows, c]) for c, rows in enumerate(known.T) if rows.any()]
    else:
        log_probs, labels = scipy.special.log_softmax(logits[known], axis=1), test_labels[known]
        probs, truth = np.exp(log_probs), labels[:, None] == np.arange(logits.shape[1])
        confidence, right = probs.max(axis=1), probs.argmax(axis=1) == labels
        brier = np.mean(np.sum((probs - truth) ** 2, axis=1))
        nll = -np.mean(log_probs[truth])
        by_class = list(zip(probs.T, truth.T, strict=True))
    mean, hits, n = reliability(confidence, right, bins)
    order = np.argsort(-confidence, kind="stable")
    equal = [part for part in np.array_split(order, bins) if len(part)]
    return {
        "ece": _error(mean, hits, n),
        "mce": float(np.max(np.abs(mean - hits))),
        "adaptive_ece": _error(
            *np.array([(confidence[part].mean(), right[part].mean(), len(part)) for part in equal]).T
        ),
        "classwise_ece": float(np.mean([_error(*reliability(p, true, bins)) for p, true in by_class])),
        "brier": float(brier),
        "nll": float(nll),
        "aurc": _risk(~right[order]),
        "e_aurc": _risk(~right[order]) - _risk(np.sort(~right)),
        "overconfidence": float(confidence.mean() - right.mean()),
        "split": "test",
        "n": len(right),
    }


def soft_labels(test_logits: np.ndarray, test_target: np.ndarray) -> dict[str, Any]:
    """How near the method's head is to distributions over classes, such as the shares of people who named them
    (Peterson et al. 2019, ICCV, section 4).

    Args:
      test_logits: float [Q, C].
      test_target: float [Q, C], of sum 1; rows with a NaN say nothing, and are left out.

    Returns:
      cross_entropy (in nats, the mean over rows of -sum_c target_c log p_c), kl (what it has above `entropy`, the mean
      entropy of the targets), entropy, accuracy (of the target's most probable class, the first of equal ones), split,
      n.

    Raises:
      ValueError: no row has a target.
    """
    said = ~np.isnan(test_target).any(1)
    if not said.any():
        raise ValueError("test_target says nothing of any row")
    target = test_target[said].astype(np.float64)
    log_probs = scipy.special.log_softmax(test_logits[said].astype(np.float64), axis=1)
    cross_entropy, entropy = -np.sum(target * log_probs, 1).mean(), scipy.special.entr(target).sum(1).mean()
    return {
        "cross_entropy": float(cross_entropy),
        "kl": float(cross_entropy - entropy),
        "entropy": float(entropy),
        "accuracy": float(np.mean(log_probs.argmax(1) == target.argmax(1))),
        "split": "test",
        "n": int(said.sum()),
    }


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share of right rows and number of rows of each of the bins of equal width that holds any.

    Args:
      confidence: float [N], in [0, 1]; a bin holds its lower end, the last one both.
      right: bool [N].
    """
    _, own, n = np.unique(
        np.minimum((confidence * bins).astype(int), bins - 1), return_inverse=True, return_counts=True
    )
    return np.bincount(own, confidence) / n, np.bincount(own, right) / n, n


def _error(mean, hits, n):
    return float(np.sum(n * np.abs(mean - hits)) / np.sum(n))


def _risk(wrong):
    return float(np.mean(np.cumsum(wrong) / np.arange(1, len(wrong) + 1)))
