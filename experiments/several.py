"""What is lost when several labels are not all said: four tables, five label views, methods for what is missing.

    python -m experiments.several --data=MULTILABEL --workdir=DIR [--first_seed=0 --seeds=5]

MULTILABEL holds yeast, emotions, enron and CAL500 (`.npz`). Each seed has a split and a draw of what is said of its
own, the same for all methods. Started again, the command goes on where it was; `experiments/several/README.md` is the
page.
"""

import itertools
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from absl import flags

from experiments.paired import Run, cell, commits, difference, fill
from labelfx.config import command

HERE = Path(__file__).parent / "several"
SETS = ("yeast", "emotions", "enron", "CAL500")
VIEWS: dict[str, dict[str, Any] | None] = {
    "all": None,
    "50 % of the entries": {"name": "keep_entries", "fraction": 0.5},
    "10 % of the entries": {"name": "keep_entries", "fraction": 0.1},
    "one positive a row": {"name": "single_positive"},
    "10 % of the positives": {"name": "positives_only", "fraction": 0.1},
}
WHOLE, SINGLE, FEW = "all", "one positive a row", "10 % of the positives"
STEPS = 300
BASELINE = "assumed negative"
FLOOR = "constant scores"
SHOWN = {metric: f"multilabel/{metric}" for metric in ("mAP", "OF1", "CF1", "prevalence", "all_positive_OF1")}

GIVEN = {"name": "given"}
FOCAL: dict[str, Any] = {"gamma_positive": 0.0, "clip": 0.05, "focal_gradient": False, "unknown": "negative"}
BINARY = "binary_cross_entropy"
# Row -> objective and rule; numbers are the authors' where there are any, and none was tuned.
METHODS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    BASELINE: ({"name": BINARY, "unknown": "negative"}, GIVEN),
    "ignored": ({"name": BINARY, "unknown": "ignore"}, GIVEN),
    "asymmetric": ({"name": "asymmetric", "gamma_negative": 4.0, **FOCAL}, GIVEN),
    "entropy_maximisation": (
        {"name": "entropy_maximisation", "alpha": 0.1, "beta": 0.2},
        {"name": "asymmetric", "share": 0.9, "warmup": 0.5},
    ),
    "large_loss": (
        {"name": BINARY, "unknown": "ignore"},
        {"name": "large_loss", "share": 0.1, "warmup": 0.1, "scheme": "reject"},
    ),
    "variational_pu": ({"name": "variational_pu", "alpha": 1.0, "gamma": 0.55}, GIVEN),
    "multi_focal, reflective": (
        {"name": "multi_focal", "gamma_negative": 3.0, "margin": 1.0, **FOCAL},
        {"name": "reflective", "threshold": 0.7, "power": 1 / 6, "warmup": 0.1},
    ),
    "hybrid": ({"name": "hybrid", "correlation": 1.0, "contrast": 0.1, "temperature": 0.1}, GIVEN),
}
SAME = ("ignored", "large_loss")  # as the baseline, where nothing is unknown
CLAIMS = (  # published order: paper, row, row that it beats, view
    ("Ridnik et al. 2021", "asymmetric", BASELINE, WHOLE),
    ("Zhang et al. 2023", "multi_focal, reflective", "asymmetric", FEW),
    ("Cole et al. 2021", BASELINE, "ignored", SINGLE),
    ("Zhou et al. 2022", "entropy_maximisation", BASELINE, SINGLE),
    ("Kim et al. 2022", "large_loss", BASELINE, SINGLE),
    ("Yuan et al. 2023", "variational_pu", BASELINE, FEW),
    ("Yuan et al. 2023", "variational_pu", "asymmetric", FEW),
    ("Arabic emotions", "hybrid", BASELINE, WHOLE),
)


def runs(data: str, seeds: range) -> Iterator[Run]:
    """Of the page, table by table."""
    for which, seed, (view, weak), row in itertools.product(SETS, seeds, VIEWS.items(), METHODS):
        if view == WHOLE and row in SAME:
            continue
        objective, rule = METHODS[row]
        changes = {
            "data": {"name": f"multilabel:{which}", "data_dir": data, "seed": seed},
            "labels.weak": weak,
            "method.objective": objective,
            "method.rule": rule,
            "steps": STEPS,
            "refresh_every": 0 if rule == GIVEN else STEPS // 10,
        }
        yield Run((which, view, row, f"{seed}"), "single_positive", changes, SHOWN)


def page(found: dict[str, dict[str, dict[str, dict[str, dict[str, Any]]]]]) -> str:
    """The results as Markdown."""
    parts = [
        "# Several labels of which not all are said\n",
        "`python -m experiments.several`: mean average precision (mAP) in %, mean and standard deviation over seeds, in"
        f" brackets the paired difference to `{BASELINE}`, for which what is not said is negative, mean and standard"
        " error; beneath it micro and macro F1 (OF1 and CF1, at 0.5). One hidden layer of 128, AdamW at one rate,"
        f" {STEPS} steps of 128 rows, a third of the rows to test on; every number of a method is its authors' or a"
        " guess, and none was tuned: tables are small, and the published orders"
        " are of pictures. What is empty has not been run yet.\n",
        "## Which published order appears\n",
        "Differences of mAP in points, paired; noise is a 95 % interval that holds 0.\n",
        f"| published | what is said | {' | '.join(SETS)} |",
        "| --- | --- |" + " ---: |" * len(SETS),
    ]
    for paper, row, rival, view in CLAIMS:
        views = [found.get(which, {}).get(view, {}) for which in SETS]
        differences = [difference(rows.get(row, {}), rows.get(rival, {}), "mAP") for rows in views]
        parts.append(f"| {row} over {rival} ({paper}) | {view} | {' | '.join(differences)} |")
    for which, of_set in found.items():
        parts += [f"\n## {which}\n", f"|  | {' | '.join(VIEWS)} |", "| --- |" + " ---: |" * len(VIEWS)]
        floor = [value for rows in of_set.values() for seeds in rows.values() for value in seeds.values()]
        prevalence, overall = (statistics.fmean(v[key] for v in floor) for key in ("prevalence", "all_positive_OF1"))
        of_all = f"{100 * prevalence:.1f}<br>F1 {100 * overall:.1f}, {200 * prevalence / (1 + prevalence):.1f}"
        parts.append(f"| {FLOOR}; F1 of all positive |" + f" {of_all} |" * len(VIEWS))
        for row in METHODS:
            cells = [shown(of_set.get(view, {}).get(row, {}), of_set.get(view, {}).get(BASELINE, {})) for view in VIEWS]
            parts.append(f"| {row} | {' | '.join(cells)} |")
    number = sorted({len(seeds) for views in found.values() for rows in views.values() for seeds in rows.values()})
    return "\n".join([*parts, f"\nSeeds: {'-'.join(map(str, number))}. At commit {', '.join(commits(found))}."]) + "\n"


def shown(seeds: dict[str, dict[str, Any]], baseline: dict[str, dict[str, Any]]) -> str:
    """A cell: mAP beside the baseline's, and both F1."""
    if not seeds:
        return ""
    both = ", ".join(f"{100 * statistics.fmean(v[metric] for v in seeds.values()):.1f}" for metric in ("OF1", "CF1"))
    return f"{cell(seeds, baseline, 'mAP')}<br>F1 {both}"


def main(values: Any) -> None:
    seeds = range(values.first_seed, values.first_seed + values.seeds)
    fill(HERE, Path(values.workdir).absolute(), runs(values.data, seeds), page)


if __name__ == "__main__":
    flags.DEFINE_integer("first_seed", 0, "of the seeds")
    flags.DEFINE_integer("seeds", 5, "how many seeds")
    command.run(main, config=False, strings={"data": "the folder of the four tables", "workdir": "of the runs"})
