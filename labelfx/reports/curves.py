"""Figures of what runs have logged, and of the scores of pairs."""

from collections.abc import Iterable

import numpy as np

from labelfx.reports import figures
from labelfx.reports.figures import Line, Page
from labelfx.reports.runs import Found
from labelfx.reports.tables import FLOORS
from labelfx.scores import picture

DRAWN = 16  # lines in a figure of curves
POINTS = 100  # steps on a curve
LOOK_FOR = {
    "acceptance": "The share of unlabelled images whose pseudo-label is learnt from. It should rise as the network "
    "grows sure; near 1 from the start means that the threshold sorts nothing out.",
    "pseudo_label_accuracy": "How many pseudo-labels are right, by labels that the run never sees. Below the accuracy "
    "on the test split the run teaches itself mistakes.",
    "embedding_std": "How much embeddings of a batch differ. Falling towards 0 is collapse: all images look the same.",
    "loss": "It should fall and level off; where it still falls at the end, more steps may help.",
}


def curves(page: Page, groups: dict[str, list[Found]]) -> None:
    every = {name for runs in groups.values() for run in runs for line in run.metrics for name in line}
    parts = {name: name.partition("/") for name in sorted(every - {"step", "images_per_second"})}
    # Of evals during training, which are named like "knn/accuracy", what they found.
    kept = [n for n, (head, _, tail) in parts.items() if tail in ("", "accuracy", "value") and head not in FLOORS]
    drawn = {metric: found for metric in kept if (found := list(_lines(groups, metric)))}
    flat = {metric: line[0].y[0] for metric, line in drawn.items() if len({y for each in line for y in each.y}) == 1}
    if not drawn:
        return
    bands = " Bands are ± 1 sd over the seeds of a name." * any(len(runs) > 1 for runs in groups.values())
    running = sum(not run.results for runs in groups.values() if any(run.results for run in runs) for run in runs)
    bands += f" Runs that have not ended are left out: {running}." * bool(running)
    bands += "".join(f" {metric} was {value:.4g} throughout." for metric, value in flat.items())
    rest = f" Of more than {DRAWN} lines the first {DRAWN} are drawn." * (max(map(len, drawn.values())) > DRAWN)
    with page.folded("Training"):
        page.text(
            "Logged by the method: values of one batch or, with a slash in the name, of an eval; expect jitter. Look "
            f"for jumps, for a drift that does not end, and for runs that part ways.{bands}{rest}"
        )
        for metric, found in drawn.items():
            last = [[line.name, line.x[-1], line.y[-1], None if line.sd is None else line.sd[-1]] for line in found]
            if metric not in flat:
                svg = figures.lines(found[:DRAWN], "step", metric)
                page.figure(svg, metric, LOOK_FOR.get(metric, ""), [["", "last step", "mean", "sd"], *last])


def _lines(groups: dict[str, list[Found]], metric: str) -> Iterable[Line]:
    """A group's mean of a metric over its seeds, at steps that each seed which has it at all has logged. Runs that have
    not ended count where none has."""
    for title, runs in groups.items():
        ended = [run for run in runs if run.results] or runs
        seeds = [{line["step"]: line[metric] for line in run.metrics if metric in line} for run in ended]
        seeds = [seed for seed in seeds if seed]
        steps = sorted(set.intersection(*map(set, seeds))) if seeds else []
        if len(steps) > 1:
            steps = [steps[i] for i in np.unique(np.linspace(0, len(steps) - 1, POINTS).astype(int))]
            values = np.array([[seed[step] for step in steps] for seed in seeds])
            name = f"{title} (n = {len(seeds)})" if len(seeds) > 1 else title
            yield Line(name, steps, values.mean(0), values.std(0, ddof=1) if len(seeds) > 1 else None)


def scores(page: Page, groups: dict[str, list[Found]]) -> None:
    found = {title: runs[0].results.get("metrics", {}).get("score_distribution") for title, runs in groups.items()}
    if any(found.values()):
        page.heading("Scores of pairs")
    for title, part in list(found.items())[:DRAWN]:
        if part:
            kinds = ("positive", "negative")
            numbers = [["pairs", "mean", "sd"], *([k, part[f"{k}_mean"], part[f"{k}_std"]] for k in kinds)]
            caption = (
                f"Cosines ({part['embeddings']}) of two views of one test image, and of views of two. Look for little "
                "overlap and positives near 1; where both pile up near 1 the embeddings have collapsed."
            )
            page.figure(picture(part), f"Scores, {title}", caption, numbers)
