"""Results side by side: rows of equal configurations and what is said of labels, columns of label budgets, paired
differences. A task's headline metric is that of `labelfx.evals.tasks`."""

import collections
import dataclasses
import math
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

from labelfx.config import absolute, below, nearest, one_line, place, read_json
from labelfx.data import Task
from labelfx.evals.tasks import HEADLINES, Headline

CAPTION = (
    ": mean and sd over n seeds and splits; difference: paired, mean +- standard error over n shared "
    "seeds and splits; 'noise' where its 95 % interval (Student's t) holds 0"
)
# Nothing of these is trained: whichever run reports them, they are the same. What of a draw they hang on.
FLOORS = {
    "raw_pixels": ("labels",),
    "random_encoder": ("seed", "labels"),
    "pretrained": ("labels",),
    "tfidf_probe": ("labels",),
    "node_words": ("labels",),
    "label_propagation": ("labels",),
    "tfidf_multilabel": ("labels",),
    "prevalence": (),
    "constant_error": ("labels",),
}
SAME_FLOOR = 0.005  # results of one floor that differ by more are not of one data set, model or code


class Draw(NamedTuple):
    """What two runs must have in common to be compared as a pair."""

    seed: int
    label_seed: int
    data_seed: int
    labels: str  # hash


@dataclasses.dataclass
class Row:
    """The results of one eval of one configuration, by labels of one kind and strength."""

    name: str
    eval: str
    metric: str  # the task's headline, "accuracy" or "value"
    # label budget -> draw -> results; there are several where runs were repeated or report the same floor
    results: dict[int, dict[Draw, list[float]]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(lambda: collections.defaultdict(list))
    )
    hashes: list[str] = dataclasses.field(default_factory=list)
    commits: list[str] = dataclasses.field(default_factory=list)
    said: str = ""  # kind and strength of labels that are not the truth, see `said_of`
    task: Task = "class"

    @property
    def title(self) -> str:
        what = self.eval if self.eval in FLOORS else f"{self.name}, {self.eval}"
        return f"{what}, {self.said}" if self.said else what

    @property
    def headline(self) -> Headline | None:
        """What the metric is; None of a score in a unit of its own."""
        if self.metric == "value":
            return None
        found = HEADLINES[self.task]
        return found if found.metric == self.metric else HEADLINES["class"]

    @property
    def sign(self) -> int:
        """Times a result, the larger the better."""
        return -1 if self.headline and not self.headline.larger else 1

    def shown(self, value: float, places: int = 2) -> str:
        return f"{100 * value:.{places}f}" if self.headline and self.headline.percent else f"{value:.4g}"

    def means(self, budget: int) -> dict[Draw, float]:
        return {draw: statistics.fmean(values) for draw, values in self.results.get(budget, {}).items()}

    def runs(self, budget: int) -> list[float]:
        """One value for each run that could have come out differently."""
        matters = FLOORS.get(self.eval, Draw._fields)
        return list({tuple(getattr(d, f) for f in matters): v for d, v in self.means(budget).items()}.values())


def table(paths: Iterable[str | Path], baseline: str | None = None) -> str:
    """A Markdown table of every `results.json` at or below `paths`.

    A row for each name and eval, with columns for each label budget: mean, sd (n - 1 in the denominator), n, and the
    paired difference to the baseline. Runs are a pair where all three seeds and the labels are the same. Warnings stand
    below: results that could not be read, and rows that mix configurations or commits.

    Args:
      paths: folders, or files named results.json.
      baseline: what rows are compared with: a "name", by its row of the same eval or else, for an accuracy, its first,
        or one row, "name/eval". None leaves differences out.

    Raises:
      FileNotFoundError: there are no results.
      ValueError: no row is that baseline.
    """
    lines, notes = cells(list(paths), baseline)
    lines.insert(1, ["---", *["---:"] * (len(lines[0]) - 3), "---", "---"])
    text = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    return "\n\n".join([text, *notes]) + "\n"


def cells(paths: Sequence[str | Path], baseline: str | None = None) -> tuple[list[list[str]], list[str]]:
    """What `table` writes: its lines, the head first, and what stands below."""
    rows, warnings = read(paths)
    if not rows:
        raise FileNotFoundError("no results.json with results at or below " + ", ".join(map(str, paths)))
    bases = None if baseline is None else bases_of(rows, baseline)
    budgets = sorted({budget for row in rows for budget in row.results})
    units = {row.headline.unit for row in rows if row.headline} or {"labels"}
    unit = units.pop() if len(units) == 1 else "labels"
    lines = [["", *(c for b in budgets for c in _columns(f"{b} {unit}", baseline)), "config_hash", "commit"]]
    for row in rows:
        found = [cell for budget in budgets for cell in cells_of(row, budget, bases)]
        lines.append([row.title, *found, " ".join(row.hashes) or "-", " ".join(row.commits) or "-"])
        warnings += doubts(row)
    axes = ", ".join(dict.fromkeys(row.headline.axis for row in rows if row.headline)) or HEADLINES["class"].axis
    return lines, [axes + CAPTION, *(f"warning: {warning}" for warning in warnings)]


def read(paths: Sequence[str | Path]) -> tuple[list[Row], list[str]]:
    """Rows, by what is said of labels and of those the floors first, and warnings."""
    found: dict[tuple[str, str, str], Row] = {}
    warnings = []
    files = {absolute(file) for path in map(place, paths) for file in (path, *below(path, "results.json"))}
    for file in sorted(file for file in files if file.name == "results.json" and file.is_file()):
        try:
            results = read_json(file)
            entries = entries_of(results)
            warnings += [f"{file}: {name} failed: {why}" for name, why in results.get("failed", {}).items()]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.append(f"{file} is left out: not the results of a run ({type(error).__name__}: {error})")
            continue
        for key, metric, budget, draw, value, config_hash, commit in entries:
            row = found.setdefault(key, Row(*key[:2], metric, said=key[2], task=_task(results)))
            row.results[budget][draw].append(value)
            if config_hash not in row.hashes and row.eval not in FLOORS:
                row.hashes.append(config_hash)
            if commit not in row.commits:
                row.commits.append(commit)
    return sorted(found.values(), key=lambda row: (_order(row.said), (*FLOORS, row.eval).index(row.eval))), warnings


def said_of(weak: Mapping[str, Any] | None) -> str:
    """Kind and strength of what is said of labels, as "symmetric 0.2", by `config.labels.weak`; "" of the truth."""
    if not weak:
        return ""
    given = [value for key, value in weak.items() if key != "name" and value is not None]
    return f"{weak['name']} {given[0]}" if len(given) == 1 else one_line(weak)


def _order(said: str) -> tuple[str, list[float]]:
    """By kind, then by strength."""
    return said.partition(" ")[0], [float(number) for number in re.findall(r"\d+\.?\d*", said)]


def _task(results: Mapping[str, Any]) -> Task:
    """Of a run; results from before there were others say none."""
    task = results.get("data", {}).get("task", "class")
    if task not in HEADLINES:
        raise ValueError(f"data.task is {task!r}; {nearest(task, HEADLINES)}")
    return task


def entries_of(results: Any) -> list[tuple[tuple[str, str, str], str, int, Draw, float, str, str]]:
    """(name, eval, said), metric, label budget, draw, result, config_hash and commit of each eval with one number to
    show, and of the floor beside it.

    Raises:
      KeyError, TypeError, AttributeError, ValueError: it is not what a run writes.
    """
    seeds, labels, commit = results["seeds"], results["labels"], results["commit"] or "-"
    seed, label_seed, data_seed = (_number(seeds[seed], int) for seed in Draw._fields[:3])
    draw = Draw(seed, label_seed, data_seed, labels["rows_hash"])
    head, plus, changes = commit.partition("+")
    commit = head[:7] + plus + changes
    headline, said = HEADLINES[_task(results)], said_of(labels.get("weak"))
    entries: list[Any] = []
    for name, part in results["metrics"].items():
        if not isinstance(part, dict):
            raise TypeError(f"{name}: {part!r} is no result")
        metric = next((m for m in (headline.metric, "accuracy", "value") if m in part), None)
        found = {name: metric, **({headline.floor: headline.floor} if metric == headline.metric else {})}
        for row, number in found.items():
            if part.get(number) is None:  # no number to show, or nothing that it could be the mean of
                continue
            value = _number(part[number], float)
            if (metric == "accuracy" or (metric != "value" and headline.percent)) and not 0 <= value <= 1:
                raise ValueError(f"{name}: an {number} of {value}")
            key = ("", row, said) if row in FLOORS else (results["name"], row, said)
            entries.append((key, metric, _number(labels["n"], int), draw, value, results["config_hash"], commit))
    for text in (results["name"], labels["rows_hash"], results["config_hash"]):
        if not isinstance(text, str) or not text:
            raise TypeError(f"{text!r} is no name")
    return entries


def _number(value: Any, kind: type) -> Any:
    if type(value) not in (int, kind) or not abs(value) < (2**63 if type(value) is int else math.inf):
        raise TypeError(f"{value!r} is no finite number")
    if kind is int and value < 0:
        raise ValueError(f"{value} is negative")
    return value


def bases_of(rows: Sequence[Row], baseline: str) -> dict[str, dict[str, Row]]:
    """By what is said of labels: the row that rows of an eval are compared with; of any other eval, the one at ""."""
    named: dict[str, dict[str, dict[str, Row]]] = collections.defaultdict(lambda: collections.defaultdict(dict))
    for row in sorted(rows, key=lambda row: row.headline is None):  # a headline first
        named[row.name or row.eval][row.said].setdefault("", row)
        named[row.name or row.eval][row.said][row.eval] = row
        named[f"{row.name}/{row.eval}".strip("/")][row.said] = {"": row}
    if baseline not in named:
        raise ValueError(f"--baseline={baseline}: no such row; {nearest(baseline, named)}")
    return named[baseline]


def _columns(budget: str, baseline: str | None) -> list[str]:
    return [budget, "sd", "n", *([f"difference to {baseline}"] if baseline else [])]


def cells_of(row: Row, budget: int, bases: Mapping[str, Mapping[str, Row]] | None) -> list[str]:
    runs = row.runs(budget)
    if not runs:
        return ["-"] * (3 if bases is None else 4)
    mean, sd = statistics.fmean(runs), statistics.stdev(runs) if len(runs) > 1 else None
    shown = ["-" if x is None else row.shown(x) for x in (mean, sd)]
    if bases is None:
        return [*shown, str(len(runs))]
    same = bases.get(row.said, {})
    base = same.get(row.eval, same.get(""))
    comparable = base and row.metric == base.metric and (row.headline or row.eval == base.eval)
    return [*shown, str(len(runs)), _difference(row, base, budget) if base and comparable else "-"]


def _difference(row: Row, base: Row, budget: int) -> str:
    """Mean +- standard error of the paired difference, of shares in percentage points."""
    if row is base:
        return "baseline"
    scale, places = (100, 2) if row.headline and row.headline.percent else (1, 4)
    pairs = [scale * pair for pair in differences(row, base, budget)]
    if not pairs:
        return "-"
    mean = statistics.fmean(pairs)
    if len(pairs) == 1:
        return f"{mean:+.{places}f} +- -"
    error = statistics.stdev(pairs) / len(pairs) ** 0.5
    within = abs(mean) <= half_width(pairs)
    return f"{mean:+.{places}f} +- {error:.{places}f}" + (" (noise)" if within else "")


def differences(row: Row, base: Row, budget: int) -> list[float]:
    """Of the results of pairs."""
    ours, theirs = row.means(budget), base.means(budget)
    return [ours[draw] - theirs[draw] for draw in ours if draw in theirs]


def half_width(values: Any) -> Any:
    """Of the 95 % interval of the mean over the first axis of [S, ...], by Student's t; infinite for S below 2."""
    count = len(values)
    return scipy.stats.t.ppf(0.975, count - 1) * np.std(values, axis=0, ddof=1) / count**0.5 if count > 1 else math.inf


def doubts(row: Row) -> list[str]:
    doubts = [
        f"{row.title} mixes {what}: {', '.join(found)}"
        for what, found in (("configurations", row.hashes), ("commits", row.commits))
        if len(found) > 1
    ]
    every = [values for draws in row.results.values() for values in draws.values()]
    if row.eval in FLOORS and any(max(values) - min(values) > SAME_FLOOR for values in every):
        doubts.append(f"{row.title} differs between runs of the same seeds and labels: other data, model or code")
    return doubts
