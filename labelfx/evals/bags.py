"""Which bags of rows are positive."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import scipy.stats

from labelfx.objectives.supervision import Pool, bag_logits


def bag_auc(
    test_logits: np.ndarray, test_bag: np.ndarray, test_bag_target: np.ndarray, *, pool: Pool
) -> dict[str, Any]:
    """Area under the ROC curve of bags by their pooled logits (`objectives.supervision.pooled`), and their accuracy.

    Args:
      test_logits: float [Q, C], of rows.
      test_bag: int32 [Q], -1 for none.
      test_bag_target: float [Q, C], the same in all rows of a bag; NaN is unknown.
      pool: the one that the head was trained with.

    Returns:
      auc (a mean over classes that some bags hold and others do not, of two the second alone; None without any),
      accuracy (of known entries; a logit above 0 is a bag that holds the class), positive_share (its floor is this or 1
      less this), split, n (bags).

    Raises:
      ValueError: no row is in a bag of which something is known.
    """
    _, first, slot = np.unique(test_bag, return_index=True, return_inverse=True)
    rows = map(jnp.asarray, (test_logits, slot.astype(np.int32), test_bag >= 0))
    scores = np.asarray(bag_logits(*rows, pool=pool))[: len(first)]
    target = test_bag_target[first][:, -scores.shape[1] :]
    known = (test_bag[first] >= 0)[:, None] & ~np.isnan(target)
    if not known.any():
        raise ValueError("test_bag: no row is in a bag with a known test_bag_target")
    columns = [(scores[own, c], target[own, c] > 0.5) for c, own in enumerate(known.T)]
    areas = [_area(score, positive) for score, positive in columns if positive.any() and not positive.all()]
    return {
        "auc": float(np.mean(areas)) if areas else None,
        "accuracy": float(np.mean((scores > 0)[known] == (target > 0.5)[known])),
        "positive_share": float(np.mean(target[known] > 0.5)),
        "split": "test",
        "n": int(np.count_nonzero(known.any(axis=1))),
    }


def _area(scores, positive):
    """The share of pairs of a positive and a negative that are in order, and half of those that tie."""
    count = np.count_nonzero(positive)
    ranks = scipy.stats.rankdata(scores)[positive].sum()
    return (ranks - count * (count + 1) / 2) / (count * (len(scores) - count))
