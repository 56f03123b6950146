"""Which labels are wrong: tools that train nothing, where the answer is known.

    python -m experiments.detection --data=DIR [--seeds=3]

DIR holds the folders `label_errors`, `banking77`, `planetoid` and `multilabel`. Wrong labels are those that people
refused (Northcutt et al. 2021), or planted: a tenth of the rows get another class, or one of their several labels is
turned over. Probabilities are those that the authors publish, or of linear probes that did not see a row. Where
cleanlab is installed, what it finds by the same probabilities is compared. `experiments/detection/README.md` is the
page.
"""

import csv
import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import scipy.sparse
from absl import flags
from sklearn.datasets import load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import average_precision_score

from experiments.paired import cell, commits
from labelfx import config as configs
from labelfx.config import command
from labelfx.data import sources
from labelfx.evals.classification import cross_val_pred_probs
from labelfx.graphs import Graph
from labelfx.labels import confident
from labelfx.loop.results import commit

HERE = Path(__file__).parent / "detection"
SEVERAL = ("yeast", "emotions")
OTHERWISE = "rows that cleanlab flags otherwise"
PLANTED = 0.1  # of the rows
ACCEPTED = 3  # of five people who must find the given label right


class Case(NamedTuple):
    """Labels int [N], or [N, C] of several, out-of-sample probabilities [N, C], and of the rows that are judged, bool
    [N], which are wrong, bool [N]."""

    labels: np.ndarray
    probs: np.ndarray
    judged: np.ndarray
    wrong: np.ndarray


def crowd(root: Path, which: str) -> Case:
    """The test labels of which cleanlab's authors asked five people each."""
    labels = np.load(root / f"{which}_test_set_original_labels.npy").astype(np.int64)
    judged, wrong = np.zeros((2, len(labels)), bool)
    for row in json.loads((root / f"{which}_mturk.json").read_text()):
        judged[row["id"]] = True
        wrong[row["id"]] = row["mturk"]["given"] < ACCEPTED
    return Case(labels, np.load(root / f"{which}_test_set_pyx.npy"), judged, wrong)


def planted(features: np.ndarray, labels: np.ndarray, classes: int, seed: int) -> Case:
    """A tenth of the labels moved to another class, each as likely."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < PLANTED
    given = np.where(wrong, (labels + rng.integers(1, classes, len(labels))) % classes, labels).astype(np.int32)
    probs = cross_val_pred_probs(features.astype(np.float32), given, classes)
    return Case(given, probs, np.ones(len(labels), bool), wrong)


def turned_over(features: np.ndarray, labels: np.ndarray, seed: int) -> Case:
    """One of several labels turned over, in a tenth of the rows; labels of few rows are left out."""
    labels = labels[:, np.minimum(labels.sum(0), (1 - labels).sum(0)) >= 20].astype(np.int32)
    rng = np.random.default_rng(seed)
    wrong = rng.random(len(labels)) < PLANTED
    given = labels.copy()
    given[wrong, rng.integers(0, labels.shape[1], wrong.sum())] ^= 1
    scaled = ((features - features.mean(0)) / features.std(0).clip(1e-6)).astype(np.float32)
    probs = np.stack([cross_val_pred_probs(scaled, each, 2)[:, 1] for each in given.T], 1)
    return Case(given, probs, np.ones(len(labels), bool), wrong)


def cases(root: Path, seed: int) -> Iterator[tuple[str, Case]]:
    """Of one seed; what people have judged is drawn from nothing, and is of the first alone."""
    if seed == 0:
        for which in ("mnist", "cifar10"):
            yield f"{which}, people", crowd(root / "label_errors", which)
    digits = load_digits()
    yield "digits", planted(digits.data, digits.target, 10, seed)
    texts, intents = banking(root / "banking77")
    yield "BANKING77", planted(texts, intents, 77, seed)
    cora = sources.planetoid("cora", data_dir=str(root / "planetoid"))
    nodes = smoothed(cora.side["graph"])[cora.train.inputs[:, 0]]
    yield "Cora", planted(nodes, cora.train.labels, 7, seed)
    for which in SEVERAL:
        train = sources.multilabel(which, data_dir=str(root / "multilabel"), seed=seed).train
        yield which, turned_over(train.inputs, train.labels, seed)


def banking(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Words of the training questions by their weights, in 256 directions; their intents."""
    data = sources.banking77(data_dir=str(root), vocab_size=1000, max_length=8)
    with open(root / "train.csv", newline="", encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2).fit_transform(texts)
    return TruncatedSVD(256, random_state=0).fit_transform(words), data.train.labels


def smoothed(graph: Graph) -> np.ndarray:
    """Features over two steps of the normalised adjacency with loops, in 128 directions (SGC, Wu et al. 2019)."""
    count, (senders, receivers) = len(graph.features), graph.edges.T
    edges = scipy.sparse.coo_array((np.ones(len(senders)), (receivers, senders)), (count, count))
    adjacency = edges.tocsr() + scipy.sparse.eye_array(count)
    scale = scipy.sparse.diags_array(adjacency.sum(1) ** -0.5)
    step = scale @ adjacency @ scale
    words = graph.features / np.linalg.norm(graph.features, axis=1, keepdims=True).clip(1e-6)
    return TruncatedSVD(128, random_state=0).fit_transform(scipy.sparse.csr_array(step @ (step @ words)))


def found(case: Case) -> dict[str, float]:
    """Of each score average precision, and precision among as many rows as are wrong; of each filter precision and
    recall; how many rows cleanlab flags otherwise."""
    several = case.labels.ndim == 2
    scores_of = confident.get_multilabel_quality_scores if several else confident.get_label_quality_scores
    issues_of = confident.find_multilabel_issues if several else confident.find_label_issues
    judged, wrong = case.judged, case.wrong[case.judged]
    values: dict[str, float] = {"share wrong": float(wrong.mean())}
    for method in get_args(confident.Score):
        scores = scores_of(case.labels, case.probs, method=method)[judged]
        values[f"{method} AP"] = float(average_precision_score(wrong, -scores))
        values[f"{method} precision"] = float(wrong[np.argsort(scores, kind="stable")[: wrong.sum()]].mean())
    if several:
        own = np.where(case.labels == 1, case.probs, 1 - case.probs)[judged]
        values["mean of labels AP"] = float(average_precision_score(wrong, -own.mean(1)))
    differing = 0
    for filter_by in ("confident_learning", "prune_by_noise_rate", "both", "predicted_neq_given"):
        flags = issues_of(case.labels, case.probs, filter_by=filter_by)
        values[f"{filter_by} precision"] = float(wrong[flags[judged]].mean()) if flags[judged].any() else 0.0
        values[f"{filter_by} recall"] = float(flags[judged][wrong].mean())
        differing += int((flags != theirs(case, filter_by)).sum()) if cleanlab() else 0
    return values | ({OTHERWISE: differing} if cleanlab() else {})


def cleanlab() -> bool:
    return importlib.util.find_spec("cleanlab") is not None


def theirs(case: Case, filter_by: str) -> np.ndarray:
    """What cleanlab finds."""
    from cleanlab import filter as single
    from cleanlab.multilabel_classification import filter as several

    if case.labels.ndim == 1:
        return single.find_label_issues(case.labels, case.probs, filter_by=filter_by, n_jobs=1)
    named = [list(np.flatnonzero(row)) for row in case.labels]
    return several.find_label_issues(named, case.probs, filter_by=filter_by, n_jobs=1)


def page(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The results as Markdown."""
    scores = [f"{method} {what}" for method in get_args(confident.Score) for what in ("AP", "precision")]
    filters = ("confident_learning", "prune_by_noise_rate", "both", "predicted_neq_given")
    parts = [
        "# Which labels are wrong\n",
        "`python -m experiments.detection`: of rows whose label may be wrong, by probabilities of a classifier that did"
        " not see them; mean and standard deviation over seeds, in %. `AP`: average precision of a score, whose floor"
        " is the share of wrong rows; `precision`: of as many rows, the lowest in score, as are wrong. Of MNIST and"
        " CIFAR-10 the rows are those that the authors of cleanlab had found and asked five people about, so that the"
        " choice among them is theirs and a hard one: wrong is what at least three did not confirm. Of the others a"
        " tenth of the labels is planted: of yeast and emotions one of several labels of a row.\n",
        "## Scores\n",
        f"|  | share wrong | {' | '.join(name.replace('_', ' ') for name in scores)} |",
        "| --- |" + " ---: |" * (len(scores) + 1),
    ]
    for name, seeds in results.items():
        cells = [cell(seeds, {}, metric) for metric in ("share wrong", *scores)]
        parts.append(f"| {name} | {' | '.join(cells)} |")
    means = [f"{cell(s, {}, 'mean of labels AP')} ({name})" for name, s in results.items() if name in SEVERAL]
    parts.append(f"\nBy the mean of the scores of a row's labels, not their moving average: AP {', '.join(means)}.\n")
    parts += [
        "## Filters\n",
        "Precision and recall among the rows that are judged.\n",
        f"|  | {' | '.join(name.replace('_', ' ') for name in filters)} |",
        "| --- |" + " ---: |" * len(filters),
    ]
    for name, seeds in results.items():
        both = [f"{cell(seeds, {}, f'{f} precision')}, {cell(seeds, {}, f'{f} recall')}" for f in filters]
        parts.append(f"| {name} | {' | '.join(both)} |")
    compared = [value[OTHERWISE] for seeds in results.values() for value in seeds.values() if OTHERWISE in value]
    if compared:
        parts.append(f"\nRows that cleanlab flags otherwise, over all of these and four filters: {sum(compared)}.")
    return "\n".join([*parts, f"\nAt commit {', '.join(commits(results))}."]) + "\n"


def main(values: Any) -> None:
    results: dict[str, dict[str, dict[str, Any]]] = {}
    for seed in range(values.seeds):
        for name, case in cases(Path(values.data), seed):
            results.setdefault(name, {})[f"{seed}"] = found(case) | {"commit": commit()}
            print(f"{name}, seed {seed}: {results[name][f'{seed}']}", flush=True)
    HERE.mkdir(exist_ok=True)
    configs.write_text(HERE / "results.json", json.dumps(results, indent=1) + "\n")
    configs.write_text(HERE / "README.md", page(results))


if __name__ == "__main__":
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of the data sets"})
