"""The best step's weights beside the last one's, by an eval on the validation rows of the label view."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.data.batches import View
from labelfx.evals.tasks import HEADLINES
from labelfx.finished import weights
from labelfx.loop import results, run
from labelfx.models import Model


def validate(
    config: configs.Run, dataset: Dataset, view: View, model: Model, variables: dict[str, Any], phase: int
) -> float:
    """The headline of `config.keep_best` on the validation rows, as they are labelled; the larger the better.

    Raises:
      ConfigError: the eval has no such number, or has failed.
    """
    name, headline = config.keep_best, HEADLINES[dataset.task]
    held_out = dataset._replace(test=view.held_out)
    alone = dataclasses.replace(config, evals={name: config.evals[name]})
    found = results.run_evals(alone, held_out, view, model, variables, phase).get(name, {})
    if headline.metric not in found:
        why = found.get("failed", f"gives {', '.join(found) or 'nothing'}, no {headline.metric}")
        raise ConfigError(f"config.keep_best = {name!r}: on the validation rows it {why}")
    return found[headline.metric] if headline.larger else -found[headline.metric]


def keep(workdir: Path, step: int, value: float, variables: dict[str, Any]) -> dict[str, Any]:
    """Writes the weights of a step that is better than every one before, and forgets those of the best before. Steps
    that a resume repeats change nothing: they are as good as they were. Returns what is known of the best."""
    before = run.best(workdir)
    if before and before["value"] >= value:
        return before
    now: dict[str, Any] = {"step": step, "value": value, "file": f"best-{step}.safetensors"}
    weights.save(workdir / "weights" / now["file"], variables)
    configs.write_text(workdir / "weights" / "best.json", json.dumps(now) + "\n")
    if before and before["file"] != now["file"]:
        (workdir / "weights" / before["file"]).unlink(missing_ok=True)
    return now
