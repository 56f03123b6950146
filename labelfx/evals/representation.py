"""Scores of a representation by itself: RankMe, alignment and uniformity, without labels, and retrieval."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Positive, PositiveInt


def rankme(features: jax.Array) -> jax.Array:
    """Effective rank: exp of the entropy of the singular values (RankMe of Garrido et al. 2023).

    p = s / sum(s) + 1e-7, not centred; from 1, collapse, to min(N, F). One SVD: O(N F^2) time, O(N F) memory.

    Args:
      features: float [N, F]; all zeros give 1 as well.

    Returns:
      A scalar of the same dtype.
    """
    s = jnp.linalg.svd(features, compute_uv=False)
    p = s / jnp.maximum(jnp.sum(s), jnp.finfo(s.dtype).tiny) + 1e-7
    return jnp.exp(-jnp.sum(p * jnp.log(p)))


def alignment(view_a: jax.Array, view_b: jax.Array, *, alpha: Positive) -> jax.Array:
    """Mean of |a - b|^alpha over positive pairs of unit vectors (Wang & Isola 2020, section 4.1; they use alpha = 2).

    Args:
      view_a, view_b: float [N, F], row i of both from the same image; L2-normalised here.

    Returns:
      A scalar, from 0, perfect, to 2^alpha.
    """
    return jnp.mean(jnp.linalg.norm(_normalise(view_a) - _normalise(view_b), axis=-1) ** alpha)


def uniformity(features: jax.Array, *, t: Positive) -> jax.Array:
    """Log of the mean of e^(-t |x - y|^2) over pairs of distinct rows (Wang & Isola 2020, section 4.1; they use t = 2).

    O(N^2 F) time; rows are taken 1,024 at a time, so memory is 1,024 x N.

    Args:
      features: float [N, F], N >= 2; L2-normalised here.

    Returns:
      A scalar, from -4t, two opposite points, to 0, collapse.

    Raises:
      ValueError: fewer than two rows.
    """
    num_rows = len(features)
    if num_rows < 2:
        raise ValueError(f"uniformity needs at least 2 rows of features, not {num_rows}")
    x = _normalise(features)

    def log_sum(row):
        index, anchor = row
        # |x - y|^2 = 2 - 2 cos; at default precision an accelerator would round the cosine to fewer bits.
        distance = 2 - 2 * jnp.matmul(x, anchor, precision=jax.lax.Precision.HIGHEST)
        return jax.nn.logsumexp(-t * distance, where=jnp.arange(num_rows) != index)

    each = jax.lax.map(log_sum, (jnp.arange(num_rows), x), batch_size=1024)
    return jax.nn.logsumexp(each) - jnp.log(num_rows) - jnp.log(num_rows - 1)


def recall_at_k(test_features: np.ndarray, test_labels: np.ndarray, *, k: tuple[PositiveInt, ...]) -> dict[str, Any]:
    """Share of test images with one of their class among the k nearest others (Oh Song et al. 2016).

    Metric learning's standard number; nearest is by cosine, an image never finds itself, and one that is alone in its
    class finds nothing. At equal cosines the earlier image is nearer. O(Q^2 F) time; queries are taken 1,024 at a time.

    Args:
      test_features: float [Q, F]; normalised here.
      test_labels: int32 [Q].
      k: the field's usual values are 1, 2, 4 and 8.

    Returns:
      recall_at_1 and so on for each k, split, n (= Q).

    Raises:
      ValueError: no k, or one that is not less than Q.
    """
    if not k or max(k) >= len(test_features):
        raise ValueError(f"k = {k}: must be numbers less than the {len(test_features)} test images")
    x, labels, rows = _normalise(test_features), jnp.asarray(test_labels), jnp.arange(len(test_features))

    def found(query):
        features, label, row = query
        cosine = jnp.matmul(x, features, precision=jax.lax.Precision.HIGHEST)
        _, nearest = jax.lax.top_k(jnp.where(rows == row, -jnp.inf, cosine), max(k))
        return labels[nearest] == label

    hits = np.asarray(jax.lax.map(found, (x, labels, rows), batch_size=1024))
    recall = {f"recall_at_{each}": float(np.mean(hits[:, :each].any(axis=1))) for each in k}
    return {**recall, "split": "test", "n": len(test_labels)}


def _normalise(x):
    x = jnp.asarray(x)
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
