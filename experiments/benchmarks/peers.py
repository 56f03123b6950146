"""Tools on labels beside the libraries that people use for them, on the same votes and probabilities.

    pip install snorkel cleanlab
    python -m experiments.benchmarks.peers --workdir=DIR

Each side runs in a process of its own, whose largest memory is what it took beyond the inputs. `DIR/peers.json` has
what is printed.
"""

import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labelfx.config import command
from labelfx.labels import confident, votes

ROUNDS = 3
FUNCTIONS = 50


def cast(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Truth [N], and votes of fifty functions of two classes, right of 55 to 85 % of the third of rows that each votes
    on."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, rows)
    right = rng.random((rows, FUNCTIONS)) < np.linspace(0.55, 0.85, FUNCTIONS)
    given = np.where(right, truth[:, None], 1 - truth[:, None])
    return truth, np.where(rng.random((rows, FUNCTIONS)) < 1 / 3, given, -1).astype(np.int64)


def predicted(rows: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] of which a tenth is wrong, and float32 probabilities [N, C] of a classifier that is mostly right."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, classes, rows)
    labels = np.where(rng.random(rows) < 0.1, rng.integers(0, classes, rows), truth)
    logits = rng.standard_normal((rows, classes), np.float32)
    logits[np.arange(rows), truth] += 2 + np.log(classes)
    probs = np.exp(logits)
    return labels, probs / probs.sum(1, keepdims=True)


def our_label_model(given: np.ndarray) -> np.ndarray:
    return votes.predict_proba(votes.fit_label_model(given, 2, method="moments", l2=0.0, steps=500), given).argmax(1)


def snorkels(given: np.ndarray) -> np.ndarray:
    from snorkel.labeling.model import LabelModel

    model = LabelModel(cardinality=2, verbose=False)
    model.fit(given, n_epochs=500, seed=0, progress_bar=False)
    return model.predict_proba(given).argmax(1)


def our_issues(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    confident.get_label_quality_scores(labels, probs, method="normalized_margin")
    return confident.find_label_issues(labels, probs)


def cleanlabs(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    from cleanlab import filter as issues
    from cleanlab import rank

    rank.get_label_quality_scores(labels, probs, method="normalized_margin")
    return issues.find_label_issues(labels, probs, n_jobs=1)


def several(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Fifty labels [N, C], a fiftieth of them wrong, and their probabilities."""
    rng = np.random.default_rng(0)
    truth = (rng.random((rows, FUNCTIONS)) < 0.2).astype(np.int64)
    probs = np.clip(0.6 * truth + 0.4 * rng.random(truth.shape), 0.01, 0.99)
    return np.where(rng.random(truth.shape) < 0.02, 1 - truth, truth), probs


def our_several(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    return confident.get_multilabel_quality_scores(labels, probs)


def cleanlabs_several(labels: np.ndarray, probs: np.ndarray) -> np.ndarray:
    from cleanlab.multilabel_classification import rank

    named = [list(np.flatnonzero(row)) for row in labels]
    return rank.get_label_quality_scores(named, probs, adjust_pred_probs=False)


def measured(run: Callable[..., np.ndarray], inputs: tuple[np.ndarray, ...]) -> tuple[float, float, np.ndarray]:
    """Seconds, gibibytes beyond what there was before, and what it found; imports come before."""

    def work(pipe: Any) -> None:
        run(*(array[:1000] for array in inputs))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begin = time.perf_counter()
        found = run(*inputs)
        seconds = time.perf_counter() - begin
        pipe.send((seconds, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20, found))

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=work, args=(theirs,))
    process.start()
    result = ours.recv()
    process.join()
    return result


CASES: dict[str, tuple[Callable[[], tuple[np.ndarray, ...]], Callable[..., Any], Callable[..., Any], str]] = {
    "label model, 1,000,000 x 50": (lambda: cast(1_000_000)[1:], our_label_model, snorkels, "snorkel"),
    "wrong labels, 1,000,000 x 100": (lambda: predicted(1_000_000, 100), our_issues, cleanlabs, "cleanlab"),
    "wrong labels, 100,000 x 1,000": (lambda: predicted(100_000, 1000), our_issues, cleanlabs, "cleanlab"),
    "several labels, 100,000 x 50": (lambda: several(100_000), our_several, cleanlabs_several, "cleanlab"),
}


def main(values: Any) -> None:
    results = {}
    for name, (make, ours, theirs, library) in CASES.items():
        inputs = make()
        sides = {"labelfx": ours, library: theirs}
        rounds: dict[str, list[tuple[float, float, np.ndarray]]] = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, run in sides.items():
                rounds[side].append(measured(run, inputs))
        told: dict[str, Any] = {
            side: {
                "seconds": statistics.median(each[0] for each in of),
                "gib": statistics.median(each[1] for each in of),
            }
            for side, of in rounds.items()
        }
        a, b = (of[-1][2] for of in rounds.values())
        told["agreement"] = float(np.isclose(a, b, atol=1e-5).mean())
        told["times as fast"] = told[library]["seconds"] / told["labelfx"]["seconds"]
        results[name] = told
        print(name, json.dumps(told), flush=True)
    workdir = Path(values.workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    (workdir / "peers.json").write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    command.run(main, config=False, strings={"workdir": "where peers.json goes"})
