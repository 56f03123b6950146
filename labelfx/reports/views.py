"""What a budget is: which rows are labelled, and what is said of them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.config.checks import find
from labelfx.config.errors import first_line
from labelfx.data import Dataset, Task
from labelfx.labels.queries import PUBLISHED
from labelfx.loop.suited import BASELINE


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
