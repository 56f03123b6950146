"""Training through labels of which many are wrong: every method for it and cross-entropy, on three sets.

    python -m experiments.doubtful --data=DIR --encoder=ENCODER --workdir=DIR [--first_seed=0 --seeds=3]

Started again, the command goes on where it was; `experiments/doubtful/` has the page. `--data` holds the data sets,
each in the folder of its name; ENCODER is EfficientNet-Lite0 as timm publishes it.
"""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags

from experiments.paired import Run, cell, commits, fill
from labelfx.config import command
from labelfx.data import sources
from labelfx.evals.kept import kept_in
from labelfx.labels.noise import count_transitions

HERE = Path(__file__).parent / "doubtful"
CLASSES, BATCH, STEPS = 10, 128, 1500
NAIVE, CEILING = "cross-entropy", "cross-entropy on true labels"
FLIPS = ((0, 6), (2, 4), (5, 7), (7, 9))  # top to shirt, pullover to coat, sandal to sneaker, sneaker to boot
SHOWN = {"accuracy": "head/accuracy"}
PLAIN = {"name": "cross_entropy", "label_smoothing": 0.0}
LOSSES: dict[str, dict[str, Any]] = {
    NAIVE: PLAIN,
    "GCE": {"name": "generalised_cross_entropy", "q": 0.7},
    "symmetric CE": {"name": "symmetric_cross_entropy", "alpha": 0.1, "beta": 1.0, "log_zero": -4.0},
    "LDR-KL (P62)": {"name": "ldr", "temperature": 10.0, "margin": 0.1},
    "ALDR-KL (P62)": {"name": "aldr", "base": 10.0, "adapt": 2.0, "margin": 0.1},
}
ADAM = {
    "name": "adamw",
    "learning_rate": 1e-3,
    "b1": 0.9,
    "b2": 0.999,
    "weight_decay": 1e-4,
    "schedule": {"name": "cosine", "warmup_steps": 20},
    "clip_norm": None,
    "accumulate": 1,
}  # that of the recipe `noisy_labels`
SOFT = {"name": "soft_cross_entropy"}
RULES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "early learning (ELR)": (
        {"name": "early_learning", "momentum": 0.7, "warmup": 0.1},
        {"name": "early_learning_regularised", "strength": 3.0},
    ),
    "DivideMix's gate": ({"name": "dividemix", "threshold": 0.5, "temperature": 0.5, "warmup": 0.1}, SOFT),
    "loss gate (P165)": ({"name": "loss_gate", "confidence": 0.8, "temperature": 0.5, "warmup": 0.1}, SOFT),
    "learnt noise model (P160)": ({"name": "noise_model", "estimate": "confusion", "warmup": 0.1}, SOFT),
}


def where(data: Path) -> dict[str, str]:
    """CIFAR-10N."""
    return {"data_dir": str(data / "cifar10"), "labels_dir": str(data / "cifar10n")}


def of_people(data: Path) -> np.ndarray:
    """How often people's worst label calls each class what, [C, C]."""
    people = sources.cifar10n(**where(data)).train
    return count_transitions(people.columns["worse"], people.labels, CLASSES, smoothing=0.0)


def transitions() -> dict[str, np.ndarray]:
    """Of the simulated noise."""
    symmetric = np.full((CLASSES, CLASSES), 0.5 / (CLASSES - 1))
    np.fill_diagonal(symmetric, 0.5)
    asymmetric = np.eye(CLASSES)
    for first, second in FLIPS:
        asymmetric[first, [first, second]] = 0.6, 0.4
    return {"symmetric": symmetric, "asymmetric": asymmetric}


def settings(
    data: Path, encoder: str, counted: np.ndarray
) -> Iterator[tuple[str, str, dict[str, Any], dict[str, Any], np.ndarray]]:
    """Name, recipe, changes to it, what is said in the place of labels, and how often."""
    of_encoder = {
        "data": {"name": "cifar10n", **where(data)},
        "labels": {"name": "all_labels"},
        "model.file": encoder,
        "model.image_size": 96,
        "optimizer": ADAM,
    }
    said: dict[str, Any] = {"name": "column", "column": "worse", "role": "label"}
    yield "CIFAR-10N worse, frozen features", "frozen", of_encoder, said, counted
    small = {
        "data": {"name": "fashion_mnist", "data_dir": str(data / "fashion_mnist")},
        "labels": {"name": "uniform", "n": 10_000},
        "model": {"name": "mlp", "hidden": (256,), "dtype": "float32"},
        "method.augment": {"name": "identity"},
    }
    known = transitions()
    said = {"name": "symmetric", "rate": 0.5}
    yield "Fashion-MNIST, 50 % symmetric", "noisy_labels", small, said, known["symmetric"]
    said = {"name": "asymmetric", "flips": FLIPS, "rate": 0.4}
    yield "Fashion-MNIST, 40 % of four classes asymmetric", "noisy_labels", small, said, known["asymmetric"]


def rows(transition: np.ndarray) -> dict[str, dict[str, Any]]:
    """Name -> changes."""
    matrix = tuple(map(tuple, transition.tolist()))
    objectives = LOSSES | {
        "forward, transition known": {"name": "forward", "transition": matrix, "anchor": 0.0},
        "backward, transition known": {"name": "unbiased", "transition": matrix, "clamp": "none"},
    }
    found: dict[str, dict[str, Any]] = {name: {"method.objective": loss} for name, loss in objectives.items()}
    found[CEILING] = {"method.objective": PLAIN, "labels.weak": None}
    found["cross-entropy, a fifth of the steps"] = {"method.objective": PLAIN, "steps": STEPS // 5}
    for name, (rule, objective) in RULES.items():
        method = {"name": "relabelling", "augment": {"name": "identity"}, "objective": objective, "rule": rule}
        found[name] = {"method": method, "batch.labelled": 0, "batch.unlabelled": BATCH, "refresh_every": 100}
    return found


def runs(data: Path, encoder: str, counted: np.ndarray, seeds: range) -> Iterator[Run]:
    """Seed by seed, so that a page that is not whole compares all rows."""
    found = list(settings(data, encoder, counted))
    for seed, (setting, recipe, common, weak, transition) in itertools.product(seeds, found):
        for row, changes in rows(transition).items():
            every = {"labels.weak": weak, "batch.labelled": BATCH, "steps": STEPS, "evals": {"head": {}}}
            yield Run((setting, row, f"{seed}"), recipe, common | every | changes, SHOWN)


def page(found: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> str:
    """The results as Markdown."""
    names = [*rows(np.eye(CLASSES))]
    lines = [
        "# Training through doubtful labels\n",
        "`python -m experiments.doubtful`: accuracy in % on test images after the last step, mean and standard"
        f" deviation over paired seeds, and in brackets the paired difference to `{NAIVE}`, mean and standard error."
        f" {STEPS:,} steps of {BATCH} rows, AdamW at the rate 0.001, nothing tuned.\n",
        "Of Fashion-MNIST 10,000 images are labelled, and there is one hidden layer of 256. Of CIFAR-10N all 50,000"
        " are, 40 % of them wrongly, and a linear classifier reads the frozen features of EfficientNet-Lite0 at 96"
        " pixels. Rules are asked every 100 steps, after a tenth of all. Who knows a transition has it from the true"
        " labels, which nobody has.\n",
        f"| | {' | '.join(found)} |",
        "| --- |" + " ---: |" * len(found),
    ]
    for name in names:
        cells = [cell(of.get(name, {}), of.get(NAIVE, {})) for of in found.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    number = sorted({len(seeds) for of in found.values() for seeds in of.values()})
    return "\n".join([*lines, f"\nSeeds: {'-'.join(map(str, number))}. At commit {', '.join(commits(found))}."]) + "\n"


def main(values: Any) -> None:
    seeds, workdir = range(values.first_seed, values.first_seed + values.seeds), Path(values.workdir).absolute()
    data = Path(values.data)
    with kept_in(workdir):
        fill(HERE, workdir, runs(data, values.encoder, of_people(data), seeds), page)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 3, "how many seeds")
    strings = {"data": "the folder of the data sets", "encoder": "EfficientNet-Lite0's", "workdir": "of the runs"}
    command.run(main, config=False, strings=strings)
