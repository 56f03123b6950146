"""One table for each kind of label and row, on real data with its floors: what methods for that kind are compared with.

    python -m experiments.kinds --data=DIR --tables=several,graphs --workdir=DIR [--first_seed=0 --seeds=5]

Each run is a recipe with some values replaced, over paired seeds; started again, the command goes on where it was.
What is finished is written to `experiments/kinds/TABLE.json`, and all tables there to `experiments/kinds/README.md`.
`--data` holds the data sets, each in the folder of its name.
"""

import dataclasses
import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from labelfx import config as configs
from labelfx.config import command

HERE = Path(__file__).parent / "kinds"
TABLES: dict[str, Callable[[Path], Iterator["Line"]]] = {}


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a table: a recipe with `changes`, by dotted path, and the numbers of its evals that are shown. Of
    `folds`, changes too, the mean is a seed's number."""

    name: str
    data: str
    recipe: str
    changes: dict[str, Any]
    shown: dict[str, str]  # column -> EVAL/METRIC
    folds: tuple[dict[str, Any], ...] = ({},)
    seeds: int = 5


def _table(function: Callable[[Path], Iterator[Line]]) -> Callable[[Path], Iterator[Line]]:
    TABLES[function.__name__.strip("_")] = function
    return function


VECTORS = {
    "model": {"name": "mlp", "hidden": (256,), "dtype": "float32"},
    "method.augment": {"name": "identity"},
    "labels": {"name": "all_labels"},
}


@_table
def _several(data: Path) -> Iterator[Line]:
    """Several labels a row: vectors of the Mulan sets, a third of the rows for testing. The floor is mAP of constant
    scores; both lines train the same network of one hidden layer for 600 steps."""
    losses: dict[str, dict[str, Any]] = {
        "binary cross-entropy": {"name": "binary_cross_entropy", "unknown": "negative"},
        "asymmetric loss (P144)": {
            "name": "asymmetric",
            "gamma_positive": 0.0,
            "gamma_negative": 4.0,
            "clip": 0.05,
            "focal_gradient": True,
            "unknown": "negative",
        },
    }
    shown = {"mAP": "multilabel/mAP", "micro F1": "multilabel/OF1", "macro F1": "multilabel/CF1", "floor": PREVALENCE}
    for name in ("yeast", "emotions", "enron", "CAL500"):
        for loss, objective in losses.items():
            changes: dict[str, Any] = VECTORS | {
                "data": {"name": f"multilabel:{name}", "data_dir": str(data / "multilabel"), "seed": 0},
                "method.objective": objective,
                "evals": {"multilabel": {"threshold": 0.5, "k": (1, 3)}},
                "steps": 600,
            }
            yield Line(loss, name, "supervised", changes, shown)


PREVALENCE = "multilabel/prevalence"


@_table
def _graphs(data: Path) -> Iterator[Line]:
    """Nodes of a graph, the public splits. Published, stopped by the loss of 500 validation nodes: GCN 81.5 on Cora
    and 70.3 on CiteSeer (Kipf and Welling 2017, table 2)."""
    for name, count in (("cora", 140), ("citeseer", 120)):
        changes: dict[str, Any] = {
            "data": {"name": f"planetoid:{name}", "data_dir": str(data / "planetoid")},
            "labels.n": count,
            "batch.labelled": count,
        }
        shown = {
            "GCN": "head/accuracy",
            "words": "node_words/accuracy",
            "label propagation": "label_propagation/accuracy",
        }
        yield Line("GCN of two layers", name, "gcn", changes, shown)


@_table
def _positive_unlabelled(data: Path) -> Iterator[Line]:
    """Fashion-MNIST: tops against the rest, a share of all tops observed, rather the bright ones; 400 steps. The
    propensity of an observed row is known, or taken for 1 (the naive classifier); the last line knows every label."""
    tops = {
        "name": "fashion_mnist",
        "data_dir": str(data / "fashion_mnist"),
        "merge": ((1, 5, 7, 8, 9), (0, 2, 3, 4, 6)),
    }
    for mean in (0.5, 0.2, 0.05):
        for name, known, clamp in (
            ("observed taken for all", False, "none"),
            ("unbiased (uPU, SAR-E)", True, "none"),
            ("non-negative (nnPU)", True, "nonnegative"),
        ):
            propensity = {"name": "logistic", "columns": (), "slope": 1.0, "mean": mean}
            weak = {"name": "positive_unlabelled", "positives": (1,), "propensity": propensity, "known": known}
            changes: dict[str, Any] = {
                "data": tops,
                "labels.weak": weak,
                "method.objective": {"name": "positive_unlabelled", "clamp": clamp},
                "steps": 400,
            }
            yield Line(
                name, f"{mean:.0%} observed", "positive_unlabelled", changes, {"accuracy": "head/accuracy"}, seeds=3
            )
    changes = {"data": tops, "labels": {"name": "all_labels"}, "method.objective": PLAIN, "steps": 400}
    yield Line("every label", "100% observed", "positive_unlabelled", changes, {"accuracy": "head/accuracy"}, seeds=3)


PLAIN = {"name": "cross_entropy", "label_smoothing": 0.0}


@_table
def _bags(data: Path) -> Iterator[Line]:
    """Musk1: 92 molecules, each a bag of 2 to 40 shapes; area under the curve of bags, ten folds a seed.
    `attention` is the pooling of Ilse et al. 2018."""
    for pool in ("max", "log_sum_exp", "noisy_or", "mean", "attention"):
        changes: dict[str, Any] = VECTORS | {
            "model.hidden": (64,),
            "head": {"name": "attention", "hidden": 64} if pool == "attention" else {"name": "linear"},
            "labels": {"name": "every"},
            "method.objective": {"name": "pooled", "pool": pool},
            "batch.labelled": 320,
            "batches.bags_per_batch": 8,
            "evals": {"bag_auc": {"pool": pool}},
            "steps": 300,
        }
        folds = tuple(
            {"data": {"name": "musk1", "data_dir": str(data / "musk1"), "folds": 10, "fold": k, "seed": 0}}
            for k in range(10)
        )
        yield Line(pool, "musk1", "multiple_instance", changes, {"bag AUC": "bag_auc/auc"}, folds)


@_table
def _noisy(data: Path) -> Iterator[Line]:
    """CIFAR-10N: what people called CIFAR-10's training images, by ordinary cross-entropy, 1,000 steps of a small
    network: the floor of methods for noisy labels."""
    sets = {
        "the truth": None,
        "aggregate": "aggre",
        "random 1": "random1",
        "random 2": "random2",
        "random 3": "random3",
    }
    for name, column in {**sets, "worst of three": "worse"}.items():
        weak = None if column is None else {"name": "column", "column": column, "role": "label"}
        changes: dict[str, Any] = {
            "data": {"name": "cifar10n", "data_dir": str(data / "cifar10"), "labels_dir": str(data / "cifar10n")},
            "labels.weak": weak,
            "method.augment": {"name": "crop_flip", "padding": 4, "flip": True},
            "model.width": 48,
            "steps": 1000,
            "evals": {"head": {}},
        }
        yield Line(name, "CIFAR-10N", "noisy_labels", changes, {"accuracy": "head/accuracy"}, seeds=3)


TRANSFORMER = {"name": "transformer", "width": 128, "layers": 2, "heads": 4, "dropout": 0.1, "dtype": "float32"}


@_table
def _soft_labels(data: Path) -> Iterator[Line]:
    """CIFAR-10H: 8,000 images with the shares of classes that some 51 people each have named, and 2,000 to test on, 400
    steps of a small network. `cross-entropy` and `KL` are to people's shares, in nats, `accuracy` is of the class that
    most people name. The second line is taught the official label of each image instead."""
    shown = {
        "cross-entropy": "soft_labels/cross_entropy",
        "KL": "soft_labels/kl",
        "accuracy": "soft_labels/accuracy",
    }
    where = {"data.data_dir": str(data / "cifar10"), "data.labels_dir": str(data / "cifar10h")}
    yield Line("what people say", "CIFAR-10H", "soft_labels", where, shown, seeds=3)
    hard = {"labels": {"name": "all_labels"}, "method.objective": PLAIN}
    yield Line("one label an image", "CIFAR-10H", "soft_labels", {**where, **hard}, shown, seeds=3)


@_table
def _texts(data: Path) -> Iterator[Line]:
    """Intents of sentences, every training label, 1,000 steps from nothing, beside logistic regression on TF-IDF."""
    models = {
        "mean of word vectors": {"name": "mean_pool", "width": 256, "dropout": 0.5, "dtype": "float32"},
        "transformer": TRANSFORMER,
    }
    for name in ("banking77", "clinc150"):
        for model, how in models.items():
            source = {"name": name, "data_dir": str(data / name), "vocab_size": 4096, "max_length": 32}
            full = {"variant": "full", "split": "test", "out_of_scope": False} if name == "clinc150" else {}
            changes: dict[str, Any] = {
                "data": source | full,
                "model": how,
                "evals": {"head": {}, "tfidf_probe": {}},
                "labels": {"name": "all_labels"},
                "steps": 1000,
            }
            shown = {"accuracy": "head/accuracy", "TF-IDF": "tfidf_probe/accuracy"}
            yield Line(model, name, "own_sentences", changes, shown, seeds=3)


@_table
def _several_texts(data: Path) -> Iterator[Line]:
    """GoEmotions: which of 28 labels a comment has, every training label, 800 steps from nothing, beside logistic
    regression on TF-IDF. The floor is mAP of constant scores."""
    shown = {
        "mAP": "multilabel/mAP",
        "micro F1": "multilabel/OF1",
        "macro F1": "multilabel/CF1",
        "TF-IDF mAP": "tfidf_multilabel/mAP",
        "TF-IDF micro F1": "tfidf_multilabel/OF1",
        "floor": PREVALENCE,
    }
    where = {"data.data_dir": str(data / "goemotions")}
    yield Line("mean of word vectors", "GoEmotions", "several_labels", where, shown, seeds=3)


@_table
def _pixels(data: Path) -> Iterator[Line]:
    """Digits pasted on a canvas, a class for every pixel and one for the background: mean IoU over the 11 classes, 600
    steps; 100 labelled images by themselves, with 1,900 unlabelled ones, and 2,000 labelled images."""
    shown = {"mean IoU": "mean_iou/mean_iou"}
    yield Line("labels alone", "100 labelled", "pasted_pixels", {}, shown, seeds=3)
    yield Line("FixMatch", "100 labelled", "pasted_fixmatch", {}, shown, seeds=3)
    every = {"labels": {"name": "all_labels"}}
    yield Line("labels alone", "2,000 labelled", "pasted_pixels", every, shown, seeds=3)


@_table
def _regression(data: Path) -> Iterator[Line]:
    """Diabetes: mean absolute error, and that of the labelled targets' median."""
    shown = {"error": "regression_error/error", "floor": "regression_error/constant_error"}
    yield Line("squared error", "diabetes", "regression", {}, shown)
    evals = {"regression_error": {"bin_width": 10, "few": 10}}
    yield Line("ConR", "diabetes", "contrastive_regression", {"evals": evals}, shown)


def replaced(recipe: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The recipe with values replaced, by dotted path; a whole part takes its own keys alone."""
    config = configs.plain(labelfx.recipe(recipe))
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return config


def run(table: str, data: Path, workdir: Path, seeds: range) -> None:
    """What has no results yet, one seed of all lines after the other; the table's file after each."""
    path = HERE / f"{table}.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    for seed in seeds:
        for line in TABLES[table](data):
            key = f"{line.data} | {line.name}"
            if seed >= line.seeds or str(seed) in found.get(key, {}):
                continue
            folds = []
            for number, fold in enumerate(line.folds):
                config = replaced(line.recipe, {**line.changes, **fold})
                config |= {"name": key, "seed": seed, "label_seed": seed, "data_seed": seed}
                config["data"] |= {"seed": seed} if "seed" in config["data"] else {}  # of a split
                folder = workdir / table / key.replace("/", " ") / f"{seed}" / f"{number}"
                results = labelfx.train(config, folder)
                values = {
                    column: results["metrics"][where.split("/")[0]][where.split("/")[1]]
                    for column, where in line.shown.items()
                }
                folds.append(values | {"seconds": results["training"]["seconds"]})
            shown = {column: statistics.fmean(fold[column] for fold in folds) for column in folds[0]}
            found.setdefault(key, {})[str(seed)] = shown | {"commit": results["commit"], "hash": results["config_hash"]}
            HERE.mkdir(exist_ok=True)
            configs.write_text(path, json.dumps(found, indent=1) + "\n")
            configs.write_text(HERE / "README.md", page())


def page() -> str:
    """All tables that have a file, as Markdown."""
    parts = [
        "# A table for each kind of label\n\nMean and standard deviation over seeds, in % but for errors;"
        " `python -m experiments.kinds` makes them.\n"
    ]
    for table, lines in TABLES.items():
        path = HERE / f"{table}.json"
        if not path.exists():
            continue
        found: dict[str, dict[str, dict[str, Any]]] = json.loads(path.read_text())
        about = " ".join((lines.__doc__ or "").split())
        parts.append(f"## {table.replace('_', ' ').capitalize()}\n\n{about}\n")
        columns = list(dict.fromkeys(c for seeds in found.values() for values in seeds.values() for c in values))
        columns = [c for c in columns if c not in ("seconds", "commit", "hash")]
        parts.append(f"| data | method | {' | '.join(columns)} | seeds | seconds |")
        parts.append("| --- | --- |" + " ---: |" * (len(columns) + 2))
        for key, seeds in found.items():
            cells = [_cell([values[c] for values in seeds.values() if c in values], c) for c in columns]
            seconds = statistics.fmean(values["seconds"] for values in seeds.values())
            parts.append(f"| {key} | {' | '.join(cells)} | {len(seeds)} | {seconds:.0f} |")
        commits = sorted({str(values["commit"])[:9] for seeds in found.values() for values in seeds.values()})
        parts.append(f"\nAt commit {', '.join(commits)}.\n")
    return "\n".join(parts) + "\n"


def _cell(values: list[float], column: str) -> str:
    if not values or None in values:
        return ""
    scale = 1 if max(values) > 1 else 100
    digits = 3 if 1 < max(values) < 10 else 1  # nats; shares are in %
    spread = f" ± {scale * statistics.stdev(values):.{digits}f}" if len(values) > 1 and statistics.stdev(values) else ""
    return f"{scale * statistics.fmean(values):.{digits}f}{spread}"


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    for table in values.tables.split(","):
        if table not in TABLES:
            raise configs.ConfigError(f"--tables={table}: {configs.nearest(table, TABLES)}")
        run(table, Path(values.data), Path(values.workdir), seeds)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds; lines that are there for breadth stop at three")
    command.run(
        main,
        config=False,
        strings={
            "data": "the folder of the data sets",
            "tables": f"some of {', '.join(TABLES)}",
            "workdir": "of the runs",
        },
    )
