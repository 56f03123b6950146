"""What a run starts from where others trained it; and a frozen encoder, which rows go through once, so that what is
trained reads their features."""

import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Some
from labelfx.data.batches import View
from labelfx.evals.kept import kept_rows
from labelfx.finished import weights
from labelfx.models import Model
from labelfx.models.pretrained import read

SAMPLE = 512  # rows by whose features all are standardised, evenly spaced
PRETRAINED = "pretrained.safetensors"


def pretrained_weights(config: configs.Run, workdir: Path) -> dict[str, Any] | None:
    """What a pretrained model starts from: read from its file, and once the run has begun from `weights/` in its
    workdir; None of other models.

    Raises:
      ConfigError: the file is not there, or is not that of the configuration.
    """
    said = config.model.get("description")
    if not said:
        return None
    kept = workdir / "weights" / PRETRAINED
    if (workdir / "config.json").exists():
        return weights.load(kept)
    try:
        found = read(config.model["file"])
    except (OSError, ValueError) as error:
        raise ConfigError(f"config.model.file: {error}") from None
    if found.description["sha256"] != said["sha256"]:
        raise ConfigError(
            f"config.model.file = {config.model['file']!r}: another file than the configuration describes"
        )
    if jax.process_index() == 0:
        print(f"{config.model['file']}: {found.said}", file=sys.stderr)
    return found.weights()


class Trunk(NamedTuple):
    """The encoder that `config.model.frozen` keeps as it is, and its variables."""

    model: Model
    variables: dict[str, Any]

    def features(self, config: configs.Run, view: View) -> View:
        """The view with features float32 [N, F] in place of rows. Of rows that no step and no rule looks at, and of
        which none is needed to standardise the others, they are 0: encoding them is what takes time."""
        inputs, phases = view.split.inputs, configs.phases(config)
        told = [view.rows, view.validation, sample(len(inputs))]
        alone = all(
            not phase["batch"]["unlabelled"] and not phase["ask"] and phase["batches"]["name"] == "uniform"
            for phase in phases
        )
        found = kept_rows(self.model, self.variables, inputs, np.unique(np.concatenate(told)) if alone else None)
        held_out = view.held_out
        if held_out is not None:
            held_out = held_out._replace(inputs=Some(found, view.validation))
        return view._replace(split=view.split._replace(inputs=found), held_out=held_out)

    def whole(self, variables: dict[str, Any]) -> dict[str, Any]:
        """Variables of what was trained on features, and those of the encoder: of the network that reads rows."""
        return with_backbone(variables, self.variables)


def with_backbone(variables: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Variables of a stack with these of its backbone."""
    kinds = variables.keys() | own.keys()
    return {kind: variables.get(kind, {}) | ({"backbone": own[kind]} if kind in own else {}) for kind in sorted(kinds)}


def sample(count: int) -> np.ndarray:
    """Up to `SAMPLE` rows of as many as there are."""
    return np.unique(np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))


def check_augmentations(config: configs.Run) -> None:
    """ConfigError where rows are to be augmented that the encoder sees once."""
    for phase in configs.phases(config):
        for method, key in configs.augmentations({"method": phase["method"], "phases": ()}):
            if method[key]["name"] != "identity":
                raise ConfigError(
                    f"config.model.frozen: rows go through the encoder once; config.method.{key}.name = "
                    f"{method[key]['name']!r} must be 'identity'"
                )
