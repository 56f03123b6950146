"""Recipes on rows and labels that they were not written for: the network, objective, augmentation and evals to suit."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, Task
from labelfx.loop import run

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
    return dict(sorted(found.items(), key=lambda item: bool(item[1]["teacher"])))


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


def _reads(model: Mapping[str, Any], recipe: Mapping[str, Any], dataset: Dataset) -> bool:
    """Whether a network, in a recipe, takes such rows: one of texts those of a vocabulary, any other all else."""
    takes = configs.parameters(configs.function(configs.BACKBONES, model["name"]))[0]
    if ("vocab_size" in takes) != (rows_of(dataset) == "texts"):
        return False
    inputs = dataset.train.inputs
    row = jax.ShapeDtypeStruct((1, *inputs.shape[1:]), inputs.dtype)
    try:
        config = configs.check({**recipe, "model": model, "labels": {"name": "all_labels"}})
        network = run.build_model(config, dataset)
        jax.eval_shape(network.init, jax.random.key(0), row)
    except Exception:  # whatever layers say of a shape that is not theirs
        return False
    return True


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
