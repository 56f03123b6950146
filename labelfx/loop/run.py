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
from labelfx.data import Dataset
from labelfx.data.batches import View, label_view
from labelfx.data.labels import labels_hash
from labelfx.finished import weights
from labelfx.loop import bucket
from labelfx.models import Model, Trained, stack
from labelfx.models.heads import linear

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


def load_data(config: configs.Run, workdir: Path) -> tuple[Dataset, View]:
    """The data set, and its training rows under the label view: the one that `workdir` keeps if its run has begun.

    Raises:
      ConfigError: the data set or the labels cannot be had, or are not those that the run was started with.
    """
    try:
        dataset = configs.build(configs.DATA, config.data)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.data: {error}") from error
    for name in config.evals:
        needs = configs.parameters(configs.function(configs.EVALS, name))[0]
        if "judgements" in needs and dataset.judgements is None:
            raise ConfigError(f"config.evals.{name}: {config.data['name']!r} has no judged pairs of texts")
        if "num_classes" in needs and not dataset.class_names:
            raise ConfigError(f"config.evals.{name}: {config.data['name']!r} has no classes")
    given = dataset.train.labels
    path = workdir / "labels.json"
    if (workdir / "config.json").exists():
        kept = configs.read_json(path)
        try:
            rows, expected = np.array(kept["rows"], np.int64), kept["hash"]
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not as it was written ({error}); use another workdir") from error
        outside = (rows < 0) | (rows >= len(given))
        if rows.ndim != 1 or outside.any() or labels_hash(rows, given) != expected:
            raise ConfigError(f"{path}: its rows do not have the labels they had; the data set has changed since")
        count, which = len(given), getattr(dataset.train.images, "which", "")
        if kept.get("images", [count, which]) != [count, which]:
            raise ConfigError(
                f"{path}: not of these {count} training images; some were added, removed or renamed since"
            )
        return dataset, label_view(dataset.train, rows)
    try:
        choose = configs.build(configs.LABELS, config.labels)
        rows = choose(given, np.random.default_rng(config.label_seed))
    except ValueError as error:
        raise ConfigError(f"config.labels: {error}") from error
    return dataset, label_view(dataset.train, rows)


def begin(config: configs.Run, workdir: Path, view: View) -> None:
    """Writes `labels.json`, `config.json` and, of code outside of labelfx, `outside.json` where they are not there yet:
    from now on the workdir is of this run."""
    if jax.process_index() == 0 and not (workdir / "config.json").exists():
        images = [len(view.truth), getattr(view.split.images, "which", "")]
        labels = {"hash": labels_hash(view.rows, view.truth), "rows": view.rows.tolist(), "images": images}
        configs.write_text(workdir / "labels.json", json.dumps(labels) + "\n")
        if code := configs.outside_code(config):
            configs.write_text(workdir / configs.OUTSIDE, json.dumps(code, indent=2) + "\n")
        configs.write_text(workdir / "config.json", json.dumps(configs.plain(config), indent=2) + "\n")


def keep_compiled_programs() -> None:
    """Turns JAX's persistent compilation cache on, in `~/.cache/labelfx`, unless the user has said where or not to."""
    settings: Any = jax.config
    if settings.jax_enable_compilation_cache and not settings.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(configs.cache_folder()))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def build_model(config: configs.Run) -> Model:
    """The backbone. ConfigError where it reads text and the data are images, or its parts do not fit together."""
    name = config.model["name"]
    takes = configs.parameters(configs.function(configs.BACKBONES, name))[0]
    if "vocab_size" in takes and "vocab_size" not in config.data:
        raise ConfigError(f"config.model.name = {name!r}: reads text, but {config.data['name']!r} has none")
    try:
        return configs.build(configs.BACKBONES, config.model, **{key: config.data[key] for key in takes})
    except ValueError as error:
        raise ConfigError(f"config.model: {error}") from error


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
    """The variables that a phase of a run ended with, those of its last phase by default."""
    if phase is None:
        phase = len(configs.phases(load_config(workdir))) - 1
    return weights.load(workdir / "weights" / f"{phase}.safetensors")


def load_teacher(workdir: Path, num_classes: int, *, own: tuple[Model, int] | None = None) -> Trained:
    """The classifier that a run ended with.

    Args:
      workdir: of that run.
      num_classes: that it must have.
      own: where it is the run itself that asks, its backbone and the phase that it ended.

    Raises:
      ConfigError: it has no classifier, or one of other classes.
    """
    backbone, phase = own or (build_model(load_config(workdir)), None)
    variables = load_variables(workdir, phase)
    if "head" not in variables["params"]:
        raise ConfigError(f"config.teacher: the run in {workdir} has trained no classifier")
    found = next(iter(variables["params"]["head"].values()))["kernel"].shape[-1]
    if found != num_classes:
        raise ConfigError(f"config.teacher: the run in {workdir} has {found} classes, these data {num_classes}")
    return Trained(stack(backbone=backbone, head=linear(features=num_classes)), variables)
