"""What a pretrained encoder is worth on CIFAR-10 with few labels, and how to use it, beside training from nothing.

    python -m experiments.pretrained --data=CIFAR10 --encoder=FOLDER --workdir=DIR [--first_seed=0 --seeds=5]

FOLDER holds EfficientNet-Lite0 (`model.safetensors`, `config.json`). Lines come in the order of their cost; started
again, the command goes on where it was. What is finished is in `experiments/pretrained/results.json` and, as a table,
in `README.md` beside it.
"""

import json
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import flags

import labelfx
from experiments.paired import cell
from labelfx import config as configs
from labelfx.config import command
from labelfx.data import sources
from labelfx.evals.kept import kept_in

HERE = Path(__file__).parent / "pretrained"
ROWS = {"train": 10_000, "test": 2_000}  # of CIFAR-10, drawn once: all that a run sees
SIZE = 96  # pixels a side that the encoder sees of 32
PER_CLASS = {f"{k} a class": {"name": "per_class", "k": k} for k in (1, 4, 25)}
UNIFORM = {f"{n} in all": {"name": "uniform", "n": n} for n in (10, 40, 250)}
BUDGETS: dict[str, dict[str, Any]] = {**PER_CLASS, **UNIFORM}
BASELINE = "encoder frozen, linear probe"


class Line(NamedTuple):
    """A recipe with `changes`, by dotted path; `shown`, row of the table -> EVAL/METRIC of its results; the lines of
    whose runs it learns the `votes`, or one as its `teacher`. What is not `told` a label trains once a seed, and serves
    every budget."""

    name: str
    recipe: str
    changes: dict[str, Any]
    shown: dict[str, str]
    budgets: tuple[str, ...] = tuple(BUDGETS)
    seeds: int = 5
    votes: tuple[str, ...] = ()
    teacher: str = ""
    told: bool = True


UPPER = ("blocks.5", "blocks.6", "conv_head")  # of the encoder: of these its low-rank updates are, and cost half
WEAK = {"name": "crop_flip", "padding": 4, "flip": True}
STRONG = {"name": "randaugment", "padding": 4, "flip": True, "operations": 2, "magnitude": 1.0, "probability": 0.5}
STRONG |= {"cutout": 0.5}
SIMCLR = {"name": "simclr", "min_scale": 0.2, "flip": True, "jitter_strength": 0.5, "grayscale": 0.2, "blur": 0.0}
EVALS = {
    "raw_pixels": {},
    "linear_probe": {},
    "knn": {"k": 20, "temperature": 0.07},
    "feature_propagation": {"k": 50, "gamma": 3.0, "alpha": 0.99},
}
SHOWN = {
    "raw pixels, linear probe": "raw_pixels/accuracy",
    BASELINE: "linear_probe/accuracy",
    "encoder frozen, 20 nearest neighbours": "knn/accuracy",
    "encoder frozen, labels propagated": "feature_propagation/accuracy",
}


def lines(encoder: str) -> list[Line]:
    """Of the table, the cheap ones first."""
    tuned = labelfx.recipe("finetune_pretrained")["model"] | {"file": encoder, "image_size": SIZE}
    of_encoder = {"model.file": encoder, "model.image_size": SIZE}
    updated = of_encoder | {"method.augment": WEAK, "steps": 60}
    updated |= {"model.lora": {"rank": 4, "alpha": 8.0, "paths": UPPER}}
    slowed = labelfx.recipe("finetune_pretrained")["optimizer"]
    few = {"steps": 200, "batch": {"labelled": 8, "unlabelled": 24}, "method.weak": WEAK, "method.strong": STRONG}
    few |= {"model": tuned}
    own: dict[str, Any] = {"head": "head/accuracy"}
    return [
        Line("frozen", "frozen", of_encoder | {"evals": EVALS}, SHOWN),
        Line("lora", "lora", updated, {"encoder, low-rank updates": own["head"]}),
        Line(
            "supervised", "supervised", {"method.augment": WEAK, "evals": {"head": {}}}, {"from nothing": own["head"]}
        ),
        Line(
            "distilled",
            "distillation",
            {"method.augment": WEAK, "method.soft_labels.augment": WEAK, "batch": {"labelled": 16, "unlabelled": 48}}
            | {"evals": {"head": {}}},
            {"from nothing, taught by low-rank updates": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
            teacher="lora",
        ),
        Line(
            "fixmatch",
            "fixmatch",
            {"method.weak": WEAK, "method.strong": STRONG, "evals": {"head": {}}, "steps": 1000},
            {"from nothing, FixMatch": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
        ),
        Line(
            "hard_negative",
            "hard_negative",
            {"method.augment": SIMCLR, "steps": 1000, "batch.unlabelled": 128},
            {"from nothing, hard negatives, linear probe": "linear_probe/accuracy"},
            seeds=3,
            told=False,
        ),
        Line(
            "finetuned",
            "finetune_pretrained",
            of_encoder | {"method.augment": WEAK},
            {"encoder, fine-tuned by layers": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
        ),
        Line(
            "self_trained",
            "lora",
            updated | {"steps": 150, "method.objective": {"name": "vote_cross_entropy"}},
            {"encoder, self-trained on three": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
            votes=("frozen", "lora", "finetuned"),
        ),
        Line(
            "encoder_fixmatch",
            "fixmatch",
            few | {"optimizer": slowed, "evals": {"head": {}}},
            {"encoder, FixMatch": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
        ),
        Line(
            "encoder_meta_pseudo_labels",
            "meta_pseudo_labels",
            few | {"optimizer": slowed, "method.teacher_optimizer": slowed, "phases": (), "evals": {"head": {}}},
            {"encoder, Meta Pseudo Labels": own["head"]},
            budgets=tuple(PER_CLASS),
            seeds=3,
        ),
    ]


def rows_of(data: Path, path: Path) -> None:
    """Writes `ROWS` of CIFAR-10 to `path`, where it is not there."""
    if path.exists():
        return
    whole, rng = sources.cifar10(data_dir=str(data)), np.random.default_rng(0)
    assert whole.test is not None
    arrays: dict[str, Any] = {}
    for name, split in (("train", whole.train), ("test", whole.test)):
        rows = np.sort(rng.permutation(len(split.labels))[: ROWS[name]])
        arrays |= {f"{name}_images": split.inputs[rows], f"{name}_labels": split.labels[rows]}
    with configs.replacing(path) as file:
        np.savez(file, **arrays, class_names=np.array(whole.class_names))


def train(line: Line, budget: str, seed: int, data: str, workdir: Path, every: Mapping[str, Line]) -> Mapping[str, Any]:
    """The results of a run of a line, after those that it learns from where they are not in `workdir`."""
    for name in {*line.votes, line.teacher} - {""}:
        train(every[name], budget, seed, data, workdir, every)
    place = Path(budget.replace(" ", "_")) / f"{seed}"
    folder = workdir / line.name / place
    seeds = {"seed": seed, "label_seed": seed, "data_seed": seed}
    common = {"name": line.name, "data": {"name": f"npz:{data}"}, "labels": BUDGETS[budget], **seeds}
    common |= {"save_every": 10**6, "keep": 1}
    changes = common | line.changes
    if line.teacher:
        changes["teacher"] = str(workdir / line.teacher / place)
    if line.votes:
        votes = folder / "votes.npz"
        if not votes.exists():
            folder.mkdir(parents=True, exist_ok=True)
            labelfx.vote([workdir / name / place for name in line.votes], votes)
        changes["labels"] = {"name": "every", "weak": {"name": "recorded", "path": str(votes)}}
    if line.told:
        return labelfx.train(labelfx.recipe(line.recipe, changes), folder / "run" if line.votes else folder)
    shared = workdir / line.name / f"{seed}"
    labelfx.train(labelfx.recipe(line.recipe, changes | {"labels": {"name": "none"}, "evals": {}}), shared)
    return labelfx.evaluate(shared, out=folder, labels=BUDGETS[budget], label_seed=seed, evals={"linear_probe": {}})


def run(data: Path, encoder: str, workdir: Path, seeds: range) -> None:
    """What has no results yet, one line after the other; the files after each run."""
    path = HERE / "results.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    workdir.mkdir(parents=True, exist_ok=True)
    rows_of(data, workdir / "rows.npz")
    every = {line.name: line for line in lines(encoder)}
    for line in every.values():
        for seed in range(seeds.start, min(seeds.stop, line.seeds)):
            for budget in line.budgets:
                if all(str(seed) in found.get(row, {}).get(budget, {}) for row in line.shown):
                    continue
                begin = time.process_time()
                with kept_in(workdir):
                    results = train(line, budget, seed, str(workdir / "rows.npz"), workdir, every)
                about = {"minutes": (time.process_time() - begin) / 60, "commit": results["commit"]}
                for row, where in line.shown.items():
                    name, metric = where.split("/")
                    value = {"accuracy": results["metrics"][name][metric], **about}
                    found.setdefault(row, {}).setdefault(budget, {})[str(seed)] = value
                HERE.mkdir(exist_ok=True)
                configs.write_text(path, json.dumps(found, indent=1) + "\n")
                configs.write_text(HERE / "README.md", page(found))


def page(found: dict[str, dict[str, dict[str, dict[str, Any]]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# A pretrained encoder on CIFAR-10 with few labels\n",
        "`python -m experiments.pretrained`: accuracy in %, mean and standard deviation over seeds, each with a draw of"
        f" the labels; in brackets the paired difference to `{BASELINE}`, mean and standard error. The encoder is"
        f" EfficientNet-Lite0, trained on ImageNet with its labels, whose classes are close to these, and sees {SIZE}"
        " pixels a side; where all of it is trained, it is by AdamW, the lower layers the slower. Of CIFAR-10 there"
        f" are {ROWS['train']:,} training images, all that any run sees, and {ROWS['test']:,} test images. What is"
        " trained from nothing is a small network of three convolutions. Labels are drawn for every class alike, or"
        " uniformly.\n",
        f"| row | {' | '.join(BUDGETS)} | seeds | CPU minutes a run |",
        "| --- |" + " ---: |" * (len(BUDGETS) + 2),
    ]
    for row, budgets in found.items():
        every = [values for seeds in budgets.values() for values in seeds.values()]
        cells = [cell(budgets.get(budget, {}), found.get(BASELINE, {}).get(budget, {})) for budget in BUDGETS]
        counts = {len(seeds) for seeds in budgets.values()}
        minutes = statistics.fmean(values["minutes"] for values in every)
        parts.append(f"| {row} | {' | '.join(cells)} | {'-'.join(map(str, sorted(counts)))} | {minutes:.1f} |")
    commits = sorted({str(v["commit"])[:9] for b in found.values() for seeds in b.values() for v in seeds.values()})
    return "\n".join([*parts, f"\nAt commit {', '.join(commits)}."]) + "\n"


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    run(Path(values.data), values.encoder, Path(values.workdir).absolute(), seeds)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds; dearer lines stop at three")
    strings = {"data": "the folder of CIFAR-10", "encoder": "the folder of the encoder", "workdir": "of the runs"}
    command.run(main, config=False, strings=strings)
