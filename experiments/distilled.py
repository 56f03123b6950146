"""A pretrained encoder's soft labels, stored once, taught to small networks: what each way of using them is worth.

    python -m experiments.distilled --data=CIFAR10 --encoder=FOLDER --workdir=DIR [--first_seed=0 --seeds=5]

FOLDER holds EfficientNet-Lite0 (`model.safetensors`, `config.json`). Its frozen features and 100 labels a class of
10,000 images make the teacher; every image has no label else. No student runs a teacher: all learn from what
`labelfx.reinforce` has stored of ten views an image, or of one. Started again, the command goes on where it was: what
is done is in `experiments/distilled/results.json`, the table in `README.md` beside it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import Run, cell, commits, fill, is_filled, train
from experiments.pretrained import SIZE, WEAK, rows_of
from labelfx.config import command
from labelfx.reports import sweep
from labelfx.reports.sweep import Job

HERE = Path(__file__).parent / "distilled"
BASELINE = "supervised"
LABELS = {"name": "per_class", "k": 100}
FEW = {"name": "per_class", "k": 1}  # those of a teacher that is often wrong
VIEWS, STEPS = 10, 500
CROP = {"name": "simclr", "min_scale": 0.35, "flip": True, "jitter_strength": 0.0, "grayscale": 0.0, "blur": 0.0}
SOFT = (("soft_1", "teacher", 1), (f"soft_{VIEWS}", "teacher", VIEWS), ("soft_wrong", "wrong_teacher", 1))
BATCH = {"labelled": 32, "unlabelled": 96}
ALONE = {"labelled": 128, "unlabelled": 0}
KD = {"name": "kd", "temperature": 2.0}


def teachers(data: str, encoder: str, folder: Path, seed: int) -> Iterator[Job]:
    """The teacher of a seed's students, and one that is often wrong."""
    seeds = {"seed": seed, "label_seed": seed, "data_seed": seed}
    changes = {"data": {"name": f"npz:{data}"}, "model.file": encoder, "model.image_size": SIZE, "keep": 1, **seeds}
    for name, labels in (("teacher", LABELS), ("wrong teacher", FEW)):
        config = labelfx.recipe("frozen", changes | {"name": name, "labels": labels, "evals": {"linear_probe": {}}})
        yield Job(folder / name.replace(" ", "_"), config)


def students(data: str, workdir: Path, seed: int) -> Iterator[Run]:
    """Every student of a seed, on the same labels and from the same parameters."""
    folder = workdir / "teachers" / f"{seed}"
    common: dict[str, Any] = {"data": {"name": f"npz:{data}"}, "labels": LABELS, "steps": STEPS, "evals": {"head": {}}}
    common |= {"log_every": STEPS // 20, "method.augment": CROP}

    def student(name: str, recipe: str, changes: Mapping[str, Any]) -> Run:
        return Run((name, f"{seed}"), recipe, common | dict(changes), {"accuracy": "head/accuracy"})

    def stored(file: str, crops: int = 1) -> dict[str, Any]:
        return {"name": "stored", "file": str(folder / file), "fill": "spread", "crops": crops}

    def taught(name: str, soft: Mapping[str, Any], **changes: Any) -> Run:
        method = {"method.soft_labels": soft, "method.soft_objective": KD, "method.soft_weight": 0.9}
        return student(name, "reinforced", method | {"batch": BATCH} | changes)

    yield student(BASELINE, "supervised", {"batch": ALONE})
    yield student("SLA", "label_augmentation", {"batch": ALONE, "method.augment": WEAK})
    for views in (1, VIEWS):
        yield taught(f"stored, {views} view{'s'[: views > 1]}", stored(f"soft_{views}"))
    yield taught("stored, no labels", stored(f"soft_{VIEWS}"), **{"method.soft_weight": 1.0})
    ten = stored(f"soft_{VIEWS}")
    selfmix = {"method.mix": {"name": "selfmix", "alpha": 1.0}, "batch": {k: size // 2 for k, size in BATCH.items()}}
    yield taught("selfmix", stored(f"soft_{VIEWS}", crops=2), **selfmix)
    calibrated = {"name": "calibrated", "low": 0.15, "high": 0.5, "smoothing": 0.1}
    yield taught("FerKD", calibrated | {"of": stored(f"soft_{VIEWS}", crops=2)}, **selfmix)
    yield taught("LLKD", {"name": "selected", "momentum": 0.999, "of": ten})
    yield taught("stored, wrong teacher", stored("soft_wrong"))
    queried = {"name": "queried", "budget": 2000, "error": 0.6, "of": stored("soft_wrong")}
    yield taught("stored, wrong teacher, queried", queried, **{"refresh_every": STEPS // 4})
    adversary = labelfx.recipe("ensemble_distillation")["method"]["adversary"]
    start = {"backbone": str(workdir / BASELINE / f"{seed}")}
    yield taught("MEAL V2", ten, **{"method.soft_weight": 1.0, "method.adversary": adversary}, **start)


def runs(data: str, encoder: str, workdir: Path, seeds: range) -> Iterator[Run]:
    """Of the page, seed by seed; before the first that it lacks of a seed, what that is taught."""
    for seed in seeds:
        folder, every = workdir / "teachers" / f"{seed}", list(students(data, workdir, seed))
        missing = [run for run in every if not is_filled(HERE, run)]
        if missing:
            sweep.work_off(teachers(data, encoder, folder, seed))
            for name, teacher, views in SOFT:
                labelfx.reinforce([folder / teacher], folder / name, views=views, top=10, augment=CROP, seed=seed)
        for run in missing:
            if "backbone" in run.changes:
                train(every[0], workdir)
            yield run


def page(found: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as Markdown."""
    lines = [
        "# Stored soft labels of a pretrained encoder, taught to a small network\n",
        "`python -m experiments.distilled`: accuracy in % on 2,000 test images of CIFAR-10, of which 10,000 training"
        " images are drawn and 1,000 have a label; mean and standard deviation over seeds, in brackets the paired"
        f" difference to `{BASELINE}`, mean and standard error. The teacher is a linear probe on EfficientNet-Lite0,"
        f" trained on ImageNet; the student has three convolutions and takes {STEPS:,} steps of {sum(BATCH.values())}"
        " images. The wrong teacher saw one label a class. MEAL V2 starts from the supervised network, and so takes"
        " twice the steps.\n",
        "|  | accuracy | seeds |",
        "| --- | ---: | ---: |",
    ]
    for name, seeds in found.items():
        lines.append(f"| {name} | {cell(seeds, found[BASELINE])} | {len(seeds)} |")
    return "\n".join([*lines, f"\nAt commit {', '.join(commits(found))}."]) + "\n"


def main(values: Any) -> None:
    seeds, workdir = range(values.first_seed, values.first_seed + values.seeds), Path(values.workdir).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    rows_of(Path(values.data), workdir / "rows.npz")
    fill(HERE, workdir, runs(str(workdir / "rows.npz"), values.encoder, workdir, seeds), page)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds")
    strings = {"data": "the folder of CIFAR-10", "encoder": "the folder of the encoder", "workdir": "of the runs"}
    command.run(main, config=False, strings=strings)
