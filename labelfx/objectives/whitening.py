"""Whitening objectives: positives attract, and whitened batches cannot collapse, so no negatives are needed."""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Fraction
from labelfx.objectives import contrastive

__all__ = ["w_mse"]  # what a config may name


def w_mse(views, permutations, *, epsilon: Fraction, normalise: bool):
    """W-MSE: the distance of positives after whitening (Ermolov et al. 2021, ICML, with batch slicing).

    Each group of rows of each view is centred, its covariance C (divided by n - 1) shrunk to (1 - epsilon) C +
    epsilon I and its rows multiplied by the inverse of that matrix's Cholesky factor. Gradients flow through all of it.

    Args:
        views: [V, B, D] embeddings of V >= 2 views, of any float dtype, computed on in float32 or float64.
        permutations: int [iterations, groups, n], each iteration a permutation of the B rows cut into groups, the same
            for all views. The paper has n = 2 D.
        epsilon: the shrinkage, a Python number; the paper has 0, and needs n > D well-spread rows then: the covariance
            of rows that span fewer than D dimensions has no inverse, and the loss is NaN.
        normalise: whether the distance is 2 - 2 cos of a pair of rows, or, as in the authors' code, the mean of their D
            squared differences (the squared Euclidean distance is D times that).

    Returns:
        A scalar, the mean over iterations, rows and the V (V - 1) / 2 pairs of views.

    Raises:
        ValueError: if views or permutations have other numbers of axes, V or n is below 2, or the covariance is
            singular because epsilon is 0 and n <= D.
    """
    if views.ndim != 3 or len(views) < 2 or permutations.ndim != 3 or permutations.shape[-1] < 2:
        raise ValueError(
            "views and permutations must be [V, B, D] with V >= 2 and [iterations, groups, n] with n >= 2, "
            f"got {views.shape} and {permutations.shape}"
        )
    size, dim = permutations.shape[-1], views.shape[-1]
    if size <= dim and epsilon == 0:
        raise ValueError(
            f"a group of {size} rows has a singular covariance in {dim} dimensions: "
            f"permutations must have groups of more than {dim} rows, or epsilon must be > 0"
        )
    z = _whiten(contrastive.at_least_float32(views)[:, permutations], epsilon)
    first, second = jnp.triu_indices(len(z), k=1)
    if normalise:
        z = contrastive.normalise(z)
        return jnp.mean(2 - 2 * jnp.sum(z[first] * z[second], axis=-1))
    return jnp.mean((z[first] - z[second]) ** 2)


def _whiten(z, epsilon):
    """The last two axes of z are rows and dimensions."""
    z = z - jax.lax.stop_gradient(z[..., :1, :])  # equal rows are exactly 0 then, not rounding that would be whitened
    z = z - jnp.mean(z, axis=-2, keepdims=True)
    covariance = jnp.einsum("...ni,...nj->...ij", z, z, precision=jax.lax.Precision.HIGHEST) / (z.shape[-2] - 1)
    identity = jnp.broadcast_to(jnp.eye(z.shape[-1], dtype=z.dtype), covariance.shape)
    shrunk = (1 - epsilon) * covariance + epsilon * identity
    return jax.lax.linalg.triangular_solve(jnp.linalg.cholesky(shrunk), z, lower=True, transpose_a=True)
