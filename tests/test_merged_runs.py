"""`labelfx.derive match` and `least_squares`: finished runs in, an ordinary workdir out."""

import json

import jax
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.derived import Finished, logits, recalibrate
from labelfx.derived.match import between, weight_matching
from labelfx.models.symmetries import groups, permute

MATCH = {"weight": 0.25, "curve": 3, "gamma": 0.3}
MERGE = {"keep": 0.5, "rows": 64, "ridge": 1e-2}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    model = {"name": "conv3", "width": 4, "dtype": "float32"}
    for seed in range(2):
        config = tiny("supervised", model=model, steps=20, seed=seed, evals={"head": {}}, log_every=20, save_every=20)
        labelfx.train(config, folder / str(seed))
    return folder / "0", folder / "1"


def test_match(runs, tmp_path):
    results = labelfx.derive("match", runs, tmp_path, **MATCH)
    a, b = (Finished(run) for run in runs)
    found = groups(a.config.model)
    order = weight_matching(found, a.variables, b.variables, np.random.default_rng(a.config.seed))
    mean = between(a.variables, permute(found, b.variables, order), 0.25)
    wanted = recalibrate(a.network, mean, a.images)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), Finished(tmp_path).variables, wanted
    )
    assert {"head", "negative_flips"} == set(results["metrics"])

    said = json.loads((tmp_path / "derived.json").read_text())
    assert [row["weight"] for row in said["curve"]] == [1, 0.5, 0]
    start, middle, end = said["curve"]
    assert (start["split"], start["n"]) == ("test", len(a.data[0].test.labels))
    assert start["unmatched"] == start["matched"] and end["unmatched"] == pytest.approx(end["matched"], rel=1e-5)
    rows, labels, _ = a.judged
    z = logits(a.network, a.variables, rows).astype(np.float64)
    by_hand = np.mean(np.log(np.exp(z).sum(1)) - z[np.arange(len(z)), labels])
    assert start["matched"] == pytest.approx(by_hand, rel=1e-6)
    (barriers,) = said["barriers"]
    line = (start["recalibrated"] + end["recalibrated"]) / 2
    assert barriers["recalibrated"] == pytest.approx(max(0, middle["recalibrated"] - line))
    layers = [row["layer"] for row in said["alignment"]]
    assert layers == ["backbone/Conv_0", "backbone/Conv_1", "backbone/Conv_2", "head/Dense_0"]
    assert "## barriers" in (tmp_path / "derived.md").read_text()


def test_a_run_with_itself_is_itself(runs, tmp_path):
    labelfx.derive("match", (runs[0], runs[0]), tmp_path / "one", **MATCH | {"curve": 0})
    labelfx.derive("least_squares", (runs[0], runs[0]), tmp_path / "two", **MERGE | {"keep": 0.0})
    a = Finished(runs[0])
    wanted = recalibrate(a.network, a.variables, a.images)
    for name in ("one", "two"):
        found = Finished(tmp_path / name)
        assert found.config.model == a.config.model
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), found.variables, wanted)
    assert not {"curve", "barriers"} & json.loads((tmp_path / "one" / "derived.json").read_text()).keys()


def test_least_squares(runs, tmp_path):
    labelfx.derive("least_squares", runs, tmp_path, **MERGE)
    found = Finished(tmp_path)
    assert found.config.model == Finished(runs[0]).config.model | {"width": 6}
    assert found.encoder(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 64 * 6)
    layers = json.loads((tmp_path / "derived.json").read_text())["layers"]
    assert [(row["units"], row["stayed"]) for row in layers] == [(6, 2), (12, 4), (24, 8), (10, 0)]
    assert all(row["solved"] <= row["blocks"] + 1e-12 for row in layers)


def test_what_cannot_be_merged_is_one_line(runs, tmp_path):
    with pytest.raises(ConfigError, match=r"^--runs: 3 given; must be A,B$"):
        labelfx.derive("match", (*runs, runs[0]), tmp_path / "a", **MATCH)
    with pytest.raises(ConfigError, match=r"keep = 1.5: must be a number in \[0, 1\]"):
        labelfx.derive("least_squares", runs, tmp_path / "b", **MERGE | {"keep": 1.5})
    halves = ((0, 1, 2, 3, 4), (5, 6, 7, 8, 9))
    config = tiny("supervised", model=Finished(runs[0]).config.model, steps=2, evals={"head": {}}, log_every=2)
    config |= {"data": {"name": "digits", "merge": halves}, "head": {"name": "attention", "hidden": 4}}
    labelfx.train(config, tmp_path / "halves")
    with pytest.raises(ConfigError, match=r"config.head.name = 'attention': must be one affine map, as linear is$"):
        labelfx.derive("match", [tmp_path / "halves"] * 2, tmp_path / "d", **MATCH)
    labelfx.train(config | {"head": {"name": "linear"}}, tmp_path / "linear")
    with pytest.raises(ConfigError, match=r"linear: its classes are not those of .*0$"):
        labelfx.derive("match", (runs[0], tmp_path / "linear"), tmp_path / "e", **MATCH)
