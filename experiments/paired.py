"""Runs on paired seeds to a table, for the comparisons here that are more than `labelfx.benchmark` does."""

import json
import statistics
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import labelfx
from labelfx import config as configs
from labelfx.reports import sweep
from labelfx.reports.sweep import Job
from labelfx.reports.tables import half_width
from labelfx.table import table


class Run(NamedTuple):
    """Recipe and changes of a run whose results stand at `place` of a page, the keys that lead to it, its seed the last
    of them; `shown`: what they are called there -> EVAL/METRIC of the run."""

    place: tuple[str, ...]
    recipe: str
    changes: dict[str, Any]
    shown: dict[str, str]


def fill(here: Path, workdir: Path, every: Iterable[Run], page: Callable[[dict[str, Any]], str]) -> None:
    """Trains the runs that `here/results.json` lacks, one after the other, with the seed of their place; writes it and
    `README.md`, its page, after each."""
    for run in every:
        if is_filled(here, run):
            continue
        results, path = train(run, workdir), here / "results.json"
        where = {name: each.split("/") for name, each in run.shown.items()}
        metrics = {name: results["metrics"][of][metric] for name, (of, metric) in where.items()}
        group = found = json.loads(path.read_text()) if path.exists() else {}
        for key in run.place[:-1]:
            group = group.setdefault(key, {})
        group[run.place[-1]] = metrics | {"commit": results["commit"]}
        here.mkdir(exist_ok=True)
        configs.write_text(path, json.dumps(found, indent=1) + "\n")
        configs.write_text(here / "README.md", page(found))


def is_filled(here: Path, run: Run) -> bool:
    """Whether `here/results.json` has it."""
    path = here / "results.json"
    group = json.loads(path.read_text()) if path.exists() else {}
    for key in run.place:
        group = group.get(key, {})
    return bool(group)


def train(run: Run, workdir: Path) -> Mapping[str, Any]:
    """The results of a run, in the folder of its place."""
    seeds = dict.fromkeys(("seed", "label_seed", "data_seed"), int(run.place[-1]))
    changes = {"name": run.place[-2], "save_every": 10**6, "keep": 1, **seeds, **run.changes}
    folder = workdir.joinpath(*(key.replace(" ", "_").replace("/", "_") for key in run.place))
    return labelfx.train(labelfx.recipe(run.recipe, changes), folder)


def difference(seeds: Mapping[str, Any], baseline: Mapping[str, Any], metric: str) -> str:
    """The paired difference of a metric between two rows, in points: mean and standard error, and whether it is noise;
    empty below two paired seeds."""
    both = sorted(seeds.keys() & baseline.keys())
    values = [100 * (seeds[s][metric] - baseline[s][metric]) for s in both]
    if len(values) < 2:
        return ""
    error = statistics.stdev(values) / len(values) ** 0.5
    noise = abs(statistics.fmean(values)) <= half_width(values)
    return f"{statistics.fmean(values):+.1f} ± {error:.1f}{' (noise)' if noise else ''}"


def commits(found: Mapping[str, Any]) -> list[str]:
    """Of all results of a page, sorted, and whether there were changes that were in none yet."""
    if "commit" in found:
        commit, plus, changes = str(found["commit"]).partition("+")
        return [commit[:9] + plus + changes]
    return sorted({commit for each in found.values() for commit in commits(each)})


def work_off(every: Iterable[Job], workdir: Path, baseline: str = "supervised") -> str:
    """Runs the jobs that have no results yet; writes and returns the table of what is in `workdir`, each row paired
    with the baseline.

    Raises:
      ConfigError: a run in `workdir` has another configuration.
    """
    sweep.work_off(every)
    text = table([workdir], baseline=baseline)
    configs.write_text(workdir / "table.md", text)
    print(text)
    return text


def cell(seeds: Mapping[str, Any], baseline: Mapping[str, Any], metric: str = "accuracy") -> str:
    """A metric of a row by seed, each {metric: ...}, in %: mean and standard deviation, and in brackets the paired
    difference to those of the baseline, mean and standard error."""
    values = [100 * each[metric] for each in seeds.values()]
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    text = f"{statistics.fmean(values):.1f}{spread}"
    differences = [100 * (seeds[s][metric] - baseline[s][metric]) for s in seeds.keys() & baseline.keys()]
    if len(differences) < 2 or not any(differences):
        return text
    error = statistics.stdev(differences) / len(differences) ** 0.5
    return f"{text}<br>({statistics.fmean(differences):+.1f} ± {error:.1f})"
