"""The score distribution of a run as a picture, and the command: `python -m labelfx.scores --workdir=DIR`.

A run has a distribution where `config.evals` has a `score_distribution`; of a run that has none,
`labelfx.evaluate(workdir, out=..., evals=...)` makes one.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from labelfx import command, figures
from labelfx.config import ConfigError, write_text


def read(workdir: str | Path) -> dict[str, Any]:
    """What the eval `score_distribution` left in `workdir/results.json`.

    Raises:
      FileNotFoundError, ConfigError: there are no results, or none of that eval.
    """
    path = Path(workdir) / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the workdir of a finished run")
    metrics = json.loads(path.read_text())["metrics"]
    if "score_distribution" not in metrics:
        raise ConfigError(f"{path}: has no score_distribution; add it to config.evals")
    return metrics["score_distribution"]


def picture(found: dict[str, Any]) -> str:
    """The densities of the positive and the negative pairs' scores, of what the eval returned, as SVG."""
    lines = []
    for kind in ("positive", "negative"):
        counts = np.array(found[f"{kind}_counts"])
        edges = np.linspace(-1, 1, len(counts) + 1)
        title = f"{kind} pairs: {found[f'{kind}_mean']:.2f} ± {found[f'{kind}_std']:.2f}"
        lines.append(figures.Line(title, (edges[1:] + edges[:-1]) / 2, counts / counts.sum() / np.diff(edges)))
    return figures.lines(lines, f"cosine ({found['embeddings']})", "density")


def draw(workdir: str | Path) -> Path:
    """Writes `workdir/scores.svg` and returns its path.

    Raises:
      FileNotFoundError, ConfigError: as for `read`.
    """
    path, found = Path(workdir) / "scores.svg", read(workdir)
    write_text(path, figures.alone(picture(found)))
    return path


if __name__ == "__main__":
    command.run(lambda flags: print(draw(flags.workdir)), config=False)
