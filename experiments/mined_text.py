"""Do mined batches help where negatives are said to matter most, in text? Each beside shuffled batches, paired seeds.

    python -m experiments.mined_text --data=cranfield --data_dir=DIR --workdir=/tmp/labelfx/mined_cranfield
    python -m experiments.mined_text --data=sts --data_dir=DIR --workdir=/tmp/labelfx/mined_sts

Recipes `cranfield` (titles find their abstracts) and `simcse` (dropout views of sentences), with nothing changed but
which rows are in a batch. `experiments/README.md` has the results. Started again, the command goes on where it was.
"""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

import labelfx
from experiments.paired import work_off
from labelfx.config import command
from labelfx.reports.sweep import Job

RECIPES = {"cranfield": "cranfield", "sts": "simcse"}
SEEDS = range(5)
REFRESHES = 5  # the first before the first step


def _mined(**selection: Any) -> dict[str, Any]:
    common = {"augment": {"name": "identity"}, "candidates": 200, "negatives_per_anchor": 1}
    return {"name": "mined", "selection": selection, **common}


# A cluster or a community fills half of a batch of `cranfield` and an eighth of one of `simcse`; half of the rows of a
# mined batch are anchors, the others a hard negative of each.
BATCHES: dict[str, dict[str, Any]] = {
    "uniform": {"name": "uniform"},
    "top": _mined(name="top"),
    "simans": _mined(name="simans", a=30.0, b=-0.2),
    "margin_pos": _mined(name="margin_pos", margin=0.05),
    "perc_pos": _mined(name="perc_pos", percentage=0.95),
    "runner_up": _mined(name="runner_up", first=0.03, last=0.04),
    "second_cluster": _mined(name="second_cluster", clusters=32),
    "curriculum": {
        "name": "curriculum",
        "candidates": 200,
        "negatives_per_anchor": 1,
        "first": 0.3,
        "last": 0.8,
        "levels": REFRESHES,
    },
    "ngame": {"name": "ngame", "cluster_size": 32},
    "communities": {"name": "communities", "skip": 5, "neighbours": 20, "community_size": 32},
}


def jobs(data: Mapping[str, Any], workdir: Path, seeds: Iterable[int]) -> Iterator[Job]:
    """Every run; one seed after the other, so that what is done is always paired."""
    recipe = RECIPES[data["name"]]
    measure = "retrieval" if data["name"] == "cranfield" else "spearman"
    steps = labelfx.recipe(recipe)["steps"]
    for seed in seeds:
        for name, batches in BATCHES.items():
            if (name, recipe) == ("runner_up", "simcse"):
                batches = batches | {"candidates": 900}  # 0.04 of the 20,190 sentences are more than 200
            changes = {"seed": seed, "label_seed": seed, "data_seed": seed, "name": name, "batches": batches}
            changes |= {f"data.{key}": value for key, value in data.items()}
            changes |= {"refresh_every": 0 if name == "uniform" else -(-steps // REFRESHES)}
            floors = {"tfidf": {"measure": measure}, "untrained": {"measure": measure}} if name == "uniform" else {}
            changes |= {"evals": {measure: {}, **floors}, "save_every": 10**6, "keep": 1, "log_every": steps // 5}
            yield Job(workdir / f"seed_{seed}" / name, labelfx.recipe(recipe, changes))


def _main(values: Any) -> None:
    workdir = Path(values.workdir).absolute()
    data = {"name": values.data, "data_dir": values.data_dir}
    work_off(jobs(data, workdir, SEEDS), workdir, baseline="uniform")


if __name__ == "__main__":
    flags.DEFINE_enum("data", None, list(RECIPES), "Data set.", required=True)
    flags.DEFINE_string("data_dir", None, "Folder of the data set's files.", required=True)
    command.run(_main, config=False)
