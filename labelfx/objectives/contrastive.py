"""Contrastive objectives: NT-Xent, debiased, hard negatives, InfoNCE against a queue or the other view, supervised.

Everything after the cosine similarities stays in log space, so exp(1 / temperature) never has to fit the dtype. In the
two-view objectives the anchors are the 2B rows of [z_a; z_b]: the positive of a row is the other view of its image, its
negatives the N = 2B - 2 rows of other images. Embeddings of any float dtype are computed on, and the results returned,
in float32, or in float64 if they are float64. A row of zeros has cosine 0 with everything and gets a zero gradient.

An anchor's loss needs its own row of similarities only, so anchors are taken `block_size` at a time, and the backward
pass computes each block's similarities again instead of keeping them: memory is linear in the batch, at about one and a
third times the arithmetic. None takes as many anchors as have `MOST_SIMILARITIES`: all of them, with nothing computed
twice, up to B = 8192. The result does not depend on it but for rounding.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction, NonNegative, Positive, PositiveInt

__all__ = [  # what a config may name
    "byol",
    "debiased",
    "debiased_negative_mean",
    "hard_negative",
    "info_nce_queue",
    "moco_v3",
    "nt_xent",
    "sup_con",
    "sup_con_mask",
]

MOST_SIMILARITIES = 2**28  # 1 GB of float32 over all devices: those of B = 8192 images in two views


def nt_xent(z_a, z_b, *, temperature: Positive, block_size: PositiveInt | None = None):
    """NT-Xent (Chen et al. 2020, ICML, eq. 1): cross-entropy of the positive against the other 2B - 1 rows.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised.
        temperature: divides the cosine similarities.
        block_size: anchors whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the mean over the 2B anchors (the authors' code adds the two directions: twice this); 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    positive, log_sum = _scores(jax.nn.logsumexp, z_a, z_b, temperature, block_size)
    return positive_cross_entropy(positive, log_sum)


def debiased(z_a, z_b, *, temperature: Positive, tau_plus: Fraction, block_size: PositiveInt | None = None):
    """Debiased contrastive loss (Chuang et al. 2020, NeurIPS, eq. 7 and 8 with M = 1 positive).

    Subtracts from the negatives the share that belongs to the anchor's own class. An anchor whose estimate falls to
    the floor N e^{-1 / temperature} sends no gradient to its negatives: watch `clamped` of `diagnostics`.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised.
        temperature: divides the cosine similarities.
        tau_plus: the probability that a negative shares the anchor's class; 0 gives `nt_xent`.
        block_size: anchors whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the mean over the 2B anchors; 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    positive, log_sum = _scores(jax.nn.logsumexp, z_a, z_b, temperature, block_size)
    log_debiased_sum, _ = debiased_log_sum(
        positive, log_sum, len(positive) - 2, temperature=temperature, tau_plus=tau_plus
    )
    return positive_cross_entropy(positive, log_debiased_sum)


def hard_negative(
    z_a, z_b, *, temperature: Positive, tau_plus: Fraction, beta: NonNegative, block_size: PositiveInt | None = None
):
    """Contrastive loss with hard negatives (Robinson et al. 2021, ICLR, eq. 4 and 5 with one positive).

    The debiased loss with negative j weighted by w_j / mean(w), w_j = exp(beta s_j / temperature). As in the authors'
    code, gradients flow through the weights and their mean, so that negatives easier than the weighted mean may be
    pulled towards the anchor: watch `negative_weight` of `diagnostics`.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised.
        temperature: divides the cosine similarities.
        tau_plus: the probability that a negative shares the anchor's class.
        beta: concentration on the hardest negatives; 0 gives `debiased`.
        block_size: anchors whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the mean over the 2B anchors; 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """

    def log_mean_of(negatives):
        return log_weighted_mean(negatives, beta * negatives)

    positive, log_mean = _scores(log_mean_of, z_a, z_b, temperature, block_size)
    count = len(positive) - 2
    log_debiased_sum, _ = debiased_log_sum(
        positive, jnp.log(count) + log_mean, count, temperature=temperature, tau_plus=tau_plus
    )
    return positive_cross_entropy(positive, log_debiased_sum)


def info_nce_queue(query, key, queue, *, temperature: Positive, block_size: PositiveInt | None = None):
    """InfoNCE against a queue of earlier keys (He et al. 2020, CVPR, eq. 1). No gradient reaches key or queue.

    Against a queue of random vectors the task is easy: the loss rises while the queue fills with real keys.

    Args:
        query, key: [N, D] embeddings of the two views, not normalised; key[i] is the positive of query[i].
        queue: [K, D] negatives, shared by all queries, not necessarily normalised.
        temperature: divides the cosine similarities.
        block_size: queries whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the mean over the N queries.

    Raises:
        ValueError: if query and key are not of one shape [N, D].
    """
    check_views("query", query, "key", key)
    key, queue = jax.lax.stop_gradient((normalise(key), normalise(queue)))
    return queue_cross_entropy(normalise(query), key, queue, temperature=temperature, block_size=block_size)


def queue_cross_entropy(query, key, queue, *, temperature: Positive, block_size: PositiveInt | None = None):
    """`info_nce_queue` of rows that are taken as they are, with a gradient for each: scores are their products.

    Args:
        query, key: [N, D], of one floating dtype of at least 32 bits; key[i] is the positive of query[i].
        queue: [K, D] negatives, likewise.
        temperature, block_size: as for `info_nce_queue`.

    Returns:
        A scalar, the mean over the N queries.
    """
    positive = jnp.sum(query * key, axis=-1) / temperature

    def log_sum_of(query):
        return jax.nn.logsumexp(cosine(query, queue) / temperature)

    return positive_cross_entropy(positive, map_rows(log_sum_of, query, len(queue), block_size))


def feature_transform(query, key, queue, *, positive_lambda, negative_lambda, permutation):
    """Harder positives, more diverse negatives, for a queue (Zhu et al. 2021, ICCV, section 4).

    Extrapolates the positive pair, q' = l q + (1 - l) k and k' = l k + (1 - l) q, which lowers its score s by
    2 l (l - 1) (1 - s), and interpolates the queue. No gradient reaches key or queue; k' carries one to the query, as
    in the authors' code. Paper and code mix L2-normalised embeddings and leave the result as it is, which is what
    `queue_cross_entropy` takes; `info_nce_queue` would normalise it and send no gradient through k'.

    Args:
        query, key: [N, D] embeddings of the two views, L2-normalised; key[i] is the positive of query[i].
        queue: [K, D] negatives, L2-normalised; the untransformed keys are what to enqueue.
        positive_lambda: l >= 1, the paper's is 1 + Beta(2, 2); a scalar, or [N, D] for the paper's mix by dimension.
        negative_lambda: m in [0, 1], the paper's is Beta(1.6, 1.6); a scalar or [K, D].
        permutation: int [K], of the queue's rows.

    Returns:
        q' [N, D], k' [N, D] and m queue + (1 - m) queue[permutation] [K, D], not normalised.

    Raises:
        ValueError: if query and key are not of one shape [N, D].
    """
    check_views("query", query, "key", key)
    query = at_least_float32(query)
    key, queue = jax.lax.stop_gradient((at_least_float32(key), at_least_float32(queue)))
    return (
        positive_lambda * query + (1 - positive_lambda) * key,
        positive_lambda * key + (1 - positive_lambda) * query,
        negative_lambda * queue + (1 - negative_lambda) * queue[permutation],
    )


def moco_v3(query_a, query_b, key_a, key_b, *, temperature: Positive, block_size: PositiveInt | None = None):
    """InfoNCE against the other view's keys, both ways (MoCo v3, Chen, Xie & He 2021, ICCV, Algorithm 1).

    The negatives of a query are the keys of the other images in the other view only. No gradient reaches the keys.

    Args:
        query_a, query_b: [B, D] predictions of the two views, not normalised.
        key_a, key_b: [B, D] embeddings of the two views by the momentum encoder, not normalised.
        temperature: divides the cosine similarities.
        block_size: queries whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the cross-entropy of query_a against key_b plus that of query_b against key_a, each a mean over B
        queries times 2 temperature; 0 for B = 1.

    Raises:
        ValueError: if query_a and key_b, or query_b and key_a, are not of one shape [B, D].
    """
    check_views("query_a", query_a, "key_b", key_b)
    check_views("query_b", query_b, "key_a", key_a)
    pairs = (query_a, key_b), (query_b, key_a)
    return 2 * temperature * sum(_info_nce(*pair, temperature, block_size) for pair in pairs)


def byol(query_a, query_b, key_a, key_b):
    """Distance of normalised predictions to the other view's keys, 2 - 2 cos (BYOL, Grill et al. 2020, NeurIPS).

    No gradient reaches the keys. SimSiam's loss (Chen & He 2021, CVPR) is a quarter of this less 1.

    Args:
        query_a, query_b: [B, D] predictions of the two views, not normalised.
        key_a, key_b: [B, D] embeddings of the two views by the target network, not normalised.

    Returns:
        A scalar from 0 to 8, the distance of query_a to key_b plus that of query_b to key_a, each a mean over B.

    Raises:
        ValueError: if query_a and key_b, or query_b and key_a, are not of one shape [B, D].
    """
    check_views("query_a", query_a, "key_b", key_b)
    check_views("query_b", query_b, "key_a", key_a)
    query = normalise(jnp.concatenate([query_a, query_b]))
    key = jax.lax.stop_gradient(normalise(jnp.concatenate([key_b, key_a])))
    return 4 - 4 * jnp.mean(jnp.sum(query * key, axis=-1))


def sup_con(z, labels, *, temperature: Positive, base_temperature: Positive, block_size: PositiveInt | None = None):
    """Supervised contrastive loss, L_out (Khosla et al. 2020, NeurIPS, eq. 2).

    Args:
        z: [B, V, D] embeddings of V views of each image, not normalised.
        labels: int [B].
        temperature: divides the cosine similarities.
        base_temperature: scales the loss by temperature / base_temperature; the authors' code has 0.07.
        block_size: anchors whose similarities are in memory at once; None: see the module.

    Returns:
        A scalar, the mean over the B V anchors; those without a positive contribute 0.

    Raises:
        ValueError: if z is not [B, V, D] or labels not [B].
    """
    if labels.shape != z.shape[:1]:
        raise ValueError(f"labels must have shape [B] for z of [B, V, D], got {labels.shape} and {z.shape}")
    return _sup_con(z, labels, lambda label: labels == label, temperature, base_temperature, block_size)


def sup_con_mask(z, mask, *, temperature: Positive, base_temperature: Positive, block_size: PositiveInt | None = None):
    """The loss of `sup_con` for positives given by a mask (the authors' SupConLoss, Khosla et al. 2020, NeurIPS).

    Args:
        z, temperature, base_temperature, block_size: as for `sup_con`.
        mask: [B, B], bool or non-negative weights; mask[i, j] says whether the views of image j are positives of those
            of image i. It may be asymmetric. An anchor never meets itself, whatever the diagonal says.

    Returns:
        A scalar, the mean over the B V anchors; those without a positive contribute 0.

    Raises:
        ValueError: if z is not [B, V, D] or mask not [B, B].
    """
    if mask.shape != (len(z), len(z)):
        raise ValueError(f"z and mask must have shapes [B, V, D] and [B, B], got {z.shape} and {mask.shape}")
    return _sup_con(z, mask, lambda positive: positive, temperature, base_temperature, block_size)


def debiased_negative_mean(positive, negative, *, tau_plus: Fraction, floor: NonNegative):
    """Estimates the mean score of true negatives from unlabelled ones (Chuang et al. 2020, NeurIPS, eq. 7).

    Args:
        positive: [M] exponentiated similarities to samples of the anchor's class.
        negative: [N] exponentiated similarities to samples of any class.
        tau_plus: the share of `negative` that belongs to the anchor's class.
        floor: the least possible value, e^{-1 / temperature} for cosine similarities.

    Returns:
        A scalar, max((mean(negative) - tau_plus mean(positive)) / (1 - tau_plus), floor).
    """
    positive, negative = at_least_float32(positive), at_least_float32(negative)
    return jnp.maximum((jnp.mean(negative) - tau_plus * jnp.mean(positive)) / (1 - tau_plus), floor)


def diagnostics(
    z_a,
    z_b,
    *,
    temperature: Positive = 1.0,
    tau_plus: Fraction = 0.0,
    beta: NonNegative = 0.0,
    block_size: PositiveInt | None = None,
):
    """What tells that a two-view contrastive run has gone wrong. No gradient flows through it.

    Args:
        z_a, z_b, temperature, tau_plus, beta, block_size: as given to the objective; the defaults suit one without
            such a setting.

    Returns:
        A dict of scalars:
            positive_score, negative_score: mean cosine similarity of the positive and of the negative pairs.
            embedding_std: standard deviation of a normalised embedding's entries over the 2B rows, averaged over D:
                1 / sqrt(D) when spread evenly, 0 when collapsed (Chen & He 2021, CVPR, section 4.1).
            clamped: share of anchors on the floor of the debiased estimate.
            negative_weight: share of (anchor, negative) pairs in which the loss falls as the negative's score rises.
        Those about negatives are 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    z_a, z_b = jax.lax.stop_gradient((z_a, z_b))

    def of_anchor(negatives):
        log_mean = log_weighted_mean(negatives, beta * negatives)
        is_negative = negatives != -jnp.inf
        falls = (jnp.log1p(beta) + negatives < jnp.log(beta) + log_mean) & is_negative
        return log_mean, jnp.sum(negatives, where=is_negative), jnp.sum(falls, dtype=negatives.dtype)

    positive, (log_mean, negative_sum, falls) = _scores(of_anchor, z_a, z_b, temperature, block_size)
    count = len(positive) - 2
    _, above_floor = debiased_log_sum(
        positive, jnp.log(count) + log_mean, count, temperature=temperature, tau_plus=tau_plus
    )
    return {
        "positive_score": jnp.mean(positive) * temperature,
        "negative_score": jnp.mean(negative_sum) * temperature / max(1, count),
        "embedding_std": jnp.mean(jnp.std(normalise(jnp.concatenate([z_a, z_b])), axis=0)),
        "clamped": jnp.mean(~above_floor & (count > 0), dtype=positive.dtype),
        "negative_weight": jnp.mean(jnp.where(above_floor, falls, 0)) / max(1, count),
    }


def _info_nce(query, key, temperature, block_size):
    query, key = normalise(query), jax.lax.stop_gradient(normalise(key))
    row = jnp.arange(len(key))

    def log_sum_of(anchor):
        query_i, row_i = anchor
        return jax.nn.logsumexp(cosine(query_i, key) / temperature, where=row != row_i)

    positive = jnp.sum(query * key, axis=-1) / temperature
    return positive_cross_entropy(positive, map_rows(log_sum_of, (query, row), len(key), block_size))


def _sup_con(z, of_image, positives_of, temperature, base_temperature, block_size):
    """`positives_of` makes of an image's entry of `of_image` the weights [B] of the images as its positives."""
    if z.ndim != 3:
        raise ValueError(f"z must have shape [B, V, D], got {z.shape}")
    views = z.shape[1]
    z = normalise(z.reshape(-1, z.shape[-1]))
    row = jnp.arange(len(z))

    def of_anchor(anchor):
        z_i, row_i, of_image_i = anchor
        scores = cosine(z_i, z) / temperature
        is_other = row != row_i
        weights = jnp.where(is_other, jnp.repeat(positives_of(of_image_i), views).astype(z.dtype), 0)
        total = jnp.sum(weights)
        log_prob = scores - jax.nn.logsumexp(scores, where=is_other)
        return jnp.sum(weights * log_prob, where=weights > 0) / jnp.where(total > 0, total, 1)

    anchors = z, row, jnp.repeat(of_image, views, axis=0)
    return -temperature / base_temperature * jnp.mean(map_rows(of_anchor, anchors, len(z), block_size))


def _scores(function, z_a, z_b, temperature, block_size):
    """Of the 2B anchors cosine / temperature with the positive, and what `function` makes of that with the negatives.

    Its argument is that of one anchor, [2B] with -inf where it meets its own image.
    """
    check_views("z_a", z_a, "z_b", z_b)
    z = normalise(jnp.concatenate([z_a, z_b]))
    image = jnp.arange(len(z)) % len(z_a)

    def of_anchor(anchor):
        z_i, image_i = anchor
        return function(jnp.where(image == image_i, -jnp.inf, cosine(z_i, z) / temperature))

    positive = jnp.sum(z * jnp.roll(z, len(z_a), axis=0), axis=-1) / temperature
    return positive, map_rows(of_anchor, (z, image), len(z), block_size)


def map_rows(function, rows, columns, block_size):
    """jax.vmap of `function` over the leading axis of all arrays of `rows`, `block_size` of them at a time.

    None: as many as have at most `MOST_SIMILARITIES` with `columns` others. Differentiated, it keeps nothing of a block
    but its rows. That a block is computed again by `jax.checkpoint` and not by a backward pass of its own costs one of
    four matrix products that symmetry would save, and leaves forward mode and the gradients of settings as they are.
    """
    count = len(jax.tree.leaves(rows)[0])
    blocks = -(-count // (block_size or max(1, MOST_SIMILARITIES // columns)))
    if blocks == 1:
        return jax.vmap(function)(rows)
    size = -(-count // blocks)

    def split(x):
        x = jnp.pad(x, [(0, blocks * size - count)] + [(0, 0)] * (x.ndim - 1))
        # Block k takes rows k, k + blocks, ...: where the rows are split over devices, so is every block.
        return x.reshape(size, blocks, *x.shape[1:]).swapaxes(0, 1)

    found = jax.lax.map(jax.checkpoint(jax.vmap(function)), jax.tree.map(split, rows))
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:])[:count], found)


def positive_cross_entropy(positive, log_negative_sum):
    """The mean of -log(e^positive / (e^positive + negative_sum))."""
    return jnp.mean(jax.nn.softplus(log_negative_sum - positive))


def log_weighted_mean(negatives, log_weights):
    """log(sum_j w_j e^{s_j} / sum_j w_j) over the last axis; entries of -inf in `negatives` do not count."""
    return jax.nn.logsumexp(negatives + jax.nn.log_softmax(log_weights, axis=-1, where=negatives != -jnp.inf), axis=-1)


def debiased_log_sum(positive, log_sum, count, *, temperature, tau_plus):
    """log max((sum - tau_plus count e^positive) / (1 - tau_plus), count e^{-1 / temperature}), and what is above."""
    log_false = jnp.log(tau_plus) + jnp.log(count) + positive
    log_floor = jnp.log(count) - 1 / temperature
    above_floor = log_sum > jnp.logaddexp(log_false, jnp.log1p(-tau_plus) + log_floor)
    # Where the floor holds, log(1 - e^log_ratio) may be that of a negative number: a safe ratio keeps NaN out of the
    # gradient of the branch not taken.
    log_ratio = jnp.where(above_floor, log_false - log_sum, -1)
    log_true = log_sum + jnp.log(-jnp.expm1(log_ratio)) - jnp.log1p(-tau_plus)
    return jnp.where(above_floor, log_true, log_floor), above_floor


def normalise(z):
    """L2-normalises the rows of z; rows of zeros stay zero."""
    z = at_least_float32(z)
    # The result does not depend on the scale, so the gradient need not either: this only keeps squares in range.
    largest = jax.lax.stop_gradient(jnp.max(jnp.abs(z), axis=-1, keepdims=True))
    is_zero = largest < jnp.finfo(z.dtype).tiny
    z = z / jnp.where(is_zero, 1, largest)
    squared_norm = jnp.sum(z * z, axis=-1, keepdims=True)
    return jnp.where(is_zero, 0, z / jnp.sqrt(jnp.where(is_zero, 1, squared_norm)))


def cosine(left, right):
    """Products of the rows of left and right [M, D], both normalised: [N, M], or [M] for a single row."""
    # Accelerators multiply float32 in bfloat16 or TF32 by default, whose error a low temperature would blow up.
    return jnp.matmul(left, right.T, precision=jax.lax.Precision.HIGHEST)


def at_least_float32(array):
    """Float64 as it is, any other dtype as float32."""
    array = jnp.asarray(array)  # NumPy's float64 is float32 unless 64-bit types are enabled
    return array.astype(jnp.float64 if array.dtype == jnp.float64 else jnp.float32)


def check_views(name_a, z_a, name_b, z_b):
    """Raises ValueError, with their names, unless both are of one shape [B, D]."""
    if z_a.ndim != 2 or z_a.shape != z_b.shape:
        raise ValueError(f"{name_a} and {name_b} must have one shape [B, D], got {z_a.shape} and {z_b.shape}")
