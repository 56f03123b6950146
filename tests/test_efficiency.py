"""Labels saved and what to use, against curves whose answers are known."""

import numpy as np
import pytest
import scipy.optimize
import scipy.stats

from labelfx.reports.efficiency import CAVEATS, LOSS, answer, choose, how_decided, labels_needed, labels_saved, verdict
from labelfx.reports.figures import Page
from labelfx.reports.tables import Draw, Row

BUDGETS = (10, 40, 250, 1000, 60000)


def curve(budgets, intercept=0.2, slope=0.07):
    return intercept + slope * np.log(budgets)


def test_the_number_on_a_line_over_the_logarithm():
    for truth in (10.0, 11.0, 40.0, 77.7, 999.0, 30_000.0, 60_000.0):
        found = labels_needed(BUDGETS, np.tile(curve(BUDGETS), (3, 1)), np.full(3, curve(truth)))
        assert found.labels == pytest.approx(truth, rel=0.01) and found == (found.labels,) * 3


def test_beyond_the_budgets():
    ours = np.tile(curve(BUDGETS), (3, 1))
    assert labels_needed(BUDGETS, ours, np.full(3, 0.99)) == (None, None, None)
    assert labels_needed(BUDGETS, ours, np.full(3, 0.0)) == pytest.approx((10, 10, 10))


def test_one_seed_has_no_interval():
    found = labels_needed(BUDGETS, curve(BUDGETS)[None], np.array([curve(100)]))
    assert found.labels == pytest.approx(100, rel=0.01) and found.low == pytest.approx(10) and found.high is None


def test_the_first_crossing_of_a_curve_that_falls_again():
    ours = np.array([[0.1, 0.5, 0.3, 0.4, 0.9]])
    assert 10 < labels_needed(BUDGETS, ours, np.array([0.45])).labels < 40


def test_the_interval_is_that_of_a_paired_t_test():
    """Its ends are where the p-value of scipy's paired test is 0.05; interpolation by hand between two budgets."""
    rng = np.random.default_rng(0)
    ours = curve(np.array([10, 1000]))[None] + rng.normal(0, 0.01, (5, 2))
    target = curve(100) + rng.normal(0, 0.01, 5)

    def p(log10):
        share = (log10 - 1) / 2
        return scipy.stats.ttest_rel(ours[:, 0] + share * (ours[:, 1] - ours[:, 0]), target).pvalue - 0.05

    middle = np.log10(labels_needed((10, 1000), ours, target).labels)
    low, high = (10 ** scipy.optimize.brentq(p, *sorted((middle, end))) for end in (1.0, 3.0))
    found = labels_needed((10, 1000), ours, target)
    assert (found.low, found.high) == pytest.approx((low, high), rel=0.01) and low < 100 < high


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """Noise of each seed, part of it common to all budgets and to the baseline, as label draws make it."""
    rng, trials, hits, one_sided = np.random.default_rng(1), 1500, 0, 0
    for _ in range(trials):
        common = rng.normal(0, 0.05, (5, 1))
        ours = curve(BUDGETS)[None] + common + rng.normal(0, 0.01, (5, 5))
        found = labels_needed(BUDGETS, ours, curve(250) + common[:, 0] + rng.normal(0, 0.01, 5))
        hits += found.low <= 250 * 1.01 and (found.high is None or found.high >= 250 / 1.01)
        one_sided += found.high is not None and found.high < 250 / 1.01
    assert 0.93 < hits / trials < 0.98  # 0.95, of which the standard error is 0.006, and a grid's step
    assert 0.012 < one_sided / trials < 0.04


def row(name, eval, accuracies, budget=40):
    found = Row(name, eval, "accuracy")
    for seed, accuracy in enumerate(accuracies):
        found.results[budget][Draw(seed, seed, seed, f"hash {seed}")].append(accuracy)
    return found


def runs(row, budget=40):
    return row.runs(budget)


DRAWS = np.array([0.50, 0.60, 0.70, 0.65, 0.55])  # far apart, as the luck of the labels makes them


def test_the_cheapest_of_what_cannot_be_told_apart():
    best = row("best", "head", DRAWS + 0.05)
    level = row("level", "head", DRAWS + 0.05 - np.array([0.02, -0.01, 0.01, -0.01, 0.0]))
    below = row("below", "head", DRAWS + np.array([0.001, -0.001, 0.002, 0.0, -0.002]))  # paired, clearly below
    dear = {"best, head": 9.0, "level, head": 1.0, "below, head": 0.1}
    *found, loss = choose([below, level, best], 40, dear)
    assert found == [best, [level], level, []]
    assert loss == pytest.approx(scipy.stats.ttest_rel(*map(runs, (best, level))).confidence_interval(0.95).high)
    assert choose([below, level, best], 40, dear | {"level, head": 10.0}).cheapest is best
    assert choose([below, best], 40, dear)[:4] == (best, [], best, [])
    assert choose([best, level], 40, {"best, head": 3.0}).cheapest is best  # a cost that is not known is the highest


def test_what_is_beaten_is_out_though_it_is_level_with_the_highest_mean():
    """As five seeds of digits had it: the best spreads so much that it beats none, the second beats the cheapest."""
    spread = row("spread", "head", DRAWS + np.array([0.20, -0.05, 0.15, -0.04, 0.09]))
    second = row("second", "head", DRAWS + np.array([0.04, 0.05, 0.06, 0.05, 0.04]))
    cheap = row("cheap", "head", DRAWS)
    costs = {"spread, head": 3.0, "second, head": 2.0, "cheap, head": 1.0}
    assert choose([spread, cheap], 40, costs)[:4] == (spread, [cheap], cheap, [])
    assert choose([spread, second, cheap], 40, costs)[:4] == (spread, [second], second, [])


def test_too_few_pairs_tell_nothing():
    """A row of one seed is beaten by none, and is not therefore the one to use."""
    best, other = row("best", "head", [0.9]), row("other", "head", [0.1])
    assert choose([best, other], 40, {}) is None and choose([row("best", "head", DRAWS)], 40, {}) is None
    few, best, other = row("few", "head", DRAWS[:2]), row("best", "head", DRAWS + 0.1), row("other", "head", DRAWS)
    elsewhere = Row("elsewhere", "head", "accuracy")
    for seed in range(5, 10):
        elsewhere.results[40][Draw(seed, seed, seed, f"hash {seed}")].append(0.1)
    rows, costs = [best, few, other, elsewhere], {"few, head": 0.0, "elsewhere, head": 0.0, "best, head": 1.0}
    assert choose(rows, 40, costs)[:4] == (best, [], best, [few, elsewhere])
    assert choose([row("best", "head", DRAWS), row("other", "head", DRAWS, budget=10)], 40, {}) is None
    rows += [row("best", "head", DRAWS, budget=10)]
    assert answer(rows, 40, costs).startswith(
        "best, head (its own classifier) reaches 70.0 % accuracy ± 7.9 over 5 seeds;"
    )
    assert answer(rows, 10, costs) == "best, head (its own classifier) reaches 60.0 % accuracy ± 7.9 in 5 seeds."
    told = choose(rows, 40, costs)
    said = [verdict(each, told) for each in rows[:4]]
    assert said == ["use this", "too few seeds", "clearly worse", "too few seeds"]
    alone = answer([row("best", "head", [0.9]), row("other", "head", [0.1])], 40, {})
    assert alone.startswith("undecided: one seed cannot tell which of 2 rows is best; the highest is best, head")


def test_what_more_labels_buy():
    """The difference of the same seeds' runs, however far apart the seeds are; no gain where its interval holds 0."""
    found = row("a", "head", DRAWS, budget=10)
    for budget, gain in ((40, np.array([0.05, 0.06, 0.07, 0.06, 0.06])), (100, np.array([0.2, -0.2, 0.1, -0.1, 0.02]))):
        for seed, accuracy in enumerate(DRAWS + gain):
            found.results[budget][Draw(seed, seed, seed, f"{budget}/{seed}")].append(accuracy)
    assert "; 30 more labels would buy 6.0 points." in answer([found], 10, {})
    assert "; 60 more labels make no clear difference." in answer([found], 40, {})
    assert "more labels" not in answer([found], 100, {})


def test_a_floor_among_few_seeds_is_no_recommendation():
    """Three seeds of 50 photographs, with the means and the difference that they had: the second lowest mean was named,
    as the cheapest that none beats."""
    own, supervised = np.array([0.2460, 0.2275, 0.2474]), np.array([0.2290, 0.2040, 0.2279])
    floor = row("", "random_encoder", [0.2290, 0.1760, 0.2061])
    rows, costs = [floor, row("own_images", "linear_probe", own), row("supervised", "head", supervised)], {}
    costs = {row.title: float(index) for index, row in enumerate(rows)}
    found = choose(rows, 40, costs)
    assert found.cheapest is floor and found.level and not found.decided
    said = answer(rows, 40, costs)
    assert said.startswith("undecided: 3 seeds cannot tell which of 3 rows is best; the highest is own_images, linear_")
    assert said.endswith("; without any training random_encoder reaches 20.4 %.")
    # With as many seeds as narrow the intervals it is recommended, where it is as good.
    even = np.resize([0.001, -0.001], 10)
    rows = [row("", "random_encoder", 0.5 + even), row("a", "head", np.full(10, 0.5)), row("b", "head", 0.5 - even)]
    said = answer(rows, 40, costs)
    assert said.startswith(
        "random_encoder (a logistic regression on the features of an untrained network) reaches 50.0 %"
    )
    assert said.endswith("over 10 seeds; nothing trained here beats it.")


@pytest.mark.parametrize(("over", "told"), [(-1e-4, True), (1e-4, False)])
def test_the_room_that_is_left_is_the_end_of_the_interval(over, told):
    """A cheap row, level by much noise: it is recommended up to the loss that the page states."""
    noise = np.array([0.012, -0.012, 0.004, -0.004, 0.0])
    room = scipy.stats.t.ppf(0.975, 4) * noise.std(ddof=1) / 5**0.5
    cheap = row("cheap", "head", DRAWS - (LOSS - room + over))
    assert choose([cheap, row("best", "head", DRAWS + noise)], 40, {"cheap, head": 0.0}).decided is told


def test_the_highest_mean_is_no_recommendation_where_another_may_be_better():
    noisy = row("noisy", "head", DRAWS + np.array([0.05, -0.06, 0.04, -0.05, 0.0]))
    best = row("best", "head", DRAWS)
    found = choose([best, noisy], 40, {"best, head": 0.0})
    assert found.best is best and found.cheapest is best and not found.decided


# Points below the best of eight rows, the cheapest first.
WORSE = (4, 4, 2, 2, 2, 2, 2, 0)


@pytest.mark.parametrize(("seeds", "before", "decided"), [(3, 0.97, 0.0), (5, 0.8, 0.05), (10, 0.3, 0.45)])
def test_how_often_a_worse_row_is_recommended(seeds, before, decided):
    """Paired differences that spread by two points, as those of the published tables do. The cheapest row that no other
    beats is mostly one that is truly two points worse or more (`before`); it is recommended one time in twenty at most,
    and with ten seeds the best one is recommended half the time."""
    rng, trials, wrong, unbeaten, told = np.random.default_rng(0), 100, 0, 0, 0
    for _ in range(trials):
        luck = rng.normal(0, 0.05, seeds)
        rows = [
            row(str(i), "head", 0.5 + luck - points / 100 + rng.normal(0, 0.02 / 2**0.5, seeds))
            for i, points in enumerate(WORSE)
        ]
        found = choose(rows, 40, {row.title: float(index) for index, row in enumerate(rows)})
        unbeaten += found.cheapest is not rows[-1]
        wrong += found.decided and found.cheapest is not rows[-1]
        told += found.decided
    assert unbeaten / trials > before
    assert wrong / trials <= 0.08  # 0.05, of which the standard error is 0.02
    assert told / trials >= decided


def test_how_often_chance_rules_out_the_cheapest():
    """Of ten equal rows, as the page says: about one time in seven."""
    rng, trials, out = np.random.default_rng(0), 200, 0
    for _ in range(trials):
        rows = [row(str(i), "head", DRAWS + rng.normal(0, 0.01, 5)) for i in range(10)]
        out += choose(rows, 40, {"0, head": 0.0}).cheapest is not rows[0]
    assert 0.08 < out / trials < 0.21  # 1/7, of which the standard error is 0.025
    assert "ten rows are equally good the cheapest is ruled out about one time in seven" in CAVEATS


def test_a_baseline_below_a_floor_is_said_to_be_weak():
    """At 1,000 labels, where the floor is clearly above it; at 40 it is so in the mean alone."""
    base, floor, other = (Row(*key, "accuracy") for key in (("a", "head"), ("", "raw_pixels"), ("b", "head")))
    noise = np.array([0.02, -0.02, 0.03, -0.02, 0.0])
    for budget, above in ((10, -0.1), (40, 0.002), (1000, 0.1)):
        for seed, accuracy in enumerate(DRAWS):
            draw = Draw(seed, seed, seed, f"hash {budget}/{seed}")
            base.results[budget][draw].append(accuracy)
            floor.results[budget][draw].append(accuracy + above + noise[seed])
            other.results[budget][draw].append(accuracy + 0.2)
    page = Page("")
    labels_saved(page, [floor, base, other], "a")
    beware = [text for text in page.markdown if text.startswith("Beware")]
    assert len(beware) == 1 and "with 1,000 labels a, head is below raw_pixels, for which" in beware[0]
    page = Page("")
    labels_saved(page, [base, other], "a")
    assert not any(text.startswith("Beware") for text in page.markdown)


def test_of_errors_the_smaller_is_the_better():
    """The same rows with every result negated, in what is chosen, in labels saved and in what the page says."""
    rng = np.random.default_rng(0)
    page, rows = Page(""), [Row(name, "regression_error", "error", task="target") for name in ("supervised", "ours")]
    for row, ahead in zip(rows, (1.0, 4.0), strict=True):
        for budget in (10, 100):
            for seed in range(5):
                error = 80 - 10 * np.log10(ahead * budget) + rng.normal(0, 0.1)
                row.results[budget][Draw(seed, seed, seed, f"{budget}/{seed}")].append(error)
    choice = choose(rows, 100, {rows[1].title: 3.0, rows[0].title: 1.0})
    assert choice.best is choice.cheapest is rows[1] and not choice.level and choice.decided
    labels_saved(page, rows, "supervised")
    text, said, how = " ".join(page.markdown), answer(rows, 10, {}), how_decided(rows)
    assert said.startswith("ours, regression_error (its own regressor) reaches ") and "nothing here beats it" in said
    assert "; 90 more labelled rows would buy 9.9" in said or "; 90 more labelled rows would buy 10" in said
    assert said.endswith(" less error.") and "accuracy" not in text + said + how
    assert verdict(rows[1], choice) == "use this" and verdict(rows[0], choice) == "clearly worse"
    assert "the row with the lowest mean" in how and "more than 2 % better" in how
    assert "paired difference is below 0" in how
    saved = text[text.index("ours, regression_error | ", text.index("Labels saved")) :].split(" | ")[1]
    assert 22 < float(saved.split(" ")[0]) < 28 and ": saves 7" in saved
