"""Runs as one page: which to use, curves, label budgets, mistakes, in HTML and Markdown."""

import collections
import dataclasses
import datetime
import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx.loop.metrics import read as read_metrics
from labelfx.reports import efficiency, figures, inspection
from labelfx.reports.figures import Line, Page
from labelfx.reports.tables import FLOORS, Row, cells, entries_of, read, said_of
from labelfx.scores import check, picture

DRAWN = 16  # lines in a figure of curves
POINTS = 100  # steps on a curve
THIRDS = ("head", "medium", "tail")  # of labels, by how common they are
LOOK_FOR = {
    "acceptance": "The share of unlabelled images whose pseudo-label is learnt from. It should rise as the network "
    "grows sure; near 1 from the start means that the threshold sorts nothing out.",
    "pseudo_label_accuracy": "How many pseudo-labels are right, by labels that the run never sees. Below the accuracy "
    "on the test split the run teaches itself mistakes.",
    "embedding_std": "How much embeddings of a batch differ. Falling towards 0 is collapse: all images look the same.",
    "loss": "It should fall and level off; where it still falls at the end, more steps may help.",
}


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


def report(paths: Iterable[str | Path], out: str | Path = "report.html", baseline: str | None = None) -> Path:
    """Writes the page of every run at or below `paths` to `out`, with its Markdown beside it and, of several label
    budgets, their figure as SVG; returns `out`.

    Args:
      paths: folders of runs, or folders of such folders.
      out: a file that ends in .html.
      baseline: what the others are compared with, as for `labelfx.table`; by default `supervised` or else
        the first run's name.

    Raises:
      FileNotFoundError: there is no run, or no folder for `out`.
      ValueError: no row is that baseline, or `out` does not end in .html.
      OSError: `out` could not be written.
    """
    folders, out = [configs.place(path) for path in paths], configs.local(out)
    if out.suffix != ".html":
        raise ValueError(f"--out={out}: must end in .html")
    if not out.parent.is_dir():
        raise FileNotFoundError(f"--out={out}: there is no folder {out.parent}")
    runs, problems = _find(folders)
    groups = _groups(runs)
    names = list(dict.fromkeys(run.name for run in runs))
    data = {run.config["data"]["name"] for run in runs if run.config}
    more = f" and {len(names) - 3} more" * (len(names) > 3)
    shown = ", ".join(_without_folders(name) for name in sorted(data))
    several = f"{', '.join(names[:3])}{more} on {shown or 'unknown data'}"
    page = Page(several if len(runs) > 1 else f"{names[0]}, seed {_seeds(runs[0])[0]}")
    for problem in problems:
        page.text(f"Left out: {problem}")
    rows, _ = read(folders)
    if baseline is None and rows:
        named = [row.name for row in rows]
        baseline = next((name for name in ("supervised", runs[0].name) if name in named), None)
    headlines, costs = [row for row in rows if row.headline], _costs(runs, rows)
    compared = len({row.name for row in headlines if row.name}) > 1
    mixed = [row.title for row in headlines if len(row.hashes) > 1]
    if compared and (len(data) > 1 or mixed):
        compared = False
        reason = f"{'; '.join(mixed)}: of several configurations" if len(data) == 1 else "several data sets"
        page.text(f"Which to use, what it saves and what it costs are left out: this page has {reason}.")
    for group in _alike(headlines) if compared else ():
        efficiency.recommendation(page, group, costs)
    _origins(page, runs)
    _draws(page, runs)
    _augmentations(page, runs)
    budgets = _results(page, folders, rows, runs, baseline)
    for group in _alike(headlines) if compared else ():
        efficiency.labels_saved(page, group, (baseline or "").partition("/")[0])
    if compared:
        efficiency.cost(page, headlines, costs)
    _curves(page, groups)
    _scores(page, groups)
    if len(runs) == 1:
        inspection.inspect(page, runs[0].folder)
    else:
        page.text("Predictions, mistakes and maps of embeddings are drawn for one run at a time.")
    _configurations(page, groups)
    texts = {out: page.whole()}
    for number, (title, figure) in reversed([*enumerate(budgets.items(), 1)]):
        path = out.with_name(f"{out.stem}{f'_{number}' * (number > 1)}.svg")
        texts[path] = figures.alone(figure)
        page.markdown.insert(1, f"![{title}]({path.name})")
    texts[out.with_suffix(".md")] = "\n\n".join(page.markdown) + "\n"
    try:
        for path, text in texts.items():
            configs.write_text(path, text)
    except OSError as error:
        raise OSError(f"--out={out}: not written ({error.strerror})") from error
    return out


def _find(paths: Sequence[Path]) -> tuple[list[Found], list[str]]:
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
    config_hash = results["config_hash"] if results else configs.config_hash(config)
    found = Found(
        folder, str((results or config)["name"]), int(count), said, str(config_hash), config, results, metrics
    )
    _origin(found)
    if config and not isinstance(config["data"]["name"], str):
        raise TypeError(f"config.data.name is {config['data']['name']!r}")
    return found


def _groups(runs: Sequence[Found]) -> dict[str, list[Found]]:
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


def _seeds(run: Found) -> list[int]:
    seeds = run.results["seeds"] if run.results else run.config
    return [seeds[key] for key in ("seed", "label_seed", "data_seed")]


def _costs(runs: Sequence[Found], rows: Sequence[Row]) -> dict[str, float]:
    """A row's title -> mean device-seconds of its runs, each with the runs that it starts from and learns from; of a
    floor none."""
    folders = {run.folder: run for run in runs}

    def cost(run: Found) -> float:
        seconds, count = run.results["training"]["seconds"], run.config["devices"] or run.results["device"]["count"]
        if not (isinstance(seconds, int | float) and isinstance(count, int)):
            raise TypeError
        starts = {run.config[field] for field in configs.TRAINED} - {"", "previous"}
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


def _chance(accuracy: float, tested: int) -> float:
    """How far from this accuracy that on as many other test images comes out, in 95 % of cases at least."""
    share = (accuracy * tested + 2) / (tested + 4)  # Agresti and Coull 1998: not 0 where all are right
    return 1.96 * (2 * share * (1 - share) / tested) ** 0.5  # both samples vary


def _alike(rows: Iterable[Row]) -> list[list[Row]]:
    """Rows of one metric and of labels of one kind and strength together."""
    found = collections.defaultdict(list)
    for row in rows:
        found[row.metric, row.said].append(row)
    return [*found.values()]


def _tested(runs: Sequence[Found]) -> int:
    """The fewest rows that an accuracy here was found on; 0 where there is none."""
    parts = [part for run in runs for part in run.results.get("metrics", {}).values() if "accuracy" in part]
    return min((part["n"] for part in parts if type(part.get("n")) is int), default=0)


def _results(
    page: Page, paths: Sequence[Path], rows: Sequence[Row], runs: Sequence[Found], baseline: str | None
) -> dict[str, str]:
    """Returns the figures of results over label budgets, title -> SVG, of several budgets."""
    page.heading("Results")
    if not rows:
        page.text("Left out: no run here has results of an eval yet.")
        return {}
    headlines = [row for row in rows if row.headline]
    figures_of = dict(found for group in _alike(headlines) if (found := _budgets(page, group)))
    (head, *lines), notes = cells(paths, baseline)

    def of(metric: str) -> list[list[str]]:
        return [line for line, row in zip(lines, rows, strict=True) if row.metric == metric]

    for metric in dict.fromkeys(row.metric for row in headlines):
        page.table([head, *of(metric)])
    for note in notes:
        page.text(note)
    if any(row.eval in FLOORS and len(row.runs(b)) < len(row.means(b)) for row in rows for b in row.results):
        page.text(
            "A floor counts once where nothing in it is drawn anew: raw_pixels where seeds have the same labels, as "
            "they do with all of them, random_encoder where the seed of its network is the same too."
            if {"raw_pixels", "random_encoder"} & {row.eval for row in rows}
            else "A floor counts once where nothing in it is drawn anew."
        )
    if len(headlines) < len(rows):
        page.text("Other scores, each in a unit of its own:")
        page.table([head, *of("value")])
    if tested := _tested(runs):
        best = max(statistics.fmean(row.runs(n)) for row in rows if row.metric == "accuracy" for n in row.results)
        points = 100 * _chance(best, tested)
        page.text(
            f"{tested:,} test {_things(runs)}: on as many others of the same source an accuracy of {100 * best:.1f} % "
            f"may come out ± {points:.1f} points (95 %), which no seed shows."
        )
    if baseline:
        first = "accuracy" if {row.metric for row in headlines} <= {"accuracy"} else "headline metric"
        page.text(
            f"Differences are to {baseline}: to its result of the same eval or, for others, to its first {first}."
        )
    _of_labels(page, runs)
    floors = [name for name in FLOORS if any(row.eval == name for row in rows)]
    if floors and not {"raw_pixels", "random_encoder"} & {*floors}:
        page.text(
            f"The floor{'s' * (len(floors) > 1)} {' and '.join(floors)}: what is reached without training any network. "
            "A run that is not clearly better has learnt nothing of use."
        )
    elif floors:
        probes = [name for name in ("raw_pixels", "tfidf_probe", "node_words") if name in floors] or ["raw_pixels"]
        page.text(
            f"The floors {', '.join(probes)} and random_encoder are what a linear probe reaches without any training: "
            "a run that is not clearly above both has learnt nothing of use."
            + " So has one below label_propagation, which reads no features."
            * ("label_propagation" in floors)
        )
    else:
        page.text("No floors are shown: no run here has raw_pixels or random_encoder among its evals.")
    page.text(
        "A difference that is marked as noise, or that has no standard error because there is one pair only, does not "
        "say which is better."
    )
    return figures_of


def _budgets(page: Page, rows: Sequence[Row]) -> tuple[str, str] | None:
    """Draws the results of rows of one metric and kind of labels; of several label budgets returns title and SVG."""
    headline = next(row.headline for row in rows if row.headline)
    budgets = sorted({budget for row in rows for budget in row.results})
    of = f", {rows[0].said}" if rows[0].said else ""
    numbers: list = [["", headline.unit, "mean", "sd"]]
    drawn = []
    for row in rows:
        runs_at = {budget: found for budget in budgets if (found := row.runs(budget))}
        means = [statistics.fmean(found) for found in runs_at.values()]
        sds = [statistics.stdev(found) if len(found) > 1 else None for found in runs_at.values()]
        numbers += [[row.title, *point] for point in zip(runs_at, means, sds, strict=True)]
        drawn.append(
            Line(row.title.removesuffix(of), list(runs_at), means, [sd or 0.0 for sd in sds], row.eval in FLOORS)
        )
    metric = headline.metric.replace("_", " ")
    named = metric if metric == "mAP" else metric.capitalize()
    better = "above" if headline.larger else "below"
    if len(budgets) > 1:
        drawn.sort(key=lambda line: (line.reference, -row.sign * line.y[-1]))  # the legend as the curves end
        both = "both" if metric == "accuracy" else "the"
        caption = (
            f"{named} on the test split by the number of {headline.unit}; bands are ± 1 sd over seeds, grey lines "
            f"floors. Look for curves {better} {both} floors, and for how many labels one method needs to reach what "
            "another has. Bands of paired runs may overlap and yet differ: which is better is in the paired "
            "differences below."
        )
        scale = 100 if headline.percent else 1
        scaled = [line._replace(y=[scale * y for y in line.y], sd=[scale * sd for sd in line.sd]) for line in drawn]
        across = headline.unit + ", of all classes together" * (headline.unit == "labels")
        svg = figures.lines(scaled, across, headline.axis, log=min(budgets) > 0)
        page.figure(svg, f"Label budget{of}", caption, numbers)
        return f"Label budget{of}", svg
    at = f"at {budgets[0]} {headline.unit}, floors in grey; whiskers are ± 1 sd over seeds where there are several."
    drawn.sort(key=lambda line: line.reference)
    if headline.percent:
        caption = f"On the test split, in %, {at} Look for bars that are clearly longer than the floors."
        page.figure(figures.bars(drawn), f"{named}{of}", caption, numbers)
    return None


def _of_labels(page: Page, runs: Sequence[Found]) -> None:
    """Of several labels the average precision of common and of rare ones."""
    found = collections.defaultdict(list)
    for run in runs:
        for name, part in run.results.get("metrics", {}).items():
            if "tail_mAP" in part:
                row = Row(run.name, name, "mAP", said=run.said, task="several")
                found[run.labels, row.title].append([part[f"{third}_mAP"] for third in THIRDS])
    if found:
        page.text(
            "mAP in % of the third of the labels with most positives among those that the run was told, of the next "
            "and of the rarest third:"
        )
        lines: list[list] = [["", "labelled rows", *THIRDS, "n"]]
        for (labels, title), values in sorted(found.items()):
            known = [[value for value in each if value is not None] for each in zip(*values, strict=True)]
            means = [f"{100 * statistics.fmean(each):.2f}" if each else None for each in known]
            lines.append([title, labels, *means, len(values)])
        page.table(lines)


def _things(runs: Sequence[Found]) -> str:
    """What rows are called."""
    shapes = [run.results["data"]["shape"] for run in runs if "shape" in run.results.get("data", {})]
    return "images" if all(len(shape) == 3 for shape in shapes) else "rows"


def _augmentations(page: Page, runs: Sequence[Found]) -> None:
    """Says with what the rows were augmented, and whether alike."""
    weak: dict[str, list[str]] = collections.defaultdict(list)
    others: dict[str, list[str]] = collections.defaultdict(list)
    for run in runs:
        try:
            found = configs.augmentations(run.config)
            parts = {(key == "weak", configs.one_line(method[key])) for method, key in found}
        except (AttributeError, ImportError, KeyError, TypeError, ValueError):
            continue  # without a configuration, or of a method that is not known here
        for is_weak, part in sorted(parts):
            names = (weak if is_weak else others)[part]
            names += [] if run.name in names else [run.name]
    if len(others) > 1:
        each = "; ".join(f"{', '.join(names)}: {part}" for part, names in others.items())
        page.text(f"Beware: rows are not augmented alike, and a difference between them may come from that. {each}.")
    elif others:
        page.text(f"Every row is trained with one augmentation: {next(iter(others))}.")
    for part, names in weak.items():
        page.text(
            f"Besides, {', '.join(names)}: as published a weaker one, {part}, for labelled images and for those that "
            "pseudo-labels are made of."
        )


def _curves(page: Page, groups: dict[str, list[Found]]) -> None:
    page.heading("Training")
    every = {name for runs in groups.values() for run in runs for line in run.metrics for name in line}
    parts = {name: name.partition("/") for name in sorted(every - {"step", "images_per_second"})}
    # Of evals during training, which are named like "knn/accuracy", what they found.
    kept = [n for n, (head, _, tail) in parts.items() if tail in ("", "accuracy", "value") and head not in FLOORS]
    drawn = {metric: found for metric in kept if (found := list(_lines(groups, metric)))}
    if not drawn:
        return page.text("Left out: no metrics.jsonl here has two steps or more.")
    bands = " Bands are ± 1 sd over the seeds of a name." * any(len(runs) > 1 for runs in groups.values())
    running = sum(not run.results for runs in groups.values() if any(run.results for run in runs) for run in runs)
    bands += f" Runs that have not ended are left out: {running}." * bool(running)
    rest = f" Of more than {DRAWN} lines the first {DRAWN} are drawn." * (max(map(len, drawn.values())) > DRAWN)
    page.text(
        "Logged by the method: values of one batch or, with a slash in the name, of an eval; expect jitter. Look for "
        f"jumps, for a drift that does not end, and for runs that part ways.{bands}{rest}"
    )
    for metric, found in drawn.items():
        last = [[line.name, line.x[-1], line.y[-1], None if line.sd is None else line.sd[-1]] for line in found]
        caption = LOOK_FOR.get(metric, "")
        svg = figures.lines(found[:DRAWN], "step", metric)
        page.figure(svg, metric, caption, [["", "last step", "mean", "sd"], *last])


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


def _scores(page: Page, groups: dict[str, list[Found]]) -> None:
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


def _configurations(page: Page, groups: dict[str, list[Found]]) -> None:
    page.heading("Configuration")
    firsts = {title: runs[0].config for title, runs in groups.items() if runs[0].config}
    if len(firsts) > 1:
        flat = {title: configs.what_matters(_without_folders(config)) for title, config in firsts.items()}
        paths = sorted({path for each in flat.values() for path in each})
        rows = [
            [path.removeprefix("config."), *(json.dumps(e[path]) if path in e else "" for e in flat.values())]
            for path in paths
        ]
        rows = [row for row in rows if len(set(row[1:])) > 1]
        page.text(
            "What differs, of all that can change a result. Runs that differ in their seeds alone share a column."
        )
        page.table([["", *flat], *rows])
    for title in groups.keys() - firsts.keys():
        page.text(f"Left out: {title} has no config.json.")
    for title, config in firsts.items():
        page.code(f"Configuration of {title}", json.dumps(_without_folders(config), indent=1))


def _without_folders(node: Any) -> Any:
    """Paths by their last name, also behind the colon of `folder:PATH`: the page is sent to others."""
    if isinstance(node, dict):
        return {key: _without_folders(value) for key, value in node.items()}
    if isinstance(node, list):
        return [_without_folders(value) for value in node]
    if not isinstance(node, str):
        return node
    head, colon, path = node.rpartition(":")
    return head + colon + (PurePath(path).name or path)


def _origins(page: Page, runs: Sequence[Found]) -> None:
    page.heading("Runs")
    rows: list = [
        ["run", "folder", "seeds", "labels", "steps", "wall time", "images/s", "device", "commit", "finished"]
    ]
    rows += map(_origin, runs)
    page.table(rows, fold="every run" if len(runs) > 12 else "")
    page.text("Seeds are those of the run, of the labels and of the order of the batches.")


def _draws(page: Page, runs: Sequence[Found]) -> None:
    """Writes how the labelled rows were chosen."""
    views = [run.config["labels"] for run in runs if run.config]
    names = {view["name"] for view in views}
    said = []
    if "per_class" in names:
        said.append(
            "as many of every class, a balanced draw, which nobody can make before labelling: who sends rows to be "
            "labelled gets a uniform one"
        )
    if "uniform" in names:
        said.append("uniformly at random")
    said += dict.fromkeys(f"by {view['query']['name']}, in rounds" for view in views if view["name"] == "queried")
    if said:
        page.text(f"Labelled rows were drawn {'; or '.join(said)}.")


def _origin(run: Found) -> list[Any]:
    """A row of the table of runs; raises where the run's files do not have what it takes."""
    part, device = run.results.get("training", {}), run.results.get("device")
    commit, plus, changes = (run.results.get("commit") or "-").partition("+")
    seconds, speed = part.get("seconds"), part.get("images_per_second")
    return [
        run.name,
        run.folder.name,
        " ".join(map(str, _seeds(run))),
        run.labels,
        part.get("steps"),
        None if seconds is None else datetime.timedelta(seconds=round(seconds)),
        None if speed is None else f"{speed:,.0f}",
        f"{device['count']} x {device['kind']}" if device else None,
        commit[:7] + plus + changes,
        run.results.get("finished", "not finished"),
    ]
