"""Mixing of the rows of a batch, on the device, inside the jitted step: each row with a partner of the same batch.

A builder (`mixup`, `cutmix`, `selfmix`) returns `mix(rng, n, shape) -> Mix` for `n` rows of this shape, of which, with
`crops=`, as many in a row are views of one image. `blend` mixes rows and targets by it, `blended` a loss. One share is
drawn for all rows of a batch, as the authors of the first two do: so any objective can be mixed, whatever it takes the
mean over.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Positive
from labelfx.data.augment import is_dense


class Mix(NamedTuple):
    """partner: int [B], a permutation: which row each is mixed with. share: float [], how much of it a row keeps.
    mask: float [H, W], 1 where an image stays itself, 0 where it is its partner; None where whole rows are averaged."""

    partner: jax.Array
    share: jax.Array
    mask: jax.Array | None


Mixing = Callable[..., Mix]


def mixup(*, alpha: Positive) -> Mixing:
    """Averages of two rows, the share from Beta(alpha, alpha) (Zhang et al. 2018, ICLR, eq. 1; 0.1 to 0.4 on
    ImageNet, 1 on CIFAR-10)."""

    def mix(rng, n, shape, crops=1):
        rng_partner, rng_share = jax.random.split(rng)
        return Mix(jax.random.permutation(rng_partner, n), jax.random.beta(rng_share, alpha, alpha), None)

    return mix


def cutmix(*, alpha: Positive) -> Mixing:
    """A box of each image [H, W, C] is its partner's (Yun et al. 2019, ICCV, section 3.1; alpha is 1).

    The box has the share 1 - Beta(alpha, alpha) of the area, the image's proportions and a centre anywhere; what lies
    outside of the image is cut off, so that the share of a mix is counted: that of the pixels that stay.
    """

    def mix(rng, n, shape, crops=1):
        rng_partner, rng_share, rng_centre = jax.random.split(rng, 3)
        mask = _box(rng_share, rng_centre, shape, alpha, "cutmix")
        return Mix(jax.random.permutation(rng_partner, n), jnp.mean(mask), mask)

    return mix


def selfmix(*, alpha: Positive) -> Mixing:
    """`cutmix` of views of one image: the partner of each is the next of the same image, so that what is in both stays
    what it is (SelfMix; Shen 2023, FerKD, ICCV, whose training code is not released).

    Raises:
      ValueError: there is one view of each image.
    """

    def mix(rng, n, shape, crops=1):
        if crops < 2:
            raise ValueError("selfmix mixes views of one image, of which a step has one; take stored labels, crops = 2")
        rng_share, rng_centre = jax.random.split(rng)
        mask = _box(rng_share, rng_centre, shape, alpha, "selfmix")
        views = jnp.arange(n).reshape(-1, crops)
        return Mix(jnp.roll(views, -1, 1).ravel(), jnp.mean(mask), mask)

    return mix


def _box(rng_share, rng_centre, shape, alpha, name):
    """1 [H, W] where an image stays itself, 0 in a box of the share 1 - Beta(alpha, alpha)."""
    if len(shape) != 3:
        raise ValueError(f"{name} takes images [B, H, W, C], got rows of shape {shape}; mixup takes any")
    sides = jnp.array(shape[:2])
    ratio = jnp.sqrt(1 - jax.random.beta(rng_share, alpha, alpha))
    size = jnp.round(ratio * sides.astype(ratio.dtype)).astype(sides.dtype)
    low = jax.random.randint(rng_centre, (2,), 0, sides, sides.dtype) - size // 2
    rows, columns = (
        (jnp.arange(side) >= first) & (jnp.arange(side) < first + length)
        for side, first, length in zip(shape[:2], low, size, strict=True)
    )
    return jnp.where(rows[:, None] & columns[None], 0.0, 1.0)


def blend(mix: Mix, x: jax.Array) -> jax.Array:
    """Each row with its partner: images, and maps of targets, [B, H, W, ...] by the mask where there is one, all else
    [B, ...], such as vectors and distributions over classes, by the share.

    Raises:
      ValueError: the rows are integers, such as token ids, of which there is no mean.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"rows of {x.dtype} cannot be mixed; must be floats")
    keep = mix.share
    if mix.mask is not None and x.shape[1:3] == mix.mask.shape:
        keep = mix.mask.reshape(1, *mix.mask.shape, *[1] * (x.ndim - 3))
    keep = keep.astype(x.dtype)
    return keep * x + (1 - keep) * x[mix.partner]


def blended(mix: Mix, of: Callable[[dict[str, jax.Array]], Any], columns: dict[str, jax.Array]) -> Any:
    """`of` what is said of the rows, and `of` what is said of their partners, by the share: scalars, or a tree of them.

    Of a loss that is linear in its target, as cross-entropy is, this is the loss of the blended target, provided that
    something is said of every row.

    Raises:
      ValueError: pixels have labels of their own, and the partner's pixels have those of the partner alone.
    """
    if mix.mask is not None and is_dense(columns["label"]):
        raise ValueError("cutmix: a label of every pixel goes with its pixel, not by the share; take mixup")
    partners = {name: column[mix.partner] for name, column in columns.items()}

    def mean(own, other):
        share = mix.share.astype(own.dtype)
        return share * own + (1 - share) * other

    return jax.tree.map(mean, of(columns), of(partners))
