"""A pretrained encoder's soft labels, stored once, taught to small networks: what each way of using them is worth.

    python -m experiments.distilled --data=CIFAR10 --encoder=FOLDER --workdir=DIR [--first_seed=0 --seeds=5]

FOLDER holds EfficientNet-Lite0 (`model.safetensors`, `config.json`). Its frozen features and 100 labels a class of
10,000 images make the teacher; every image has no label else. No student runs a teacher: all learn from what
`labelfx.reinforce` has stored of ten views an image, or of one. Started again, the command goes on where it was; the
table is `experiments/distilled/README.md`.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import work_off
from experiments.pretrained import SIZE, WEAK, rows_of
from labelfx import config as configs
from labelfx.config import command
from labelfx.reports import sweep
from labelfx.reports.sweep import Job

HERE = Path(__file__).parent / "distilled"
LABELS = {"name": "per_class", "k": 100}
FEW = {"name": "per_class", "k": 1}  # those of a teacher that is often wrong
VIEWS, STEPS = 10, 500
CROP = {"name": "simclr", "min_scale": 0.35, "flip": True, "jitter_strength": 0.0, "grayscale": 0.0, "blur": 0.0}
BATCH = {"labelled": 32, "unlabelled": 96}
ALONE = {"labelled": 128, "unlabelled": 0}
KD = {"name": "kd", "temperature": 2.0}


def teachers(data: str, encoder: str, workdir: Path, seed: int) -> Iterator[Job]:
    """The teacher of a seed's students, and one that is often wrong."""
    seeds = {"seed": seed, "label_seed": seed, "data_seed": seed}
    changes = {"data": {"name": f"npz:{data}"}, "model.file": encoder, "model.image_size": SIZE, "keep": 1, **seeds}
    for name, labels in (("teacher", LABELS), ("wrong teacher", FEW)):
        config = labelfx.recipe("frozen", changes | {"name": name, "labels": labels, "evals": {"linear_probe": {}}})
        yield Job(workdir / f"seed_{seed}" / name.replace(" ", "_"), config)


def students(data: str, workdir: Path, seed: int) -> Iterator[Job]:
    """Every student of a seed, on the same labels and from the same parameters."""
    folder = workdir / f"seed_{seed}"
    common: dict[str, Any] = {"data": {"name": f"npz:{data}"}, "labels": LABELS, "steps": STEPS, "evals": {"head": {}}}
    common |= {"log_every": STEPS // 20, "save_every": 10**6, "keep": 1}
    common |= {"seed": seed, "label_seed": seed, "data_seed": seed, "method.augment": CROP}

    def job(name: str, recipe: str, changes: Mapping[str, Any]) -> Job:
        return Job(folder / name.replace(" ", "_"), labelfx.recipe(recipe, common | {"name": name} | dict(changes)))

    def stored(file: str, crops: int = 1) -> dict[str, Any]:
        return {"name": "stored", "file": str(folder / file), "fill": "spread", "crops": crops}

    def taught(name: str, soft: Mapping[str, Any], **changes: Any) -> Job:
        method = {"method.soft_labels": soft, "method.soft_objective": KD, "method.soft_weight": 0.9}
        return job(name, "reinforced", method | {"batch": BATCH} | changes)

    yield job("supervised", "supervised", {"batch": ALONE})
    yield job("SLA", "label_augmentation", {"batch": ALONE, "method.augment": WEAK})
    for views in (1, VIEWS):
        yield taught(f"stored, {views} view{'s'[: views > 1]}", stored(f"soft_{views}"))
    yield taught("stored, no labels", stored(f"soft_{VIEWS}"), **{"method.soft_weight": 1.0})
    ten = stored(f"soft_{VIEWS}")
    adversary = labelfx.recipe("ensemble_distillation")["method"]["adversary"]
    start = {"backbone": str(folder / "supervised")}
    yield taught("MEAL V2", ten, **{"method.soft_weight": 1.0, "method.adversary": adversary}, **start)
    selfmix = {"method.mix": {"name": "selfmix", "alpha": 1.0}, "batch": {k: size // 2 for k, size in BATCH.items()}}
    yield taught("selfmix", stored(f"soft_{VIEWS}", crops=2), **selfmix)
    calibrated = {"name": "calibrated", "low": 0.15, "high": 0.5, "smoothing": 0.1}
    yield taught("FerKD", calibrated | {"of": stored(f"soft_{VIEWS}", crops=2)}, **selfmix)
    yield taught("LLKD", {"name": "selected", "momentum": 0.999, "of": ten})
    yield taught("stored, wrong teacher", stored("soft_wrong"))
    queried = {"name": "queried", "budget": 2000, "error": 0.6, "of": stored("soft_wrong")}
    yield taught("stored, wrong teacher, queried", queried, **{"refresh_every": STEPS // 4})


def run(data: Path, encoder: str, workdir: Path, seeds: range) -> None:
    """What has no results yet, seed by seed, and the table after each."""
    workdir.mkdir(parents=True, exist_ok=True)
    rows = workdir / "rows.npz"
    rows_of(data, rows)
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        sweep.work_off(teachers(str(rows), encoder, workdir, seed))
        for name, teacher, views in (
            ("soft_1", "teacher", 1),
            (f"soft_{VIEWS}", "teacher", VIEWS),
            ("soft_wrong", "wrong_teacher", 1),
        ):
            labelfx.reinforce([folder / teacher], folder / name, views=views, top=10, augment=CROP, seed=seed)
        text = work_off(students(str(rows), workdir, seed), workdir)
        HERE.mkdir(exist_ok=True)
        configs.write_text(HERE / "README.md", page(text))


def page(table: str) -> str:
    """The results as Markdown."""
    return (
        "# Stored soft labels of a pretrained encoder, taught to a small network\n\n"
        "`python -m experiments.distilled`: accuracy in % on CIFAR-10's first 2,000 drawn test images, 10,000 training "
        "images of which 1,000 have a label. The teacher is a linear probe on EfficientNet-Lite0, trained on ImageNet; "
        f"the student has three convolutions and takes {STEPS:,} steps of {sum(BATCH.values())} images. The wrong "
        "teacher saw one label a class.\n\n" + table
    )


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    run(Path(values.data), values.encoder, Path(values.workdir).absolute(), seeds)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds")
    strings = {"data": "the folder of CIFAR-10", "encoder": "the folder of the encoder", "workdir": "of the runs"}
    command.run(main, config=False, strings=strings)
