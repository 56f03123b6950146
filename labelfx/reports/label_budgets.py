"""Every method at every label budget on the same splits: the runs of `labelfx.compare`, and what of them hangs on the
kind of rows (models, augmentations, floors) and of labels (objectives, evals, what a budget counts)."""

import dataclasses
import itertools
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.checks import find
from labelfx.config.errors import first_line
from labelfx.data import Dataset, Task, labelled
from labelfx.evals.kept import kept_in
from labelfx.evals.tasks import HEADLINES
from labelfx.labels.queries import PUBLISHED
from labelfx.loop import run
from labelfx.loop.picks import fitting, network_of, source_of
from labelfx.models.pretrained import described
from labelfx.reports import sweep
from labelfx.reports.page import report
from labelfx.reports.sweep import Job

BASELINE = "supervised"
DEFAULTS = {f.name: f.default for f in dataclasses.fields(configs.Run) if f.default is not dataclasses.MISSING}

Rows = Literal["images", "texts", "vectors", "nodes"]
# What stands for `supervised` where its own network cannot read the rows.
BASELINES: dict[Rows, str] = {"texts": "own_sentences", "vectors": "regression", "nodes": "gcn"}
# One of these in a recipe of supervised training alone is replaced by that of the task.
OBJECTIVES: dict[Task, dict[str, Any]] = {
    "class": {"name": "cross_entropy", "label_smoothing": 0.0},
    "several": {"name": "binary_cross_entropy", "unknown": "ignore"},
    "target": {"name": "squared_error"},
}
PLAIN = {part["name"] for part in OBJECTIVES.values()}

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


class Judged(NamedTuple):
    """The evals of a task: of a network's own classifier or regressor, of its features, and of no network. Names of
    evals -> their keywords; `probe` is empty where features alone are not judged."""

    head: dict[str, dict]
    probe: dict[str, dict]
    floors: dict[str, dict]


IMAGES_OF_CLASSES = Judged({"head": {}}, {"linear_probe": {}}, {"raw_pixels": {}, "random_encoder": {}})


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
        model = start_from(recipes, backbone, said, dataset)
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
    with run.claim(folder), kept_in(folder):
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
                    taught = {"teacher": str(at_budget / teacher)} if _taught(recipe) else {}
                    named = {"name": f"{name}{other}", "labels": labels, "evals": evals}
                    yield Job(at_budget / name, recipe | seeded | named | taught)


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


def rows_of(dataset: Dataset) -> Rows:
    """What a row is."""
    inputs = dataset.train.inputs
    if len(inputs.shape) == 4:
        return "images"
    if "tokenizer" in dataset.side:
        return "texts"
    return "vectors" if np.issubdtype(inputs.dtype, np.floating) else "nodes"


def judge(dataset: Dataset) -> Judged:
    """The evals that suit the rows and the task.

    Raises:
      ConfigError: no benchmark is made of such a task.
    """
    rows = rows_of(dataset)
    if dataset.task == "class":
        own: dict[str, dict[str, dict]] = {
            "images": {"raw_pixels": {}},
            "texts": {"tfidf_probe": {}},
            "nodes": {"node_words": {}, "label_propagation": {"alpha": 0.9, "rounds": 50}},
        }
        return IMAGES_OF_CLASSES._replace(floors={**own.get(rows, {}), "random_encoder": {}})
    if dataset.task == "several":
        how = {"threshold": 0.5, "k": tuple(k for k in (1, 3, 5) if k <= dataset.num_outputs)}
        return Judged(
            {"multilabel": how}, {"multilabel_probe": how}, {"tfidf_multilabel": how} if rows == "texts" else {}
        )
    if dataset.task == "target":
        return Judged({"regression_error": {"bin_width": 1, "few": 1}}, {}, {})
    raise ConfigError(f"--data: labels are {dataset.task}; a benchmark takes {', '.join(OBJECTIVES)}")


def adapt(recipes: dict[str, dict[str, Any]], dataset: Dataset) -> list[str]:
    """Gives recipes what suits the rows and the task in place of what cannot read them; returns lines that say so.

    Args:
      recipes: name -> configuration, changed in place; `BASELINE` is among them.
    """
    rows, said = rows_of(dataset), []
    if rows in BASELINES and not _reads(recipes[BASELINE]["model"], recipes[BASELINE], dataset):
        chosen = DEFAULTS | configs.recipe(BASELINES[rows])
        kept = {field: recipes[BASELINE][field] for field in ("name", "data", "keep")}
        recipes[BASELINE] |= chosen | kept
        said.append(f"{BASELINE}: the recipe {BASELINES[rows]}, as rows are {rows}")
    for name, recipe in recipes.items():
        if rows in BASELINES and not _reads(recipe["model"], recipes[BASELINE], dataset):
            recipe["model"] = dict(recipes[BASELINE]["model"])
            said.append(f"{name}: the model {configs.one_line(recipe['model'])}, as its own does not read {rows}")
        alone, wanted = recipe["method"]["name"] == BASELINE and not recipe["phases"], OBJECTIVES[dataset.task]
        if alone and recipe["method"]["objective"]["name"] in PLAIN - {wanted["name"]}:
            recipe["method"] |= {"objective": dict(wanted)}
            said.append(f"{name}: the objective {configs.one_line(wanted)}, by what a label is")
    return said


SMALL = 96  # pixels a side, to which smaller pictures are enlarged for an encoder of photographs


def description_of(backbone: str) -> dict[str, Any]:
    """What a file of weights says of itself; ConfigError where it is none."""
    try:
        return described(backbone)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--backbone: {error}") from None


def start_size(said: Mapping[str, Any], inputs: Any) -> int:
    """`config.model.image_size` of an encoder of others, by what its file says, for these inputs; of texts 0."""
    if said["takes"] != "images" or len(inputs.shape) != 4:
        return 0
    patch, side = said["architecture"].get("patch", 1), max(SMALL, min(inputs.shape[1:3]))
    return math.ceil(side / patch) * patch


def start_from(
    recipes: dict[str, dict[str, Any]], backbone: str, said: Mapping[str, Any], dataset: Dataset
) -> dict[str, Any]:
    """Gives every recipe the encoder of a file to start from, and puts `frozen` among them; returns the frozen model.
    `BASELINE` becomes the recipe `lora`, which is supervised training in the way that suits such an encoder.

    Args:
      recipes: name -> configuration, changed in place; `BASELINE` is among them.
      said: its description.
    """
    change = {"file": backbone, "image_size": start_size(said, dataset.train.inputs)}
    tuned, frozen = (DEFAULTS | configs.recipe(name) for name in ("lora", "frozen"))
    kept = {field: recipes[BASELINE][field] for field in ("data", "keep")}
    objective = {"objective": recipes[BASELINE]["method"]["objective"]}
    recipes[BASELINE] = tuned | kept | {"name": BASELINE, "method": tuned["method"] | objective}
    for recipe in recipes.values():
        recipe["model"] = tuned["model"] | change
    recipes["frozen"] = frozen | kept | {"model": frozen["model"] | change, "method": frozen["method"] | objective}
    return recipes["frozen"]["model"]


def floors_with(floors: Mapping[str, dict], model: Mapping[str, Any], task: Task) -> dict[str, dict]:
    """With the probe of a file in place of that of a network that nobody has trained."""
    kept = {name: keywords for name, keywords in floors.items() if name != "random_encoder"}
    how = {key: model[key] for key in ("file", "image_size")}
    return kept | ({"pretrained": how} if task == "class" else {})


def _reads(model: Mapping[str, Any], recipe: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether a network, in a recipe, takes such rows: one of texts those of a vocabulary, any other all else."""
    takes = configs.parameters(configs.function(configs.BACKBONES, model["name"]))[0]
    if ("vocab_size" in takes) != (rows_of(dataset) == "texts"):
        return False
    inputs = dataset.train.inputs
    row = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    try:
        config = configs.check({**recipe, "model": model, "labels": label_view("all")})
        network = run.build_model(config, dataset)
        jax.eval_shape(network.init, jax.random.key(0), row)
    except Exception:  # whatever layers say of a shape that is not theirs
        return False
    return True


def weak_label(word: str) -> dict[str, Any]:
    """`config.labels.weak` of "NAME:STRENGTH", or of the NAME of a kind without strength: the strength is the one key
    that the kind needs.

    Raises:
      ConfigError: there is no such kind, it needs other keys than one, or the strength is none.
    """
    name, colon, strength = word.partition(":")
    takes = configs.parameters(find(configs.WEAK, name, f"--weak={word}")[0])[1]
    needed = [key for key, parameter in takes.items() if parameter.default is parameter.empty]
    if len(needed) != bool(colon):
        keys = f"needs {', '.join(needed)}" if needed else "has no strength"
        raise ConfigError(
            f"--weak={word}: {name} {keys}; must be NAME:STRENGTH of a kind with one key, as symmetric:0.2"
        )
    return {"name": name} | ({needed[0]: configs.literal(strength)} if needed else {})


def check_said(weak: Mapping[str, Any] | None, dataset: Dataset) -> None:
    """ConfigError where what is said of these data could not be learnt from by the baseline, which reads labels."""
    if weak is None:
        return
    train, rng = dataset.train, np.random.default_rng(0)
    rows = np.arange(len(train.labels))
    provided = {"label": train.labels, "rng": rng, "num_classes": len(dataset.class_names), "rows": rows}
    try:
        said = configs.build(configs.WEAK, weak, inputs=train.inputs, columns=train.columns, **provided)
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigError(f"--weak={weak['name']}: not of these data ({first_line(error)})") from error
    if "label" not in said.columns:
        raise ConfigError(
            f"--weak={weak['name']}: says {', '.join(said.columns)}, but {BASELINE} learns from labels; take a kind "
            "that says them, as symmetric"
        )


def set_augmentations(recipes: Iterable[dict[str, Any]], images: Any) -> list[str]:
    """Replaces every augmentation of the recipes by the one that suits such rows; returns lines that say so.

    Args:
      recipes: configurations, changed in place, but for that of a frozen encoder, which sees every row once.
      images: inputs of the training split. Of rows that are no images it is `identity`; where `AUGMENTATIONS` has
        nothing for images [N, H, W, C], recipes stay as they are.
    """
    recipes = [recipe for recipe in recipes if not recipe["model"].get("frozen")]
    if len(images.shape) != 4:
        for recipe in recipes:
            for method, key in configs.augmentations(recipe):
                method[key] = {"name": "identity"}
        return ["augmentation of every row: identity, as these data are no images"]
    _, *side, channels = images.shape
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


def label_view(budget: int | str, task: Task = "class", draw: str = "balanced", classes: int = 0) -> dict[str, Any]:
    """`config.labels` of a budget: per class, or of rows where labels are no classes.

    draw: "balanced", as many rows of every class, which nobody can draw before labelling; "uniform", as many rows in
      all; or a query of `labelfx.labels.queries`, which chooses those in rounds, beginning with one a class, by the
      rows as they are or, with a colon and what `labelfx.load` takes, by that encoder's features.
    classes: how many there are, for draws that are not balanced.

    Raises:
      ConfigError: there is no such query.
    """
    if budget == "all":
        return {"name": "all_labels"}
    if draw == "balanced" and task == "class":
        return {"name": "per_class", "k": budget}
    count = int(budget) * classes if task == "class" else int(budget)
    if draw in ("balanced", "uniform"):
        return {"name": "uniform", "n": count}
    name, _, encoder = draw.partition(":")
    find(configs.QUERIES, name, "--draw")
    query = {"name": name, **PUBLISHED.get(name, {})}
    return {"name": "queried", "n": count, "start": max(classes, 2), "query": query, "encoder": encoder}


def _learns_from_labels(recipe: Mapping[str, Any]) -> bool:
    batches = (recipe["batch"], *(phase["batch"] for phase in recipe["phases"] if "batch" in phase))
    return _classifies(recipe) or any(batch["labelled"] for batch in batches)


def _classifies(recipe: Mapping[str, Any]) -> bool:
    """Whether an eval of the recipe reads its own classifier or regressor."""
    return any(
        {"test_logits", "test_predictions"} & {*configs.parameters(configs.function(configs.EVALS, name))[0]}
        for name in recipe["evals"]
    )


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
