"""Exact similarity search: labelfx, NumPy and, where it is installed (`pip install faiss-cpu`), a flat faiss index.

python -m experiments.benchmarks.search --workdir=/tmp/labelfx/benchmarks
"""

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx.config import command
from labelfx.mining.search import top_k

from . import common

SIZES = {
    "cpu": {"rows": 100_000, "dimensions": 384, "queries": 2048, "k": 20, "block": 16_384, "repeats": 5},
    "accelerator": {"rows": 1_000_000, "dimensions": 384, "queries": 8192, "k": 20, "block": 65_536, "repeats": 5},
}


def search(
    workdir: str | Path, *, rows: int, dimensions: int, queries: int, k: int, block: int, repeats: int
) -> dict[str, Any]:
    """Queries a second, by inner product of random normal vectors, and how many of the k best, by NumPy, a side found.

    Args:
      workdir: where `search.json` goes.
      rows: of the index.
      dimensions: of its vectors.
      queries: that are asked at once.
      k: rows to find for each.
      block: rows of the index that labelfx and NumPy compare at once.
      repeats: rounds.
    """
    settings: dict[str, Any] = {
        "rows": rows,
        "dimensions": dimensions,
        "queries": queries,
        "k": k,
        "block": block,
        "repeats": repeats,
    }
    rng = np.random.default_rng(0)
    index, asked = (rng.standard_normal((count, dimensions), np.float32) for count in (rows, queries))
    asked_there, index_there = jax.device_put((asked, index))
    sides: dict[str, Callable[[], Any]] = {
        "labelfx, host": lambda: top_k(asked, index, k, similarity="inner", block=block)[1],
        "labelfx, device": lambda: top_k(asked_there, index_there, k, similarity="inner", block=block)[1],
        "NumPy": lambda: _numpy(asked, index, k, block),
    }
    try:
        faiss = importlib.import_module("faiss")
    except ImportError:
        pass
    else:
        settings["faiss"] = faiss.__version__
        flat = faiss.IndexFlatIP(dimensions)
        flat.add(index)
        sides["faiss"] = lambda: flat.search(asked, k)[1]
    best = sides["NumPy"]()
    recall = {name: _recall(np.asarray(work()), best) for name, work in sides.items()}
    rounds = common.interleave({name: common.speed(queries, work) for name, work in sides.items()}, repeats)
    table = common.rows(rounds, "queries/s")
    for row in table:
        row["recall"] = recall[row["side"]]
    return common.report("search", workdir, settings, table)


def _numpy(queries: np.ndarray, index: np.ndarray, k: int, block: int) -> np.ndarray:
    """The k best of each block by a partial sort, then those of all blocks, the best first."""
    scores, found = [], []
    for first in range(0, len(index), block):
        here = queries @ index[first : first + block].T
        best = np.argpartition(here, -min(k, here.shape[1]), axis=1)[:, -k:]
        scores.append(np.take_along_axis(here, best, axis=1))
        found.append(first + best)
    every, places = np.concatenate(scores, axis=1), np.concatenate(found, axis=1)
    return np.take_along_axis(places, np.argsort(-every, axis=1)[:, :k], axis=1)


def _recall(found: np.ndarray, best: np.ndarray) -> float:
    return float(np.mean([np.isin(ours, theirs).mean() for ours, theirs in zip(found, best, strict=True)]))


if __name__ == "__main__":
    command.run(lambda flags: search(flags.workdir, **common.for_this_device(SIZES)), config=False)
