"""How many labels a method saves, what it costs, and which to use: what `labelfx.report` says of a sweep."""

import itertools
import statistics
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from labelfx.evals.tasks import HEADLINES, Headline
from labelfx.reports.figures import Page
from labelfx.reports.tables import FLOORS, Row, differences, half_width

GRID = 500  # label counts between two budgets: their ratio is below 1.01 for budgets that differ by a factor of 100
FEW = 5  # seeds: below, the 95 % interval of a mean is wider than three standard errors on either side
PAIRS = 3  # below, that no difference is clear says nothing
# Of a share such as accuracy, or of an error in units of its own relative to the best: a row that may be behind another
# by more is not recommended.
LOSS = 0.02
EVALS = {  # of tasks other than classes
    "multilabel": "its own classifier",
    "multilabel_probe": "a logistic regression a label on its features, which stay as they are",
    "tfidf_multilabel": "a logistic regression a label on words, without any training before",
    "prevalence": "the same scores for every row",
    "regression_error": "its own regressor",
    "constant_error": "the median of the labelled targets, whatever the row",
}
CAVEATS = (
    "What this rests on: one data set; recipes as they are, tuned by nobody for these data; the weights of the last "
    "step. Of twenty comparisons at 95 % about one is wrong by chance, and a row is held against every other: where "
    "ten rows are equally good the cheapest is ruled out about one time in seven, where seventy are, every other time. "
    "The test split has picked the row with the highest mean, whose own figure is therefore a little too good."
)


class Needed(NamedTuple):
    """How many labels reach a result: in the mean over seeds, and the ends of the 95 % interval. None: more than the
    largest budget; the smallest budget stands for itself and all below it."""

    labels: float | None
    low: float | None
    high: float | None


class Choice(NamedTuple):
    """What to use at a label budget."""

    best: Row  # the highest mean
    level: list[Row]  # the others that no row beats
    cheapest: Row  # of all these
    untold: list[Row]  # those of too few seeds, of which nothing is known
    loss: float  # by which another row may be better than the cheapest, at most: an end of a 95 % interval, see `LOSS`

    @property
    def decided(self) -> bool:
        """Whether the cheapest is one to recommend."""
        return self.loss <= LOSS


def labels_needed(budgets: Sequence[int], ours: np.ndarray, target: np.ndarray) -> Needed:
    """With how many labels a method reaches what another one has.

    Results are joined by straight lines over the logarithm of the number of labels, seed by seed. The paired
    difference to the target then has a mean and a 95 % interval (Student's t) at every number of labels: `labels` is
    the first where the mean is not negative, `low` the first where the interval does not exclude that, and `high` the
    first where all of it is not negative. Where a curve falls again, what comes after is not looked at.

    Args:
      budgets: [B], increasing, 1 or more; two or more of them.
      ours: [S, B], a row for each seed.
      target: [S], of the same seeds. With one seed `low` and `high` are the ends of what is possible.
    """
    between = [np.geomspace(a, b, GRID, endpoint=False) for a, b in itertools.pairwise(budgets)]
    counts = np.concatenate([*between, budgets[-1:]])
    difference = np.stack([np.interp(np.log(counts), np.log(budgets), row) for row in ours]) - target[:, None]
    mean, half = difference.mean(0), half_width(difference)

    def first(reached):
        return float(counts[np.argmax(reached)]) if reached.any() else None

    return Needed(first(mean >= 0), first(mean + half >= 0), first(mean - half >= 0))


def choose(rows: Sequence[Row], budget: int, costs: Mapping[str, float]) -> Choice | None:
    """The cheapest of the rows that no other beats at this budget. One beats another where the 95 % interval of their
    paired difference is above 0; a row that is beaten is out even where its difference to the highest mean is noise.
    With few seeds nothing is beaten: so the cheapest is one to recommend (`Choice.decided`) only where these intervals
    leave no room for another that is more than `LOSS` better. A row truly worse than that passes, for each that is so
    much better, at most one time in forty.

    Rows that share fewer than `PAIRS` draws with the row of the most draws are not looked at; None where this leaves
    fewer than two.

    Args:
      costs: a row's title -> device-seconds; a row without is dearer than any with.
    """
    every = [row for row in rows if row.runs(budget)]
    most = max(every, key=lambda row: len(row.results[budget]))
    here = [row for row in every if len(differences(row, most, budget)) >= PAIRS]
    if len(here) < 2:
        return None
    best = max(here, key=lambda row: row.sign * statistics.fmean(row.runs(budget)))
    level = [row for row in here if row is not best and not any(_beats(other, row, budget) for other in here)]
    cheapest = min([best, *level], key=lambda row: costs.get(row.title, float("inf")))
    loss = max(_most(other, cheapest, budget) for other in here if other is not cheapest)
    if best.headline and not best.headline.percent:
        loss /= statistics.fmean(best.runs(budget)) or 1.0
    return Choice(best, level, cheapest, [row for row in every if row not in here], loss)


def recommendation(page: Page, rows: Sequence[Row], costs: Mapping[str, float]) -> None:
    """Writes what to use at each label budget.

    Args:
      rows: those of one headline metric, by labels of one kind and strength; at least one.
      costs: a row's title -> device-seconds.
    """
    headline, unit = _headline(rows), _headline(rows).unit
    most = "highest" if headline.larger else "lowest"
    page.heading("Which to use" + _said(rows))
    there = {row.eval for row in rows}
    page.text(f"A row is a method and how its network is used. {_legend(headline, there)}")
    budgets = sorted({budget for row in rows for budget in row.results})
    choices = {budget: found for budget in budgets if (found := choose(rows, budget, costs))}
    for title, group in itertools.groupby(choices, key=lambda budget: _recommended(choices[budget])):
        page.lead(f"At {_counts(group)} {unit}: {title}.")
    if untold := [budget for budget in budgets if budget not in choices]:
        page.lead(f"At {_counts(untold)} {unit}: not told, which takes two rows with {PAIRS} seeds or more in common.")
    if not choices:
        return
    for title in dict.fromkeys(row.title for choice in choices.values() for row in choice.untold):
        at = _counts(budget for budget, choice in choices.items() if title in {row.title for row in choice.untold})
        page.text(f"Left out: {title} at {at} {unit}, which has fewer than {PAIRS} seeds in common with the others.")
    page.text(
        f"That is the row that takes the fewest device-seconds of those that no other beats: the one with the {most} "
        "mean, and the level ones. A row beats another where the 95 % interval of their paired difference is "
        f"{'above' if headline.larger else 'below'} 0. "
        f"Undecided where these intervals leave room for another row that is more than {_room(LOSS, headline, 0)} "
        "better than it, as they do with few seeds."
    )
    compared = [(choice.best, row, budget) for budget, choice in choices.items() for row in choice.level]
    pairs = min((len(differences(*each)) for each in compared), default=FEW)
    if pairs < FEW:
        page.text(f"With {pairs} paired seeds hardly anything is told apart: use {FEW} or more.")
    head = [
        unit,
        f"{most} mean",
        headline.metric,
        "level",
        "the cheapest",
        "another may be better by",
        "device-seconds",
    ]
    lines: list[list] = [head]
    for budget, (best, level, cheapest, _, loss) in choices.items():
        reached = _shown(best, budget)
        others = "; ".join(row.title for row in level) or "none"
        room = _room(loss, headline, 1)
        lines.append([f"{budget:,}", best.title, reached, others, cheapest.title, room, costs.get(cheapest.title)])
    page.table(lines)
    page.text(CAVEATS.replace("highest", most))


def labels_saved(page: Page, rows: Sequence[Row], baseline: str) -> None:
    """Writes the labels saved against the first row of this name, of rows of one headline metric."""
    headline, unit = _headline(rows), _headline(rows).unit
    page.heading("Labels saved" + _said(rows))
    base = next((row for row in rows if baseline in (row.name or row.eval, row.title)), None)
    if base is None or len(base.results) < 2:
        return page.text(f"Left out: needs {baseline} at two label budgets or more.")
    page.text(
        f"How many labels a method needs to reach what {base.title} has with the number at the head of the column, and "
        f"in brackets the 95 % interval over seeds: between the budgets {headline.metric} is taken to follow a "
        "straight line over the logarithm of the number of labels. 'noise': it may need as many. There is no column "
        "for the smallest budget: what is below it was not measured."
    )
    budgets = sorted(base.results)
    table: list[list] = [["", *(f"{budget:,} {unit}" for budget in budgets[1:])]]
    table.append([base.title, *(_shown(base, budget) for budget in budgets[1:])])
    for row in rows:
        if row is not base and len(row.results) > 1:
            table.append([row.title, *(_saved(row, base, budget) for budget in budgets[1:])])
    page.table(table)
    for budget in budgets[1:]:
        floors = [row.title for row in rows if row.eval in FLOORS and _beats(row, base, budget)]
        if floors:
            page.text(
                f"Beware: with {budget:,} {unit} {base.title} is {'below' if headline.larger else 'above'} "
                f"{' and '.join(floors)}, for which no network is "
                f"trained. That column says more of how weak {base.name} is there than of what others save: it may "
                "need more steps."
            )


def cost(page: Page, rows: Sequence[Row], costs: Mapping[str, float]) -> None:
    """Writes what rows cost: a row's title -> device-seconds, where that is known."""
    page.heading("Cost")
    page.text(
        "Mean seconds of training times the number of devices, which the table of runs names, with the pre-training "
        "and the teacher that a run needs. Without the search for its settings and without its evals: of these a "
        "linear probe from tens of thousands of labels takes minutes on a CPU."
    )
    page.table([["", "device-seconds"], *([row.title, costs.get(row.title)] for row in rows)])
    if unknown := [row.title for row in rows if row.title not in costs]:
        page.text(
            f"Not known: {'; '.join(unknown)}. They start from or learn from a run that is not here, or say no time; "
            "where the cheapest is chosen they come last."
        )


def _headline(rows: Sequence[Row]) -> Headline:
    return next((row.headline for row in rows if row.headline), HEADLINES["class"])


def _legend(headline: Headline, there: Container[str]) -> str:
    """What the evals of rows are."""
    tuned = "+ finetune: supervised training that starts from it."
    if headline.metric != "accuracy":
        return " ".join([*(f"{name}: {what}." for name, what in EVALS.items() if name in there), tuned])
    floor = next((name for name in ("tfidf_probe", "node_words") if name in there), "raw_pixels")
    return (
        "head: its own classifier. linear_probe: a logistic regression on its features, which stay as they are. "
        f"{tuned} {floor} and random_encoder: a logistic regression without any training before."
    ) + " label_propagation: labels spread over the edges, without features." * ("label_propagation" in there)


def _said(rows: Sequence[Row]) -> str:
    """What is said of the labels that rows share, for a heading."""
    return next((f", {row.said}" for row in rows if row.said), "")


def _shown(row: Row, budget: int) -> str:
    """The mean, in its unit."""
    return row.shown(statistics.fmean(row.runs(budget))) + " %" * bool(row.headline and row.headline.percent)


def _room(loss: float, headline: Headline, places: int) -> str:
    return f"{100 * loss:.{places}f} " + ("points" if headline.percent else "%")


def _counts(budgets: Iterable[int]) -> str:
    return ", ".join(f"{budget:,}" for budget in budgets)


def _recommended(choice: Choice) -> str:
    row = choice.cheapest
    return f"{row.title}{' (no network is trained for it)' * (row.eval in FLOORS)}" if choice.decided else "undecided"


def _most(row: Row, other: Row, budget: int) -> float:
    """By how much a row may be better than another: the upper end of the 95 % interval, infinite without pairs."""
    pairs = _gains(row, other, budget)
    return float(statistics.fmean(pairs) + half_width(pairs)) if pairs else float("inf")


def _gains(row: Row, other: Row, budget: int) -> list[float]:
    """Paired differences, the larger the better the row."""
    return [row.sign * each for each in differences(row, other, budget)]


def _beats(row: Row, other: Row, budget: int) -> bool:
    pairs = _gains(row, other, budget)
    return bool(pairs) and statistics.fmean(pairs) > half_width(pairs)


def _saved(row: Row, base: Row, budget: int) -> str:
    """A cell: labels needed for what `base` has at this budget, their interval, labels saved."""
    budgets = sorted(b for b in row.results if b > 0)
    curves = {b: {draw[:3]: row.sign * value for draw, value in row.means(b).items()} for b in budgets}
    target = {draw[:3]: row.sign * value for draw, value in base.means(budget).items()}
    seeds = sorted(set(target).intersection(*curves.values()))
    if not seeds:
        return "-"
    ours = np.array([[curves[b][seed] for b in budgets] for seed in seeds])
    needed = labels_needed(budgets, ours, np.array([target[seed] for seed in seeds]))

    def shown(count):
        if count is None:
            return f"> {budgets[-1]:,}"
        return f"≤ {budgets[0]:,}" if count <= budgets[0] else f"{float(f'{count:.2g}'):,.0f}"

    cell = f"{shown(needed.labels)} ({shown(needed.low)} to {shown(needed.high)})"
    if needed.high is not None and needed.high < budget and needed.labels is not None:
        return f"{cell}: saves {'≥ ' * (needed.labels <= budgets[0])}{float(f'{budget - needed.labels:.2g}'):,.0f}"
    return cell + (": needs more" if needed.low is None or needed.low > budget else ": noise")
