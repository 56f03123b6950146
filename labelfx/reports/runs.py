"""The runs of a page: read from their folders, grouped by what they differ in, and what each has cost."""

import collections
import dataclasses
import datetime
import re
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labelfx import config as configs
from labelfx.loop.metrics import read as read_metrics
from labelfx.reports.tables import FLOORS, Row, entries_of, said_of
from labelfx.scores import check


@dataclasses.dataclass(frozen=True)
class Found:
    """A run's folder. `config` and `results` are empty where they are not there."""

    folder: Path
    name: str
    labels: int
    said: str  # kind and strength of labels that are not the truth
    config_hash: str
    config: dict[str, Any]
    results: dict[str, Any]
    metrics: list[dict[str, Any]]


def find(paths: Sequence[Path]) -> tuple[list[Found], list[str]]:
    """Runs in the order of `paths`, and what is wrong with folders that are none."""
    folders: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            raise FileNotFoundError(f"{path}: no such folder")
        below = {
            configs.absolute(file.parent)
            for name in ("config", "results")
            for file in configs.below(path, f"{name}.json")
        }
        if not below:
            raise FileNotFoundError(f"{path}: no run there (no config.json or results.json at or below it)")
        folders |= dict.fromkeys(sorted(below))
    runs, problems = [], []
    for folder in folders:
        try:
            runs.append(_read_run(folder))
        except (OSError, OverflowError, ValueError, KeyError, TypeError, AttributeError) as error:
            problems.append(f"{folder} does not hold a run as it was written ({type(error).__name__}: {error})")
    if not runs:
        raise FileNotFoundError(problems[0])
    return runs, problems


def _read_run(folder: Path) -> Found:
    def load(name):
        path = folder / name
        return configs.read_json(path) if path.exists() else {}

    config, results = load("config.json"), load("results.json")
    metrics = [
        {"step": line["step"]} | {name: value for name, value in line.items() if type(value) is float}
        for line in read_metrics(folder / "metrics.jsonl")
    ]
    if results:
        entries_of(results)  # raises where they are not those of a run
        if "score_distribution" in results["metrics"]:
            check(results["metrics"]["score_distribution"])
    count = results["labels"]["n"] if results else len(load("labels.json")["rows"])
    said = said_of(results["labels"].get("weak") if results else config["labels"].get("weak"))
    config_hash = results["config_hash"] if results else configs.config_hash(config, folder)
    found = Found(
        folder, str((results or config)["name"]), int(count), said, str(config_hash), config, results, metrics
    )
    origin(found)
    if config and not isinstance(config["data"]["name"], str):
        raise TypeError(f"config.data.name is {config['data']['name']!r}")
    return found


def groups_of(runs: Sequence[Found]) -> dict[str, list[Found]]:
    """Runs that differ in their seeds alone, by the shortest title that tells them from the others."""
    found = collections.defaultdict(list)
    for run in runs:
        found[run.name, run.labels, run.said, run.config_hash].append(run)

    def title(name, labels, said, config_hash):
        same = [key for key in found if key[0] == name]
        budget = f", {labels} labels" if len({key[1] for key in same}) > 1 else ""
        kind = f", {said}" if said and len({key[2] for key in same}) > 1 else ""
        mixed = f", {config_hash[:6]}" if len([key for key in same if key[1:3] == (labels, said)]) > 1 else ""
        return name + budget + kind + mixed

    return {title(*key): found[key] for key in sorted(found, key=lambda key: key[1])}


def seeds_of(run: Found) -> list[int]:
    seeds = run.results["seeds"] if run.results else run.config
    return [seeds[key] for key in ("seed", "label_seed", "data_seed")]


def costs_of(runs: Sequence[Found], rows: Sequence[Row]) -> dict[str, float]:
    """A row's title -> mean device-seconds of its runs, each with the runs that it starts from, learns from or is
    derived from; of a floor none."""
    folders = {run.folder: run for run in runs}

    def cost(run: Found) -> float:
        seconds, count = run.results["training"]["seconds"], run.config["devices"] or run.results["device"]["count"]
        if not (isinstance(seconds, int | float) and isinstance(count, int)):
            raise TypeError
        parents = [parent["place"] for parent in configs.derivation(run.folder).get("parents", [])]
        starts = {each for field in configs.TRAINED for each in configs.places(run.config[field])} - {"previous"}
        starts = {*parents} or starts
        return seconds * count + sum(cost(_started(configs.place(start), run.folder, folders)) for start in starts)

    found = collections.defaultdict(list)
    for run in runs:
        for name in run.results.get("metrics", {}).keys() - FLOORS.keys():
            try:
                seconds = cost(run)
            except (KeyError, RecursionError, TypeError, configs.ConfigError):
                continue  # what it needs is not among the runs, or does not say how long it took
            found[Row(run.name, name, "", said=run.said).title].append(seconds)
    floors = {row.title: 0.0 for row in rows if row.eval in FLOORS}
    return floors | {title: statistics.fmean(each) for title, each in found.items()}


def _started(start: Path, folder: Path, folders: dict[Path, Found]) -> Found:
    """The run at `start` that the one in `folder` names. Of a copied sweep it is that at the same place of the copy:
    above `folder`, by two of its last names or more. KeyError where it is not among `folders`."""
    tails = [start.parts[-count:] for count in range(len(start.parts) - 1, 1, -1)]
    places = [configs.absolute(start), *(parent.joinpath(*tail) for parent in folder.parents for tail in tails)]
    return folders[next((place for place in places if place in folders), start)]


def origin(run: Found) -> list[Any]:
    """A row of the table of runs; raises where the run's files do not have what it takes."""
    part, device = run.results.get("training", {}), run.results.get("device")
    seconds, speed = part.get("seconds"), part.get("images_per_second")
    return [
        run.name,
        run.folder.name,
        " ".join(map(str, seeds_of(run))),
        run.labels,
        part.get("steps"),
        None if seconds is None else datetime.timedelta(seconds=round(seconds)),
        None if speed is None else f"{speed:,.0f}",
        f"{device['count']} x {device['kind']}" if device else None,
        run.results.get("finished", "not finished"),
    ]


ORIGIN = ("run", "folder", "seeds", "labels", "steps", "wall time", "rows/s", "device", "finished")  # see `origin`


def without_folders(node: Any) -> Any:
    """Paths by their last name, within texts too and behind the colon of `folder:PATH`: the page is sent to others."""
    if isinstance(node, dict):
        return {key: without_folders(value) for key, value in node.items()}
    if isinstance(node, list):
        return [without_folders(value) for value in node]
    return re.sub(r"(?<![\w.])/(?:[^\s/:]+/)*(?=[^\s/])", "", node) if isinstance(node, str) else node
