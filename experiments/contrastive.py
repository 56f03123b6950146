"""Which of the contrastive methods' gains appear at a small scale? Every system on paired seeds, at equal steps.

    python -m experiments.contrastive --data=fashion_mnist --data_dir=DIR --workdir=/tmp/labelfx/contrastive_fashion
    python -m experiments.contrastive --data=digits --workdir=/tmp/labelfx/contrastive_digits

The protocol is that of `experiments/README.md`: one pre-training of a system and seed by its recipe,
in batches of 256 images, then a linear probe and a kNN vote on its frozen features at every label budget, and a kNN
vote from all labels. Started again, the command goes on where it was. `--seeds` and `--systems` choose some of them.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import work_off
from labelfx.config import command
from labelfx.reports.sweep import Job

# Recipes of `configs/`. `supervised_contrastive` sees every label: what the others could reach at most.
SYSTEMS = (
    *("simclr", "debiased", "hard_negative", "moco", "dual_view", "feature_transform", "whitening", "byol", "vicreg"),
    *("pnda", "inter_clr", "supervised_contrastive"),
)
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {"budgets": (1, 10), "steps": 200},
    "fashion_mnist": {"budgets": (1, 10, 100), "steps": 660},
}
KNN = {"k": 20, "temperature": 0.1}


def jobs(
    data: Mapping[str, Any], settings: Mapping[str, Any], workdir: Path, seeds: Iterable[int], systems: Iterable[str]
) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired."""
    # One checkpoint, at the end: a run that takes minutes need not be resumed.
    shared = {"data": dict(data), "steps": settings["steps"], "log_every": settings["steps"] // 10}
    shared |= {"save_every": 10**6, "keep": 1, "evals": {}}
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        for system in systems:
            changes = shared | {"seed": seed, "label_seed": seed, "data_seed": seed}
            config = labelfx.recipe(system, changes)
            config["batch"] = {stream: 256 if size else 0 for stream, size in config["batch"].items()}
            yield Job(folder / system, config)
            floors: dict[str, dict] = {"raw_pixels": {}, "random_encoder": {}} if system == "simclr" else {}
            for k in settings["budgets"]:
                evals = {"linear_probe": {}, "knn": KNN, **floors}
                probe = {"labels": {"name": "per_class", "k": k}, "evals": evals}
                yield Job(folder / f"{k}_per_class" / system, probe, pretrained=folder / system)
            every_label = {"labels": {"name": "all_labels"}, "evals": {"knn": KNN}}
            yield Job(folder / "all_labels" / system, every_label, pretrained=folder / system)


def _main(values: Any) -> None:
    data = {"name": values.data} | ({"data_dir": values.data_dir} if values.data_dir else {})
    workdir, seeds = Path(values.workdir).absolute(), map(int, values.seeds)
    work_off(jobs(data, SETTINGS[values.data], workdir, seeds, values.systems), workdir, baseline="simclr")


if __name__ == "__main__":
    flags.DEFINE_enum("data", None, list(SETTINGS), "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the data set's files; digits needs none.")
    flags.DEFINE_list("seeds", [str(seed) for seed in range(5)], "Seeds.")
    flags.DEFINE_list("systems", list(SYSTEMS), "Recipes.")
    command.run(_main, config=False)
