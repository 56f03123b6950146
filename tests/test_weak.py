"""What is said of the rows: every kind against what it promises, over all rows of a set or in the mean over draws."""

import functools

import numpy as np
import pytest

from labelfx import config as configs
from labelfx.config.rooms import functions
from labelfx.data import Split, labelled, unknown
from labelfx.data import propensity as propensities
from labelfx.data.batches import batch_at, label_view
from labelfx.data.miners import uniform, whole_bags
from labelfx.data.weak import COLUMNS, blank
from labelfx.loop.said import identity

N, CLASSES = 4000, 5
LABEL = np.random.default_rng(0).integers(0, CLASSES, N).astype(np.int32)
SEVERAL = (np.random.default_rng(1).random((N, CLASSES)) < 0.4).astype(np.int8)
DENSE = np.random.default_rng(2).integers(-1, 3, (60, 6, 6)).astype(np.int32)
TARGETS = np.random.default_rng(8).normal(size=N).astype(np.float32)
INPUTS = np.random.default_rng(3).normal(size=(N, 4)).astype(np.float32)
CYCLE = tuple(tuple(float(j == (i + 1) % CLASSES) for j in range(CLASSES)) for i in range(CLASSES))
MILD = tuple(tuple(0.6 * (i == j) + 0.1 * (i != j) for j in range(CLASSES)) for i in range(CLASSES))
PROPENSITY = {"name": "logistic", "columns": (0,), "slope": 2.0, "mean": 0.3}
KINDS = {
    "annotators": {"accuracies": (0.9, 0.6), "coverage": 0.7},
    "asymmetric": {"flips": ((0, 1), (2, 3)), "rate": 0.4},
    "bags": {"bag_size": 7, "witness": 3},
    "clients": {"count": 3, "alpha": 1.0},
    "column": {"column": "votes", "role": "votes"},
    "complementary": {"count": 2, "matrix": None},
    "domains": {"count": 3, "alpha": 1.0},
    "drift": {"windows": 4},
    "incomplete": {"rate": 0.3, "scale": 1.0},
    "instance_dependent": {"rate": 0.3, "spread": 0.02},
    "keep_entries": {"fraction": 0.3},
    "noisy_rest": {"rate": 0.3},
    "partial": {"rate": 0.2},
    "plausible": {"column": "doubtful", "matrix": MILD},
    "points": {"per_class": 2},
    "poisoned": {"rate": 0.2, "flagged": 0.5, "rule": "confusion"},
    "positive_unlabelled": {"positives": (1, 2), "propensity": PROPENSITY, "known": True},
    "positives_only": {"fraction": 0.3},
    "proportions": {"bag_size": 7},
    "recorded": {},  # and the path of `answers`
    "single_positive": {},
    "symmetric": {"rate": 0.3},
    "transition": {"matrix": CYCLE},
}


@pytest.fixture(scope="module", autouse=True)
def answers(tmp_path_factory):
    """A file of two judges who answer for half of the rows each."""
    path, rng = tmp_path_factory.mktemp("recorded") / "votes.npz", np.random.default_rng(7)
    row = np.concatenate([rng.choice(N, N // 2, replace=False) for _ in range(2)])
    vote, confidence = rng.integers(-1, CLASSES, N), rng.random(N).astype(np.float32)
    np.savez(path, row=row, judge=np.repeat([3, 5], N // 2), vote=vote, confidence=confidence)
    KINDS["recorded"]["path"] = str(path)
    return path


def truth_of(name):
    others = {"keep_entries": SEVERAL, "positives_only": SEVERAL, "single_positive": SEVERAL, "points": DENSE}
    return {**others, "incomplete": TARGETS}.get(name, LABEL)


def say(name, label=None, rows=None, seed=0, **changes):
    label = truth_of(name) if label is None else label
    votes = np.random.default_rng(4).integers(-1, CLASSES, (len(label), 3)).astype(np.int8)
    provided = {
        "label": label,
        "rng": np.random.default_rng([seed, 1]),
        "num_classes": CLASSES,
        "rows": np.arange(len(label)) if rows is None else rows,
        "inputs": INPUTS[: len(label)],
        "columns": {"votes": votes, "doubtful": votes[:, 0].clip(0).astype(np.int32)},
    }
    return configs.build(configs.WEAK, {"name": name, **KINDS[name], **changes}, **provided)


def test_every_kind_is_tried_and_names_no_column_of_its_own():
    assert set(KINDS) == set(functions("data.weak")) - {"blank", "columns_of", "supervision"}
    for name in KINDS:
        said = say(name)
        assert said.columns.keys() <= COLUMNS.keys() and said.everywhere <= said.columns.keys()
        assert all(len(column) == len(truth_of(name)) for column in (said.columns | said.audit).values())


@pytest.mark.parametrize("name", KINDS)
def test_nothing_is_said_of_other_rows_and_their_truth_counts_for_nothing(name):
    """Hence no parameter can hang on it: said_hash covers all that a run sees."""
    label = truth_of(name)
    rows = np.sort(np.random.default_rng(5).choice(len(label), len(label) // 4, replace=False))
    others = np.setdiff1d(np.arange(len(label)), rows)
    views = []
    for permuted in (False, True):
        truth = label.copy()
        if permuted:
            truth[others] = truth[np.random.default_rng(6).permutation(others)]
        said = say(name, truth, rows)
        views.append(label_view(Split(INPUTS[: len(label)], truth), rows, said))
    for column, values in {"label": views[0].split.labels, **views[0].split.columns}.items():
        if column not in said.everywhere:
            np.testing.assert_array_equal(values[others], blank(column, values[others]))
            np.testing.assert_array_equal(values, {"label": views[1].split.labels, **views[1].split.columns}[column])
    if not said.everywhere:
        assert identity(views[0]) == identity(views[1])
    assert identity(views[0])["said_hash"] != identity(label_view(Split(INPUTS, label), rows))["said_hash"]


@pytest.mark.parametrize("name", ["symmetric", "asymmetric", "noisy_rest", "poisoned", "instance_dependent"])
def test_flips_nest_and_have_their_rate(name):
    column = "given" if name == "noisy_rest" else "label"
    rates, before = (0.1, 0.2, 0.4), np.zeros(N, bool)
    eligible = np.isin(LABEL, (0, 2)) if name == "asymmetric" else np.ones(N, bool)
    for rate in rates:
        said = say(name, rate=rate)
        flipped = said.columns[column] != LABEL
        np.testing.assert_array_equal(flipped, said.audit["noise"])
        assert np.all(flipped[before]) and not flipped[~eligible].any()
        assert abs(flipped[eligible].mean() - rate) < 4 * np.sqrt(rate / eligible.sum())
        before = flipped
    assert said.columns[column].dtype == LABEL.dtype and set(said.columns[column]) <= set(range(CLASSES))


def test_symmetric_noise_never_names_the_truth_and_prefers_no_other_class():
    given = say("symmetric", rate=1.0).columns["label"]
    counts = np.bincount((given - LABEL) % CLASSES, minlength=CLASSES)
    assert counts[0] == 0 and np.all(abs(counts[1:] / N - 1 / (CLASSES - 1)) < 0.03)
    few = np.where(np.arange(N) % 7, LABEL, -1).astype(np.int32)
    assert np.all(say("symmetric", few, rate=1.0).columns["label"][few < 0] == -1)  # unknown stays unknown


def test_transitions_follow_their_matrix():
    rows = tuple(tuple(0.6 * (i == j) + 0.1 * (i != j) for j in range(CLASSES)) for i in range(CLASSES))
    given = say("transition", matrix=rows).columns["label"]
    found = np.zeros((CLASSES, CLASSES))
    np.add.at(found, (LABEL, given), 1)
    np.testing.assert_allclose(found / found.sum(1, keepdims=True), rows, atol=0.06)
    np.testing.assert_array_equal(say("transition").columns["label"], (LABEL + 1) % CLASSES)


def test_plausible_labels_are_drawn_by_bayes_rule():
    given = say("plausible", seed=0).columns["label"]
    votes = np.random.default_rng(4).integers(-1, CLASSES, (N, 3))[:, 0].clip(0)
    shares = np.bincount(votes, minlength=CLASSES) / N
    prior = np.linalg.solve(np.array(MILD).T, shares)
    assert prior.min() > 0
    for j in range(CLASSES):
        expected = prior * np.array(MILD)[:, j] / shares[j]
        assert np.abs(np.bincount(given[votes == j], minlength=CLASSES) / (votes == j).sum() - expected).max() < 0.06
    assert (say("plausible", seed=1).columns["label"] != given).mean() > 0.2


def test_noise_by_instance_hangs_on_the_instance():
    """Rows with one input and one label are mistaken for the same class far more often than rows at random are."""
    inputs, label = np.repeat(INPUTS[:40], 100, 0), np.repeat(LABEL[:40], 100)
    how = dict(rng=np.random.default_rng(0), num_classes=CLASSES, label=label, inputs=inputs)
    kind = {"name": "instance_dependent", "rate": 0.5, "spread": 0.1}
    given = configs.build(configs.WEAK, kind, **how, rows=np.arange(N), columns={}).columns["label"]
    shares = [np.bincount(row[row != truth], minlength=CLASSES).max() / max(1, (row != truth).sum())
              for row, truth in zip(given.reshape(40, 100), label[::100], strict=True)]  # fmt: skip
    assert np.mean(shares) > 0.6  # 0.34 were they drawn without preference


def test_candidates_hold_the_truth_and_leave_out_as_many_as_said():
    for name, changes in (("partial", {"rate": 0.3}), ("complementary", {"count": 2})):
        candidates = say(name, **changes).columns["candidates"]
        assert candidates[np.arange(N), LABEL].all()
    assert np.all(candidates.sum(1) == CLASSES - 2)
    out = np.bincount(np.nonzero(~candidates)[1], minlength=CLASSES) / N
    assert np.all(abs(out - 2 / CLASSES) < 0.03)
    wider, narrower = (say("partial", rate=rate).columns["candidates"] for rate in (0.6, 0.2))
    assert np.all(wider >= narrower) and abs((wider.sum() - N) / N - 0.6 * (CLASSES - 1)) < 0.1
    drawn = say("complementary", count=1, matrix=CYCLE).columns["candidates"]
    np.testing.assert_array_equal(np.nonzero(~drawn)[1], (LABEL + 1) % CLASSES)


def test_positives_are_observed_by_their_propensity():
    said = say("positive_unlabelled")
    observed, chance = said.columns["observed"], said.columns["propensity"]
    positive = np.isin(LABEL, (1, 2))
    assert not observed[~positive].any() and abs(chance.mean() - 0.3) < 1e-6
    for low, high in ((0, 0.2), (0.2, 0.5), (0.5, 1)):
        rows = positive & (chance >= low) & (chance < high)
        assert abs(observed[rows].mean() - chance[rows].mean()) < 0.07
    assert np.corrcoef(INPUTS[:, 0], chance)[0, 1] > 0.9
    hidden = say("positive_unlabelled", known=False)
    assert "propensity" not in hidden.columns and np.array_equal(hidden.audit["propensity"], chance)
    assert np.all(propensities.constant(INPUTS, None, frequency=0.2) == 0.2)


def test_bags_say_what_is_in_them():
    rows = np.arange(0, N, 2)
    for name in ("bags", "proportions"):
        said = say(name, rows=rows).columns
        assert np.all(said["bag"][1::2] == -1) and said["bag"].dtype == np.int32
        for each in np.unique(said["bag"][rows]):
            members = np.flatnonzero(said["bag"] == each)
            assert len(members) == 7 or each == said["bag"].max()
            share = np.bincount(LABEL[members], minlength=CLASSES) / len(members)
            expected = share if name == "proportions" else [share[3] == 0, share[3] > 0]
            np.testing.assert_allclose(said["bag_target"][members], np.tile(expected, (len(members), 1)), rtol=1e-6)


def test_domains_differ_in_their_classes_alone():
    said = say("domains")
    shares = np.stack([np.bincount(LABEL[said.columns["domain"] == d], minlength=CLASSES) for d in range(3)])
    shares = shares / shares.sum(1, keepdims=True)
    assert np.abs(shares[:, None] - shares[None]).sum(-1).max() > 0.5
    view = label_view(Split(INPUTS, LABEL), np.arange(10), said)
    assert np.all(view.split.columns["domain"] >= 0) and not labelled(view.split.labels).any()


def test_windows_of_time_are_equal_and_only_the_first_is_labelled():
    said = say("drift").columns
    assert np.bincount(said["time"]).tolist() == [N // 4] * 4
    means = INPUTS.mean(1)
    assert all(means[said["time"] == t].max() <= means[said["time"] == t + 1].min() for t in range(3))
    np.testing.assert_array_equal(said["label"], np.where(said["time"] == 0, LABEL, -1))


def test_annotators_are_as_good_and_as_busy_as_said():
    votes = say("annotators").columns["votes"]
    for m, accuracy in enumerate((0.9, 0.6)):
        looked = votes[:, m] >= 0
        assert abs(looked.mean() - 0.7) < 0.03 and abs((votes[looked, m] == LABEL[looked]).mean() - accuracy) < 0.03


def test_of_several_labels_some_entries_are_said():
    single, kept, positive = (say(n).columns["label"] for n in ("single_positive", "keep_entries", "positives_only"))
    assert np.array_equal((single == 1).sum(1), SEVERAL.any(1)) and np.all(single != 0)
    for said, share in ((kept, (SEVERAL >= 0).mean()), (positive, SEVERAL.mean())):
        assert np.all((said == SEVERAL) | (said == -1)) and abs((said >= 0).mean() - 0.3 * share) < 0.02
    assert np.all(SEVERAL[single == 1] == 1) and not (positive == 0).any()


def test_of_every_class_in_an_image_some_pixels_are_said():
    said = say("points").columns["label"]
    assert np.all((said == DENSE) | (said == -1))
    for c in range(3):
        np.testing.assert_array_equal((said == c).sum((1, 2)), np.minimum((DENSE == c).sum((1, 2)), 2))


def test_flagged_rows_are_wrong():
    said = say("poisoned")
    wrong = said.audit["noise"]
    assert not (said.columns["flagged"] & ~wrong).any() and abs(said.columns["flagged"][wrong].mean() - 0.5) < 0.06


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("asymmetric", {"flips": ((0, 9),)}, r"flips = \(\(0, 9\),\): must be pairs \(from, to\) of classes 0..4"),
        ("asymmetric", {"flips": ((0, 1), (0, 2))}, "a class is flipped to two others"),
        ("transition", {"matrix": ((1.0,),)}, "matrix: must have 5 rows of 5 numbers"),
        ("transition", {"matrix": (*CYCLE[:4], (0.5,) * 5)}, r"matrix: row 4 is .*; must be probabilities of sum 1"),
        ("complementary", {"count": 5}, "count = 5: must be at most 4"),
        ("complementary", {"count": 1, "matrix": tuple(map(tuple, np.eye(5).tolist()))}, "its diagonal must be 0"),
        ("positive_unlabelled", {"positives": (9,)}, r"positives = \(9,\): no row of these classes is observed"),
        (
            "positive_unlabelled",
            {"propensity": PROPENSITY | {"columns": (7,)}},
            "columns has 7; a row has entries 0..3",
        ),
        ("plausible", {"matrix": CYCLE[:1] * 5}, "matrix: no class is called [0234], and a row is"),
        ("column", {"column": "worse"}, "column = 'worse': the data have no such column; allowed: votes, doubtful"),
    ],
)
def test_what_cannot_be_said_is_named(name, changes, message):
    with pytest.raises(ValueError, match=message):
        say(name, **changes)


def test_batches_of_whole_bags():
    bag = np.array([3, 0, 3, -1, 0, 7, 3, 5], np.int32)
    miner = whole_bags(bag, bags_per_batch=2)
    view = label_view(Split(INPUTS[:8], unknown(LABEL[:8])), np.flatnonzero(bag >= 0))
    view = view._replace(split=view.split._replace(columns={"bag": bag}))
    how = {"view": view, "sizes": {"labelled": 6, "unlabelled": 0}, "seed": 1, "miner": miner, "table": {}}
    seen = []
    for step in range(2):  # four bags, two a batch: one pass
        batch = batch_at(step, **how)["labelled"]
        found, valid = batch["bag"], batch["valid"]
        assert len(found) == 6 and valid.any() and np.all(found[~valid] == found[0])
        for each in np.unique(found[valid]):
            assert np.array_equal(np.sort(batch["index"][valid & (found == each)]), np.flatnonzero(bag == each))
        seen += np.unique(found[valid]).tolist()
    assert sorted(seen) == [0, 3, 5, 7]
    halves = [batch_at(0, **how, own=lambda size, half=half: np.arange(3) + 3 * half)["labelled"] for half in (0, 1)]
    whole = batch_at(0, **how)["labelled"]
    for key, column in whole.items():
        np.testing.assert_array_equal(np.concatenate([half[key] for half in halves]), column)
    with pytest.raises(ValueError, match="batch.labelled = 4: the largest 2 bags have 5 rows"):
        batch_at(0, **how | {"sizes": {"labelled": 4, "unlabelled": 0}})
    for bags, message in ((None, "no column says which rows are a bag"), (bag, "bags_per_batch = 5: there are 4 bags")):
        with pytest.raises(ValueError, match=message):
            whole_bags(bags, bags_per_batch=5)


def test_only_columns_that_are_read_travel():
    candidates = np.ones((N, CLASSES), bool)
    view = label_view(Split(INPUTS, LABEL), np.arange(20))
    view = view._replace(split=view.split._replace(columns={"candidates": candidates}))
    make = functools.partial(
        batch_at, 0, view=view, sizes={"labelled": 4, "unlabelled": 4}, seed=0, miner=uniform(), table={}
    )
    assert "candidates" in make()["labelled"] and "candidates" in make()["unlabelled"]
    assert "candidates" not in make(reads={"label"})["labelled"]
