"""The score distribution of a run as a picture, and the command: `python -m labelfx.scores --workdir=DIR`.

A run has a distribution where `config.evals` has a `score_distribution`; of a run that has none,
`labelfx.evaluate(workdir, out=..., evals=...)` makes one.
"""

from pathlib import Path
from typing import Any

import numpy as np

from labelfx.config import ConfigError, command, place, read_json, write_text
from labelfx.reports import figures


def read(workdir: str | Path) -> dict[str, Any]:
    """What the eval `score_distribution` left in `workdir/results.json`.

    Raises:
      FileNotFoundError, ConfigError: there are no results, or none of that eval.
    """
    path = place(workdir) / "results.json"
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give the workdir of a finished run")
    metrics = read_json(path).get("metrics")
    if not isinstance(metrics, dict) or "score_distribution" not in metrics:
        raise ConfigError(f"{path}: has no score_distribution; add it to config.evals")
    try:
        return check(metrics["score_distribution"])
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: its score_distribution is not as it was written ({error})") from error


def check(found: dict[str, Any]) -> dict[str, Any]:
    """What the eval returned. KeyError, TypeError or ValueError where it is not."""
    for kind in ("positive", "negative"):
        counts, mean, std = (found[f"{kind}_{what}"] for what in ("counts", "mean", "std"))
        if not all(type(n) is int and 0 <= n < 2**63 for n in counts) or not sum(counts):
            raise ValueError(f"{kind}_counts are no counts")
        if not all(type(x) in (int, float) for x in (mean, std)) or not (abs(mean) <= 1.01 and 0 <= std <= 1.01):
            raise ValueError(f"{kind} pairs: mean {mean}, sd {std}; cosines lie in -1..1")
    if not isinstance(found["embeddings"], str):
        raise TypeError(f"embeddings are {found['embeddings']!r}")
    return found


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
    path, found = place(workdir) / "scores.svg", read(workdir)
    write_text(path, figures.alone(picture(found)))
    return path


if __name__ == "__main__":
    command.run(lambda flags: print(draw(flags.workdir)), config=False)
