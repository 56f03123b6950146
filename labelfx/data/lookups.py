"""What augmentation picks by index: by gathers and scatters, but on a TPU, which runs those one by one, by products.

There a one-hot row for each index is multiplied by what is picked from: one term and zeros, so that the same bits come
out, at the precision that each product asks for. On a CPU that takes several times longer than looking them up.
"""

import jax
import jax.numpy as jnp


def count(levels: jax.Array) -> jax.Array:
    """Integers [256]: how often each level is among `levels`, int32 [N] in 0 .. 255."""

    def multiply(levels):
        high, low = _digits(levels)
        return (high.T @ low).astype(int).reshape(256)

    return jax.lax.platform_dependent(levels, tpu=multiply, default=lambda levels: jnp.bincount(levels, length=256))


def pick(table: jax.Array, levels: jax.Array) -> jax.Array:
    """`table[levels]`, [N], of a table [256] of integers in 0 .. 255 and levels, int32 [N], in the same range."""

    def multiply(table, levels):
        high, low = _digits(levels)
        rows = low @ table.astype(low.dtype).reshape(16, 16).T  # [N, high digit]; bfloat16 holds 0 .. 255 as they are
        return jnp.sum(high * rows, 1).astype(table.dtype)

    return jax.lax.platform_dependent(table, levels, tpu=multiply, default=lambda table, levels: table[levels])


def window(image: jax.Array, top: jax.Array, left: jax.Array, rows: int, columns: int) -> jax.Array:
    """The [rows, columns, C] of an image [H, W, C] that begin at (top, left), int32 [], and lie inside it."""

    def multiply(image, top, left):
        down = jax.nn.one_hot(top + jnp.arange(rows), image.shape[0], dtype=image.dtype)
        across = jax.nn.one_hot(left + jnp.arange(columns), image.shape[1], dtype=image.dtype)
        return jnp.einsum("yi,xj,ijc->yxc", down, across, image, precision="highest")

    def cut(image, top, left):
        return jax.lax.dynamic_slice(image, (top, left, jnp.zeros_like(top)), (rows, columns, image.shape[2]))

    return jax.lax.platform_dependent(image, top, left, tpu=multiply, default=cut)


def warp(image: jax.Array, source_y: jax.Array, source_x: jax.Array) -> jax.Array:
    """`image[source_y, source_x]` of an image [H, W, C], with int32 [Y, X] each; whatever where those lie outside."""

    def multiply(image, source_y, source_x):
        rows, columns, channels = image.shape

        def line(source):  # one row of the result at a time: all at once take memory of [Y, X, W, C]
            down = jax.nn.one_hot(source[0], rows, dtype=image.dtype)
            lines = jnp.matmul(down, image.reshape(rows, -1), precision="highest").reshape(-1, columns, channels)
            across = jax.nn.one_hot(source[1], columns, dtype=bool)
            return jnp.sum(jnp.where(across[..., None], lines, 0), 1)

        return jax.lax.map(line, (source_y, source_x))

    return jax.lax.platform_dependent(image, source_y, source_x, tpu=multiply, default=lambda image, y, x: image[y, x])


def _digits(levels):
    """[N, 16] each: one-hot high and low hexadecimal digits, which take an eighth of the work of 256 levels."""
    return jax.nn.one_hot(levels // 16, 16), jax.nn.one_hot(levels % 16, 16)
