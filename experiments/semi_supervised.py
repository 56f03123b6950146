"""Do pseudo-labels pay, does feedback to their teacher, does distillation? Each beside its control, on paired seeds.

    python -m experiments.semi_supervised --data=digits --workdir=/tmp/labelfx/semi_digits
    python -m experiments.semi_supervised --data=fashion_mnist --data_dir=DIR --workdir=/tmp/labelfx/semi_fashion

Four labels a class. Every run takes as many steps, on batches of the same size, with the same network and the same two
augmentations; optimisers are those of the recipes. `experiments/README.md` has the results. Started again, the command
goes on where it was.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import work_off
from labelfx.config import command
from labelfx.reports.sweep import Job

LABELS = {"name": "per_class", "k": 4}

# What a data set changes in every recipe, by dotted path, and the seeds.
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "seeds": range(10),
        "steps": 400,
        "weak": {"name": "crop_flip", "padding": 1, "flip": False},
        "strong": {"name": "small_grey", "min_scale": 0.5, "max_rotation": 15.0, "jitter_strength": 0.5, "cutout": 0.3},
    },
    "fashion_mnist": {
        "seeds": range(5),
        "steps": 1500,
        "weak": {"name": "crop_flip", "padding": 2, "flip": True},
        "strong": {"name": "small_grey", "min_scale": 0.4, "max_rotation": 15.0, "jitter_strength": 0.5, "cutout": 0.4},
    },
}
BATCH = {"labelled": 32, "unlabelled": 64}
MPL = ("hard_sampled", "hard_argmax", "soft")
LARGE = 64  # width of the larger teacher, four times the student's parameters


def jobs(data: Mapping[str, Any], settings: Mapping[str, Any], workdir: Path, seeds: Iterable[int]) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired."""
    # One checkpoint, at the end: a run that takes a minute need not be resumed.
    shared = {"data": dict(data), "labels": LABELS, "steps": settings["steps"], "evals": {"head": {}}}
    shared |= {"log_every": settings["steps"] // 20, "save_every": 10**6, "keep": 1}
    views = {f"method.{name}": settings[name] for name in ("weak", "strong")}
    two_views = {"batch": BATCH, **views}
    for seed in seeds:
        common = shared | {"seed": seed, "label_seed": seed, "data_seed": seed}
        folder = workdir / f"seed_{seed}"

        def job(name: str, recipe: str, changes: Mapping[str, Any], common=common, folder=folder) -> Job:
            return Job(folder / name.replace(" ", "_"), labelfx.recipe(recipe, common | {"name": name} | dict(changes)))

        alone = {"batch": {"labelled": BATCH["labelled"], "unlabelled": 0}, "method.augment": settings["strong"]}
        floors: dict[str, dict] = {"head": {}, "raw_pixels": {}, "random_encoder": {}}
        yield job("supervised", "supervised", alone | {"evals": floors})
        for name in ("fixmatch", "uda"):
            yield job(name, name, two_views)
        student = two_views | {"phases": ()}  # as the teacher leaves it; one is fine-tuned below
        for kind in MPL:
            for weight, suffix in ((1.0, ""), (0.0, " control")):
                changes = student | {"method.pseudo_label": kind, "method.mpl_weight": weight}
                yield job(f"mpl {kind}{suffix}", "meta_pseudo_labels", changes)
        # Sampled labels have, in the mean, the unrolled gradient over B; soft ones the gradient itself.
        changes = student | {"method.pseudo_label": "soft", "method.mpl_weight": 1 / BATCH["unlabelled"]}
        yield job("mpl soft scaled", "meta_pseudo_labels", changes)
        for weight, suffix in ((1.0, ""), (0.0, " control")):
            yield job(f"self mpl{suffix}", "self_meta_pseudo_labels", two_views | {"method.mpl_weight": weight})
        start = {
            "backbone": str(folder / "mpl_hard_sampled"),
            "batch": alone["batch"],
            "method.augment": settings["weak"],
        }
        start |= {"method.head": "kept", "optimizer.learning_rate": 1e-4}
        yield job("mpl hard_sampled + finetune", "finetune", start)

        yield job("supervised large", "supervised", alone | {"model.width": LARGE})
        same_view = {f"method.{name}": settings["strong"] for name in ("augment", "soft_labels.augment")}
        for teacher, by in (("supervised_large", "large"), ("supervised", "self")):
            for batch, suffix in ((alone["batch"], ""), (BATCH, " + unlabelled")):
                changes = same_view | {"teacher": str(folder / teacher), "batch": batch}
                yield job(f"kd {by}{suffix}", "distillation", changes)


def _main(values: Any) -> None:
    data = {"name": values.data} | ({"data_dir": values.data_dir} if values.data_dir else {})
    settings, workdir = SETTINGS[values.data], Path(values.workdir).absolute()
    work_off(jobs(data, settings, workdir, settings["seeds"]), workdir)


if __name__ == "__main__":
    flags.DEFINE_enum("data", None, list(SETTINGS), "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the data set's files; digits needs none.")
    command.run(_main, config=False)
