"""Batches: a pure function of (seed, step, table), the same on any number of processes and devices."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from labelfx.data import Split
from labelfx.data.miners import Miner


class View(NamedTuple):
    """The training images as a run may see them.

    `split.labels` is -1 in every row but `rows` (int64 [L]); `truth` (int32 [N]) is for audit metrics only.
    """

    split: Split
    truth: np.ndarray
    rows: np.ndarray


def label_view(split: Split, rows: np.ndarray) -> View:
    """Hides every label but those of `rows`."""
    visible = np.full_like(split.labels, -1)
    visible[rows] = split.labels[rows]
    return View(Split(split.images, visible), split.labels, rows)


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: int, epoch: int, size: int) -> np.ndarray:
    return np.random.Generator(np.random.Philox([seed, stream, epoch])).permutation(size)


def draw(seed: int, stream: int, step: int, size: int, pool: np.ndarray) -> np.ndarray:
    """Rows of batch `step` in an endless sequence of shuffled passes over `pool`.

    What is left of a pass at its end and fills no batch is dropped, so that no row comes twice in one. Batches larger
    than the pool take pass after pass, without a gap.
    """
    length = len(pool)
    if size <= length:
        epoch, place = divmod(step, length // size)
        return pool[_order(seed, stream, epoch, length)[place * size : (place + 1) * size]]
    begin, end = step * size, (step + 1) * size
    epochs = range(begin // length, (end - 1) // length + 1)
    parts = [_order(seed, stream, e, length)[max(begin - e * length, 0) : end - e * length] for e in epochs]
    return pool[np.concatenate(parts)]


def everything(size: int) -> np.ndarray:
    """All rows of a batch of this size."""
    return np.arange(size)


def batch_at(
    step: int,
    *,
    view: View,
    sizes: dict[str, int],
    seed: int,
    miner: Miner,
    table: dict[str, np.ndarray],
    own: Callable[[int], np.ndarray] = everything,
    images: bool = True,
) -> dict[str, Any]:
    """The batch of a global step (see `labelfx.methods.Method`), as NumPy arrays.

    `own` picks the rows of a batch that this process reads, from the size of the batch; without `images` there are only
    their `index`es, for a step that holds the images itself.
    """
    pools = {"labelled": view.rows, "unlabelled": np.flatnonzero(table.get("include", np.ones(len(view.truth), bool)))}
    batch: dict[str, Any] = {"audit": {}}
    for stream, name in enumerate(("labelled", "unlabelled")):
        if not sizes[name]:
            continue
        rows = draw(seed, stream, step, sizes[name], pools[name])
        if name == "unlabelled":
            rows = miner.rows(np.random.Generator(np.random.Philox([seed, 2, step])), rows, table)
        rows = rows[own(sizes[name])]
        batch[name] = {"index": rows.astype(np.int32), **{key: column[rows] for key, column in table.items()}}
        if images:
            batch[name]["image"] = view.split.images[rows]
        batch["audit"][name] = {"label": view.truth[rows]}
    if "labelled" in batch:
        batch["labelled"]["label"] = view.split.labels[batch["labelled"]["index"]]
    return batch


def batches(start: int, stop: int, *, workers: int, **how: Any) -> Iterator[dict[str, Any]]:
    """The batches of steps start to stop - 1; `how` are the arguments of `batch_at`.

    Images in memory are gathered as arrays. Images that must be read and decoded come through Grain, `workers`
    processes or, with 0, threads preparing whole batches ahead; files are then decoded by `labelfx.data.decoders`.
    """
    make: Callable[[int], dict[str, Any]] = functools.partial(batch_at, **how)
    if isinstance(how["view"].split.images, np.ndarray) or not how.get("images", True):
        yield from map(make, range(start, stop))
        return
    import grain

    ahead = grain.MapDataset.range(start, stop).map(make)
    if workers:
        if not flags.FLAGS.is_parsed():  # in a notebook; Grain's processes read flags of its own
            flags.FLAGS.mark_as_parsed()
        prepared = ahead.to_iter_dataset(grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)).mp_prefetch(
            grain.multiprocessing.MultiprocessingOptions(num_workers=workers)
        )
    else:
        prepared = ahead.to_iter_dataset(grain.ReadOptions(num_threads=4, prefetch_buffer_size=8))
    yield from prepared
