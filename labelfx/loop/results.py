"""What a run is worth: its evals, and `results.json`."""

import datetime
import functools
import importlib.metadata
import json
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

import labelfx
from labelfx import config as configs
from labelfx.config.errors import located
from labelfx.data import Dataset, known
from labelfx.data.batches import View
from labelfx.data.weak import blank
from labelfx.loop import asking, distributed, metrics, run
from labelfx.loop.inputs import Inputs
from labelfx.loop.mesh import matmul_precision
from labelfx.loop.said import compared_with, identity
from labelfx.models import Model

READ_FROM = {
    "test_logits": ("head",),
    "head_kernel": ("head",),
    "transformation": ("joint",),
    "test_predictions": ("regressor", "head"),
}  # what evals ask for: of which part


def lacks(name: str, variables: dict[str, Any]) -> str | None:
    """The part of the network that an eval reads and the method has not trained, or None."""
    positional = configs.parameters(configs.function(configs.EVALS, name))[0]
    wanted = [parts for what, parts in READ_FROM.items() if what in positional]
    return next((parts[0] for parts in wanted if not variables["params"].keys() & {*parts}), None)


def check_evals(config: configs.Run, method: str, variables: dict[str, Any]) -> None:
    """ConfigError where an eval reads a part of the network that is not among the method's variables."""
    for name in config.evals:
        if part := lacks(name, variables):
            raise configs.ConfigError(f"config.evals.{name}: {method} trains no {part}; take linear_probe instead")


def run_evals(
    config: configs.Run,
    dataset: Dataset,
    view: View,
    model: Model,
    variables: dict[str, Any],
    phase: int = -1,
    workdir: Path | None = None,
) -> dict[str, dict[str, Any]]:
    """Eval name -> its results, for the evals of the configuration; those of a head only where there is one.

    `variables` are those of the given phase's network, the last one's by default; those in `workdir` may be derived. An
    eval that raises has `failed`, one line that says why, for its only result, and the others go on.
    """
    method = configs.phases(config)[phase]["method"]
    inputs = Inputs(config, dataset, view, model, variables, method, compared_with(config, workdir, phase))
    found = {}
    for name, keywords in config.evals.items():
        function = configs.function(configs.EVALS, name)
        positional = configs.parameters(function)[0]
        if lacks(name, variables):
            continue
        print(f"evaluating {name} ...", file=sys.stderr, flush=True)
        try:
            provided = {p: getattr(inputs, p) for p in positional}
            result = configs.build(configs.EVALS, {"name": name, **keywords}, **provided)
            if not isinstance(result, dict):  # a score of the features, without labels
                result = {"value": float(result), "split": "train", "n": len(inputs.features)}
        except Exception as error:  # its text alone is kept: the error itself would keep what filled the memory
            result = {"failed": located(error)}
            print(f"{name} failed: {result['failed']}", file=sys.stderr, flush=True)
        found[name] = result
    return found


def finish(
    config: configs.Run,
    workdir: Path,
    dataset: Dataset,
    view: View,
    model: Model,
    variables: dict[str, Any],
    training: Mapping[str, Any],
    trained_on: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Runs the evals and writes `workdir/results.json`. `training` is what the loop knows of itself, `trained_on` its
    devices, by default those of this process. Of several processes the first does so, and the others wait for it.

    Raises:
      EvalFailed: an eval has failed; `failed` in the file says why, and the others' results are there.
    """
    what = config, workdir, dataset, view, model, variables, training, trained_on
    results = distributed.by_the_first(lambda: _results(*what))
    if failed := results.get("failed", {}):
        why = "; ".join(f"the eval {name} failed: {why}" for name, why in failed.items())
        raise metrics.EvalFailed(
            f"{why}; {workdir / 'results.json'} has the other evals, and the same command tries again"
        )
    return results


def _results(config, workdir, dataset, view, model, variables, training, trained_on):
    every = run_evals(config, dataset, view, model, variables, -1, workdir)
    failed = {name: part["failed"] for name, part in every.items() if "failed" in part}
    found = {name: part for name, part in every.items() if name not in failed}
    add_medians(config, workdir, found)
    device, best = jax.devices()[0], run.best(workdir) if config.keep_best else None
    which = f"step {best['step']}, the best by {config.keep_best} on validation rows" if best else "last step"
    results = {
        "name": config.name,
        "metrics": {name: {**part, "weights": which} for name, part in found.items()},
        **({"failed": failed} if failed else {}),
        "config_hash": configs.config_hash(config, workdir),
        "commit": commit(),
        "outside": configs.outside_code(config),  # code that is not of labelfx
        "seeds": {"seed": config.seed, "label_seed": config.label_seed, "data_seed": config.data_seed},
        "labels": _labels(config, view, len(asking.read(workdir, len(view.truth)))),
        "data": {  # one row, as the backbone takes it
            "shape": list(dataset.train.inputs.shape[1:]),
            "dtype": str(dataset.train.inputs.dtype),
            "class_names": list(dataset.class_names),
            "task": dataset.task,
            "outputs": dataset.num_outputs,
        },
        "training": dict(training),
        "device": trained_on
        or {
            "kind": device.device_kind,
            "platform": device.platform,
            "count": jax.device_count(),
            "matmul_precision": matmul_precision(),
        },
        "versions": {"python": platform.python_version(), "labelfx": labelfx.__version__}
        | {package: importlib.metadata.version(package) for package in ("jax", "jaxlib", "flax", "optax", "numpy")},
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    configs.write_text(workdir / "results.json", json.dumps(results, indent=2) + "\n")
    for name, part in found.items():
        short = {k: f"{v:.4g}" if isinstance(v, float) else v for k, v in part.items() if not isinstance(v, list)}
        print(f"{name}: " + ", ".join(f"{k} {v}" for k, v in short.items()))
    return results


def _labels(config: configs.Run, view: View, oracle: int) -> dict[str, Any]:
    """What a run was told: its label view, `n` labelled rows, `entries` of labels, rows by column, what `weak` made of
    them, and of them those that the run has asked for."""
    said = known(view.split.labels[view.rows])
    columns = {k: column[view.rows] != blank(k, column[view.rows]) for k, column in view.split.columns.items()}
    counts = {k: int(differs.any((*range(1, differs.ndim),)).sum()) for k, differs in columns.items()}
    weak = {"weak": config.labels["weak"]} if config.labels["weak"] else {}
    held_out = {"validation": len(view.validation)} if len(view.validation) else {}
    return {
        "view": config.labels["name"],
        "n": len(view.rows),
        "entries": int(said.sum()),
        **held_out,
        **({"oracle": oracle} if oracle else {}),
        **weak,
        **({"columns": counts} if counts else {}),
        **identity(view),
    }


def add_medians(config: configs.Run, workdir: Path, found: dict[str, dict[str, Any]]) -> None:
    """`median_of_last_20` beside an accuracy that was measured that often in the last phase, the end included: what
    FixMatch's authors publish, of a checkpoint every 1,024 steps (README of google-research/fixmatch)."""
    begin = sum(phase["steps"] for phase in configs.phases(config)[:-1])
    lines = [line for line in metrics.read(workdir / "metrics.jsonl") if line["step"] > begin]
    for name, part in found.items():
        before = [each for line in lines if (each := line.get(f"{name}/accuracy")) is not None]
        if len(before) >= 19 and "accuracy" in part:
            part["median_of_last_20"] = float(np.median([*before[-19:], part["accuracy"]]))


@functools.cache
def commit() -> str | None:
    """The commit that this code is at, `+changes` where it was edited since; None outside a repository."""
    package = Path(__file__).parents[1]
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
