"""Recipes that start from a file of weights, which others trained."""

import math
from collections.abc import Mapping
from typing import Any

import jax

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, Task
from labelfx.loop.suited import BASELINE, DEFAULTS
from labelfx.models.pretrained import described, upper

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
) -> tuple[dict[str, Any], list[str]]:
    """Gives every recipe the encoder of a file to start from, and puts `frozen` among them; returns the frozen model,
    and lines that say what was picked. `BASELINE` becomes the recipe `lora`, which is supervised training in the way
    that suits such an encoder. On a CPU only the upper layers have updates: gradients end where these begin, and of
    convolutions the lower ones, of many pixels, cost most.

    Args:
      recipes: name -> configuration, changed in place; `BASELINE` is among them.
      said: its description.
    """
    change = {"file": backbone, "image_size": start_size(said, dataset.train.inputs)}
    tuned, frozen = (DEFAULTS | configs.recipe(name) for name in ("lora", "frozen"))
    lines = []
    if jax.default_backend() == "cpu" and (paths := upper(said)):
        tuned["model"] = tuned["model"] | {"lora": tuned["model"]["lora"] | {"paths": paths}}
        lines.append(f"low-rank updates of {', '.join(paths)} alone, as this machine has no accelerator")
    kept = {field: recipes[BASELINE][field] for field in ("data", "keep")}
    objective = {"objective": recipes[BASELINE]["method"]["objective"]}
    recipes[BASELINE] = tuned | kept | {"name": BASELINE, "method": tuned["method"] | objective}
    for recipe in recipes.values():
        recipe["model"] = tuned["model"] | change
    recipes["frozen"] = frozen | kept | {"model": frozen["model"] | change, "method": frozen["method"] | objective}
    return recipes["frozen"]["model"], lines


def floors_with(floors: Mapping[str, dict], model: Mapping[str, Any], task: Task) -> dict[str, dict]:
    """With the probe of a file in place of that of a network that nobody has trained."""
    kept = {name: keywords for name, keywords in floors.items() if name != "random_encoder"}
    how = {key: model[key] for key in ("file", "image_size")}
    return kept | ({"pretrained": how} if task == "class" else {})
