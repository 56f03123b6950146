"""Two views without negatives: embeddings agree, vary over the batch, and do not repeat themselves over dimensions.

Embeddings of any float dtype are computed on, and the results returned, in float32, or in float64 if they are float64.
Statistics are those of the whole batch.
"""

import jax
import jax.numpy as jnp

from labelfx.config.annotations import NonNegative
from labelfx.objectives.contrastive import at_least_float32, check_views, cosine, normalise

__all__ = ["barlow_twins", "vicreg"]  # what a config may name


def vicreg(z_a, z_b, *, invariance: NonNegative, variance: NonNegative, covariance: NonNegative):
    """VICReg: variance, invariance and covariance (Bardes et al. 2022, ICLR, eq. 6 and Algorithm 1).

    With gamma 1 and epsilon 1e-4; the paper's weights are 25, 25, 1. As in Algorithm 1 and the authors' code the
    invariance is a mean over all B D entries, which eq. 5 multiplies by D. The variance and covariance terms of the two
    views are added, as in the paper; the code halves the variance, so that its weight 25 is 12.5 here.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised.
        invariance: weight of the mean squared difference of the views.
        variance: weight of the mean over D of max(0, 1 - sqrt(Var + 1e-4)), Var divided by B - 1.
        covariance: weight of the squared covariances of different dimensions, their sum divided by D.

    Returns:
        A scalar; for B = 1 all variances and covariances count as 0.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    check_views("z_a", z_a, "z_b", z_b)
    z_a, z_b = at_least_float32(z_a), at_least_float32(z_b)
    variance_a, covariance_a = _variance_and_covariance(z_a)
    variance_b, covariance_b = _variance_and_covariance(z_b)
    return (
        invariance * jnp.mean((z_a - z_b) ** 2)
        + variance * (variance_a + variance_b)
        + covariance * (covariance_a + covariance_b)
    )


def barlow_twins(z_a, z_b, *, redundancy: NonNegative):
    """Barlow Twins: the views' cross-correlation C approaches the identity (Zbontar et al. 2021, ICML, eq. 1 and 2).

    As in eq. 2 the columns are centred and divided by their norm, without the epsilon of the authors' BatchNorm or the
    B - 1 of the paper's pseudocode; a constant column has correlation 0 and a zero gradient.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised.
        redundancy: weight of the C_ij^2, i != j, beside the (1 - C_ii)^2; the paper's is 0.005.

    Returns:
        A scalar, the sum over the D^2 entries; D for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D].
    """
    check_views("z_a", z_a, "z_b", z_b)
    correlation = cosine(normalise(_centre(at_least_float32(z_a)).T), normalise(_centre(at_least_float32(z_b)).T))
    return jnp.sum(
        jnp.where(jnp.eye(len(correlation), dtype=bool), (1 - correlation) ** 2, redundancy * correlation**2)
    )


def _variance_and_covariance(z):
    """The regularisers v(Z) and c(Z) of VICReg (eq. 1 to 4)."""
    z = _centre(z)
    covariance = jnp.matmul(z.T, z, precision=jax.lax.Precision.HIGHEST) / max(1, len(z) - 1)
    hinge = jax.nn.relu(1 - jnp.sqrt(jnp.diagonal(covariance) + 1e-4))
    off_diagonal = jnp.where(jnp.eye(len(covariance), dtype=bool), 0, covariance)
    return jnp.mean(hinge), jnp.sum(off_diagonal**2) / len(covariance)


def _centre(z):
    z = z - jax.lax.stop_gradient(z[:1])  # a constant column is exactly 0 then, not rounding that would be normalised
    return z - jnp.mean(z, axis=0, keepdims=True)
