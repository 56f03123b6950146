"""The two-view contrastive objectives with their rows split over devices, none of which ever holds those of all.

Each device keeps the rows of its own images and passes copies of them round a ring; after a full turn its anchors have
met every row (Inf-CL, Cheng et al. 2024, arXiv 2410.17243). Memory is that of a device's own rows, its visitors, and
the similarities of one block of anchors to them. In the global view (`contrastive` under `jax.jit`) every device
gathers all rows instead.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from labelfx.config.annotations import Fraction, NonNegative, Positive, PositiveInt
from labelfx.objectives import contrastive

__all__: list[str] = []  # nothing that a config may name


def ring(
    z_a,
    z_b,
    *,
    mesh: Mesh,
    axis: str | tuple[str, ...],
    temperature: Positive,
    tau_plus: Fraction = 0.0,
    beta: NonNegative = 0.0,
    block_size: PositiveInt | None = None,
):
    """`contrastive.hard_negative` with its rows split over a mesh; the defaults make it `nt_xent`.

    To be differentiated from outside, in reverse mode only.

    Args:
        z_a, z_b: [B, D] embeddings of the two views, not normalised; of all devices, as for the objective.
        mesh, axis: the axis of this mesh, or the axes, over which the rows are split.
        temperature, tau_plus, beta: as given to the objective.
        block_size: anchors of a device whose similarities to the visiting rows are in memory at once; None: see
            `contrastive`.

    Returns:
        A scalar, the mean over the 2B anchors; 0 for B = 1.

    Raises:
        ValueError: if z_a and z_b are not of one shape [B, D], or the devices of the axis do not divide B.
    """
    contrastive.check_views("z_a", z_a, "z_b", z_b)
    devices = math.prod(mesh.shape[name] for name in ((axis,) if isinstance(axis, str) else axis))
    if len(z_a) % devices:
        raise ValueError(f"z_a and z_b have {len(z_a)} rows: must be a multiple of the {devices} devices of {axis}")

    def mean(z_a, z_b):
        # The mean over devices must be inside: the gradient of a device's own loss lacks its rows' part in the others'.
        return jax.lax.pmean(_loss(z_a, z_b, axis, temperature, tau_plus, beta, block_size), axis)

    rows = PartitionSpec(axis)
    return jax.shard_map(mean, mesh=mesh, in_specs=(rows, rows), out_specs=PartitionSpec())(z_a, z_b)


def _loss(z_a, z_b, axis, temperature, tau_plus, beta, block_size):
    """The mean over the 2b anchors of this device, z_a and z_b being [b, D]; inside shard_map over `axis`."""
    z = contrastive.normalise(jnp.concatenate([z_a, z_b]))
    image = jax.lax.axis_index(axis) * len(z_a) + jnp.arange(len(z), dtype=jnp.int32) % len(z_a)
    positive = jnp.sum(z * jnp.roll(z, len(z_a), axis=0), axis=-1) / temperature
    # Hard negatives' weights are e^{beta s}, so that their mean is the quotient of two sums of e^{scale s}.
    scales = jnp.stack([jnp.asarray(scale / temperature, z.dtype) for scale in (1 + beta, beta)])
    log_sum, log_weight_sum = _log_sums(axis, block_size, z, image, scales).T
    count = len(z) * jax.lax.axis_size(axis) - 2
    log_debiased_sum, _ = contrastive.debiased_log_sum(
        positive, jnp.log(count) + log_sum - log_weight_sum, count, temperature=temperature, tau_plus=tau_plus
    )
    return contrastive.positive_cross_entropy(positive, log_debiased_sum)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _log_sums(axis, block_size, z, image, scales):
    """log sum_j e^{scale z_i . z_j} over the rows j of other images on all devices: [rows, scales].

    Automatic differentiation would keep every visitor's rows for the backward pass.
    """

    def meet(sums, visitor):
        z_v, image_v = visitor

        def of_anchor(anchor):
            z_i, image_i, sums_i = anchor
            scores = _scores(contrastive.cosine(z_i, z_v), image_v == image_i, scales)
            return jnp.logaddexp(sums_i, jax.nn.logsumexp(scores, axis=-1))

        return contrastive.map_rows(of_anchor, (z, image, sums), len(z_v), block_size)

    # Finite, though the log of 0: the difference of two of them, where B = 1, is then no NaN.
    return _turn(axis, meet, jnp.full((len(z), len(scales)), jnp.finfo(z.dtype).min), (z, image))


def _log_sums_forward(axis, block_size, z, image, scales):
    sums = _log_sums(axis, block_size, z, image, scales)
    return sums, (z, image, scales, sums)


def _log_sums_backward(axis, block_size, residuals, gradient):
    """dz_i = sum_jk scale_k (gradient_ik e^{scale_k s_ij - sums_ik} + gradient_jk e^{scale_k s_ij - sums_jk}) z_j.

    A row knows its part in the sums of the others once these come by with their sums: no gradient has to travel home.
    """
    z, image, scales, sums = residuals

    def meet(found, visitor):
        z_v, image_v, sums_v, gradient_v = visitor

        def of_anchor(anchor):
            z_i, image_i, sums_i, gradient_i, (dz_i, dscales_i) = anchor
            cosine = contrastive.cosine(z_i, z_v)
            scores = _scores(cosine, image_v == image_i, scales)
            as_anchor = gradient_i[:, None] * jnp.exp(scores - sums_i[:, None])
            as_negative = gradient_v.T * jnp.exp(scores - sums_v.T)
            dcosine = jnp.sum(scales[:, None] * (as_anchor + as_negative), axis=0)
            dz_i += jnp.matmul(dcosine, z_v, precision=jax.lax.Precision.HIGHEST)
            return dz_i, dscales_i + jnp.sum(as_anchor * cosine[None], axis=1)

        return contrastive.map_rows(of_anchor, (z, image, sums, gradient, found), len(z_v), block_size)

    zeros = jnp.zeros(z.shape, z.dtype), jnp.zeros(sums.shape, z.dtype)
    dz, dscales = _turn(axis, meet, zeros, (z, image, sums, gradient))
    return dz, None, jax.lax.psum(jnp.sum(dscales, axis=0), axis)


_log_sums.defvjp(_log_sums_forward, _log_sums_backward)


def _scores(cosine, same_image, scales):
    """[scales, visitors], -inf where an anchor meets its own image."""
    return jnp.where(same_image[None], -jnp.inf, jnp.outer(scales, cosine))


def _turn(axis, meet, found, rows):
    """found = meet(found, visitor) for the `rows` of every device in turn, this one's first."""
    devices = jax.lax.axis_size(axis)
    onward = [(device, (device + 1) % devices) for device in range(devices)]

    def step(_, carry):
        found, visitor = carry
        return meet(found, visitor), jax.lax.ppermute(visitor, axis, onward)

    return jax.lax.fori_loop(0, devices, step, (jax.lax.pcast(found, axis, to="varying"), rows))[0]
