"""Runs as one page: which to use, label budgets, the data, results, mistakes, in HTML and Markdown."""

import collections
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from labelfx import config as configs
from labelfx.evals.tasks import HEADLINES
from labelfx.reports import curves, described, efficiency, figures, inspection, samples
from labelfx.reports.figures import Line, Page
from labelfx.reports.runs import ORIGIN, Found, costs_of, find, groups_of, origin, without_folders
from labelfx.reports.tables import FLOORS, Row, bases_of, cells_of, doubts, read

THIRDS = ("head", "medium", "tail")  # of labels, by how common they are


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
    runs, problems = find(folders)
    for problem in problems:  # with its place, which the page does not tell
        print(f"left out: {problem}", file=sys.stderr)
    groups = groups_of(runs)
    rows, warnings = read(folders)
    names, evaluated = list(dict.fromkeys(run.name for run in runs)), [row.name for row in rows]
    if baseline is None:
        baseline = next((name for name in ("supervised", runs[0].name) if name in evaluated), None)
    data = sorted({run.config["data"]["name"] for run in runs if run.config})
    more = f" and {len(names) - 3} more" * (len(names) > 3)
    budget = f", {runs[0].labels:,} labels" * (len(runs) == 1)
    shown = ", ".join(map(without_folders, data)) or "unknown data"
    page = Page(f"{', '.join(names[:3])}{more} on {shown}{budget}")
    page.missing = [*problems, *(each for each in warnings if " is left out: " not in each)]  # `problems` has those
    headlines = [row for row in rows if row.headline]
    costs, mixed = costs_of(runs, rows), [row.title for row in headlines if len(row.hashes) > 1]
    reason = "of several data sets" if len(data) > 1 else f"{'; '.join(mixed)}: of several configurations"
    compared = bool(headlines) and not mixed and len(data) < 2
    budgets: dict[str, str] = {}
    if not headlines:
        page.lead("No answer", f"no run here has {'the result of an eval with labels' if rows else 'results'} yet.")
    elif not compared:
        page.lead("No answer", f"runs on this page are not alike ({reason}), so none is named as the one to use.")
    for group in _alike(headlines):
        for number in sorted({budget for row in group for budget in row.results}) if compared else ():
            head = f"With {number:,} {_unit(group)}{efficiency.said_of_rows(group)}"
            page.lead(head, efficiency.answer(group, number, costs))
        budgets |= _budgets(page, group)
    loaded = samples.load(page, runs) if len(data) < 2 else None
    if loaded:
        samples.samples(page, loaded.dataset)
    described.draws(page, runs)
    if rows:
        _results(page, rows, runs, baseline, costs, compared)
    for group in _alike(headlines) if compared and len(names) > 1 else ():
        efficiency.labels_saved(page, group, (baseline or "").partition("/")[0])
    if len(runs) == 1 and loaded:
        inspection.inspect(page, loaded)
    described.plain_words(page, runs, rows)
    curves.curves(page, groups)
    curves.scores(page, groups)
    with page.folded("Runs"):
        page.table([ORIGIN, *map(origin, runs)])
        alone = " A page of one of these runs alone has its predictions, mistakes and maps." * (len(runs) > 1)
        page.text(f"Seeds are those of the run, of the labels and of the order of the batches.{alone}")
    described.configurations(page, runs)
    if page.missing:
        page.heading("Not on this page")
        for text in page.missing:
            page.text(f"Left out: {without_folders(text)}")
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


def _unit(rows: Sequence[Row]) -> str:
    return next(row.headline.unit for row in rows if row.headline)


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


def _lines_of(rows: Sequence[Row]) -> list[Line]:
    """Results over label budgets, as the curves end, floors last."""
    found = []
    for row in sorted(
        rows, key=lambda row: (row.eval in FLOORS, -row.sign * statistics.fmean(row.runs(max(row.results))))
    ):
        runs = [row.runs(budget) for budget in sorted(row.results)]
        means = [statistics.fmean(each) for each in runs]
        sds = [statistics.stdev(each) if len(each) > 1 else 0.0 for each in runs]
        found.append(Line(row.title, sorted(row.results), means, sds, row.eval in FLOORS))
    return found


def _budgets(page: Page, rows: Sequence[Row]) -> dict[str, str]:
    """Draws the results of rows of one metric and kind of labels; of several label budgets returns title -> SVG."""
    headline = next(row.headline for row in rows if row.headline)
    budgets, of, drawn = (
        {budget for row in rows for budget in row.results},
        efficiency.said_of_rows(rows),
        _lines_of(rows),
    )
    numbers: list = [["", headline.unit, "mean", "sd"]]
    for row in rows:
        for budget in sorted(row.results):
            runs = row.runs(budget)
            sd = statistics.stdev(runs) if len(runs) > 1 else None
            numbers.append([row.title, budget, statistics.fmean(runs), sd])
    drawn = [line._replace(name=line.name.removesuffix(of)) for line in drawn]
    metric = headline.words if headline.metric == "mAP" else headline.words.capitalize()
    if len(budgets) > 1:
        caption = (
            f"{metric} on the test split by the number of {headline.unit}; bands are ± 1 sd over seeds, grey lines are "
            "reached without training any network here. Point at a dot or beside it for values; a box switches a line "
            "off. Bands of paired runs may overlap and yet differ: which is better is in the tables below."
        )
        scale = 100 if headline.percent else 1
        drawn = [line._replace(y=[scale * y for y in line.y], sd=[scale * sd for sd in line.sd]) for line in drawn]
        across = headline.unit + ", of all classes together" * (headline.unit == "labels")
        page.figure(
            figures.switches(drawn, across, headline.axis, log=min(budgets) > 0),
            f"Label budget{of}",
            caption,
            numbers,
            full=True,
        )
        return {f"Label budget{of}": figures.lines(drawn, across, headline.axis, log=min(budgets) > 0)}
    if headline.percent and len(drawn) > 1:
        caption = (
            f"On the test split at {min(budgets):,} {headline.unit}; grey is reached without training any network "
            "here, whiskers are ± 1 sd over seeds where there are several."
        )
        page.figure(figures.bars(drawn, headline.axis), f"{metric}{of}", caption, numbers)
    return {}


def _results(
    page: Page,
    rows: Sequence[Row],
    runs: Sequence[Found],
    baseline: str | None,
    costs: dict[str, float],
    compared: bool,
) -> None:
    """A table for each label budget, the best row first."""
    page.heading("Results")
    bases = bases_of(rows, baseline) if baseline else None
    every = _alike(row for row in rows if row.headline)
    for group in every:
        marks = {line.name: figures.mark(i, line) for i, line in enumerate(_lines_of(group))}
        for budget in sorted({budget for row in group for budget in row.results}):
            headline = next(row.headline for row in group if row.headline)
            choice = efficiency.choose(group, budget, costs) if compared else None
            head = [f"with {budget:,} {headline.unit}", headline.axis, "sd", "seeds"]
            head += [f"difference to {baseline}"] * bool(bases) + ["verdict"] * bool(choice) + ["device-seconds"]
            here = [row for row in group if row.runs(budget)]
            lines: list = [head]
            for row in sorted(here, key=lambda row: -row.sign * statistics.fmean(row.runs(budget))):
                said = [efficiency.verdict(row, choice)] if choice else []
                shown = [_plain(cell) for cell in cells_of(row, budget, bases)]
                lines.append([row.title, *shown, *said, costs.get(row.title)])
            page.table(lines, marks=marks)
    if others := [row for row in rows if not row.headline]:
        page.text("Other scores, each in a unit of its own:")
        for budget in sorted({budget for row in others for budget in row.results}):
            lines = [[f"with {budget:,} labels", "value", "sd", "seeds"] + [f"difference to {baseline}"] * bool(bases)]
            here = [row for row in others if row.runs(budget)]
            page.table(lines + [[row.title, *map(_plain, cells_of(row, budget, bases))] for row in here])
    for doubt in (doubt for row in rows for doubt in doubts(row)):
        page.text("Beware: " + re.sub(r"( mixes \w+):.*", r"\1", doubt) + ".")
    described.augmentations(page, runs)
    _of_labels(page, runs)
    floors = list(dict.fromkeys(row.eval for row in rows if row.eval in FLOORS))
    once = any(len(row.runs(n)) < len(row.means(n)) for row in rows if row.eval in FLOORS for n in row.results)
    page.text(
        f"Without training any network here: {', '.join(floors)}. A row that is not clearly better has learnt nothing "
        f"of use.{' A floor counts once where nothing in it is drawn anew: there it has fewer seeds.' * once}"
        if floors
        else "Nothing here says what is reached without training (evals such as raw_pixels)."
    )
    if tested := _tested(runs):
        best = max(statistics.fmean(row.runs(n)) for row in rows if row.metric == "accuracy" for n in row.results)
        points = 100 * _chance(best, tested)
        page.text(
            f"{tested:,} test rows: on as many others of the same source an accuracy of {100 * best:.1f} % may come "
            f"out ± {points:.1f} points (95 %), which no seed shows."
        )
    with page.folded("How to read the tables"):
        page.text(
            "Mean and standard deviation (sd) over seeds, each with labels and a start of its own. Differences are "
            "between runs of the same seeds and labels, to the same use of the other or, where it has none, to its "
            "first: mean ± standard error, 'noise' where the 95 % interval (Student's t) holds 0."
        )
        page.text(
            "device-seconds: mean seconds of training times the number of devices, with the pre-training and the "
            "teacher that a run needs; without evals and the search for settings. '-': not known, as it starts from "
            "or learns from a run that is not here, or says no time."
        )
        for group in every[:1] if compared else ():
            page.text(efficiency.how_decided(group))


def _plain(cell: str) -> str:
    """A cell of `labelfx.table` for who has not seen one."""
    return cell.replace(" +- -", " (one seed)").replace("+-", "±")


def _tested(runs: Sequence[Found]) -> int:
    """The fewest rows that an accuracy here was found on; 0 where there is none."""
    parts = [part for run in runs for part in run.results.get("metrics", {}).values() if "accuracy" in part]
    return min((part["n"] for part in parts if type(part.get("n")) is int), default=0)


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
        lines: list[list] = [["", HEADLINES["several"].unit, *THIRDS, "n"]]
        for (labels, title), values in sorted(found.items()):
            known = [[value for value in each if value is not None] for each in zip(*values, strict=True)]
            means = [f"{100 * statistics.fmean(each):.2f}" if each else None for each in known]
            lines.append([title, labels, *means, len(values)])
        page.table(lines)
