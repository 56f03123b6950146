"""Every method at every label budget on the same splits: the runs of `labelfx.benchmark`, and their augmentations."""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.loop import run
from labelfx.reports import sweep
from labelfx.reports.page import report
from labelfx.reports.sweep import Job

BASELINE = "supervised"
DEFAULTS = {f.name: f.default for f in dataclasses.fields(configs.Run) if f.default is not dataclasses.MISSING}
HEAD: dict[str, dict] = {"head": {}}
PROBE: dict[str, dict] = {"linear_probe": {}}
FLOORS: dict[str, dict] = {"raw_pixels": {}, "random_encoder": {}}

# Channels -> `weak`, for a method's parameter of that name, and `strong`, for all others: what the recipes of the
# digits have, where no flip keeps the class, and SimCLR's for CIFAR-10 with the milder crops of `own_images`. The shift
# of `weak` comes with the size: 12.5 % of the side (Sohn et al. 2020, section 2.3).
AUGMENTATIONS: dict[int, dict[str, dict[str, Any]]] = {
    1: {
        "weak": {"name": "crop_flip", "flip": False},
        "strong": {
            "name": "small_grey",
            "min_scale": 0.5,
            "max_rotation": 15.0,
            "jitter_strength": 0.5,
            "cutout": 0.0,
        },
    },
    3: {
        "weak": {"name": "crop_flip", "flip": True},
        "strong": {
            "name": "simclr",
            "min_scale": 0.2,
            "flip": True,
            "jitter_strength": 0.5,
            "grayscale": 0.2,
            "blur": 0.0,
        },
    },
}


def benchmark(
    data: Mapping[str, Any],
    methods: Iterable[str],
    budgets: Iterable[int | str],
    seeds: Iterable[int],
    workdir: str | Path,
    overrides: Mapping[str, Any] | None = None,
    augment: Literal["data", "recipe"] = "data",
) -> Path:
    """Runs what has no results yet, and writes and returns `workdir/report.html`.

    Args:
      data: `config.data` of every run.
      methods: names or files of recipes.
      budgets: labels a class, or "all".
      seeds: each is a run's `seed`, `label_seed` and `data_seed`.
      workdir: a folder for all runs.
      overrides: dotted path -> value, for every recipe that has the path.
      augment: "data", that of `AUGMENTATIONS` for every recipe, or "recipe", each its own.

    Raises:
      ConfigError: a run could not be made as asked for, one in `workdir` has another configuration, or
        another process is at work in there.
    """
    folder = configs.local(workdir).absolute()
    recipes = read_recipes(data, methods)
    dataset, _ = run.load_data(configs.check(recipes[BASELINE] | {"labels": label_view("all")}), folder)
    if augment == "data":
        for line in set_augmentations(recipes.values(), dataset.train.inputs):
            print(line, file=sys.stderr)
    for path, value in (overrides or {}).items():
        if left_out := override(recipes, path, value):
            print(f"--override={path}: not in {', '.join(left_out)}, left as it was there", file=sys.stderr)
    distinct: dict[int, int | str] = {}
    for budget in budgets:
        count = _count(label_view(budget), dataset.train.labels)
        if distinct.setdefault(count, budget) != budget:
            print(f"--labels={budget}: the same {count} labels as {distinct[count]}; left out", file=sys.stderr)
    every = list(jobs(recipes, distinct.values(), seeds, folder))
    sweep.check(every, dataset)
    configs.make_folder(folder)
    with run.claim(folder):
        sweep.work_off(every)
    return report([folder], folder / "report.html", BASELINE)


def jobs(
    recipes: Mapping[str, dict[str, Any]], budgets: Iterable[int | str], seeds: Iterable[int], workdir: Path
) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired."""
    shared = [name for name, recipe in recipes.items() if not _learns_from_labels(recipe)]
    teacher = f"{shared[0]}_finetune" if shared else BASELINE
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        seeded = {"seed": seed, "label_seed": seed, "data_seed": seed}
        for name in shared:
            yield Job(folder / name, recipes[name] | seeded | {"labels": label_view("all"), "evals": {}})
        for budget in budgets:
            labels = label_view(budget)
            at_budget = folder / ("all_labels" if budget == "all" else f"{budget}_per_class")
            for name, recipe in recipes.items():
                if name in shared:
                    yield Job(at_budget / f"{name}_probe", {"labels": labels, "evals": PROBE}, folder / name)
                    tuned = recipes[BASELINE] | seeded | {"labels": labels, "evals": HEAD, "model": recipe["model"]}
                    tuned |= {"name": f"{name} + finetune", "backbone": str(folder / name)}
                    tuned["method"] = recipes[BASELINE]["method"] | {"name": "finetune", "head": "fresh"}
                    yield Job(at_budget / f"{name}_finetune", tuned)
                else:
                    evals = (HEAD if _classifies(recipe) else PROBE) | (FLOORS if name == BASELINE else {})
                    taught = {"teacher": str(at_budget / teacher)} if _taught(recipe) else {}
                    yield Job(at_budget / name, recipe | seeded | {"labels": labels, "evals": evals} | taught)


def read_recipes(data: Mapping[str, Any], methods: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Name -> configuration: `supervised` first, what has a teacher last, without seeds and labels of its own.

    Raises:
      ConfigError: there is no such recipe, two have one name, or one cannot be part of a benchmark.
    """
    found: dict[str, dict[str, Any]] = {}
    for method in methods:
        recipe = DEFAULTS | configs.recipe(method)
        if recipe["name"] in found:
            raise ConfigError(f"--methods={method}: another one is named {recipe['name']!r} too; a name is a row")
        if recipe["backbone"]:
            raise ConfigError(f"--methods={method}: starts from another run; every pre-training is fine-tuned anyway")
        found[recipe["name"]] = recipe
    found = {BASELINE: found.get(BASELINE) or DEFAULTS | configs.recipe(BASELINE)} | found
    for recipe in found.values():
        recipe |= {"data": dict(data), "keep": 1}
    return dict(sorted(found.items(), key=lambda item: _taught(item[1])))


def set_augmentations(recipes: Iterable[dict[str, Any]], images: Any) -> list[str]:
    """Replaces every augmentation of the recipes by the one that suits such images; returns lines that say so.

    Args:
      recipes: configurations, changed in place.
      images: of the training split, [N, H, W, C]. Where `AUGMENTATIONS` has nothing for them, recipes stay as they are.
    """
    _, *side, channels = images.shape if len(images.shape) == 4 else (0, 0, 0)
    if images.dtype != np.uint8 or channels not in AUGMENTATIONS:
        return ["augmentation: each recipe's own, as these data are neither grey nor colour images"]
    weak, strong = (dict(AUGMENTATIONS[channels][kind]) for kind in ("weak", "strong"))
    weak["padding"] = min(side) // 8
    for recipe in recipes:
        for method, key in configs.augmentations(recipe):
            method[key] = dict(weak if key == "weak" else strong)
    kind = {1: "grey", 3: "colour"}[channels]
    return [
        f"augmentation of every row, for {kind} images: {configs.one_line(strong)}",
        f"as the weak one, where a method has two: {configs.one_line(weak)}",
    ]


def label_view(budget: int | str) -> dict[str, Any]:
    """`config.labels` of a budget."""
    return {"name": "all_labels"} if budget == "all" else {"name": "per_class", "k": budget}


def _learns_from_labels(recipe: Mapping[str, Any]) -> bool:
    batches = (recipe["batch"], *(phase["batch"] for phase in recipe["phases"] if "batch" in phase))
    return _classifies(recipe) or any(batch["labelled"] for batch in batches)


def _classifies(recipe: Mapping[str, Any]) -> bool:
    return "head" in recipe["evals"]


def _taught(recipe: Mapping[str, Any]) -> bool:
    return bool(recipe["teacher"])


def override(recipes: Mapping[str, dict[str, Any]], path: str, value: Any) -> list[str]:
    """Replaces the value at a dotted path in the recipes that have it; returns the names of those that do not.

    A phase that has the recipe's method again, with all of its keys, takes what is meant for the method too.

    Raises:
      ConfigError: none has it.
    """
    *parents, last = path.split(".")
    without, known = [], set()
    for name, recipe in recipes.items():
        same = [p for p in recipe["phases"] if p.get("method", {}).get("name") == recipe["method"]["name"]]
        found = False
        for node in [recipe, *(same if parents[:1] == ["method"] else [])]:
            for parent in parents:
                node = node.get(parent) if isinstance(node, dict) else None
            if isinstance(node, dict) and last in node:
                node[last], found = value, True
        without += [] if found else [name]
        known |= {name.removeprefix("config.") for name in configs.flatten(recipe)}
    if len(without) == len(recipes):
        raise ConfigError(f"--override={path}=...: no recipe has that; {configs.nearest(path, known)}")
    return without


def _count(view: Mapping[str, Any], labels: np.ndarray) -> int:
    """How many rows of training labels [N] a label view chooses, whatever the seed."""
    try:
        return len(configs.build(configs.LABELS, view)(labels, np.random.default_rng(0)))
    except ValueError as error:
        raise ConfigError(f"config.labels: {error}") from error
