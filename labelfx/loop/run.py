"""What a run is made of, by its configuration and in its folder: data, labels, model, trained variables."""

import contextlib
import functools
import json
import logging
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, labelled, merged
from labelfx.data.batches import View, label_view
from labelfx.data.labels import rows_hash, said_hash, target_scale
from labelfx.data.sources.arrays import check_arrays
from labelfx.data.tokens import Tokenizer
from labelfx.finished import weights
from labelfx.graphs import Graph
from labelfx.loop import bucket
from labelfx.loop.blame import named
from labelfx.models import Model, Trained, rescaled, scaled, stack

TOKENIZER = "tokenizer.json"

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def claim(folder: Path) -> Iterator[None]:
    """Keeps every other process that claims `folder` out of it; of the processes of one run the first does so.

    It is a lock of the operating system on `folder/.lock`, which goes with the process however that ends. On a file
    system without locks there is a warning instead. In a bucket it is an object, see `bucket.claim`.

    Raises:
      ConfigError: another process holds it; the message says which.
    """
    if jax.process_index() > 0:
        yield
        return
    if not isinstance(folder, Path):
        with bucket.claim(folder):
            yield
        return
    with (folder / ".lock").open("a+b", buffering=0) as file:
        try:
            import fcntl  # not on Windows

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            who = file.read().decode(errors="replace").strip() or "another process"
            raise ConfigError(f"{folder}: in use by {who}; wait for its end or use another workdir") from None
        except (ImportError, OSError) as error:
            logger.warning("%s: no lock (%s); see to it that no other run writes there", folder, error)
        with contextlib.suppress(OSError):  # the disk is full, which is said where it matters
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield


def load_data(config: configs.Run, workdir: Path, dataset: Dataset | None = None) -> tuple[Dataset, View]:
    """The data set, and its training rows under the label view: the one that `workdir` keeps if its run has begun.
    `dataset` is that of a configuration whose source is `arrays`.

    Raises:
      ConfigError: the data set or the labels cannot be had, or are not those that the run was started with.
    """
    try:
        if dataset is None:
            dataset = configs.build(configs.DATA, config.data)
        elif config.data["name"] != "arrays":
            raise ValueError(f"name = {config.data['name']!r}: must be 'arrays' where dataset= is given")
        else:
            check_arrays(dataset)
        if config.data["merge"]:
            dataset = merged(dataset, config.data["merge"])
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.data: {error}") from error
    _check_evals(config, dataset)
    given = dataset.train.labels
    path = workdir / "labels.json"
    if (workdir / "config.json").exists():
        kept = configs.read_json(path)
        try:
            if "hash" in kept:
                raise ConfigError(f"{path}: of a labelfx before 0.2, whose runs do not go on; use another workdir")
            rows, expected = np.array(kept["rows"], np.int64), kept["said_hash"]
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not as it was written ({error}); use another workdir") from error
        count, which = len(given), getattr(dataset.train.inputs, "which", "")
        if kept.get("inputs", [count, which]) != [count, which]:
            raise ConfigError(
                f"{path}: not of these {count} training images; some were added, removed or renamed since"
            )
        there = rows.ndim == 1 and not ((rows < 0) | (rows >= count)).any()
        view = _view(config, dataset, rows) if there else None
        if view is None or identity(view)["said_hash"] != expected:
            raise ConfigError(f"{path}: its rows do not have the labels they had; the data set has changed since")
        return dataset, view
    with named("config.labels"):
        choose = configs.build(configs.LABELS, config.labels)
        return dataset, _check_said(
            config, _view(config, dataset, choose(given, np.random.default_rng(config.label_seed)))
        )


def _check_said(config: configs.Run, view: View) -> View:
    """ConfigError where an eval reads labels, and none is said."""
    for each in config.evals:
        needs = configs.parameters(configs.function(configs.EVALS, each))[0]
        if "labelled_labels" in needs and len(view.rows) and not labelled(view.split.labels[view.rows]).any():
            raise ConfigError(f"config.evals.{each}: reads labels, and config.labels says none; take another eval")
    return view


def _check_evals(config: configs.Run, dataset: Dataset) -> None:
    """ConfigError where an eval asks for what the data have not."""
    name = config.data["name"]
    for each in config.evals:
        needs = configs.parameters(configs.function(configs.EVALS, each))[0]
        for what, words in {"judgements": "no judged pairs of texts", "graph": "no graph"}.items():
            if what in needs and what not in dataset.side:
                raise ConfigError(f"config.evals.{each}: {name!r} has {words}")
        if "test_predictions" in needs and dataset.task != "target":
            raise ConfigError(f"config.evals.{each}: {name!r} has no targets of a regression")
        if "num_classes" in needs and not dataset.class_names:
            raise ConfigError(f"config.evals.{each}: {name!r} has no classes")
        if dataset.test is None and any(need.startswith("test_") for need in needs):
            raise ConfigError(f"config.evals.{each}: {name!r} has no test split; take an eval that needs none")
        if "test_target" in needs and dataset.test is not None and "target" not in dataset.test.columns:
            raise ConfigError(f"config.evals.{each}: {name!r} has no column 'target' of its test rows")


def _view(config: configs.Run, dataset: Dataset, rows: np.ndarray) -> View:
    """What is said of the rows that the label view has chosen, and of those held out of them to choose by.

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
            rows=rows,
            inputs=train.inputs,
            columns=train.columns,
        )
    if not how["validation"]:
        return label_view(train, rows, said)
    if how["validation"] >= len(rows):
        raise ConfigError(f"config.labels.validation = {how['validation']}: must be less than the {len(rows)} rows")
    held_out = np.random.default_rng([config.label_seed, 2]).permutation(rows)[: how["validation"]]
    return label_view(train, np.setdiff1d(rows, held_out), said, validation=np.sort(held_out))


def identity(view: View) -> dict[str, str]:
    """What identifies the labels of a run: `rows_hash`, by which runs are paired, and `said_hash`, which a resume
    checks."""
    rows = np.concatenate([view.rows, view.validation])
    return {"rows_hash": rows_hash(rows), "said_hash": said_hash(rows, view.split.labels, view.split.columns)}


def begin(config: configs.Run, workdir: Path, view: View, tokenizer: Tokenizer | None = None) -> None:
    """Writes `labels.json`, `config.json` and, of code outside of labelfx, `outside.json`, of text `tokenizer.json`
    where they are not there yet: from now on the workdir is of this run."""
    if jax.process_index() == 0 and not (workdir / "config.json").exists():
        inputs = [len(view.truth), getattr(view.split.inputs, "which", "")]
        rows = np.union1d(view.rows, view.validation)  # as the label view chose them
        labels = {**identity(view), "rows": rows.tolist(), "inputs": inputs}
        configs.write_text(workdir / "labels.json", json.dumps(labels) + "\n")
        if code := configs.outside_code(config):
            configs.write_text(workdir / configs.OUTSIDE, json.dumps(code, indent=2) + "\n")
        if tokenizer is not None:
            configs.write_text(workdir / TOKENIZER, tokenizer.text)
        configs.write_text(workdir / "config.json", json.dumps(configs.plain(config), indent=2) + "\n")


def keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, in `~/.cache/labelfx`, unless the user has said where or not to."""
    settings: Any = jax.config
    if settings.jax_enable_compilation_cache and not settings.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(configs.cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def build_model(config: configs.Run, dataset: Dataset | None = None, variables: dict[str, Any] | None = None) -> Model:
    """The backbone; of vectors one that standardises them by the mean and deviation of the training split, which are
    among its variables. Without the data it has no variables of its own: `variables` are those of a run, whose graph it
    takes where it is one of nodes.

    ConfigError where it reads text and the data are images, or its parts do not fit together.
    """
    name = config.model["name"]
    takes = configs.parameters(configs.function(configs.BACKBONES, name))[0]
    if "vocab_size" in takes and not config.data.get("vocab_size"):
        raise ConfigError(f"config.model.name = {name!r}: reads text, but {config.data['name']!r} has none")
    for key in takes:
        if dataset is not None and key not in config.data and key not in dataset.side:
            raise ConfigError(f"config.model.name = {name!r}: reads a {key}, but {config.data['name']!r} has none")
    side = {} if dataset is None else dataset.side
    if variables and "graph" in variables:
        side = {"graph": Graph(**variables["graph"]["backbone"])}
    with named("config.model"):
        model = configs.build(configs.BACKBONES, config.model, **{k: config.data.get(k, side.get(k)) for k in takes})
    inputs = None if dataset is None else dataset.train.inputs
    return scaled(model, inputs if inputs is not None and inputs.dtype == np.float32 and inputs.ndim == 2 else None)


def build_head(config: configs.Run, num_outputs: int, targets: np.ndarray | None = None) -> Model:
    """`config.head`. Of a regression it predicts `targets` [L] or [L, T] in their units: their mean and deviation are
    among its variables."""
    with named("config.head"):
        head = configs.build(configs.CLASSIFIERS, config.head, num_outputs=num_outputs)
    return head if targets is None else rescaled(head, *target_scale(targets))


def head_of(config: configs.Run, dataset: Dataset, view: View) -> Model:
    """`build_head` for these data, of which a regressor takes the targets that are said."""
    return build_head(config, dataset.num_outputs, view.split.labels[view.rows] if dataset.task == "target" else None)


def load_config(workdir: Path) -> configs.Run:
    """The configuration of a run that was started in `workdir`.

    Raises:
      FileNotFoundError, ConfigError: there is none, or it cannot run; one line that names the file.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{workdir}: no config.json there; give the workdir of a run")
    found = configs.read_json(path)
    try:
        config = configs.check(found, workdir)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if changed := configs.changed_code(workdir):
        _warn_once(f"{workdir}: made with other code: {changed}")
    return config


_warn_once = functools.cache(logger.warning)


def load_variables(workdir: Path, phase: int | None = None) -> dict[str, Any]:
    """The variables that a phase of a run ended with; by default those of its last phase or, with `config.keep_best`,
    of the best step."""
    if phase is None:
        config = load_config(workdir)
        if config.keep_best and (found := best(workdir)):
            return weights.load(workdir / "weights" / found["file"])
        phase = len(configs.phases(config)) - 1
    return weights.load(workdir / "weights" / f"{phase}.safetensors")


def best(workdir: Path) -> dict[str, Any] | None:
    """`step`, `value` and `file` in `weights/` of the best step up to now, see `config.keep_best`."""
    path = workdir / "weights" / "best.json"
    return configs.read_json(path) if path.exists() else None


def load_teacher(workdir: Path, num_classes: int, *, own: tuple[Model, int] | None = None) -> Trained:
    """The classifier that a run ended with.

    Args:
      workdir: of that run.
      num_classes: that it must have.
      own: where it is the run itself that asks, its classifier and the phase that it ended.

    Raises:
      ConfigError: it has no classifier, or one of other classes.
    """
    if own is None:
        config, variables = load_config(workdir), load_variables(workdir)
        classifier = stack(backbone=build_model(config, variables=variables), head=build_head(config, num_classes))
    else:
        classifier, variables = own[0], load_variables(workdir, own[1])
    if "head" not in variables["params"]:
        raise ConfigError(f"config.teacher: the run in {workdir} has trained no classifier")
    found = jax.tree.leaves(variables["params"]["head"])[-1].shape[-1]
    if found != num_classes:
        raise ConfigError(f"config.teacher: the run in {workdir} has {found} classes, these data {num_classes}")
    return Trained(classifier, variables)
