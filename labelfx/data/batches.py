"""Batches: a pure function of (seed, step, table), the same on any number of processes and devices."""

import functools
from collections.abc import Callable, Container, Iterator
from typing import Any, NamedTuple

import numpy as np
from absl import flags

from labelfx.data import Some, Split, unknown
from labelfx.data.miners import Miner
from labelfx.data.stored import Stored
from labelfx.data.weak import COLUMNS, Said, blank


class View(NamedTuple):
    """The training rows as a run may see them.

    `split` has the labels and columns that are said: of the rows `rows` (int64 [L]), and of the others only columns
    that name them. `validation` (int64 [V], none of `rows`) are rows whose labels are for choices alone: no step sees
    them. `truth` [N, ...] and `audit`, the truth about what is said, are for metrics only.
    """

    split: Split
    truth: np.ndarray
    rows: np.ndarray
    audit: dict[str, np.ndarray] = {}
    validation: np.ndarray = np.empty(0, np.int64)
    held_out: Split | None = None


def label_view(
    split: Split, rows: np.ndarray, said: Said | None = None, *, validation: np.ndarray | None = None
) -> View:
    """Hides everything that is not said of `rows`: the only place that does.

    Without `said` it is the truth and the source's own columns of reserved names. Of the rows `validation` the same is
    said, to whoever chooses among networks (`View.held_out`).
    """
    said = said or Said({"label": split.labels, **{k: v for k, v in split.columns.items() if k in COLUMNS}})
    columns = {name: np.asarray(column) for name, column in said.columns.items()}
    columns.setdefault("label", unknown(split.labels))
    of_all = (
        said.everywhere if len(rows) < len(split.labels) else columns.keys()
    )  # no second copy of what hides nothing
    visible = {name: column if name in of_all else blank(name, column) for name, column in columns.items()}
    for name in visible.keys() - of_all:
        visible[name][rows] = columns[name][rows]
    told = Split(split.inputs, visible.pop("label"), visible)
    view = View(told, split.labels, rows, said.audit)
    if validation is None:
        return view
    apart = {name: column[validation] for name, column in columns.items()}
    held_out = Split(Some(split.inputs, validation), apart.pop("label"), apart)
    return view._replace(validation=validation, held_out=held_out)


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
    reads: Container[str] | None = None,
    stored: Stored | None = None,
    own: Callable[[int], np.ndarray] = everything,
    inputs: bool = True,
) -> dict[str, Any]:
    """The batch of a global step (see `labelfx.methods.Method`), as NumPy arrays.

    Columns are what is said of the rows, and what a table says in its place; of them come those of `reads`, by default
    all; and of what is stored of a row's views, that of those drawn.
    `own` picks the rows of a batch that this process reads, from the size of the batch; without `inputs` there are only
    their `index`es, for a step that holds the images itself.
    """
    count = len(view.truth)
    pools = {"labelled": view.rows, "unlabelled": np.flatnonzero(table.get("include", np.ones(count, bool)))}
    columns = {k: v for k, v in {**view.split.columns, **table}.items() if reads is None or k in reads}
    batch: dict[str, Any] = {"audit": {}}
    for stream, name in enumerate(("labelled", "unlabelled")):
        if not sizes[name]:
            continue
        extra: dict[str, np.ndarray] = {}
        if name == "labelled" and miner.labelled:
            rows, extra = miner.labelled(functools.partial(draw, seed, stream, step), sizes[name])
        else:
            rows = draw(seed, stream, step, sizes[name], pools[name])
        if name == "unlabelled":
            rows = miner.rows(np.random.Generator(np.random.Philox([seed, 2, step])), rows, table)
        mine = own(sizes[name])
        rows, extra = rows[mine], {key: value[mine] for key, value in extra.items()}
        if stored:
            views = stored.drawn(np.random.Generator(np.random.Philox([seed, 3 + stream, step])), sizes[name])[mine]
            extra |= {"view": views, **{key: column[rows[:, None], views] for key, column in stored.columns.items()}}
        batch[name] = {
            "index": rows.astype(np.int32),
            **{key: column[rows] for key, column in columns.items()},
            **extra,
        }
        if inputs:
            batch[name]["input"] = view.split.inputs[rows]
        batch["audit"][name] = {"label": view.truth[rows], **{key: column[rows] for key, column in view.audit.items()}}
    if "labelled" in batch:
        batch["labelled"].setdefault("label", view.split.labels[batch["labelled"]["index"]])
    return batch


def batches(start: int, stop: int, *, workers: int, **how: Any) -> Iterator[dict[str, Any]]:
    """The batches of steps start to stop - 1; `how` are the arguments of `batch_at`.

    Images in memory are gathered as arrays. Images that must be read and decoded come through Grain, `workers`
    processes or, with 0, threads preparing whole batches ahead; files are then decoded by `labelfx.data.decoders`.
    """
    make: Callable[[int], dict[str, Any]] = functools.partial(batch_at, **how)
    if isinstance(how["view"].split.inputs, np.ndarray) or not how.get("inputs", True):
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
