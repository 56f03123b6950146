"""Every method at every label budget on the same splits: the runs of `labelfx.compare`."""

import itertools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, Task, labelled
from labelfx.evals.kept import kept_in
from labelfx.evals.tasks import HEADLINES
from labelfx.loop import run
from labelfx.loop.claims import claim
from labelfx.loop.picks import fitting, network_of, source_of
from labelfx.loop.starts import description_of, floors_with, start_from
from labelfx.loop.suited import (
    BASELINE,
    IMAGES_OF_CLASSES,
    Judged,
    adapt,
    judge,
    override,
    read_recipes,
    set_augmentations,
)
from labelfx.reports import sweep
from labelfx.reports.page import report
from labelfx.reports.sweep import Job
from labelfx.reports.views import check_said, label_view, weak_label

METHODS = ("hard_negative", "fixmatch")  # where a user names none: with unlabelled rows before labels come, and beside
BUDGETS = {"class": (1, 4, 25, 100), "rows": (10, 50, 200, 1000)}  # fewer than there are, and all
FEW_SEEDS = 3  # where each run is dear: photographs, or an encoder that others trained


def compare(
    data: Any,
    out: str | Path,
    *,
    methods: Iterable[str] = (),
    labels: Iterable[int | str] = (),
    backbone: str = "",
    seeds: int | Iterable[int] = 0,
    changes: Mapping[str, Any] | None = None,
    augment: Literal["data", "recipe"] = "data",
    weak: Iterable[str] = (),
    draw: Iterable[str] = ("balanced",),
) -> Path:
    """How many labels does each method save on these data? Runs what has no results yet, and writes and returns
    `out/report.html`.

    Args:
      data: a folder of images, a `.csv`, `.jsonl` or `.parquet` file of sentences, a source's name, or `config.data` of
        every run (`labelfx.loop.picks.source_of`).
      out: a folder for all runs.
      methods: names or files of recipes; by default those of `METHODS` that take the labels, with a backbone none.
      labels: labels a class or, where labels are no classes, rows; or "all". By default some numbers below what is
        there, and all.
      backbone: a file or folder of weights that every method starts from, by low-rank updates as in the recipe `lora`;
        then `frozen`, a classifier on its features, is among the methods, and what a linear probe makes of it a floor.
      seeds: how many, or which; each is a run's `seed`, `label_seed` and `data_seed`. By default 5, and 3 where the
        data are a folder or there is a backbone.
      changes: dotted path -> value, for every recipe that has the path; of `data` for all.
      augment: "data", that of `AUGMENTATIONS` for every recipe, or "recipe", each its own.
      weak: kinds and strengths of what is said of labels, see `weak_label`; every run is made under each of them. By
        default the truth is said.
      draw: how rows are chosen, see `label_view`; every run is made with each. The first is what others are compared
        with: rows of the page by another bear its name. Where labels are no classes, "balanced" is "uniform".

    Raises:
      ConfigError: a run could not be made as asked for, one in `out` has another configuration, or another process is
        at work in there.
    """
    folder = configs.local(out).absolute()
    said = description_of(backbone) if backbone else {}
    if isinstance(data, tuple):
        raise ConfigError("data: arrays in memory are read by labelfx.fit; here give a file, such as one of npz:FILE")
    source, _, picked = source_of(data, folder, backbone, said, changes := dict(changes or {}), trained=True)
    sized = bool(picked)
    named = list(methods)
    recipes = read_recipes(source, named or (() if backbone else METHODS))
    kinds: list[dict[str, Any] | None] = [weak_label(word) for word in dict.fromkeys(weak)] or [None]
    draws = list(dict.fromkeys(draw))
    for word in draws:
        configs.check(recipes[BASELINE] | {"labels": label_view(1, "class", word, 2), "evals": {}})
    loaded = recipes[BASELINE] | {"labels": label_view("all"), "evals": {}}
    for kind in kinds:
        configs.check(loaded | {"labels": label_view("all") | {"weak": kind}})
    dataset, _ = run.load_data(configs.check(loaded), folder)
    judged = judge(dataset)
    for kind in kinds:
        check_said(kind, dataset)
    if not named and dataset.task != "class":
        recipes.pop("fixmatch", None)  # whose pseudo-labels are classes
    if isinstance(seeds, int):
        dear = bool(backbone) or source["name"].startswith("folder:")
        seeds = range(seeds or (FEW_SEEDS if dear else 5))
    seeds, wanted = list(seeds), list(labels) or default_budgets(dataset)
    if not named or not list(labels):
        picked.append(f"methods {', '.join(recipes)}; labels {', '.join(map(str, wanted))}; {len(seeds)} seeds")
    for line in [*picked, *adapt(recipes, dataset)]:
        print(line, file=sys.stderr)
    if backbone:
        model, lines = start_from(recipes, backbone, said, dataset)
        for line in lines:
            print(line, file=sys.stderr)
        judged = judged._replace(floors=floors_with(judged.floors, model, dataset.task))
    elif sized and (network := network_of(source["image_size"])):
        print(f"the model of every row: {configs.one_line(network)}, by the images and the machine", file=sys.stderr)
        for recipe in recipes.values():
            recipe["model"] = dict(network)
    if augment == "data":
        for line in set_augmentations(recipes.values(), dataset.train.inputs):
            print(line, file=sys.stderr)
    for recipe in recipes.values():
        for phase in (recipe, *(phase for phase in recipe["phases"] if "batch" in phase)):
            if (batch := fitting(phase["batch"], len(dataset.train.labels))) != phase["batch"]:
                phase["batch"] = batch
                print(f"{recipe['name']}: batches of {configs.one_line({'name': 'rows', **batch})}", file=sys.stderr)
    for path, value in changes.items():
        if left_out := override(recipes, path, value):
            print(f"--override={path}: not in {', '.join(left_out)}, left as it was there", file=sys.stderr)
    distinct: dict[int, int | str] = {}
    classes = len(dataset.class_names)
    for budget in wanted:
        balanced = dataset.task == "class" and "balanced" in draws
        view = label_view(budget, dataset.task, "balanced" if balanced else "uniform", classes)
        count = _count(view, dataset.train.labels)
        if distinct.setdefault(count, budget) != budget:
            unit = HEADLINES[dataset.task].unit
            print(f"--labels={budget}: the same {count} {unit} as {distinct[count]}; left out", file=sys.stderr)
    every = list(jobs(recipes, distinct.values(), seeds, folder, dataset.task, judged, kinds, draws, classes))
    sweep.check(every, dataset)
    configs.make_folder(folder)
    with claim(folder), kept_in(folder):
        sweep.work_off(every)
    return report([folder], folder / "report.html", BASELINE)


def benchmark(
    data: Mapping[str, Any],
    methods: Iterable[str],
    budgets: Iterable[int | str],
    seeds: Iterable[int],
    workdir: str | Path,
    overrides: Mapping[str, Any] | None = None,
    augment: Literal["data", "recipe"] = "data",
    weak: Iterable[str] = (),
    draw: Iterable[str] = ("balanced",),
    backbone: str = "",
) -> Path:
    """`compare` by its former name, with its arguments in another order and none by default."""
    how: dict[str, Any] = {"augment": augment, "weak": weak, "draw": draw, "backbone": backbone}
    return compare(data, workdir, methods=methods, labels=budgets, seeds=seeds, changes=overrides, **how)


def default_budgets(dataset: Dataset) -> list[int | str]:
    """Numbers of labels below what there is of the rarest class or, where there are no classes, of rows; and all."""
    labels = dataset.train.labels
    if dataset.task == "class":
        most = int(np.bincount(labels[labels >= 0], minlength=len(dataset.class_names)).min())
        return [*(budget for budget in BUDGETS["class"] if budget < most), "all"]
    return [*(budget for budget in BUDGETS["rows"] if budget < labelled(labels).sum()), "all"]


def jobs(
    recipes: Mapping[str, dict[str, Any]],
    budgets: Iterable[int | str],
    seeds: Iterable[int],
    workdir: Path,
    task: Task = "class",
    judged: Judged = IMAGES_OF_CLASSES,
    weak: Iterable[dict[str, Any] | None] = (None,),
    draws: Sequence[str] = ("balanced",),
    classes: int = 0,
) -> Iterator[Job]:
    """Every run in an order that can be run; one seed after the other, so that what is done is always paired.

    Raises:
      ConfigError: of a recipe nothing would be judged.
    """
    shared = [name for name, recipe in recipes.items() if not _learns_from_labels(recipe)]
    teacher = f"{shared[0]}_finetune" if shared else BASELINE
    for seed in seeds:
        folder = workdir / f"seed_{seed}"
        seeded = {"seed": seed, "label_seed": seed, "data_seed": seed}
        for name in shared:
            yield Job(folder / name, recipes[name] | seeded | {"labels": label_view("all"), "evals": {}})
        for budget, kind, draw in itertools.product(budgets, weak, draws):
            if budget == "all" and draw != draws[0]:
                continue
            labels = label_view(budget, task, draw, classes) | ({"weak": kind} if kind else {})
            counted = "all_labels" if budget == "all" else f"{budget}_{'per_class' if task == 'class' else 'rows'}"
            by = [] if draw == "balanced" else [re.sub(r"\W", "_", draw)]
            at_budget = folder / "_".join([counted, *by, *(str(value) for value in (kind or {}).values())])
            other = "" if draw == draws[0] else f", {draw}"
            for name, recipe in recipes.items():
                if name in shared:
                    if judged.probe:
                        probe = {"name": f"{name}{other}", "labels": labels, "evals": judged.probe}
                        yield Job(at_budget / f"{name}_probe", probe, folder / name)
                    tuned = recipes[BASELINE] | seeded | {"labels": labels, "model": recipe["model"]}
                    tuned |= {"evals": judged.head}
                    tuned |= {"name": f"{name} + finetune{other}", "backbone": str(folder / name)}
                    tuned["method"] = recipes[BASELINE]["method"] | {"name": "finetune", "head": "fresh"}
                    yield Job(at_budget / f"{name}_finetune", tuned)
                else:
                    evals = judged.head if _classifies(recipe) else judged.probe
                    if not evals:
                        raise ConfigError(f"--methods={name}: trains no regressor, by which it would be judged")
                    evals = evals | (judged.floors if name == BASELINE else {})
                    taught = {"teacher": str(at_budget / teacher)} if recipe["teacher"] else {}
                    named = {"name": f"{name}{other}", "labels": labels, "evals": evals}
                    yield Job(at_budget / name, recipe | seeded | named | taught)


def _learns_from_labels(recipe: Mapping[str, Any]) -> bool:
    batches = (recipe["batch"], *(phase["batch"] for phase in recipe["phases"] if "batch" in phase))
    return _classifies(recipe) or any(batch["labelled"] for batch in batches)


def _classifies(recipe: Mapping[str, Any]) -> bool:
    """Whether an eval of the recipe reads its own classifier or regressor."""
    return any(
        {"test_logits", "test_predictions"} & {*configs.parameters(configs.function(configs.EVALS, name))[0]}
        for name in recipe["evals"]
    )


def _count(view: Mapping[str, Any], labels: np.ndarray) -> int:
    """How many rows of training labels [N] a label view chooses, whatever the seed."""
    try:
        return len(configs.build(configs.LABELS, view)(labels, np.random.default_rng(0)))
    except ValueError as error:
        raise ConfigError(f"config.labels: {error}") from error
