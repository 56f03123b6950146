"""Transformations of which a network can be asked which one it sees: every image by each of M, the first nothing.

A function here gives the M copies of a batch of images, [B, M, ...], a row's beside each other.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np


def rotations(images: jax.Array) -> jax.Array:
    """Images [B, H, H, C] turned counter-clockwise by 0, 90, 180 and 270 degrees: [B, 4, H, H, C].

    Raises:
      ValueError: they are not square.
    """
    if images.ndim != 4 or images.shape[1] != images.shape[2]:
        raise ValueError(f"turns by 90 degrees are of square images [B, H, H, C], got {list(images.shape)}")
    return jnp.stack([jnp.rot90(images, turns, (1, 2)) for turns in range(4)], 1)


def colour_permutations(images: jax.Array) -> jax.Array:
    """Images [B, H, W, 3] with their channels in each of the six orders: [B, 6, H, W, 3].

    Raises:
      ValueError: they are not RGB images.
    """
    if images.ndim != 4 or images.shape[3] != 3:
        raise ValueError(f"colours are permuted of RGB images [B, H, W, 3], got {list(images.shape)}")
    return jnp.stack([images[..., np.array(order)] for order in itertools.permutations(range(3))], 1)
