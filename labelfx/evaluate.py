"""Evaluation of a finished run, and the command: `python -m labelfx.evaluate --workdir=DIR`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from labelfx import config as configs
from labelfx.config import ConfigError, command
from labelfx.data import Dataset
from labelfx.loop.claims import claim
from labelfx.loop.mesh import products
from labelfx.loop.results import finish
from labelfx.loop.run import begin, build_model, keep_compiled_programs, load_config, load_data, load_variables


def evaluate(
    workdir: str | Path,
    *,
    out: str | Path | None = None,
    labels: Mapping[str, Any] | None = None,
    label_seed: int | None = None,
    evals: Mapping[str, Any] | None = None,
    name: str | None = None,
    dataset: Dataset | None = None,
) -> dict[str, Any]:
    """Evaluates a finished run again; with `out`, under other labels or evals, leaving the run's own results alone.

    Args:
      workdir: of the run.
      out: a folder for `results.json`, `labels.json` and `config.json`; the run's own workdir by default.
      dataset: of a run whose data were arrays in memory.
      labels, label_seed, evals, name: replace those of the run's configuration; only with `out`.

    Returns:
      What it writes to `results.json`.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`, or the folder to write to is in use: a run's own, while it
        trains, or has no results yet. With `out` the run is only read.
    """
    keep_compiled_programs()
    run = configs.place(workdir)
    folder = configs.place(out) if out else run
    changes = {"labels": labels, "label_seed": label_seed, "evals": evals, "name": name}
    changes = {key: value for key, value in changes.items() if value is not None}
    if changes and out is None:
        raise ConfigError(f"evaluate: {', '.join(changes)} would overwrite the results of {run}; give out=")
    config = configs.check({**configs.plain(load_config(run)), **changes})
    configs.make_folder(folder)
    with claim(folder), products(config.matmul_precision):
        if out:
            configs.compare(config, folder)
            if made := configs.derivation(run):
                configs.write_text(folder / configs.DERIVATION, json.dumps(made, indent=2) + "\n")
        data, view = load_data(config, folder, dataset)
        begin(config, folder, view)
        variables = load_variables(run)
        before = configs.read_json(path) if (path := run / "results.json").exists() else {}
        if not (before or out):
            raise ConfigError(f"{run}: no results.json there: that run has not ended; the same train command ends it")
        training, device = before.get("training", {}), before.get("device")
        return finish(config, folder, data, view, build_model(config, data), variables, training, device)


def main() -> None:
    command.run(lambda flags: evaluate(flags.workdir), config=False)


if __name__ == "__main__":
    main()
