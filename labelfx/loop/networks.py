"""The networks of a run, by its configuration: its backbone, and the head on it."""

from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.data.batches import View
from labelfx.data.labels import target_scale
from labelfx.data.tokens import Tokenizer
from labelfx.graphs import Graph
from labelfx.loop.blame import named
from labelfx.models import Model, rescaled, scaled
from labelfx.models.pretrained import check_vocabulary


def build_model(
    config: configs.Run,
    dataset: Dataset | None = None,
    variables: dict[str, Any] | None = None,
    weights: dict[str, Any] | None = None,
) -> Model:
    """The backbone, which starts from `weights` where it is a pretrained one; of vectors one that standardises them by
    the mean and deviation of the training split, which are among its variables. Without the data it has no variables of
    its own: `variables` are those of a run, whose graph it takes where it is one of nodes.

    ConfigError where it reads text and the data are images, or its parts do not fit together.
    """
    name = config.model["name"]
    takes = configs.parameters(configs.function(configs.BACKBONES, name))[0]
    if "vocab_size" in takes and not config.data.get("vocab_size"):
        raise ConfigError(f"config.model.name = {name!r}: reads text, but {config.data['name']!r} has none")
    for key in takes:
        if key != "weights" and dataset is not None and key not in config.data and key not in dataset.side:
            raise ConfigError(f"config.model.name = {name!r}: reads a {key}, but {config.data['name']!r} has none")
    side: dict[str, Any] = {} if dataset is None else dict(dataset.side)
    if variables and "graph" in variables:
        side = {"graph": Graph(**variables["graph"]["backbone"])}
    side["weights"] = weights
    if dataset is not None and (said := config.model.get("description")):
        check_rows(said, config.model["file"], dataset.train.inputs)
        if said["takes"] == "text":
            with named("config.data"):
                check_vocabulary(said, config.data.get("vocab_size", 0))
    with named("config.model"):
        model = configs.build(configs.BACKBONES, config.model, **{k: config.data.get(k, side.get(k)) for k in takes})
    inputs = None if dataset is None else dataset.train.inputs
    vectors = isinstance(inputs, np.ndarray) and inputs.dtype == np.float32 and inputs.ndim == 2  # and no blanks
    return scaled(model, inputs if vectors else None)


def check_rows(description: dict[str, Any], file: str, inputs: Any) -> None:
    """ConfigError where a pretrained encoder does not read such rows."""
    is_text, is_image = inputs.dtype == np.int32, len(inputs.shape) == 4 and inputs.shape[-1] in (1, 3)
    if not (is_text if description["takes"] == "text" else is_image):
        found = f"rows are {inputs.dtype} [N, {', '.join(map(str, inputs.shape[1:]))}]"
        raise ConfigError(f"config.model.file = {file!r}: an encoder of {description['takes']}, but {found}")


def build_head(
    config: configs.Run,
    num_outputs: int,
    targets: np.ndarray | None = None,
    inputs: np.ndarray | None = None,
    class_names: tuple[str, ...] | None = None,
    tokenizer: Tokenizer | None = None,
) -> Model:
    """`config.head`, which without the data's names and tokenizer has those of its variables, if it reads them. Of a
    regression it predicts `targets` [L] or [L, T] in their units: their mean and deviation are
    among its variables. On a pretrained encoder it standardises features as `inputs` float32 [S, F] are spread."""
    with named("config.head"):
        said = {"num_outputs": num_outputs, "class_names": class_names, "tokenizer": tokenizer}
        head = configs.build(configs.CLASSIFIERS, config.head, **said)
    head = scaled(head, inputs, alike=True) if config.model.get("file") else head
    return head if targets is None else rescaled(head, *target_scale(targets))


def head_of(config: configs.Run, dataset: Dataset, view: View, inputs: np.ndarray | None = None) -> Model:
    """`build_head` for these data, of which a regressor takes the targets that are said."""
    targets = view.split.labels[view.rows] if dataset.task == "target" else None
    own = dataset.class_names, dataset.side.get("tokenizer")
    return build_head(config, dataset.num_outputs, targets, inputs, *own)
