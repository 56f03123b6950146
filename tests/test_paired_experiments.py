"""Tables of runs on paired seeds: each run is a configuration, a page goes on where it was and says what there is."""

import json

import pytest

import labelfx
from experiments import paired, several
from labelfx import config as configs

PLANS = {
    several: several.runs("DATA", range(1)),
}


@pytest.mark.parametrize("module", PLANS, ids=lambda module: module.__name__)
def test_every_run_is_a_configuration(module):
    every = list(PLANS[module])
    assert len({run.place for run in every}) == len(every)
    for run in {run.place[1:]: run for run in every}.values():
        config = configs.check(labelfx.recipe(run.recipe, run.changes))
        assert {where.split("/")[0] for where in run.shown.values()} <= {*config.evals}


def test_a_page_goes_on_where_it_was(tmp_path, monkeypatch):
    trained = []

    def train(config, folder):
        trained.append(folder)
        rows = {"rival": 0.5, "ours": 0.6 + 0.01 * (config["seed"] == 1)}
        return {"metrics": {"head": {"accuracy": rows[config["name"]]}}, "commit": "0123456789"}

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
    assert found["data"]["ours"]["1"] == {"accuracy": 0.61, "commit": "0123456789"}
    assert paired.commits(found) == {"012345678"}
    same = {s: {"accuracy": 0.5 + 0.1 * (s == "0")} for s in "01"}
    assert paired.difference(same, found["data"]["rival"], "accuracy") == "+5.0 ± 5.0 (noise)"


def test_the_page_of_several_labels():
    values = {"mAP": 0.4, "OF1": 0.5, "CF1": 0.3, "prevalence": 0.25, "all_positive_OF1": 0.4, "commit": "0" * 9}
    better = {s: values | {"mAP": 0.45 + 0.01 * int(s)} for s in "012"}
    rows = {several.BASELINE: dict.fromkeys("012", values), "entropy_maximisation": better}
    page = several.page({"yeast": {several.SINGLE: rows}})
    assert "| entropy_maximisation over assumed negative (Zhou et al. 2022) | one positive a row | +6.0 ± 0.6 |" in page
    assert "| entropy_maximisation |  |  |  | 46.0 ± 1.0<br>(+6.0 ± 0.6)<br>F1 50.0, 30.0 |  |" in page
    assert "25.0<br>F1 40.0, 40.0" in page and "Seeds: 3." in page
