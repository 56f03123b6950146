"""Exact similarity search: the k rows of an index that are most similar to each query, a block of rows at a time."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from labelfx.config.annotations import PositiveInt
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows
from labelfx.objectives.contrastive import at_least_float32, normalise

QUERIES = 1024  # that meet a block of the index at once


def top_k(
    queries: Any,
    index: Any,
    k: PositiveInt,
    *,
    similarity: Literal["cosine", "inner"],
    exclude: Any = None,
    mesh: Mesh | None = None,
    block: PositiveInt = 16384,
) -> tuple[jax.Array, jax.Array]:
    """The k most similar rows of an index for each query, found by comparing every row; O(Q N D) time.

    A device never holds more than `block` x min(Q, 1024) scores, and two blocks of rows of a host's index. That is read
    once and in order, so that it may be larger than memory. Products are of full float32 precision. Equal scores go by
    index, the lower one first.

    Args:
      queries: float [Q, D], finite.
      index: float [N, D], finite, N < 2^31: NumPy array, np.memmap, or jax.Array, which is split over the devices of
        the mesh and whose N these must divide.
      k: at most N.
      similarity: "inner", the inner product, or "cosine", that of normalised rows; zeros have 0 with everything.
      exclude: int [Q, E], rows of the index that are not for this query, such as its own and its positives; -1 is none.
        It is k + E rows that are searched for.
      mesh: over whose devices the rows of the index are split, of `labelfx.loop.mesh.make_mesh`; by default, one device
        of this process.
      block: rows of the index that a device compares at once.

    Returns:
      Scores, float32 or, if the queries are, float64, and rows of the index, int32, both [Q, k], the best first. Where
      fewer than k rows are left for a query, -inf and -1.

    Raises:
      ValueError: arrays of the wrong shape or type, k or `block` out of range, another similarity, N not divisible.
    """
    mesh = make_mesh(1, 1, jax.local_devices()) if mesh is None else mesh
    size, excluded = len(index), _check(queries, index, k, similarity, exclude, mesh, block)
    cosine, found = similarity == "cosine", min(k + excluded, size)
    steps = 1 if isinstance(index, jax.Array) else -(-size // (block * mesh.size))
    step = -(-size // (steps * mesh.size)) * mesh.size
    x = normalise(queries) if cosine else at_least_float32(queries)
    best = jnp.full((len(x), found), -jnp.inf, x.dtype), jnp.full((len(x), found), -1, jnp.int32)
    x, best = jax.device_put((x, best), on_every_device(mesh))
    for first in range(0, size, step):
        rows = index[first : first + step]
        if len(rows) < step:
            rows = np.pad(rows, [(0, step - len(rows)), (0, 0)])
        rows = jax.device_put(rows, split_rows(mesh))
        jax.block_until_ready(best)  # one block is copied while another is searched, and no more wait
        best = _search(best, x, rows, np.int32(first), np.int32(size), mesh=mesh, block=block, cosine=cosine)
    return _without(*best, exclude, k) if excluded else best


def _check(queries, index, k, similarity, exclude, mesh, block) -> int:
    """How many rows each query excludes."""
    for name, array in (("queries", queries), ("index", index)):
        if array.ndim != 2 or 0 in array.shape or not jnp.issubdtype(array.dtype, jnp.floating):
            raise ValueError(f"{name} must be float [rows, D], none of them 0, not {array.dtype} {list(array.shape)}")
    if queries.shape[1] != index.shape[1]:
        raise ValueError(f"queries have {queries.shape[1]} dimensions and the index {index.shape[1]}: must be the same")
    if not 1 <= k <= len(index):
        raise ValueError(f"k = {k}: must be from 1 to the {len(index)} rows of the index")
    if block < 1:
        raise ValueError(f"block = {block}: must be at least 1")
    if similarity not in ("cosine", "inner"):
        raise ValueError(f"similarity = {similarity!r}: must be 'cosine' or 'inner'")
    if isinstance(index, jax.Array) and len(index) % mesh.size:
        raise ValueError(
            f"the {mesh.size} devices of the mesh must divide the {len(index)} rows of an index on devices"
        )
    if exclude is None:
        return 0
    if exclude.ndim != 2 or len(exclude) != len(queries) or not jnp.issubdtype(exclude.dtype, jnp.integer):
        raise ValueError(f"exclude must be int [{len(queries)}, E], not {exclude.dtype} {list(exclude.shape)}")
    return exclude.shape[1]


@functools.partial(jax.jit, static_argnames=("mesh", "block", "cosine"))
def _search(best, queries, rows, first, end, *, mesh, block, cosine):
    """The best of `best` and of `rows`, those of the index from `first` on; from `end` on, rows are padding."""

    shape = best[0].shape

    def of_one_device(queries, rows, first, end):
        blocks = -(-len(rows) // block)
        width = -(-len(rows) // blocks)
        first_here = first + jax.lax.axis_index(mesh.axis_names) * len(rows)

        def of_one_block(number, best):
            # The last block reaches back into the one before it, whose rows then do not count again.
            start = jnp.minimum(number * width, len(rows) - width)
            here = jax.lax.dynamic_slice_in_dim(rows, start, width)
            here = (normalise(here) if cosine else here).astype(queries.dtype)
            places = start + jnp.arange(width, dtype=jnp.int32)
            counts = (places >= number * width) & (first_here + places < end)

            def of_one_query(query):
                scores = jnp.matmul(here, query, precision=jax.lax.Precision.HIGHEST)
                return jax.lax.top_k(jnp.where(counts, scores, -jnp.inf), min(shape[1], width))

            scores, nearest = jax.lax.map(of_one_query, queries, batch_size=QUERIES)
            return _merge(best, (scores, first_here + start + nearest))

        nothing = jnp.full(shape, -jnp.inf, queries.dtype), jnp.full(shape, -1, jnp.int32)
        found = jax.lax.fori_loop(np.int32(0), np.int32(blocks), of_one_block, nothing)
        return tuple(jax.lax.all_gather(part, mesh.axis_names, axis=1, tiled=True) for part in found)

    everywhere = PartitionSpec()
    split = jax.shard_map(
        of_one_device,
        mesh=mesh,
        in_specs=(everywhere, PartitionSpec(mesh.axis_names), everywhere, everywhere),
        out_specs=everywhere,
        check_vma=False,  # it cannot see that what is gathered is the same everywhere
    )
    return _merge(best, split(queries, rows, first, end))


def _merge(left, right):
    """As many of the best as `left` has; of equal ones, those of `left`, whose indices are lower, first."""
    scores, indices = (jnp.concatenate(pair, axis=1) for pair in zip(left, right, strict=True))
    scores, places = jax.lax.top_k(scores, left[0].shape[1])
    return scores, jnp.take_along_axis(indices, places, axis=1)


@functools.partial(jax.jit, static_argnames="k")
def _without(scores, indices, exclude, k):
    """The first k of each query that are not excluded."""

    def of_one_query(found):
        scores, indices, exclude = found
        kept = jnp.where(jnp.any(indices[:, None] == exclude[None], axis=1), -jnp.inf, scores)
        scores, places = jax.lax.top_k(kept, k)
        return scores, jnp.where(scores == -jnp.inf, -1, indices[places])

    return jax.lax.map(of_one_query, (scores, indices, jnp.asarray(exclude, jnp.int32)), batch_size=QUERIES)
