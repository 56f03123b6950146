"""The linear probe of many labels: one held-out fifth, five folds, and scikit-learn at the regularisation chosen.

taskset -c 0 python -m experiments.benchmarks.probe --workdir=/tmp/labelfx/benchmarks
"""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

from labelfx.config import command
from labelfx.evals import classification

from . import common

SIZES = {
    "cpu": {"rows": 60_000, "dimensions": 2048, "queries": 10_000, "repeats": 1},
    "accelerator": {"rows": 60_000, "dimensions": 2048, "queries": 10_000, "repeats": 3},
}


def probe(workdir: str | Path, *, rows: int, dimensions: int, queries: int, repeats: int) -> dict[str, Any]:
    """Seconds, all of them and those that the cores worked, and accuracy, on random features of noisy digits.

    The minutes that a side takes leave no round to warm up in: seconds hold what compiling takes.

    Args:
      workdir: where `probe.json` goes.
      rows, queries: training and test images: the digits, the first 1,300 and the others, again and again with noise.
      dimensions: random ReLU features of each.
      repeats: rounds.
    """
    settings = {"rows": rows, "dimensions": dimensions, "queries": queries, "repeats": repeats}
    rng = np.random.default_rng(0)
    data = load_digits()
    project = rng.standard_normal((64, dimensions), np.float32)

    def noisy(which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        images = np.float32(data.data[which] / 16) + 0.4 * rng.standard_normal((len(which), 64), np.float32)
        return np.maximum(images @ project, 0), data.target[which].astype(np.int32)

    split = 1300
    x, labels = noisy(rng.integers(0, split, rows))
    test, test_labels = noisy(rng.integers(split, len(data.data), queries))
    found: dict[str, dict[str, Any]] = {}

    def ours() -> dict[str, Any]:
        return classification.linear_probe(x, labels, test, test_labels, 10)

    def folds() -> dict[str, Any]:
        with mock.patch.object(classification, "LARGE", math.inf):
            return ours()

    def scikit_learn() -> dict[str, Any]:
        mean = x.mean(axis=0)
        scale = np.sqrt(np.mean(np.sum((x - mean) ** 2, axis=1)))
        regularisation = found["held-out fifth"]["regularisation"]
        fit = LogisticRegression(C=1 / (regularisation * rows), max_iter=10_000).fit((x - mean) / scale, labels)
        return {"accuracy": fit.score((test - mean) / scale, test_labels), "regularisation": regularisation}

    core: dict[str, float] = {}

    def timed(name: str, work: Callable[[], dict[str, Any]]) -> Callable[[], float]:
        def side() -> float:
            begin, worked = time.perf_counter(), time.process_time()
            found[name] = work()
            core[name] = time.process_time() - worked
            return time.perf_counter() - begin

        return side

    sides = {"held-out fifth": ours, "five folds": folds, "scikit-learn": scikit_learn}
    rounds = common.interleave({name: timed(name, work) for name, work in sides.items()}, repeats, warm_up=0)
    table = common.rows(rounds, "seconds")
    for row in table:
        result = found[row["side"]]
        row |= {"core seconds": core[row["side"]], "accuracy": f"{result['accuracy']:.4f}"}
        row["regularisation"] = f"{result['regularisation']:g}"
    return common.report("probe", workdir, settings, table)


if __name__ == "__main__":
    command.run(lambda flags: probe(flags.workdir, **common.for_this_device(SIZES)), config=False)
