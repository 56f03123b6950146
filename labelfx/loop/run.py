"""What a run is made of, by its configuration and in its folder: data, labels, model, trained variables."""

import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset, merged
from labelfx.data.batches import View
from labelfx.data.sources.arrays import check_arrays
from labelfx.data.tokens import Tokenizer
from labelfx.finished import weights
from labelfx.labels.answers import answered
from labelfx.loop import asking
from labelfx.loop.blame import named
from labelfx.loop.frozen import PRETRAINED, with_backbone
from labelfx.loop.networks import build_head, build_model
from labelfx.loop.said import check_evals, check_said, chosen, identity, view_of
from labelfx.models import Model, Trained, stack
from labelfx.models.pretrained.files import NAME as WEIGHTS

TOKENIZER = "tokenizer.json"

logger = logging.getLogger(__name__)


def load_data(config: configs.Run, workdir: Path, dataset: Dataset | None = None) -> tuple[Dataset, View]:
    """The data set, and its training rows under the label view: the one that `workdir` keeps if its run has begun.
    `dataset` is that of a configuration whose source is `arrays`.

    Raises:
      ConfigError: the data set or the labels cannot be had, or are not those that the run was started with.
    """
    try:
        if dataset is None:
            kept = {"tokenizer": str(workdir / TOKENIZER)} if (workdir / "config.json").exists() else {}
            dataset = configs.build(configs.DATA, config.data | (kept if config.data.get("tokenizer") else {}))
        elif config.data["name"] != "arrays":
            raise ValueError(f"name = {config.data['name']!r}: must be 'arrays' where dataset= is given")
        else:
            check_arrays(dataset)
        if config.data["merge"]:
            dataset = merged(dataset, config.data["merge"])
        if config.labels["name"] == "file" and config.labels["path"].endswith(".csv"):
            with named("config.labels"):
                dataset = answered(dataset, config.labels["path"])
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.data: {error}") from error
    check_evals(config, dataset, workdir)
    given = dataset.train.labels
    path = workdir / "labels.json"
    if (workdir / "config.json").exists():
        kept = configs.read_json(path)
        if isinstance(kept, dict) and "hash" in kept:
            raise ConfigError(f"{path}: of an older labelfx, whose runs do not go on in this one; use another workdir")
        try:
            rows, expected = np.array(kept["rows"], np.int64), kept["said_hash"]
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not as it was written ({error}); use another workdir") from error
        count, which = len(given), getattr(dataset.train.inputs, "which", "")
        if kept.get("inputs", [count, which]) != [count, which]:
            raise ConfigError(
                f"{path}: not of these {count} training images; some were added, removed or renamed since"
            )
        there = rows.ndim == 1 and not ((rows < 0) | (rows >= count)).any()
        view = view_of(config, dataset, rows) if there else None
        if view is None or identity(view)["said_hash"] != expected:
            raise ConfigError(f"{path}: its rows do not have the labels they had; the data set has changed since")
        asked = asking.read(workdir, count)
        return dataset, view_of(config, dataset, rows, asked) if len(asked) else view
    with named("config.labels"):
        rows = chosen(config, dataset)
        return dataset, check_said(config, view_of(config, dataset, rows))


def begin(
    config: configs.Run,
    workdir: Path,
    view: View,
    tokenizer: Tokenizer | None = None,
    start: dict[str, Any] | None = None,
) -> None:
    """Writes `labels.json`, `config.json` and, of code outside of labelfx, `outside.json`, of text `tokenizer.json`
    and what a pretrained model starts from, `start`, where they are not there yet: from now on the workdir is of this
    run."""
    if jax.process_index() == 0 and not (workdir / "config.json").exists():
        inputs = [len(view.truth), getattr(view.split.inputs, "which", "")]
        rows = np.union1d(view.rows, view.validation)  # as the label view chose them
        labels = {**identity(view), "rows": rows.tolist(), "inputs": inputs}
        configs.write_text(workdir / "labels.json", json.dumps(labels) + "\n")
        if code := configs.outside_code(config):
            configs.write_text(workdir / configs.OUTSIDE, json.dumps(code, indent=2) + "\n")
        if tokenizer is not None:
            configs.write_text(workdir / TOKENIZER, tokenizer.text)
        if start is not None:
            weights.save(workdir / "weights" / PRETRAINED, start)
        configs.write_text(workdir / "config.json", json.dumps(configs.plain(config), indent=2) + "\n")


def keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, in `~/.cache/labelfx`, unless the user has said where or not to."""
    settings: Any = jax.config
    if settings.jax_enable_compilation_cache and not settings.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(configs.cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def load_config(workdir: Path) -> configs.Run:
    """The configuration of a run that was started in `workdir`.

    Raises:
      FileNotFoundError, ConfigError: there is none, or it cannot run; one line that names the file.
    """
    path = workdir / "config.json"
    if workdir.suffix == ".safetensors" or (workdir / WEIGHTS).exists():
        raise ConfigError(f"{workdir}: weights of others, no run; take model=dict(name='pretrained', file=...)")
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
    of the best step, and then with those of a frozen encoder, which are stored once."""
    if phase is not None:
        return weights.load(workdir / "weights" / f"{phase}.safetensors")
    config = load_config(workdir)
    found = best(workdir) if config.keep_best else None
    name = found["file"] if found else f"{len(configs.phases(config)) - 1}.safetensors"
    variables = weights.load(workdir / "weights" / name)
    if config.model.get("frozen"):
        return with_backbone(variables, weights.load(workdir / "weights" / PRETRAINED))
    return variables


def best(workdir: Path) -> dict[str, Any] | None:
    """`step`, `value` and `file` in `weights/` of the best step up to now, see `config.keep_best`."""
    path = workdir / "weights" / "best.json"
    return configs.read_json(path) if path.exists() else None


def load_teacher(workdir: Path, class_names: Sequence[str], *, own: tuple[Model, int] | None = None) -> Trained:
    """The classifier that a run ended with.

    Args:
      workdir: of that run.
      class_names: of the data on which it teaches, those of its own among them.
      own: where it is the run itself that asks, its classifier and the phase that it ended.

    Raises:
      ConfigError: it has no classifier, or one of other classes.
    """
    if own is not None:
        classifier, variables, names = own[0], load_variables(workdir, own[1]), tuple(class_names)
    else:
        config, variables = load_config(workdir), load_variables(workdir)
        try:
            names = tuple(configs.read_json(workdir / "results.json")["data"]["class_names"])
        except (KeyError, TypeError) as error:
            how = "python -m labelfx.evaluate writes it again"
            raise ConfigError(f"{workdir / 'results.json'}: does not say which classes it knows; {how}") from error
        classifier = stack(backbone=build_model(config, variables=variables), head=build_head(config, len(names)))
    if "head" not in variables["params"]:
        raise ConfigError(f"config.teacher: the run in {workdir} has trained no classifier")
    if missing := [name for name in names if name not in class_names]:
        hint = configs.nearest(missing[0], class_names)
        raise ConfigError(f"config.teacher: the run in {workdir} knows {missing[0]!r}, no class of these data; {hint}")
    return Trained(classifier, variables, tuple(map(list(class_names).index, names)))
