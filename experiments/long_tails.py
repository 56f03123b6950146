"""What rare classes get of a network, by its loss: Fashion-MNIST with a long tail, and sets of labels with a promise.

    python -m experiments.long_tails --data=FASHION_MNIST --workdir=DIR [--first_seed=0 --seeds=3]

Started again, the command goes on where it was; `experiments/long_tails/README.md` is the page.
"""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from experiments.paired import Run, cell, commits, fill
from labelfx.config import command

HERE = Path(__file__).parent / "long_tails"
STEPS, BATCH, ERROR, SPLITS = 1000, 128, 0.1, 100
IMBALANCES = (10, 100)
BASELINE = "cross_entropy"
COSINE = {"head": {"name": "cosine"}}
MARGINS = {"name": "ldam", "scale": 30.0}
# Row -> changes to the recipe; the numbers are the authors', and none was tuned.
METHODS: dict[str, dict[str, Any]] = {
    BASELINE: {"method.objective": {"name": "cross_entropy", "label_smoothing": 0.0}},
    "balanced_cross_entropy": {"method.objective": {"name": "balanced_cross_entropy", "beta": 0.9999}},
    "logit_adjusted": {"method.objective": {"name": "logit_adjusted", "temperature": 1.0}},
    "cosine, without a margin": {"method.objective": MARGINS | {"margin": 1e-6, "beta": 0.0}} | COSINE,
    "cosine, ldam": {"method.objective": MARGINS | {"margin": 0.5, "beta": 0.0}} | COSINE,
    "cosine, ldam, balanced": {"method.objective": MARGINS | {"margin": 0.5, "beta": 0.9999}} | COSINE,
}
ACCURACIES = ("balanced", "head", "medium", "tail", "worst")
SETS = ("coverage", "coverage_std", "law_mean", "law_std", "mean_set_size", "empty", "worst_class_coverage")
SHOWN = {name: f"groups/{name}_accuracy" for name in ACCURACIES} | {name: f"conformal/{name}" for name in SETS}


def runs(data: str, seeds: range) -> Iterator[Run]:
    """Of the page, row by row."""
    for imbalance, (row, changes), seed in itertools.product(IMBALANCES, METHODS.items(), seeds):
        common = {
            "data": {"name": "fashion_mnist", "data_dir": data},
            "labels": {"name": "long_tail", "imbalance": float(imbalance)},
            "model": {"name": "mlp", "hidden": (256,), "dtype": "float32"},
            "method.augment": {"name": "identity"},
            "batch.labelled": BATCH,
            "steps": STEPS,
            "evals": {"groups": {}, "conformal": {"error": ERROR, "holdout": 0.5, "repeats": SPLITS}},
        }
        yield Run((f"{imbalance}", row, f"{seed}"), "supervised", common | changes, SHOWN)


def page(found: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# Long tails, and sets of labels with a promise\n",
        "`python -m experiments.long_tails`: Fashion-MNIST, whose first class has so many times the labels of the last;"
        f" one hidden layer of 256, {STEPS:,} steps of {BATCH} rows, the losses' numbers their authors'. Accuracy in %"
        " on the balanced test images, mean and standard deviation over seeds, in brackets the paired difference to"
        f" `{BASELINE}`, mean and standard error. Head, medium and tail are 4, 3 and 3 classes, by their labels; worst"
        " is one class. A cosine classifier is beside its own baseline, the row without a margin.\n",
    ]
    for imbalance, rows in found.items():
        parts += [f"## {imbalance} to 1\n", f"|  | {' | '.join(ACCURACIES)} |", "| --- |" + " ---: |" * len(ACCURACIES)]
        for row, seeds in rows.items():
            cells = [cell(seeds, rows.get(BASELINE, {}), name) for name in ACCURACIES]
            parts.append(f"| {row} | {' | '.join(cells)} |")
        parts.append("")
    parts += [
        "## Conformal sets\n",
        f"Split-conformal sets of one minus the probability, at {100 * (1 - ERROR):.0f} %: {SPLITS} splits of the test"
        " images into halves, one to calibrate and one to judge. Coverage in %, mean and standard deviation over"
        " splits; the law is the exact beta-binomial one of that many rows; means over seeds. Coverage is of all"
        " classes together: what the worst class gets is not promised. Probabilities of a cosine classifier are here"
        " those of the cosines alone, without the scale that it is trained with.\n",
        "| imbalance |  | coverage | law | classes in a set | empty sets | worst class |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for imbalance, rows in found.items():
        for row, seeds in rows.items():
            mean = {name: statistics.fmean(value[name] for value in seeds.values()) for name in SETS}
            percent = {name: f"{100 * value:.2f}" for name, value in mean.items()}
            parts.append(
                f"| {imbalance} | {row} | {percent['coverage']} ± {percent['coverage_std']} | {percent['law_mean']} ±"
                f" {percent['law_std']} | {mean['mean_set_size']:.2f} | {100 * mean['empty']:.1f} |"
                f" {100 * mean['worst_class_coverage']:.1f} |"
            )
    number = sorted({len(seeds) for rows in found.values() for seeds in rows.values()})
    return "\n".join([*parts, f"\nSeeds: {'-'.join(map(str, number))}. At commit {', '.join(commits(found))}."]) + "\n"


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    fill(HERE, Path(values.workdir).absolute(), runs(values.data, seeds), page)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of Fashion-MNIST", "workdir": "of the runs"})
