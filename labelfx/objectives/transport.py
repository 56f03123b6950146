"""Losses that move one set of vectors onto another: the positions of a picture and its labels."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction, NonNegative, Positive
from labelfx.objectives._rows import check_rows, mean_of_said
from labelfx.objectives.contrastive import normalise
from labelfx.objectives.multilabel import Unknown
from labelfx.objectives.multilabel import asymmetric as asymmetric_loss

__all__ = ["patch_transport"]  # what a config may name


def patch_transport(
    logits: jax.Array,
    label: jax.Array,
    positions: jax.Array,
    head: dict,
    *,
    transport: NonNegative,
    temperature: Positive,
    gamma_positive: NonNegative,
    gamma_negative: NonNegative,
    clip: Fraction,
    focal_gradient: bool,
    unknown: Unknown,
) -> jax.Array:
    """PatchCT: `asymmetric` and, times `transport`, the `conditional_transport` between the positions of a map and the
    columns of the linear head, which are the embeddings of labels (Li et al. 2023, ICCV, "PatchCT: Aligning Patch Set
    and Label Set with Conditional Transport", whose labels are embedded by an encoder of their names).

    Args:
      logits: [B, C], of any float dtype; computed on in float32 or float64.
      label: int8 [B, C]: 1, 0, or -1 for unknown.
      positions: [B, ..., F], what the backbone gives before pooling.
      head: parameters of the classifier `class_activation` or `linear`.
      gamma_positive, gamma_negative, clip, focal_gradient, unknown: as in `asymmetric`.

    Returns:
      A scalar.

    Raises:
      ValueError: shapes differ, there are no positions, or the head is not linear.
    """
    logits = check_rows(logits, {"label": label}, entries=True)
    kernel = head.get("Dense_0", {}).get("kernel")
    if kernel is None or kernel.shape != (positions.shape[-1], logits.shape[-1]) or positions.ndim < 3:
        found = f"positions {list(positions.shape)} and a head of {', '.join(head)}"
        raise ValueError(f"patch_transport reads a map and a linear head, not {found}; take outputs = 'map'")
    points = positions.reshape(len(positions), -1, positions.shape[-1])
    focal = asymmetric_loss(
        logits,
        label,
        gamma_positive=gamma_positive,
        gamma_negative=gamma_negative,
        clip=clip,
        focal_gradient=focal_gradient,
        unknown=unknown,
    )
    moved = conditional_transport(points, kernel.T, label, temperature=temperature)
    return focal + transport * moved.astype(focal.dtype)


def conditional_transport(points: jax.Array, centres: jax.Array, label: jax.Array, *, temperature: float) -> jax.Array:
    """The cost of moving points to the centres of a row's positive labels and back (Zheng & Zhou 2021, NeurIPS).

    The sum of the two terms of `navigated`: the mean over rows with a positive label, 0 without any.
    """
    forward, backward = navigated(points, centres, label, temperature=temperature)
    return mean_of_said(forward + backward, jnp.any(label > 0, axis=1))


def navigated(
    points: jax.Array, centres: jax.Array, label: jax.Array, *, temperature: float
) -> tuple[jax.Array, jax.Array]:
    """The forward and the backward cost of each row, [B] each, 0 where no label is positive.

    With the cost 1 - cos of a point and a centre, points and positive labels weigh the same. Forward, a point goes to
    centre j with the probability softmax_j(cos / temperature), over positive labels: no point is far from all, but a
    centre may have none. Backward, a centre goes to point i with softmax_i(cos / temperature), over points: no centre
    is far from all.

    Args:
      points: [B, S, F]. Those that are 0 have no direction and are left out, such as the padding of texts.
      centres: [C, F].
      label: int8 [B, C]: 1 where positive.
    """
    points, centres = normalise(points), normalise(centres)
    cosines = jnp.einsum("bsf,cf->bsc", points, centres.astype(points.dtype), precision=jax.lax.Precision.HIGHEST)
    real, positive = jnp.any(points != 0, axis=-1), label > 0
    pairs = real[..., None] & positive[:, None]

    scores = jnp.where(pairs, cosines / temperature, -1e30)

    def cost(axis):
        """Of going along an axis; a mean over the other one."""
        each = jnp.sum(jnp.where(pairs, jax.nn.softmax(scores, axis=axis) * (1 - cosines), 0), axis=axis)
        number = jnp.sum(jnp.any(pairs, axis=axis), axis=1, dtype=each.dtype)
        return jnp.sum(each, axis=1) / jnp.maximum(number, 1)

    return cost(axis=2), cost(axis=1)
