"""Meta-gradients: the derivative of a loss after k steps of an inner loop by what the steps depend on.

Both functions give the same exact gradient, of everything that the inner step does: its loss, its optimiser and the
optimiser's state. They differ in cost. An inner step must be differentiable where it stands: SGD with momentum is,
Adam is not where a gradient is exactly 0, because of its root.
"""

from collections.abc import Callable
from typing import Any

import jax


def unrolled(
    inner_step: Callable[..., Any],
    outer_loss: Callable[..., jax.Array],
    meta: Any,
    inner: Any,
    batches: Any,
    *,
    unroll: bool = False,
) -> tuple[jax.Array, Any]:
    """Reverse mode through the inner loop: time as for k steps, memory growing with k (Maclaurin et al. 2015).

    Args:
      inner_step: `(meta, inner, batch) -> inner`, of the same shapes and dtypes.
      outer_loss: `(inner) -> scalar`.
      meta: a pytree of float arrays, of any size: pseudo-labels, weights of examples, a network that makes them.
      inner: a pytree of arrays: parameters, with the state of their optimiser where there is one.
      batches: a pytree of arrays [k, ...].
      unroll: whether to compile the k steps one after the other; convolutions on CPU are 25 times faster so.

    Returns:
      The outer loss, and its gradient by `meta`.
    """
    return jax.value_and_grad(_after_inner_loop(inner_step, outer_loss, inner, batches, unroll))(meta)


def forward_mode(
    inner_step: Callable[..., Any],
    outer_loss: Callable[..., jax.Array],
    meta: Any,
    inner: Any,
    batches: Any,
    *,
    unroll: bool = False,
) -> tuple[jax.Array, Any]:
    """Forward mode: one Jacobian-vector product for each entry of `meta`, in memory that does not grow with k
    (Franceschi et al. 2017); for a few hyperparameters or class weights.

    Arguments and results as for `unrolled`.
    """
    loss = _after_inner_loop(inner_step, outer_loss, inner, batches, unroll)

    def twice(meta):
        value = loss(meta)
        return value, value

    gradient, value = jax.jacfwd(twice, has_aux=True)(meta)
    return value, gradient


def _after_inner_loop(inner_step, outer_loss, inner, batches, unroll):
    def loss(meta):
        last, _ = jax.lax.scan(
            lambda inner, batch: (inner_step(meta, inner, batch), None), inner, batches, unroll=0 if unroll else 1
        )
        return outer_loss(last)

    return loss
