"""What losses of rows share: the mean over rows of which something is said, and the checks of their arguments.

Logits are [..., C]; each of the leading dimensions is one of rows: [B, C] of a class a row, [B, H, W, C] of a class a
position.
"""

from typing import Any

import jax
import jax.numpy as jnp

from labelfx.objectives.contrastive import at_least_float32


def check_rows(logits: jax.Array, columns: dict[str, jax.Array], *, entries: bool) -> jax.Array:
    """The logits in float32 or float64, of which each column has the shape, or that of the rows unless `entries`.

    Raises:
      ValueError: a column has another shape.
    """
    shape = logits.shape if entries else logits.shape[:-1]
    said, allowed = " and ".join(columns), "[..., C]" if entries else "[...]"
    if not logits.ndim or any(column.shape != shape for column in columns.values()):
        found = ", ".join(str(each.shape) for each in (logits, *columns.values()))
        raise ValueError(f"logits must be [..., C] and {said} {allowed}, got {found}")
    return at_least_float32(logits)


def mean_of_said(losses: jax.Array, said: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """The mean of the losses, times their weights, over those of which something is said and whose weight is above 0.

    Args:
      losses: float [...], finite also where nothing is said.
      said: bool, of the same shape.
      weight: of the same leading dimensions, as many as it has.

    Returns:
      A scalar: the sum over the number of losses, not over the sum of weights; 0, with gradients of 0, without any.

    Raises:
      ValueError: the weights are not of the losses' leading dimensions.
    """
    if weight is not None:
        weight = leading(weight, losses)
        said, losses = said & (weight > 0), losses * weight
    count = jnp.sum(said, dtype=losses.dtype)
    return jnp.sum(losses, where=said) / jnp.maximum(count, 1)


def mean_over_rows(losses: jax.Array, said: jax.Array, weight: jax.Array | None = None) -> jax.Array:
    """`mean_of_said` of rows with several entries [..., C]: the sum over entries of which something is said, over the
    number of rows with one. Weights are those of rows or of entries."""
    if weight is not None:
        weight = leading(weight, losses)
        said, losses = said & (weight > 0), losses * weight
    return mean_of_said(jnp.sum(losses, axis=-1, where=said), jnp.any(said, axis=-1))


def leading(weight: jax.Array, losses: jax.Array) -> jax.Array:
    """The weights of rows, or of their entries, as weights of every loss, in its dtype.

    Raises:
      ValueError: they are not of the losses' leading dimensions.
    """
    if weight.shape != losses.shape[: weight.ndim]:
        raise ValueError(f"weight must have the leading dimensions of {losses.shape}, got {weight.shape}")
    return jnp.broadcast_to(jnp.expand_dims(weight, tuple(range(weight.ndim, losses.ndim))), losses.shape).astype(
        losses.dtype
    )


def choose(name: str, value: str, choices: dict[str, Any]) -> Any:
    """What `choices` has under the value.

    Raises:
      ValueError: it is none of them.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}, got {value!r}")
    return choices[value]
