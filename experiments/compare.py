"""Does pre-training on unlabelled images pay? Every method at every label budget, on paired seeds.

    python -m experiments.compare --data=digits --workdir=/tmp/labelfx/digits
    python -m experiments.compare --data=fashion_mnist --data_dir=DIR --workdir=/tmp/labelfx/fashion_mnist

The protocol is in `experiments/README.md`. Started again, the command goes on where it was. Runs that differ in their
seeds share their compiled programs.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from labelfx import command, sweep
from labelfx import config as configs
from labelfx.sweep import Job
from labelfx.table import table

PRETRAINING = ("simclr", "debiased", "hard_negative")
SEEDS = range(5)

# What a data set changes in the recipes, by dotted path. `training` is for `supervised` and `finetune` alike: the
# baseline takes as many steps, on as many images, with the same augmentation as what it is compared with.
SETTINGS: dict[str, dict[str, Any]] = {
    "digits": {
        "budgets": (1, 10),
        "pretraining": {"steps": 200},
        "training": {"steps": 200},
    },
    "fashion_mnist": {
        "budgets": (1, 10, 100),
        "pretraining": {"steps": 600},
        "training": {"steps": 500},
    },
}


def compare(
    data: Mapping[str, Any], settings: Mapping[str, Any], workdir: str | Path, seeds: Iterable[int] = SEEDS
) -> str:
    """Runs what has no results yet and writes `workdir/table.md`, which it returns.

    Args:
      data: `config.data` of every run.
      settings: as in `SETTINGS`.
      workdir: a folder for all runs.
      seeds: each is a run's `seed`, `label_seed` and `data_seed`.

    Raises:
      ConfigError: a run in `workdir` has another configuration.
    """
    workdir = Path(workdir).absolute()
    return work_off(jobs(data, settings, workdir, seeds), workdir)


def work_off(every: Iterable[Job], workdir: Path, baseline: str = "supervised") -> str:
    """Runs the jobs that have no results yet; writes and returns the table of what is in `workdir`, each row paired
    with the baseline."""
    sweep.work_off(every)
    text = table([workdir], baseline=baseline)
    configs.write_text(workdir / "table.md", text)
    print(text)
    return text


def jobs(data: Mapping[str, Any], settings: Mapping[str, Any], workdir: Path, seeds: Iterable[int]) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired."""
    # One checkpoint, at the end: a run that takes seconds need not be resumed.
    shared = {"data": dict(data), "log_every": 10**6, "save_every": 10**6, "keep": 1}
    for seed in seeds:
        at_seed = shared | {"seed": seed, "label_seed": seed, "data_seed": seed}
        folder = workdir / f"seed_{seed}"
        for method in PRETRAINING:
            yield Job(folder / method, labelfx.recipe(method, at_seed | settings["pretraining"] | {"evals": {}}))
        for k in settings["budgets"]:
            labels = {"name": "per_class", "k": k}
            training = at_seed | settings["training"] | {"labels": labels}
            at_budget = folder / f"{k}_per_class"
            # The floors do not depend on the method: once for each seed and budget is enough.
            floors: dict[str, dict] = {"head": {}, "raw_pixels": {}, "random_encoder": {}}
            yield Job(at_budget / "supervised", labelfx.recipe("supervised", training | {"evals": floors}))
            for method in PRETRAINING:
                probe = {"labels": labels, "evals": {"linear_probe": {}}}
                yield Job(at_budget / f"{method}_probe", probe, pretrained=folder / method)
                start = {"name": f"{method} + finetune", "backbone": str(folder / method), "evals": {"head": {}}}
                yield Job(at_budget / f"{method}_finetune", labelfx.recipe("finetune", training | start))


def _main(values: Any) -> None:
    data = {"name": values.data} | ({"data_dir": values.data_dir} if values.data_dir else {})
    compare(data, SETTINGS[values.data], values.workdir)


if __name__ == "__main__":
    flags.DEFINE_enum("data", None, list(SETTINGS), "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the data set's files; digits needs none.")
    command.run(_main, config=False)
