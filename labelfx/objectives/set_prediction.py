"""Losses of a set of labels that is predicted one slot after the other, in whatever order."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import NonNegative, Positive
from labelfx.objectives._rows import mean_of_said
from labelfx.objectives.contrastive import at_least_float32, normalise

__all__ = ["set_matching"]  # what a config may name

ITERATIONS = 50  # of the proximal point method, as in the authors' code, whose step size is 1 too


def set_matching(
    logits: jax.Array, label: jax.Array, head: dict, *, empty_weight: Positive, transport: NonNegative
) -> jax.Array:
    """OTSeq2Set: every positive label is given to the slot that an assignment of the most probability in all gives it
    to, other slots are to be empty; and the labels that slots mean move onto those that are there (Cao & Zhang 2022,
    EMNLP, "OTSeq2Set: An Optimal Transport Enhanced Sequence-to-Set Model").

    With p_s the softmax of slot s over C labels and the empty one, the first term is the cross-entropy of the slots'
    labels, an average in which empty ones weigh `empty_weight`. The second, times `transport`, is a row's sum of
    T_st (1 - cos(p_s E, e_t)) over slots and targets, those that are empty times `empty_weight`: e_t are embeddings of
    labels as the decoder reads them, T the transport of `proximal_transport`; neither has a gradient.

    Args:
      logits: [B, S, C + 1] of the classifier `set_decoder`, the last of no label; of any float dtype; computed on in
        float32 or float64.
      label: int8 [B, C]: 1 where positive; of a row of which anything is known the rest is taken for negative, and
        positive labels beyond the first S are left out.
      head: parameters of `set_decoder`.

    Returns:
      A scalar: the first term over all slots of rows of which any entry is known, the second a mean of these rows; 0
      without any.

    Raises:
      ValueError: shapes differ, or the head is no `set_decoder`.
    """
    if logits.ndim != 3 or label.shape != (len(logits), logits.shape[2] - 1) or "embedding" not in head:
        found = f"logits {logits.shape}, label {label.shape}, a head of {', '.join(head)}"
        raise ValueError(f"set_matching reads [B, S, C + 1] of the head set_decoder and labels [B, C], got {found}")
    log_p = jax.nn.log_softmax(at_least_float32(logits))
    slots, empty = log_p.shape[1], log_p.shape[2] - 1
    known = jnp.any(label >= 0, axis=1)
    first = jnp.argsort(-(label > 0).astype(jnp.int32), axis=1)[:, :slots]  # the positive ones, in order
    first = jnp.pad(first, ((0, 0), (0, slots - first.shape[1])))
    targets = jnp.where(jnp.arange(slots)[None] < jnp.sum(label > 0, axis=1)[:, None], first, empty)

    def of_row(log_p, targets):
        p = jnp.exp(log_p[:, targets])
        # An empty target costs the same in every slot, so that it takes what the others leave.
        row, column = optax.assignment.hungarian_algorithm(-jnp.where(targets == empty, 0, p))
        return jnp.zeros_like(targets).at[row].set(targets[column])

    matched = jax.vmap(of_row)(jax.lax.stop_gradient(log_p), targets)
    losses = -jnp.take_along_axis(log_p, matched[..., None], axis=2)[..., 0]
    weight = jnp.where(known[:, None], jnp.where(matched == empty, empty_weight, 1), 0).astype(losses.dtype)
    crossed = jnp.sum(weight * losses) / jnp.maximum(jnp.sum(weight), jnp.finfo(weight.dtype).tiny)

    table = jax.lax.stop_gradient(head["embedding"]).astype(log_p.dtype)
    cost = 1 - jnp.einsum("bsf,btf->bst", normalise(jnp.exp(log_p) @ table), normalise(table[targets]))
    plan = jax.lax.stop_gradient(proximal_transport(cost))
    moved = jnp.where(targets == empty, empty_weight, 1).astype(cost.dtype)[:, None] * plan * cost
    return crossed + transport * mean_of_said(jnp.sum(moved, axis=(1, 2)), known)


def proximal_transport(cost: jax.Array) -> jax.Array:
    """Plans between slots and targets of equal weights, by proximal points of which each scales once (Xie et al. 2019,
    UAI, "A Fast Proximal Point Method for Computing Exact Wasserstein Distance", IPOT).

    Args:
      cost: [B, S, T].

    Returns:
      [B, S, T], whose columns sum to 1 / T, and rows nearly to 1 / S.
    """
    _, slots, targets = cost.shape
    kernel = jnp.exp(-cost)

    def step(_, state):
        plan, b = state
        plan = kernel * plan
        a = 1 / (slots * jnp.einsum("bst,bt->bs", plan, b))
        b = 1 / (targets * jnp.einsum("bst,bs->bt", plan, a))
        return a[:, :, None] * plan * b[:, None], b

    start = jnp.ones_like(cost), jnp.full_like(cost[:, 0], 1 / targets)
    return jax.lax.fori_loop(0, ITERATIONS, step, start)[0]
