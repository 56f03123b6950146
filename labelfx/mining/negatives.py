"""Which of the retrieved candidates become a query's hard negatives.

Scores are similarities, the larger the more similar, of any float dtype; they are computed on in float32, or in float64
if they are float64. A candidate of score -inf, as `top_k` returns it for want of another, is never chosen.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative, PositiveInt, Probability
from labelfx.mining.search import top_k
from labelfx.objectives.contrastive import at_least_float32


def simans_log_weights(positive_score, negative_scores, *, a: NonNegative, b: float):
    """Log weights of negatives that are about as similar as the positive (SimANS, Zhou et al. 2022, EMNLP).

    -a (s_neg - s_pos - b)^2, to which the paper's sampling probability is proportional after exp; not normalised, which
    `sample` does not need and whose exp may underflow. The authors' code defaults to a = 0.5 and b = 0, and has + b.

    Args:
      positive_score: [...], of each query's positive.
      negative_scores: [..., N], of its candidates.
      a: concentration; 0 is uniform.
      b: how much more similar than the positive the likeliest negative is.

    Returns:
      [..., N], at most 0; -inf where the score is.
    """
    positive, negatives = at_least_float32(positive_score), at_least_float32(negative_scores)
    log_weights = -a * (negatives - positive[..., None] - b) ** 2
    return jnp.where(negatives == -jnp.inf, -jnp.inf, log_weights)


def margin_pos(positive_score, negative_scores, *, margin: NonNegative):
    """Keeps negatives that score below the positive by more than a margin (TopK-MarginPos of NV-Retriever, Moreira et
    al. 2024), whose `hardest` are the negatives; those above are likely false.

    Args:
      positive_score: [...], of each query's positive.
      negative_scores: [..., N], of its candidates.
      margin: of scores.

    Returns:
      bool [..., N], s_neg < s_pos - margin.
    """
    positive, negatives = at_least_float32(positive_score), at_least_float32(negative_scores)
    return negatives < positive[..., None] - margin


def perc_pos(positive_score, negative_scores, *, percentage: Probability):
    """Keeps negatives that score below a share of the positive (TopK-PercPos of NV-Retriever, Moreira et al. 2024),
    whose `hardest` are the negatives; those above are likely false. The paper's share is 0.95.

    It is meant for positives that score above 0; of one below, the share is the higher threshold.

    Args:
      positive_score: [...], of each query's positive.
      negative_scores: [..., N], of its candidates.
      percentage: of the positive's score, as a number up to 1.

    Returns:
      bool [..., N], s_neg < percentage s_pos.
    """
    positive, negatives = at_least_float32(positive_score), at_least_float32(negative_scores)
    return negatives < percentage * positive[..., None]


def runner_up(candidates: PositiveInt, rows: PositiveInt, *, first: Probability, last: Probability):
    """Keeps the candidates from one percentile of the whole index to another (ConFit v2's runner-up mining, Yu et al.
    2025, Findings of ACL), from which negatives are drawn: better-ranked ones are likely false. There, 0.03 to 0.04.

    Args:
      candidates: N, how many there are, sorted, the best first, with the positives among them: these take a rank too.
      rows: of the index.
      first, last: from which to which share of the rows, of which floor(share x rows) is the rank.

    Returns:
      bool [1, N], the same for every query; what is a positive is still to be taken out.

    Raises:
      ValueError: the candidates do not reach to `last`, or there is no rank between the two.
    """
    begin, end = int(first * rows), int(last * rows)
    if begin >= end:
        raise ValueError(f"runner_up: no rank of {rows} rows lies from {first} to {last} of them")
    if candidates < end:
        raise ValueError(f"runner_up: {last} of {rows} rows needs {end} candidates, not {candidates}")
    rank = jnp.arange(candidates)[None]
    return (rank >= begin) & (rank < end)


def cluster_negatives(embeddings, centroids):
    """Hard and false negatives by clusters of the embeddings (ClusterNS, Deng et al. 2023, Findings of ACL, section 3).

    A hard negative is the centroid that is second in cosine similarity; a false one, a row of the same cluster. The
    paper keeps those in a band of similarity below the positive, which is a matter of the loss.

    Args:
      embeddings: float [B, D].
      centroids: float [C, D], C >= 2.

    Returns:
      hard: int32 [B], of the centroids.
      false: bool [B, B], not of a row with itself.

    Raises:
      ValueError: as of `top_k`, or fewer than two centroids.
    """
    if len(centroids) < 2:
        raise ValueError(f"cluster_negatives needs at least 2 centroids, not {len(centroids)}")
    _, nearest = top_k(embeddings, centroids, 2, similarity="cosine")
    cluster, hard = nearest.T
    return hard, (cluster[:, None] == cluster[None]) & ~jnp.eye(len(cluster), dtype=bool)


def hardest(scores, count: PositiveInt):
    """The candidates of the greatest score or log weight, equal ones by position, the lower one first.

    Args:
      scores: [..., N]; -inf for those that must not be chosen, such as those that a rule does not keep.
      count: at most N.

    Returns:
      int32 [..., count], positions among the N, the best first; -1 where none is left.
    """
    values, positions = jax.lax.top_k(scores, count)
    return jnp.where(values == -jnp.inf, -1, positions)


def sample(rng, log_weights, count: PositiveInt):
    """Draws candidates without replacement, each time with probability proportional to the weights of those left.

    By the Gumbel top-k trick (Kool et al. 2019, ICML, section 2.3): the `hardest` of log weight + Gumbel noise. SimANS'
    own code draws with replacement until it has enough different ones, which comes to the same.

    Args:
      rng: a key.
      log_weights: [..., N], not necessarily normalised; -inf is never drawn.
      count: at most N.

    Returns:
      int32 [..., count], positions among the N, in the order in which they are drawn; -1 where none is left.
    """
    log_weights = at_least_float32(log_weights)
    # Noise would be lost beside a weight of -1e9: the largest becomes 0.
    largest = jnp.max(log_weights, axis=-1, keepdims=True)
    log_weights = log_weights - jnp.where(largest == -jnp.inf, 0, largest)
    return hardest(log_weights + jax.random.gumbel(rng, log_weights.shape, log_weights.dtype), count)
