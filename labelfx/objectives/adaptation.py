"""Test-time adaptation: pseudo-labels by a vote of neighbours, contrast between them, predictions of every class.

Computed on in float32, or in float64 if the arrays are float64. Queues may have empty rows.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Positive, PositiveInt
from labelfx.objectives.contrastive import (
    at_least_float32,
    check_views,
    cosine,
    map_rows,
    normalise,
    positive_cross_entropy,
)

__all__ = ["class_aware_info_nce", "diversity", "neighbour_vote"]  # what a config may name


def neighbour_vote(query, features, probs, *, neighbours: PositiveInt):
    """Soft voting among nearest neighbours (AdaContrast, Chen et al. 2022, CVPR). No gradient flows through it.

    Args:
        query: [B, F] features, not normalised.
        features: [K, F] features of other images, or earlier ones of these, not normalised.
        probs: [K, C] their class probabilities; a row of zeros is empty.
        neighbours: how many rows of `features` vote, those of largest cosine; all filled rows where there are fewer.

    Returns:
        [B, C], the mean of the neighbours' probabilities; zeros where all rows are empty.
    """
    query, features, probs = jax.lax.stop_gradient((normalise(query), normalise(features), at_least_float32(probs)))
    is_empty = jnp.sum(probs, axis=-1) == 0

    def vote_of(row):
        scores = jnp.where(is_empty, -jnp.inf, cosine(row, features))
        _, nearest = jax.lax.top_k(scores, min(neighbours, len(features)))
        votes = jnp.sum(probs[nearest], axis=0)
        total = jnp.sum(votes)
        return votes / jnp.where(total > 0, total, 1)

    return map_rows(vote_of, query, len(features), None)


def class_aware_info_nce(query, key, queue, labels, queue_labels, *, temperature: Positive):
    """`info_nce_queue` without the negatives of the query's own pseudo-label (AdaContrast, Chen et al. 2022, CVPR).

    The authors' code enqueues the labels of the new keys before it masks the old ones; here a key has its own label.

    Args:
        query, key: [B, F] of the two views, not normalised; no gradient reaches key or queue.
        queue: [K, F] earlier keys, not normalised.
        labels: int [B], of the queries.
        queue_labels: int [K], -1 where a row of the queue is empty.
        temperature: divides the cosine similarities; the authors' is 0.07.

    Returns:
        A scalar, the mean over the B queries; 0 for those without a negative.

    Raises:
        ValueError: if query and key are not of one shape [B, F].
    """
    check_views("query", query, "key", key)
    query = normalise(query)
    key, queue = jax.lax.stop_gradient((normalise(key), normalise(queue)))

    def log_sum_of(anchor):
        row, label = anchor
        is_negative = (queue_labels != label) & (queue_labels >= 0)
        return jax.nn.logsumexp(cosine(row, queue) / temperature, where=is_negative)

    positive = jnp.sum(query * key, axis=-1) / temperature
    return positive_cross_entropy(positive, map_rows(log_sum_of, (query, labels), len(queue), None))


def diversity(logits):
    """Entropy of the batch's mean prediction, in nats (Liang et al. 2020, ICML; AdaContrast maximises it).

    Args:
        logits: [B, C].

    Returns:
        A scalar from 0, where every row is given one class, to log C.
    """
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(at_least_float32(logits)), axis=0) - jnp.log(len(logits))
    return -jnp.sum(jnp.exp(log_mean) * log_mean)
