"""Joint labels of a class and a transformation (SLA, Lee et al. 2020, ICML).

`joint` is float [B, M, C, M]: entry [i, t, y, s] the logit that row i, transformed by t, is of class y and transformed
by s. Computed on in float32, or in float64 where it is that.
"""

import jax
import jax.numpy as jnp

from labelfx.objectives.classification import cross_entropy


def joint_cross_entropy(joint: jax.Array, label: jax.Array) -> jax.Array:
    """Cross-entropy of each copy to its class and transformation together (eq. 3).

    Args:
      joint: [B, M, C, M].
      label: int32 [B], from 0 to C - 1, or -1: unknown.

    Returns:
      A scalar: the mean over the copies of rows that have a label; 0 without any.

    Raises:
      ValueError: shapes differ.
    """
    rows, copies, _, _ = _checked(joint).shape
    # Class y and transformation s are entry y M + s of a row of logits, as in the authors' code.
    each = label[:, None] * copies + jnp.arange(copies, dtype=label.dtype)[None]
    each = jnp.where(label[:, None] < 0, -1, each)
    return cross_entropy(joint.reshape(rows * copies, -1), each.reshape(-1), label_smoothing=0.0)


def aggregated_logits(joint: jax.Array) -> jax.Array:
    """Logits [B, C] of the aggregated inference: a class's mean over the copies, each where its transformation is the
    one that was made (eq. 4).

    Raises:
      ValueError: joint is not [B, M, C, M].
    """
    return jnp.einsum("btct->bc", _checked(joint)) / jnp.array(joint.shape[1], joint.dtype)


def _checked(joint):
    if joint.ndim != 4 or joint.shape[1] != joint.shape[3]:
        raise ValueError(f"joint must be [B, M, C, M], got {list(joint.shape)}")
    return joint
