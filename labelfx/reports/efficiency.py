"""Which method to use and how many labels it saves: what `labelfx.report` says of a sweep."""

import itertools
import statistics
from collections.abc import Mapping, Sequence
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
USES = {  # evals that are a way to use a network or, of floors, to do without: in plain words
    "head": "its own classifier",
    "linear_probe": "a logistic regression on its fixed features",
    "knn": "votes of the nearest labelled rows",
    "raw_pixels": "a logistic regression on the pixels",
    "random_encoder": "a logistic regression on the features of an untrained network",
    "multilabel": "its own classifier",
    "multilabel_probe": "a logistic regression a label on its fixed features",
    "tfidf_probe": "a logistic regression on the words",
    "tfidf_multilabel": "a logistic regression a label on the words",
    "node_words": "a logistic regression on the words of a node, without its edges",
    "label_propagation": "labels spread over the edges, without words",
    "pretrained": "a logistic regression on the features of an encoder that others trained",
    "prevalence": "the same scores for every row",
    "regression_error": "its own regressor",
    "constant_error": "the median of the labelled targets, whatever the row",
}
CAVEATS = (
    "One data set; recipes as they are, tuned by nobody for these data; the weights of the last step. Of twenty "
    "comparisons at 95 % about one is wrong by chance, and a row is held against every other: where ten rows are "
    "equally good the cheapest is ruled out about one time in seven, where seventy are, every other time. The test "
    "split has picked the row with the highest mean, whose own figure is therefore a little too good."
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


def answer(rows: Sequence[Row], budget: int, costs: Mapping[str, float]) -> str:
    """What to use at this label budget, how good it is, what more would buy and what is reached without
    training, in one sentence that begins after "With so many labels: ".

    Args:
      rows: those of one headline metric, by labels of one kind and strength; one or more have results here.
      costs: a row's title -> device-seconds.
    """
    headline, choice = _headline(rows), choose(rows, budget, costs)
    here = sorted((row for row in rows if row.runs(budget)), key=lambda row: _rank(row, budget))
    seeds = max(len(row.runs(budget)) for row in here)
    told = "one seed" if seeds == 1 else f"{seeds} seeds"
    row = choice.cheapest if choice and choice.decided else here[0]
    runs, use = row.runs(budget), USES.get(row.eval, "")
    spread = f" ± {row.shown(statistics.stdev(runs), 1)}" if len(runs) > 1 else ""
    reached = f"{_shown(row, budget, 1)} {headline.words}{spread}"
    named = row.title.removesuffix(said_of_rows(rows)) + f" ({use})" * bool(use)
    if choice and choice.decided:
        parts = [f"{named} reaches {reached} over {told}"]
        parts.append(f"nothing {'trained ' * (row.eval in FLOORS)}here beats it")
    elif len(here) > 1:
        open_ = f"undecided: {told} cannot tell which of {len(here)} rows is best"
        parts = [open_, f"the {'highest' if headline.larger else 'lowest'} is {named} with {reached}"]
    else:
        parts = [f"{named} reaches {reached} in {told}"]
    parts += _more(row, budget, headline)
    floor = next((each for each in here if each.eval in FLOORS), None)
    if floor and row.eval not in FLOORS:
        parts.append(f"without any training {floor.eval} reaches {_shown(floor, budget, 1)}")
    return "; ".join(parts) + "."


def verdict(row: Row, choice: Choice) -> str:
    """What a table says of a row at the budget of the choice."""
    if row is choice.cheapest and choice.decided:
        return "use this"
    if row in choice.untold:
        return "too few seeds"
    if row is choice.best:
        return "highest mean" if row.sign > 0 else "lowest mean"
    return "not told apart" if row in choice.level else "clearly worse"


def how_decided(rows: Sequence[Row]) -> str:
    """How `answer` and `verdict` come about."""
    headline = _headline(rows)
    return (
        "'use this' is the row that takes the fewest device-seconds of those that no other beats; 'not told apart' are "
        "the others of them; 'clearly worse' is one that another beats. A row beats another where the 95 % interval of "
        f"their paired difference is {'above' if headline.larger else 'below'} 0. Undecided where fewer than {PAIRS} "
        "seeds are shared, or where these intervals leave room for another row that is more than "
        f"{_room(LOSS, headline, 0)} better, as they do with few seeds: {FEW} or more are advised. "
    ) + CAVEATS.replace("highest", "highest" if headline.larger else "lowest")


def labels_saved(page: Page, rows: Sequence[Row], baseline: str) -> None:
    """Writes the labels saved against the first row of this name, of rows of one headline metric; nothing where that
    has one label budget only."""
    headline, unit = _headline(rows), _headline(rows).unit
    base = next((row for row in rows if baseline in (row.name or row.eval, row.title)), None)
    if base is None or len(base.results) < 2:
        return
    page.heading("Labels saved" + said_of_rows(rows))
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


def _headline(rows: Sequence[Row]) -> Headline:
    return next((row.headline for row in rows if row.headline), HEADLINES["class"])


def said_of_rows(rows: Sequence[Row]) -> str:
    """What is said of the labels that rows share, for a heading."""
    return next((f", {row.said}" for row in rows if row.said), "")


def _shown(row: Row, budget: int, places: int = 2) -> str:
    """The mean, in its unit."""
    return row.shown(statistics.fmean(row.runs(budget)), places) + " %" * bool(row.headline and row.headline.percent)


def _room(loss: float, headline: Headline, places: int) -> str:
    return f"{100 * loss:.{places}f} " + ("points" if headline.percent else "%")


def _rank(row: Row, budget: int) -> float:
    """The smaller the better."""
    return -row.sign * statistics.fmean(row.runs(budget))


def _more(row: Row, budget: int, headline: Headline) -> list[str]:
    """What the labels up to the next budget buy, by the differences of a seed's runs; nothing at the last."""
    later = min((other for other in row.results if other > budget), default=budget)
    ours, theirs = ({draw[:3]: value for draw, value in row.means(each).items()} for each in (later, budget))
    gains = [row.sign * (ours[seed] - theirs[seed]) for seed in ours.keys() & theirs.keys()]
    if later == budget or not gains:
        return []
    gain, labels = statistics.fmean(gains), f"{later - budget:,} more {headline.unit}"
    if gain <= 0 or len(gains) > 1 and gain <= half_width(gains):
        return [f"{labels} make no clear difference"]
    bought = f"{100 * gain:.1f} points" if headline.percent else f"{gain:.3g} less {headline.words}"
    return [f"{labels} would buy {bought}"]


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
