"""Metrics over the steps of training, mean and standard deviation over seeds, as a picture. Needs matplotlib, which the
extra `colab` brings.

    python -m experiments.curves --workdir=/tmp/labelfx/semi_digits --runs=mpl_soft,mpl_soft_control \\
        --metrics=feedback,pseudo_label_accuracy --out=curves.svg

Reads WORKDIR/seed_*/RUN/metrics.jsonl.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelfx.config import command

FLAGS = {
    "workdir": "a folder that holds seed_0, seed_1, ..., as experiments.semi_supervised leaves them",
    "runs": "folders in each of them, with commas between",
    "metrics": "names in their metrics.jsonl, with commas between",
    "out": "the picture's file; its ending is its format",
}


def read(workdir: Path, run: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Steps, int [T], and the metric's values, float [seeds, T], at the steps that every seed has logged it.

    Raises:
      FileNotFoundError: no seed has such a run, or no line of it such a metric.
    """
    seeds = []
    for path in sorted(workdir.glob(f"seed_*/{run}/metrics.jsonl")):
        lines = map(json.loads, path.read_text().splitlines())
        seeds.append({line["step"]: line[metric] for line in lines if line.get(metric) is not None})
    steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
    if not steps:
        raise FileNotFoundError(f"no {metric!r} in {workdir}/seed_*/{run}/metrics.jsonl")
    return np.array(steps), np.array([[seed[step] for step in steps] for seed in seeds])


def draw(workdir: str | Path, runs: Sequence[str], metrics: Sequence[str], out: str | Path) -> None:
    """Writes one panel a metric, one line a run, to the file `out`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(metrics), 3.5), layout="constrained")
    for axes, metric in zip(np.ravel(figure.subplots(1, len(metrics))), metrics, strict=True):
        for run in runs:
            steps, values = read(Path(workdir), run, metric)
            mean = values.mean(0)
            sd = values.std(0, ddof=1) if len(values) > 1 else np.zeros_like(mean)
            (line,) = axes.plot(steps, mean, label=f"{run.replace('_', ' ')} (n = {len(values)})")
            axes.fill_between(steps, mean - sd, mean + sd, alpha=0.15, color=line.get_color(), linewidth=0)
        axes.set(xlabel="step", ylabel=metric.replace("_", " "))
    axes.legend(fontsize="small")
    figure.savefig(out)


if __name__ == "__main__":
    command.run(
        lambda flags: draw(flags.workdir, flags.runs.split(","), flags.metrics.split(","), flags.out),
        config=False,
        strings=FLAGS,
    )
