"""What augmentation picks by index: by gathers and scatters, and on a TPU, which runs those one by one, by comparing.

There every index is compared with every place, and the value at the one that is equal is kept: a sum of it and zeros,
so that the same bits come out. On a CPU that takes some twenty times longer than looking them up.
"""

from functools import partial

import jax
import jax.numpy as jnp

_places = partial(jax.nn.one_hot, dtype=bool)  # [...] and a size to [..., size]


def count(levels: jax.Array, length: int) -> jax.Array:
    """Integers [length]: how often each of 0 .. length - 1 is among `levels`, int32 [N] in that range."""
    return jax.lax.platform_dependent(
        levels,
        tpu=lambda levels: jnp.sum(_places(levels, length), 0),
        default=lambda levels: jnp.bincount(levels, length=length),
    )


def pick(table: jax.Array, index: jax.Array) -> jax.Array:
    """`table[index]`, [N], of integers [L] and int32 [N] in 0 .. L - 1."""
    return jax.lax.platform_dependent(
        table,
        index,
        tpu=lambda table, index: jnp.sum(jnp.where(_places(index, len(table)), table[None], 0), 1),
        default=lambda table, index: table[index],
    )


def window(image: jax.Array, top: jax.Array, left: jax.Array, rows: int, columns: int) -> jax.Array:
    """The [rows, columns, C] of an image [H, W, C] that begin at (top, left), int32 [], and lie inside it."""

    def compare(image, top, left):
        down = _places(top + jnp.arange(rows), image.shape[0])  # [row of the result, row asked]
        image = jnp.sum(jnp.where(down[:, :, None, None], image[None], 0), 1)
        across = _places(left + jnp.arange(columns), image.shape[1])
        return jnp.sum(jnp.where(across[None, :, :, None], image[:, None], 0), 2)

    def cut(image, top, left):
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (rows, columns, image.shape[2]))

    return jax.lax.platform_dependent(image, top, left, tpu=compare, default=cut)


def warp(image: jax.Array, source_y: jax.Array, source_x: jax.Array) -> jax.Array:
    """`image[source_y, source_x]` of an image [H, W, C], with int32 [H, W] each; whatever where those lie outside.

    Along a row of `source_y` and `source_x` the first must rise or fall throughout, and no value of the second be there
    more than twice: so it is in rotations by less than 60 degrees, shears and translations.
    """

    def compare(image, source_y, source_x):
        # Down the columns first: each row of the result asks a column for no pixel, one, or two, the `upper` and the
        # `lower`. Then along the rows.
        rows, columns, _ = image.shape
        asked = _places(source_x, columns)  # [row of the result, column of it, column asked]
        upper = jnp.min(jnp.where(asked, source_y[:, :, None], rows), 1)
        lower = jnp.max(jnp.where(asked, source_y[:, :, None], -1), 1)

        def down(row):
            return jnp.sum(jnp.where(_places(row, rows, axis=1)[..., None], image[None], 0), 1)

        first = (source_y[:, :, None] == upper[:, None])[..., None]
        found = jnp.where(first, down(upper)[:, None], down(lower)[:, None])
        return jnp.sum(jnp.where(asked[..., None], found, 0), 2)

    return jax.lax.platform_dependent(image, source_y, source_x, tpu=compare, default=lambda image, y, x: image[y, x])
