"""What weak labels are worth in true ones: a small network on Fashion-MNIST, told something weaker of 10,000 images.

    python -m experiments.weak_labels --data=FASHION_MNIST --wrench=WRENCH --workdir=DIR [--first_seed=0 --seeds=3]

Beside each kind of label, at three strengths, stands what one would do who knows no method for it: to draw a label from
what is said, and to take it for true. Started again, the command goes on where it was; `experiments/weak_labels/` has
the page. WRENCH holds its folders, whose votes are not simulated.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.paired import Run, cell, commits, fill
from labelfx.config import command
from labelfx.reports.efficiency import labels_needed

HERE = Path(__file__).parent / "weak_labels"
ROWS, STEPS, BATCH, CLASSES = 10_000, 300, 128, 10
BUDGETS = (30, 100, 300, 1000, 3000, ROWS)
NAIVE, FULL = "taken for true", "all true labels"
TEN, TWO = "ten classes", "shirts or not"
SHIRTS = ((1, 3, 5, 7, 8, 9), (0, 2, 4, 6))  # of Fashion-MNIST: other things, and what covers the upper body
ANNOTATORS = (0.9, 0.7, 0.5, 0.3, 0.3)  # the probabilities of their being right
SETS = ("youtube", "sms", "trec", "semeval")
MODELS = ("majority", "one_coin", "moments")
SHOWN = {"accuracy": "head/accuracy"}
CROSS_ENTROPY = {"name": "cross_entropy", "label_smoothing": 0.0}


def flips(rate: float) -> tuple[tuple[float, ...], ...]:
    """Of a label that is wrong at this rate, all other classes alike: [C, C], from the true class to the given."""
    matrix = np.full((CLASSES, CLASSES), rate / (CLASSES - 1))
    np.fill_diagonal(matrix, 1 - rate)
    return tuple(map(tuple, matrix.tolist()))


def guessed(rate: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """The naive row: a label, wrong at this rate, with the cross-entropy of true ones."""
    return {"name": "symmetric", "rate": rate}, {"method.objective": CROSS_ENTROPY}


def kinds() -> Iterator[tuple[str, str, str, dict[str, Any], dict[str, Any]]]:
    """Task, kind with its strength, row, what is said, and changes to the recipe."""
    weak: dict[str, Any]
    unbiased: dict[str, Any]
    for count in (7, 4, 1):
        kind, weak = f"complementary: {count} it is not", {"name": "complementary", "count": count}
        yield TEN, kind, NAIVE, *guessed(1 - 1 / (CLASSES - count))
        for loss in ("log", "exp"):
            yield TEN, kind, f"candidates, {loss}", weak, {"method.objective": {"name": "candidates", "loss": loss}}
        if count == 1:
            weak = {"name": "transition", "matrix": flips(1.0)}
            for clamp in ("none", "ascent"):
                unbiased = {"name": "unbiased", "transition": flips(1.0), "clamp": clamp}
                yield TEN, kind, f"unbiased, {clamp}", weak, {"method.objective": unbiased}
    for rate in (0.1, 0.4, 0.7):
        kind, weak = f"candidates: others at {rate}", {"name": "partial", "rate": rate}
        yield TEN, kind, NAIVE, *guessed(1 - (1 - (1 - rate) ** CLASSES) / (CLASSES * rate))  # 1 - E[1 / candidates]
        for loss in ("log", "mae"):
            yield TEN, kind, f"candidates, {loss}", weak, {"method.objective": {"name": "candidates", "loss": loss}}
    for rate in (0.2, 0.4, 0.6):
        kind, (weak, naive) = f"noisy: {rate} wrong", guessed(rate)
        yield TEN, kind, NAIVE, weak, naive
        forward = {"name": "forward", "transition": flips(rate), "anchor": 0.0}
        yield TEN, kind, "forward", weak, {"method.objective": forward}
        unbiased = {"name": "unbiased", "transition": flips(rate), "clamp": "nonnegative"}
        yield TEN, kind, "unbiased, nonnegative", weak, {"method.objective": unbiased}
    for size in (4, 16, 64):
        kind, weak = f"proportions of bags of {size}", {"name": "proportions", "bag_size": size}
        yield TEN, kind, NAIVE, *guessed((1 - 1 / size) * (1 - 1 / CLASSES))
        whole = {"name": "whole_bags", "bags_per_batch": BATCH // size}
        told = {"name": "proportion", "divergence": "kl"}
        yield TEN, kind, "proportion, kl", weak, {"method.objective": told, "batches": whole}
    for coverage in (1.0, 0.5, 0.2):
        kind = f"votes: each of {len(ANNOTATORS)} looks at {coverage}"
        weak = {"name": "annotators", "accuracies": ANNOTATORS, "coverage": coverage}
        for model in MODELS:
            row = NAIVE if model == "majority" else model
            yield TEN, kind, row, weak, {"method.rule.model": model}
    for frequency in (0.5, 0.2, 0.05):
        kind = f"positive-unlabelled: {frequency} of the shirts"
        weak = {"name": "positive_unlabelled", "positives": (1,)}
        weak["propensity"] = {"name": "constant", "frequency": frequency}
        for row, clamp in ((NAIVE, "none"), ("uPU", "none"), ("nnPU", "nonnegative")):
            told = {"name": "positive_unlabelled", "clamp": clamp}
            yield TWO, kind, row, weak | {"known": row != NAIVE}, {"method.objective": told}


def runs(data: str, wrench: str, seeds: range) -> Iterator[Run]:
    """Of the page, row by row; first the curves of true labels."""
    tasks: dict[str, dict[str, Any]] = {
        task: {
            "data": {"name": "fashion_mnist", "data_dir": data, "merge": merge},
            "model": {"name": "mlp", "hidden": (256,), "dtype": "float32"},
            "method.augment": {"name": "identity"},
            "optimizer.learning_rate": 1e-3,
            "steps": STEPS,
            "evals": {"head": {}},
        }
        for task, merge in ((TEN, ()), (TWO, SHIRTS))
    }
    for (task, common), budget, seed in itertools.product(tasks.items(), BUDGETS, seeds):
        told = {"labels": {"name": "uniform", "n": budget}, "batch.labelled": min(budget, BATCH)}
        yield Run((task, FULL, f"{budget}", f"{seed}"), "supervised", common | told, SHOWN)
    for (task, kind, row, weak, changes), seed in itertools.product(kinds(), seeds):
        votes = weak["name"] == "annotators"
        told = {"labels": {"name": "uniform", "n": ROWS, "weak": weak}}
        told["batch.unlabelled" if votes else "batch.labelled"] = BATCH
        recipe = "label_model" if votes else "supervised"
        yield Run((task, kind, row, f"{seed}"), recipe, tasks[task] | told | changes, SHOWN)
    truth = {"labels.weak": None, "method.objective": CROSS_ENTROPY, "method.rule": {"name": "given"}}
    rows: dict[str, dict[str, Any]] = {model: {"method.rule.model": model} for model in MODELS} | {FULL: truth}
    for which, (row, changes), seed in itertools.product(SETS, rows.items(), seeds):
        source = {"data.name": f"wrench:{which}", "data.data_dir": wrench}
        yield Run(("WRENCH", which, row, f"{seed}"), "label_model", source | changes, SHOWN)


def page(found: dict[str, dict[str, dict[str, dict[str, dict[str, Any]]]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# What weak labels are worth in true ones\n",
        "`python -m experiments.weak_labels`: accuracy in % on Fashion-MNIST's test images, mean and standard deviation"
        f" over paired seeds, and in brackets the paired difference to `{NAIVE}`, mean and standard error: a label"
        f" drawn from what is said, of votes their majority. Of {ROWS:,} images something is said; one hidden layer of"
        f" 256, {STEPS} steps of {BATCH} rows, AdamW at one rate, nothing tuned. Forward, unbiased and"
        " positive-unlabelled losses are told the true rates; that nothing is a shirt is right of 60 %. *Worth* is the"
        " number of true labels with which the same network reaches as much, read off the curve between the numbers"
        " given, in brackets the 95 % interval.\n",
    ]
    for task in (each for each in (TEN, TWO) if each in found):
        curve = found[task][FULL]
        budgets = " | ".join(f"{budget:,}" for budget in BUDGETS)
        parts += [f"## {task}\n", f"| true labels | {budgets} |", "| --- |" + " ---: |" * len(BUDGETS)]
        parts += [f"| accuracy | {' | '.join(cell(curve.get(f'{budget}', {}), {}) for budget in BUDGETS)} |\n"]
        parts += ["| what is said | row | accuracy | worth in true labels |", "| --- | --- | ---: | ---: |"]
        for where, kind, row, *_ in kinds():
            rows = found[task].get(kind, {})
            if where == task and row in rows:
                parts.append(f"| {kind} | {row} | {cell(rows[row], rows[NAIVE])} | {worth(curve, rows[row])} |")
        parts.append("")
    if "WRENCH" in found:
        columns = (*MODELS, FULL)
        parts += [
            "## WRENCH\n",
            "Votes of people's rules teach a network of mean embeddings through a label model, recipe `label_model`:"
            " accuracy in % on test rows, in brackets the paired difference to the majority.\n",
            f"| set | {' | '.join(columns)} |",
        ]
        parts += ["| --- |" + " ---: |" * len(columns)]
        for which, of in found["WRENCH"].items():
            parts.append(f"| {which} | {' | '.join(cell(of.get(row, {}), of.get(MODELS[0], {})) for row in columns)} |")
    number = sorted({len(s) for kinds in found.values() for rows in kinds.values() for s in rows.values()})
    return "\n".join([*parts, f"\nSeeds: {'-'.join(map(str, number))}. At commit {', '.join(commits(found))}."]) + "\n"


def worth(curve: dict[str, dict[str, dict[str, Any]]], seeds: dict[str, dict[str, Any]]) -> str:
    """True labels that reach as much as a row; nothing before the curve is there."""
    shared = sorted(seed for seed in seeds if all(seed in curve.get(f"{budget}", {}) for budget in BUDGETS))
    if not shared:
        return ""
    ours = np.array([[curve[f"{budget}"][seed]["accuracy"] for budget in BUDGETS] for seed in shared])
    needed = labels_needed(BUDGETS, ours, np.array([seeds[seed]["accuracy"] for seed in shared]))
    return said(needed.labels) + (f" ({said(needed.low)} to {said(needed.high)})" if len(shared) > 1 else "")


def said(labels: float | None) -> str:
    if labels is None:
        return f"more than {ROWS:,}"
    digits = int(np.floor(np.log10(labels))) - 1
    return f"below {BUDGETS[0] + 1}" if labels <= BUDGETS[0] else f"{round(labels, -digits):,.0f}"


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    fill(HERE, Path(values.workdir).absolute(), runs(values.data, values.wrench, seeds), page)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    strings = {"data": "the folder of Fashion-MNIST", "wrench": "the folder of WRENCH's sets", "workdir": "of the runs"}
    command.run(main, config=False, strings=strings)
