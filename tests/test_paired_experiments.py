"""Tables of runs on paired seeds: each run is a configuration, a page goes on where it was and says what there is."""

import json
from pathlib import Path

import numpy as np
import pytest
from recipes import ENCODER

import labelfx
from experiments import doubtful, long_tails, paired, several, weak_labels
from labelfx import config as configs
from labelfx.data import weak as weak_views

PLANS = {
    several: several.runs("DATA", range(1)),
    weak_labels: weak_labels.runs("DATA", "WRENCH", range(1)),
    doubtful: doubtful.runs(Path("DATA"), str(ENCODER), np.eye(10), range(1)),
    long_tails: long_tails.runs("DATA", range(1)),
}


def kept(changes):
    """What is checked once: the number of labels, the data and the strength of what is said do not matter."""
    labels = changes.get("labels", {})
    weak = labels.get("weak", changes.get("labels.weak")) or {}
    return {k: v for k, v in changes.items() if not k.startswith(("data", "labels"))} | {"weak": weak.get("name")}


@pytest.mark.parametrize("module", PLANS, ids=lambda module: module.__name__)
def test_every_run_is_a_configuration(module):
    every = list(PLANS[module])
    assert len({run.place for run in every}) == len(every)
    for run in {(run.recipe, str(kept(run.changes))): run for run in every}.values():
        config = configs.check(labelfx.recipe(run.recipe, run.changes))
        assert {where.split("/")[0] for where in run.shown.values()} <= {*config.evals}


def test_a_page_goes_on_where_it_was(tmp_path, monkeypatch):
    trained = []

    def train(config, folder):
        trained.append(folder)
        rows = {"rival": 0.5, "ours": 0.6 + 0.01 * (config["seed"] == 1)}
        return {"metrics": {"head": {"accuracy": rows[config["name"]]}}, "commit": "0123456789+changes"}

    monkeypatch.setattr(labelfx, "train", train)
    shown = {"accuracy": "head/accuracy"}
    every = [paired.Run(("data", row, f"{s}"), "supervised", {}, shown) for s in range(2) for row in ("rival", "ours")]

    def page(found):
        return paired.difference(*(found["data"].get(row, {}) for row in ("ours", "rival")), "accuracy")

    for runs in (every[:2], every, every):
        paired.fill(tmp_path / "here", tmp_path, runs, page)
    assert [str(each.relative_to(tmp_path)) for each in trained] == [
        "data/rival/0",
        "data/ours/0",
        "data/rival/1",
        "data/ours/1",
    ]
    assert (tmp_path / "here/README.md").read_text() == "+10.5 ± 0.5"
    found = json.loads((tmp_path / "here/results.json").read_text())
    assert found["data"]["ours"]["1"] == {"accuracy": 0.61, "commit": "0123456789+changes"}
    assert paired.commits(found) == ["012345678+changes"]
    same = {s: {"accuracy": 0.5 + 0.1 * (s == "0")} for s in "01"}
    assert paired.difference(same, found["data"]["rival"], "accuracy") == "+5.0 ± 5.0 (noise)"


def test_the_page_of_doubtful_labels():
    rows = {doubtful.NAIVE: {"0": {"accuracy": 0.5, "commit": "0" * 9}, "1": {"accuracy": 0.52, "commit": "0" * 9}}}
    rows["GCE"] = {s: each | {"accuracy": each["accuracy"] + 0.1} for s, each in rows[doubtful.NAIVE].items()}
    page = doubtful.page({"a set": rows})
    assert "| GCE | 61.0 ± 1.4<br>(+10.0 ± 0.0) |" in page and "| symmetric CE |  |" in page
    for transition in doubtful.transitions().values():
        np.testing.assert_allclose(transition.sum(1), 1)


def test_the_page_of_several_labels():
    values = {"mAP": 0.4, "OF1": 0.5, "CF1": 0.3, "prevalence": 0.25, "all_positive_OF1": 0.4, "commit": "0" * 9}
    better = {s: values | {"mAP": 0.45 + 0.01 * int(s)} for s in "012"}
    rows = {several.BASELINE: dict.fromkeys("012", values), "entropy_maximisation": better}
    page = several.page({"yeast": {several.SINGLE: rows}})
    assert "| entropy_maximisation over assumed negative (Zhou et al. 2022) | one positive a row | +6.0 ± 0.6 |" in page
    assert "| entropy_maximisation |  |  |  | 46.0 ± 1.0<br>(+6.0 ± 0.6)<br>F1 50.0, 30.0 |  |" in page
    assert "25.0<br>F1 40.0, 40.0" in page and "Seeds: 3." in page


def test_the_page_of_weak_labels():
    def row(*accuracies):
        return {f"{seed}": {"accuracy": value, "commit": "0" * 9} for seed, value in enumerate(accuracies)}

    curve = {f"{n}": row(0.5 + 0.1 * i, 0.51 + 0.1 * i) for i, n in enumerate(weak_labels.BUDGETS)}
    rows = {weak_labels.NAIVE: row(0.3, 0.31), "forward": row(0.6, 0.61), "unbiased, nonnegative": row(1.01, 1.02)}
    page = weak_labels.page({weak_labels.TEN: {weak_labels.FULL: curve, "noisy: 0.2 wrong": rows}})
    assert "| noisy: 0.2 wrong | taken for true | 30.5 ± 0.7 | below 31 (below 31 to below 31) |" in page
    assert "| noisy: 0.2 wrong | forward | 60.5 ± 0.7<br>(+30.0 ± 0.0) | 100 (100 to 100) |" in page
    assert "<br>(+71.0 ± 0.0) | more than 10,000 (more than 10,000 to more than 10,000) |" in page
    assert weak_labels.worth({}, rows["forward"]) == ""
    assert "| youtube | 60.5 ± 0.7 |" in weak_labels.page({"WRENCH": {"youtube": {"majority": rows["forward"]}}})


@pytest.mark.parametrize("kind", ["partial", "complementary"])
def test_a_label_drawn_from_candidates_is_as_often_wrong_as_is_said(kind):
    rng = np.random.default_rng(0)
    label = rng.integers(0, 10, 20_000)
    every = [(kind, row, weak) for _, kind, row, weak, _ in weak_labels.kinds()]
    rates = {each: weak["rate"] for each, row, weak in every if row == weak_labels.NAIVE and "rate" in weak}
    seen = 0
    for each, row, settings in every:
        if row == "candidates, log" and settings["name"] == kind:
            keys = {key: value for key, value in settings.items() if key != "name"}
            candidates = getattr(weak_views, kind)(label, rng, 10, **keys).columns["candidates"]
            assert rates[each] == pytest.approx(1 - np.mean(1 / candidates.sum(1)), abs=0.01)
            seen += 1
    assert seen == 3


def test_the_page_of_long_tails():
    values = dict.fromkeys(long_tails.SHOWN, 0.9) | {"mean_set_size": 1.25, "commit": "0" * 9}
    rows = {
        "cross_entropy": dict.fromkeys("01", values),
        "logit_adjusted": dict.fromkeys("01", values | {"tail": 0.95}),
    }
    page = long_tails.page({"100": rows})
    assert "## 100 to 1" in page and "| 90.0 ± 0.0 | 90.0 ± 0.0 | 95.0 ± 0.0<br>(+5.0 ± 0.0) |" in page
    assert "| 100 | cross_entropy | 90.00 ± 90.00 | 90.00 ± 90.00 | 1.25 | 90.0 | 90.0 |" in page
