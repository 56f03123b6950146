"""Where the pixels of an augmented view come from, so that what is said of pixels can go with them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from labelfx.data import lookups


class Placement(NamedTuple):
    """What of a picture [H, W] a view shows: a box, resized to the view; turned counter-clockwise about its centre, its
    border repeated; then mirrored left to right where `flip`. Outside of the picture a box shows its reflection.

    top, left, height, width: float [], in pixels and fractions of them. degrees: float []. flip: bool [].
    """

    top: jax.Array
    left: jax.Array
    height: jax.Array
    width: jax.Array
    degrees: jax.Array
    flip: jax.Array


def labels_at(placement: Placement | None, label_map: jax.Array) -> jax.Array:
    """The labels of a view's pixels, of the shape of the map: each is that of the pixel of the picture nearest to it.

    Args:
      placement: of the view of a picture; None of one in which nothing has moved.
      label_map: int [H, W], of the whole picture.
    """
    if placement is None:
        return label_map
    rows, columns = label_map.shape
    y, x = turned(rows, columns, placement.degrees)
    row = _reflected(placement.top + (y + 0.5) * (placement.height / rows), rows)
    column = _reflected(placement.left + (x + 0.5) * (placement.width / columns), columns)
    # As float32, which holds every class: what a TPU picks by products.
    found = lookups.warp(label_map[..., None].astype(jnp.float32), row, column)[..., 0].astype(label_map.dtype)
    return jnp.where(placement.flip, found[:, ::-1], found)


def turned(rows: int, columns: int, degrees: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The y and x [rows, columns] in a picture, from 0 at the centre of its first pixel, of each pixel of the picture
    turned counter-clockwise about its centre; those outside are at the border."""
    y = jnp.arange(rows, dtype=degrees.dtype)[:, None] - (rows - 1) / 2
    x = jnp.arange(columns, dtype=degrees.dtype)[None, :] - (columns - 1) / 2
    angle = jnp.deg2rad(degrees)
    source_y = jnp.cos(angle) * y + jnp.sin(angle) * x + (rows - 1) / 2
    source_x = jnp.cos(angle) * x - jnp.sin(angle) * y + (columns - 1) / 2
    return jnp.clip(source_y, 0, rows - 1), jnp.clip(source_x, 0, columns - 1)


def _reflected(place, size):
    """The pixel, of `size` in a row, at a place in it, reflected at the centres of the first and the last."""
    pixel = jnp.floor(place).astype(jnp.int32) % max(2 * size - 2, 1)
    return jnp.minimum(pixel, max(2 * size - 2, 1) - pixel) if size > 1 else jnp.zeros_like(pixel)
