"""What a run is told: its rows under the label view, what is said of them, and whether that suits its evals."""

import functools
from pathlib import Path
from typing import Any

import numpy as np

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, labelled, row_names
from labelfx.data.batches import View, label_view
from labelfx.data.labels import rows_hash, said_hash
from labelfx.data.weak import COLUMNS

NOBODY = np.empty(0, np.int64)


def chosen(config: configs.Run, dataset: Dataset) -> np.ndarray:
    """The rows that the label view chooses, int64 [L].

    Raises:
      ValueError: it cannot be had of these data.
    """
    takes = configs.parameters(configs.function(configs.LABELS, config.labels["name"]))[0]
    inputs = dataset.train.inputs
    gives = {"names": lambda: row_names(inputs), "encode": lambda: functools.partial(_encoded, inputs)}
    provided = {name: give() for name, give in gives.items() if name in takes}
    choose = configs.build(configs.LABELS, config.labels)
    return choose(dataset.train.labels, np.random.default_rng(config.label_seed), **provided)


def _encoded(inputs: Any, encoder: str) -> np.ndarray:
    """Features of rows [N, ...], float32 [N, F]: of what `labelfx.load` takes or, of "", the rows as they are."""
    if encoder:
        return labelfx.load(encoder)(inputs)
    if inputs.dtype == np.int32:
        raise ValueError("encoder = '': rows are ids, of which nothing tells how alike they are; name an encoder")
    return np.asarray(inputs[:], np.float32).reshape(len(inputs), -1)


def check_said(config: configs.Run, view: View) -> View:
    """ConfigError where an eval reads labels, and none is said."""
    for each in config.evals:
        needs = configs.parameters(configs.function(configs.EVALS, each))[0]
        if "labelled_labels" in needs and len(view.rows) and not labelled(view.split.labels[view.rows]).any():
            raise ConfigError(f"config.evals.{each}: reads labels, and config.labels says none; take another eval")
    return view


def compared_with(config: configs.Run, workdir: Path | None, phase: int = -1) -> Any:
    """The workdir of the run that evals compare a network with: the first that it was derived from, or else the first
    teacher that the phase names; None where there is neither."""
    if workdir is not None and (made := configs.derivation(workdir)):
        return configs.place(made["parents"][0]["place"])
    named = [each for each in configs.phases(config)[phase]["teacher"] if each != "previous"]
    return configs.place(named[0]) if named else None


def check_evals(config: configs.Run, dataset: Dataset, workdir: Path) -> None:
    """ConfigError where an eval asks for what the data have not."""
    name = config.data["name"]
    for each in config.evals:
        needs = configs.parameters(configs.function(configs.EVALS, each))[0]
        for what, words in {"judgements": "no judged pairs of texts", "graph": "no graph"}.items():
            if what in needs and what not in dataset.side:
                raise ConfigError(f"config.evals.{each}: {name!r} has {words}")
        if "teacher_logits" in needs and dataset.task != "class":
            raise ConfigError(f"config.evals.{each}: {name!r} has no classes, one a row")
        if "teacher_logits" in needs and compared_with(config, workdir) is None:
            raise ConfigError(
                f"config.evals.{each}: compares with another run; give config.teacher, or take labelfx.derive"
            )
        if "test_predictions" in needs and dataset.task != "target":
            raise ConfigError(f"config.evals.{each}: {name!r} has no targets of a regression")
        if "num_classes" in needs and not dataset.class_names:
            raise ConfigError(f"config.evals.{each}: {name!r} has no classes")
        if dataset.test is None and any(need.startswith("test_") for need in needs):
            raise ConfigError(f"config.evals.{each}: {name!r} has no test split; take an eval that needs none")
        for column in COLUMNS:
            if f"test_{column}" in needs and dataset.test is not None and column not in dataset.test.columns:
                raise ConfigError(f"config.evals.{each}: {name!r} has no column {column!r} of its test rows")


def view_of(config: configs.Run, dataset: Dataset, rows: np.ndarray, asked: np.ndarray = NOBODY) -> View:
    """What is said of the rows that the label view has chosen, of those held out of them to choose by, and of those
    that the run has asked for since.

    Generators of their own, by a number behind the seed: NumPy fills a seed up with zeros."""
    how, train = config.labels, dataset.train
    said = None
    if how["weak"]:
        said = configs.build(
            configs.WEAK,
            how["weak"],
            label=train.labels,
            rng=np.random.default_rng([config.label_seed, 1]),
            num_classes=len(dataset.class_names),
            rows=np.union1d(rows, asked),
            inputs=train.inputs,
            columns=train.columns,
        )
    if not how["validation"]:
        return label_view(train, np.union1d(rows, asked), said)
    if how["validation"] >= len(rows):
        raise ConfigError(f"config.labels.validation = {how['validation']}: must be less than the {len(rows)} rows")
    held_out = np.random.default_rng([config.label_seed, 2]).permutation(rows)[: how["validation"]]
    told = np.union1d(np.setdiff1d(rows, held_out), asked)
    return label_view(train, told, said, validation=np.sort(held_out))


def identity(view: View) -> dict[str, str]:
    """What identifies the labels of a run: `rows_hash`, by which runs are paired, and `said_hash`, which a resume
    checks."""
    rows = np.concatenate([view.rows, view.validation])
    return {"rows_hash": rows_hash(rows), "said_hash": said_hash(rows, view.split.labels, view.split.columns)}
