"""Heads that a run puts on its backbone's features, by `config.head`: features to one number an output, of which there
are as many as classes, labels or targets."""

import jax

from labelfx.config.annotations import PositiveInt
from labelfx.models import Model, heads


def linear(num_outputs: int) -> Model:
    """One affine map of the features [B, F]: logits [B, num_outputs]; of a map, of those of every position."""
    return heads.linear(features=num_outputs)


def dense(num_outputs: int, *, size: tuple[PositiveInt, ...]) -> Model:
    """`linear` on every position of a map [B, H', W', F], resized bilinearly to labels of `size`, (H, W): logits
    [B, H, W, num_outputs].

    Raises:
      ValueError: `size` is not (H, W), or the features are no map.
    """
    if len(size) != 2:
        raise ValueError(f"size = {size}: must be (H, W), as the labels are")
    positions = linear(num_outputs)

    def check(x):
        if x.ndim != 4:
            raise ValueError(f"dense reads a map [B, H, W, F], not {list(x.shape)}; take config.model.outputs = 'map'")

    def init(rng, x):
        check(x)
        return positions.init(rng, x)

    def apply(variables, x, *, train, rng=None):
        check(x)
        logits, state = positions.apply(variables, x, train=train)
        return jax.image.resize(logits, (x.shape[0], *size, num_outputs), "bilinear"), state

    return Model(init, apply)
