"""`labelfx.derive`: what it writes is an ordinary workdir, and what it cannot put together is one line."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.derived import Finished, logits, recalibrate
from labelfx.evals.updates import negative_flips
from labelfx.finished import weights
from labelfx.models import backbones, heads, stack

MLP = {"name": "mlp", "hidden": (32,), "dtype": "float32"}
LINEAR = {"kind": "linear", "weight": 0.5, "curve": 0}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """OLD, and NEW that was tuned from it on more labels, with phases."""
    folder = tmp_path_factory.mktemp("runs")
    seldom = {"evals": {"head": {}}, "log_every": 50, "save_every": 50}
    labelfx.train(tiny("supervised", model=MLP, steps=30, **seldom), folder / "old")
    config = tiny("finetune", model=MLP, backbone=str(folder / "old"), **seldom)
    config["method"]["head"] = "kept"
    config |= {"labels": {"name": "per_class", "k": 4}, "phases": ({"steps": 5}, {"backbone": "previous", "steps": 20})}
    labelfx.train(config, folder / "new")
    return folder / "old", folder / "new"


@pytest.fixture(scope="module")
def derived(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "derived"
    return out, labelfx.derive("interpolate", runs, out, **(LINEAR | {"curve": 3}))


def test_it_is_an_ordinary_workdir(runs, derived, tmp_path):
    out, results = derived
    old, new = (Finished(run) for run in runs)
    rows = old.data[0].test.inputs
    mean = jax.tree.map(lambda a, b: (a + b) / 2, old.variables, new.variables)
    encoder = labelfx.load(out)
    np.testing.assert_allclose(encoder.predict(rows), jax.nn.softmax(logits(new.network, mean, rows)), atol=1e-6)
    assert results["training"]["steps"] == 0 and set(results["metrics"]) == {"head", "negative_flips"}
    assert labelfx.evaluate(out)["metrics"] == results["metrics"]
    again = labelfx.evaluate(out, out=tmp_path / "again", evals={"negative_flips": {}, "raw_pixels": {}})
    assert again["metrics"]["negative_flips"] == results["metrics"]["negative_flips"]
    labelfx.export(out, tmp_path / "encoder.bin")
    assert jax.export.deserialize((tmp_path / "encoder.bin").read_bytes()).call(rows[:2])["features"].shape == (2, 32)
    names, features = labelfx.features(out, "test", tmp_path / "features.npz")
    np.testing.assert_array_equal(features, encoder(rows))
    labelfx.report([*runs, out], tmp_path / "report.html")
    assert "finetune_interpolate" in (tmp_path / "report.html").read_text()
    assert len(names) == len(rows) and "finetune_interpolate" in labelfx.table([*runs, out])


def test_it_says_what_it_is_made_of(runs, derived):
    out, results = derived
    said = json.loads((out / "derived.json").read_text())
    assert said["how"] == "interpolate" and said["settings"] == LINEAR | {"curve": 3}
    assert [parent["place"] for parent in said["parents"]] == [str(run) for run in runs]
    stored = weights.load(runs[0] / "weights" / "0.safetensors")
    assert said["parents"][0]["sha256"] == weights.sha256(stored) != said["parents"][1]["sha256"]
    assert [row["weight"] for row in said["curve"]] == [0, 0.5, 1]
    assert (out / "derived.md").read_text().count("\n| ") == 5
    assert results["config_hash"] != json.loads((runs[1] / "results.json").read_text())["config_hash"]
    assert json.loads((out / "labels.json").read_text()) == json.loads((runs[1] / "labels.json").read_text())


def test_flips_are_against_the_first_run(runs, derived):
    old, new = (Finished(run) for run in (runs[0], derived[0]))
    inputs, labels, _ = new.judged
    found = negative_flips(*(logits(run.network, run.variables, inputs) for run in (new, old)), labels, np.arange(10))
    assert found["nfr"] == derived[1]["metrics"]["negative_flips"]["nfr"]
    assert found["old_accuracy"] == json.loads((runs[0] / "results.json").read_text())["metrics"]["head"]["accuracy"]


def test_started_again_it_is_the_same_and_nothing_else_goes_there(runs, derived):
    out, results = derived
    again = labelfx.derive("interpolate", runs, out, **(LINEAR | {"curve": 3}))
    assert again["metrics"] == results["metrics"]
    for how in ({"weight": 0.25}, {"kind": "slerp"}):
        with pytest.raises(ConfigError, match="holds another run; use another workdir"):
            labelfx.derive("interpolate", runs, out, **(LINEAR | {"curve": 3} | how))
    with pytest.raises(ConfigError, match="holds another run"):
        labelfx.derive("interpolate", runs, runs[0], **LINEAR)
    with pytest.raises(ConfigError, match=r"holds weights that labelfx\.derive made; train in another workdir"):
        labelfx.train(configs.plain(configs.read_json(out / "config.json")), out)


def test_half_of_it_is_no_run(runs, derived, tmp_path, monkeypatch):
    """It is killed before each of its files in turn."""
    files = ("labels.json", "derived.json", "config.json", "results.json")
    whole = configs.write_text
    for killed in files[1:]:
        out = tmp_path / killed

        def stopped(path, text, killed=killed):
            if path.name == killed:
                raise KeyboardInterrupt
            whole(path, text)

        with monkeypatch.context() as patch:
            patch.setattr(configs, "write_text", stopped)
            with pytest.raises(KeyboardInterrupt):
                labelfx.derive("interpolate", runs, out, **LINEAR)
        with pytest.raises((FileNotFoundError, ConfigError), match=r"no config\.json there|has not finished"):
            labelfx.load(out)
        assert labelfx.derive("interpolate", runs, out, **LINEAR)["metrics"]["head"]


def test_what_cannot_be_put_together_is_one_line(runs, tmp_path):
    derive = functools.partial(labelfx.derive, out=tmp_path / "out")
    other = tmp_path / "other"
    labelfx.train(tiny("supervised", model=MLP | {"hidden": (16,)}), other)
    cases = {
        r"derive\.name = 'interpolat'.*did you mean 'interpolate'": ("interpolat", runs, LINEAR),
        r"derive\.wieght: unknown key of interpolate; did you mean 'weight'": ("interpolate", runs, {"wieght": 1.0}),
        r"derive\.weight = 1\.5: must be a number in \[0, 1\]": ("interpolate", runs, LINEAR | {"weight": 1.5}),
        r"derive\.kind: missing": ("interpolate", runs, {"weight": 0.5}),
        r"--runs: 1 given; must be OLD,NEW": ("interpolate", runs[:1], LINEAR),
        r"--runs: none given": ("interpolate", (), LINEAR),
        r"config\.model\.hidden = \[16\], but \[32\] in .*one architecture": ("interpolate", (runs[0], other), LINEAR),
        r"no config\.json there": ("interpolate", (runs[0], tmp_path / "nowhere"), LINEAR),
    }
    for line, (how, given, settings) in cases.items():
        with pytest.raises((ConfigError, FileNotFoundError), match=line) as error:
            derive(how, given, **settings)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "config.json").exists()
    shutil.copytree(runs[0], whole := tmp_path / "whole")
    stored = weights.load(whole / "weights" / "0.safetensors")
    stored["params"]["head"]["Dense_0"]["bias"] = np.zeros(10, np.int32)
    weights.save(whole / "weights" / "0.safetensors", stored)
    with pytest.raises(ConfigError, match="its weights are not of the network|is int32; only floats"):
        derive("interpolate", (runs[0], whole), **LINEAR)
    with pytest.raises(ConfigError, match=r"config\.evals\.negative_flips: compares with another run; give"):
        labelfx.train(tiny("supervised", evals={"negative_flips": {}}), tmp_path / "alone")


HOWS = {  # settings of each function, and how many of the two runs it takes
    "dampen": (dict(rows="ROWS", selection=1.0, dampening=1.0), 1),
    "factorise": (dict(rank=3, keep="shared"), 1),
    "interpolate": (LINEAR, 2),
    "least_squares": (dict(keep=0.25, rows=64, ridge=0.01), 2),
    "match": (dict(weight=0.5, curve=0, gamma=0.3), 2),
    "position": (dict(steps=3, rate=0.1, rows=16), 2),
    "prune": (dict(share=0.5, important=("3",), budget=0.05), 1),
}


def test_every_function_is_here():
    assert HOWS.keys() == set(configs.names(configs.DERIVED))


@pytest.mark.parametrize("how", HOWS)
def test_every_function_makes_a_run_that_is_read_again(runs, tmp_path, how):
    settings, count = HOWS[how]
    if "rows" in settings and settings["rows"] == "ROWS":
        np.save(tmp_path / "rows.npy", Finished(runs[0]).data[1].rows[:3])
        settings = settings | {"rows": str(tmp_path / "rows.npy")}
    out = tmp_path / "out"
    results = labelfx.derive(how, runs[:count], out, **settings)
    parent, child = (labelfx.load(place) for place in (runs[0], out))
    pairs = zip(*map(jax.tree.leaves, (parent.variables, child.variables)), strict=True)
    assert any(a.shape != b.shape or np.any(a != b) for a, b in pairs)
    assert labelfx.evaluate(out)["metrics"] == results["metrics"]
    assert labelfx.derive(how, runs[:count], out, **settings)["metrics"] == results["metrics"]


def test_a_run_forgets_the_rows_that_its_view_has_flagged(runs, tmp_path):
    seldom = {"evals": {"head": {}}, "log_every": 50, "save_every": 50, "steps": 20}
    poisoned = {"name": "poisoned", "rate": 0.3, "flagged": 0.5, "rule": "confusion"}
    config = tiny("supervised", model=MLP, labels={"name": "per_class", "k": 8, "weak": poisoned}, **seldom)
    labelfx.train(config, tmp_path / "run")
    flagged = int(Finished(tmp_path / "run").data[1].split.columns["flagged"].sum())
    keys = {"selection": 1.0, "dampening": 1.0}
    labelfx.derive("dampen", [tmp_path / "run"], tmp_path / "out", rows="", **keys)
    said = json.loads((tmp_path / "out" / "derived.json").read_text())
    assert said["forgotten"] == flagged > 0 and 0 < said["weakened"] < 1
    np.save(tmp_path / "rows.npy", np.array([-1]))
    np.save(tmp_path / "other.npy", np.setdiff1d(np.arange(1000), Finished(runs[0]).data[1].rows)[:3])
    for rows, line in (
        ("", r"derive\.rows = '': the run's label view has no column 'flagged'"),
        (str(tmp_path / "no.npy"), r"derive\.rows = .*no such file"),
        (str(tmp_path / "rows.npy"), r"names the row -1; there are 1415 training rows"),
        (str(tmp_path / "other.npy"), r"none of them is among the rows that .*old learnt from"),
    ):
        with pytest.raises(ConfigError, match=line):
            labelfx.derive("dampen", runs[:1], tmp_path / "none", rows=rows, **keys)


def test_classes_go_by_their_names_whatever_their_order(runs, tmp_path):
    """The old network knows three classes, in another order; its weight of 1 names those of its own rows as it did."""
    config = tiny("supervised", model=MLP, evals={"head": {}}, log_every=50, save_every=50, steps=30)
    config["data"] = {"name": "digits", "merge": ((2,), (0,), (1,))}
    labelfx.train(config, tmp_path / "old")
    found = labelfx.derive("interpolate", [tmp_path / "old", runs[1]], tmp_path / "out", **(LINEAR | {"weight": 1.0}))
    old, new = (Finished(place) for place in (tmp_path / "old", tmp_path / "out"))
    assert old.encoder.class_names == ("2", "0", "1") and new.encoder.class_names == tuple("0123456789")
    inputs, labels, _ = new.judged
    before, after = (logits(run.network, run.variables, inputs) for run in (old, new))
    np.testing.assert_allclose(after[:, [2, 0, 1]], before, rtol=1e-4, atol=1e-4)
    flips = found["metrics"]["negative_flips"]
    assert flips["old_accuracy"] == np.mean(np.array([2, 0, 1])[before.argmax(1)] == labels)
    config["data"]["merge"] = ((0, 1), (2,))
    labelfx.train(config, tmp_path / "merged")
    with pytest.raises(ConfigError, match=r"the class '0/1' of one run is none of the new one's: 0, 1, 2"):
        labelfx.derive("interpolate", [tmp_path / "merged", runs[1]], tmp_path / "none", **LINEAR)


@pytest.mark.slow
def test_a_frozen_encoder_is_stored_with_its_head(tmp_path):
    """What was trained on its features alone becomes a network of its own, which reads rows."""
    labelfx.train(tiny("frozen", evals={"head": {}}), tmp_path / "run")
    results = labelfx.derive("prune", [tmp_path / "run"], tmp_path / "out", share=0.0, important=(), budget=0.0)
    before, after = (labelfx.load(tmp_path / name) for name in ("run", "out"))
    rows = Finished(tmp_path / "run").judged[0][:8]
    np.testing.assert_allclose(after.predict(rows), before.predict(rows), atol=1e-5)
    assert results["metrics"]["negative_flips"]["agreement"] == 1
    assert "pretrained.safetensors" not in {path.name for path in (tmp_path / "out" / "weights").iterdir()}


def test_a_teachers_student_is_compared_with_it(runs, tmp_path):
    config = tiny("distillation", model=MLP, teacher=str(runs[0]), evals={"negative_flips": {}})
    found = labelfx.train(config, tmp_path)["metrics"]["negative_flips"]
    assert found["old_accuracy"] == json.loads((runs[0] / "results.json").read_text())["metrics"]["head"]["accuracy"]


def test_recalibrate_is_the_mean_and_variance_of_what_reaches_a_layer():
    """The first BatchNorm of a network sees what no other has changed: a closed form. Without one nothing changes, a
    pass over the same rows changes nothing more, and what is left of a last batch is not looked at."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (70, 4, 4, 1), np.uint8)
    model = stack(backbone=heads.projector(hidden=(5,), features=3, batch_norm=True, dtype="float32"))

    def flat(x):
        return x.reshape(len(x), -1)

    model = model._replace(
        init=lambda rng, x, init=model.init: init(rng, flat(x)),
        apply=lambda v, x, apply=model.apply, **keys: apply(v, flat(x), **keys),
    )
    variables = model.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    found = recalibrate(model, variables, images, batch=32)["batch_stats"]["backbone"]
    kernel = next(leaf for leaf in jax.tree.leaves(variables["params"]) if leaf.shape == (16, 5))
    before = (images[:64].reshape(64, 16) / 255) @ np.asarray(kernel, np.float64)
    (stats,) = jax.tree.leaves(found, is_leaf=lambda x: "mean" in x)
    np.testing.assert_allclose(stats["mean"], before.mean(0), atol=1e-5)
    np.testing.assert_allclose(stats["var"], before.var(0), rtol=1e-3)
    bare = backbones.mlp(hidden=(4,), dtype="float32")
    own = bare.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    assert recalibrate(bare, own, images) == own
    with pytest.raises(ValueError, match="1 rows; BatchNorm wants 2 or more"):
        recalibrate(model._replace(norm_groups=2), variables, images[:1])


def test_negative_flips_by_loops():
    rng = np.random.default_rng(0)
    new, old = rng.normal(size=(50, 4)), rng.normal(size=(50, 3))
    labels, places = rng.integers(-1, 4, 50), np.array([2, 0, 3])
    counts = dict.fromkeys(("negative", "positive", "alike", "new", "old", "n"), 0)
    for row in range(50):
        if labels[row] < 0:
            continue
        now, then = int(np.argmax(new[row])), int(places[np.argmax(old[row])])
        counts["n"] += 1
        counts["negative"] += then == labels[row] != now
        counts["positive"] += now == labels[row] != then
        counts["alike"] += now == then
        counts["new"] += now == labels[row]
        counts["old"] += then == labels[row]
    found, n = negative_flips(new, old, labels, places), counts["n"]
    assert found["n"] == n < 50 and found["nfr"] == counts["negative"] / n
    assert found["positive_flips"] == counts["positive"] / n and found["agreement"] == counts["alike"] / n
    assert found["accuracy"] - found["old_accuracy"] == pytest.approx(found["positive_flips"] - found["nfr"])
    assert found["relative_nfr"] == pytest.approx(counts["negative"] * n / (counts["old"] * (n - counts["new"])))
    perfect = np.eye(4)[labels.clip(0)]
    assert negative_flips(perfect, old, labels, places)["relative_nfr"] == 0
    with pytest.raises(ValueError, match="test_labels has no known label"):
        negative_flips(new, old, np.full(50, -1), places)
