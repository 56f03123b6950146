"""What a trained model is worth, and the command: `python -m labelfx.evaluate --workdir=DIR`."""

import datetime
import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import labelfx
from labelfx import command, models, weights
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.data.batches import View, label_view
from labelfx.data.labels import labels_hash
from labelfx.evals import features
from labelfx.models import Model
from labelfx.models.heads import linear


def evaluate(
    workdir: str | Path,
    *,
    out: str | Path | None = None,
    labels: Mapping[str, Any] | None = None,
    label_seed: int | None = None,
    evals: Mapping[str, Any] | None = None,
    name: str | None = None,
) -> dict[str, Any]:
    """Evaluates a finished run again; with `out`, under other labels or evals, leaving the run's own results alone.

    Args:
      workdir: of the run.
      out: where to write `results.json` and `labels.json`; the run's own workdir by default.
      labels, label_seed, evals, name: replace those of the run's configuration; only with `out`.

    Returns:
      What it writes to `results.json`.
    """
    run = Path(workdir)
    changes = {"labels": labels, "label_seed": label_seed, "evals": evals, "name": name}
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes and out is None:
        raise ConfigError(f"evaluate: {', '.join(changes)} would overwrite the results of {run}; give out=")
    path = run / "config.json"
    if not path.exists():
        raise FileNotFoundError(f"{run}: no config.json there; --workdir is the folder of a run")
    config = configs.check({**json.loads(path.read_text()), **changes})
    folder = Path(out) if out else run
    folder.mkdir(parents=True, exist_ok=True)
    dataset, view = load_data(config, folder)
    before = run / "results.json"
    trained = json.loads(before.read_text())["training"] if before.exists() else {}
    return finish(config, folder, dataset, view, load_variables(run), trained)


def load_data(config: configs.Run, workdir: Path) -> tuple[Dataset, View]:
    """The data set, and its training rows under the label view that `workdir/labels.json` keeps.

    The rows are drawn once and read again on every resume.

    Raises:
      ConfigError: the data set or the labels cannot be had, or are not those that the run was started with.
    """
    try:
        dataset = configs.build(configs.DATA, config.data)
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(f"config.data: {error}") from error
    given = dataset.train.labels
    path = workdir / "labels.json"
    if path.exists():
        try:
            kept = json.loads(path.read_text())
            rows, expected = np.array(kept["rows"], np.int64), kept["hash"]
        except (KeyError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: not as it was written ({error}); use another workdir") from error
        outside = (rows < 0) | (rows >= len(given))
        if outside.any() or labels_hash(rows, given) != expected:
            raise ConfigError(f"{path}: its rows do not have the labels they had; the data set has changed since")
        return dataset, label_view(dataset.train, rows)
    try:
        choose = configs.build(configs.LABELS, config.labels)
        rows = choose(given, np.random.default_rng(config.label_seed))
    except ValueError as error:
        raise ConfigError(f"config.labels: {error}") from error
    configs.write_text(path, json.dumps({"hash": labels_hash(rows, given), "rows": rows.tolist()}) + "\n")
    return dataset, label_view(dataset.train, rows)


def build_model(config: configs.Run) -> Model:
    return configs.build(configs.BACKBONES, config.model)


def load_variables(workdir: Path, phase: int | None = None) -> dict[str, Any]:
    """The variables that a phase of a run ended with, those of its last phase by default."""
    if phase is None:
        path = workdir / "config.json"
        if not path.exists():
            raise FileNotFoundError(f"{workdir}: no config.json there; give the workdir of a finished run")
        phase = len(configs.phases(json.loads(path.read_text()))) - 1
    return weights.load(workdir / "weights" / f"{phase}.safetensors")


class _Inputs:
    """What evals may ask for by name, each made when first asked for."""

    def __init__(self, config: configs.Run, dataset: Dataset, view: View, model: Model, variables: dict[str, Any]):
        self.model, self.seed, self.num_classes = model, config.seed, len(dataset.class_names)
        self.train_images, self.test_images = dataset.train.images, dataset.test.images
        self.test_labels, self.rows = dataset.test.labels, view.rows
        self.labelled_labels = view.split.labels[view.rows]
        self.variables = variables

    def _features(self, images: Any) -> np.ndarray:
        return features(self.model, models.backbone(self.variables), images)

    @functools.cached_property
    def features(self) -> np.ndarray:
        return self._features(self.train_images)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        return self._features(self.test_images)

    @functools.cached_property
    def labelled_images(self) -> np.ndarray:
        return self.train_images[self.rows]

    @functools.cached_property
    def labelled_features(self) -> np.ndarray:
        return self._features(self.labelled_images)

    @functools.cached_property
    def test_logits(self) -> np.ndarray:
        if "head" not in self.variables["params"]:
            raise ConfigError("config.evals.head: the method trains no classifier; drop it or use linear_probe")
        head = {"params": self.variables["params"]["head"]}
        return np.asarray(linear(features=self.num_classes).apply(head, self.test_features, train=False)[0])


def run_evals(
    config: configs.Run, dataset: Dataset, view: View, model: Model, variables: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Eval name -> its results, for the evals of the configuration."""
    inputs = _Inputs(config, dataset, view, model, variables)
    found = {}
    for name, keywords in config.evals.items():
        function = configs.function(configs.EVALS, name)
        positional = configs.parameters(function)[0]
        result = function(*(getattr(inputs, p) for p in positional), **keywords)
        found[name] = result if isinstance(result, dict) else {"value": float(result)}
    return found


def finish(
    config: configs.Run,
    workdir: Path,
    dataset: Dataset,
    view: View,
    variables: dict[str, Any],
    training: Mapping[str, Any],
) -> dict[str, Any]:
    """Runs the evals and writes `workdir/results.json`. `training` is what the loop knows of itself."""
    found = run_evals(config, dataset, view, build_model(config), variables)
    device = jax.devices()[0]
    results = {
        "name": config.name,
        "metrics": {name: {**part, "weights": "last step"} for name, part in found.items()},
        "config_hash": configs.config_hash(config),
        "commit": commit(),
        "seeds": {"seed": config.seed, "label_seed": config.label_seed, "data_seed": config.data_seed},
        "labels": {"n": len(view.rows), "hash": labels_hash(view.rows, dataset.train.labels)},
        "training": dict(training),
        "device": {"kind": device.device_kind, "platform": device.platform, "count": jax.device_count()},
        "versions": {"python": platform.python_version(), "labelfx": labelfx.__version__}
        | {package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    configs.write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    for name, part in found.items():
        print(f"{name}: " + ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in part.items()))
    return results


@functools.cache
def commit() -> str | None:
    """The commit that this code is at, `+changes` where it was edited since; None outside a repository."""
    package = Path(__file__).parent
    git = ["git", "-C", str(package)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout
        if not (Path(top.strip()) / "labelfx").samefile(package):
            return None
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout
        edited = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.strip() + ("+changes" if edited.strip() else "")


def main() -> None:
    command.run(lambda flags: evaluate(flags.workdir), config=False)


class _Module(types.ModuleType):
    """Lets `labelfx.evaluate(workdir)` and `python -m labelfx.evaluate` be the same name."""

    def __call__(self, workdir: str | Path, **changes: Any) -> dict[str, Any]:
        return evaluate(workdir, **changes)


sys.modules[__name__].__class__ = _Module

if __name__ == "__main__":
    main()
