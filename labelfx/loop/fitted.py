"""A run where its user says only where the data are: the recipe that suits them, its sizes, and why."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, labelled
from labelfx.finished.encoder import Encoder, load
from labelfx.loop import run
from labelfx.loop.picks import fitting, network_of, source_of
from labelfx.loop.starts import description_of, start_size
from labelfx.loop.suited import (
    BASELINES,
    DEFAULTS,
    OBJECTIVES,
    adapt,
    judge,
    override,
    read_recipes,
    rows_of,
    set_augmentations,
)
from labelfx.train import train


def fit(
    data: Any,
    out: str | Path,
    *,
    backbone: str | Path = "",
    recipe: str = "",
    labels: str | Path | Mapping[str, Any] | None = None,
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
) -> Encoder:
    """`labelfx.fit`: the command as a function.

    Args:
      data: as `--data`, a `config.data`, or (X, y) in memory: X images uint8 [N, H, W, C], vectors [N, F] or N strings;
        y N classes of any one type, -1, None, NaN or "" where unknown, or [N, C] of 1, 0, -1, or N targets that are not
        all whole, NaN where unknown. Of (X, y) no row is kept for testing.
      out: the folder of the run.
      backbone: a file or folder of weights.
      recipe: the name or file of one instead of what would be picked; where it cannot read such rows, it has a network
        and an objective that can.
      labels: a filled table, or `config.labels`; by default all that the data say.
      seed: of the run, its batches and its label view.
      changes: dotted path -> value, in the configuration that was picked, such as {"steps": 100}.

    Returns:
      `labelfx.load(out)`.

    Raises:
      ConfigError, and others: as for `labelfx.train`; nothing is labelled that could be learnt from.
    """
    folder, backbone = configs.local(out), str(backbone)
    said = description_of(backbone) if backbone else {}
    source, dataset, why = source_of(data, folder, backbone, said, left := dict(changes or {}), trained=not backbone)
    view: Any = {"name": "file", "path": str(labels)} if isinstance(labels, str | Path) else labels
    seeds = {"seed": seed, "label_seed": seed, "data_seed": seed}
    first = configs.recipe("supervised") | seeds | {"data": source, "labels": view or {"name": "none"}}
    first |= {"evals": {}, "batch": {"labelled": 0, "unlabelled": 1}}
    found, told = run.load_data(configs.check(first), folder / "none", dataset)
    count = len(told.rows)
    if view is None and (count := int(labelled(found.train.labels).sum())):
        first["labels"] = {"name": "all_labels"}
    lines: list[str] = []
    if recipe:
        config = first | _adapted(recipe, source, found, lines)
    else:
        config = DEFAULTS | first | _picked(found, count, backbone, said, bool(why), lines)
    config["batch"] = fitting(config["batch"], len(found.train.labels))
    for path, value in left.items():
        override({"fit": config}, path, value)
    for line in [*lines, *why]:
        print(line, file=sys.stderr)
    train(config, folder, dataset=dataset)
    return load(folder)


def _picked(
    dataset: Dataset, told: int, backbone: str, said: Mapping[str, Any], sized: bool, lines: list[str]
) -> dict[str, Any]:
    """What a run on such rows, of which `told` have a label, is but for its data, labels and seeds; `lines` say it."""
    rows, count = rows_of(dataset), len(dataset.train.labels)
    if not told and (backbone or rows != "images"):
        more = "; labelfx.load(backbone) gives features" if backbone else ""
        raise ConfigError(f"no row is labelled, and {rows} are learnt from by their labels{more}")
    name = "frozen" if backbone else BASELINES.get(rows, "own_images")
    recipe = configs.recipe(name)
    picked = {key: recipe[key] for key in recipe.keys() - {"data", "labels", "seed", "label_seed", "data_seed"}}
    reason = {
        "frozen": f"a classifier on the features of {backbone}, which stays as it is",
        "own_images": "no encoder is given, so a network learns from all images, and then from the labels",
    }.get(name, f"rows are {rows}, and no encoder is given")
    if not told:
        reason = "no encoder is given and nothing is labelled, so a network learns from the images alone"
    judged = judge(dataset) if told else None
    evals = judged.head | judged.floors if judged else {"rankme": {}}
    objective = dict(OBJECTIVES[dataset.task]) if judged else {}  # type: ignore[index]
    if name == "frozen":
        size = start_size(said, dataset.train.inputs)
        picked["model"] = picked["model"] | {"file": backbone, "image_size": size}
        picked["method"] = picked["method"] | {"objective": objective}
        evals = judged.head | judged.probe if judged else {}
    elif name == "own_images":
        if sized and (network := network_of(min(dataset.train.inputs.shape[1:3]))):
            picked["model"] = network
        if told:
            tuned = configs.recipe("finetune")
            phase = {key: tuned[key] for key in ("optimizer", "steps")} | {"backbone": "previous"}
            phase["method"] = tuned["method"] | {"objective": objective}
            phase["batch"] = fitting(tuned["batch"], count)
            picked["phases"] = ({}, phase)
    else:
        picked["method"] = picked["method"] | {"objective": objective}
    picked["evals"] = evals if dataset.test is not None or not told else {}
    if rows == "images" and name != "frozen":
        set_augmentations([picked | {"phases": picked.get("phases", ())}], dataset.train.inputs)
    steps = sum(phase.get("steps", picked["steps"]) for phase in picked.get("phases", ({},)))
    lines.append(f"recipe {name}: {reason}")
    lines.append(f"{told:,} of {count:,} rows are labelled; {steps:,} steps of {configs.one_line(picked['model'])}")
    return picked


def _adapted(recipe: str, source: Mapping[str, Any], dataset: Dataset, lines: list[str]) -> dict[str, Any]:
    """A recipe on such rows, but for its labels and seeds."""
    recipes = read_recipes(source, [recipe])
    lines += adapt(recipes, dataset)
    found = recipes.get(recipe) or [*recipes.values()][-1]
    lines += set_augmentations([found], dataset.train.inputs)
    evals = found["evals"] if dataset.test is not None else {}
    return {key: found[key] for key in found.keys() - {"labels", "seed", "label_seed", "data_seed"}} | {"evals": evals}
