"""Runs that start from an encoder that others trained."""

import shutil

import jax
import numpy as np
import pytest
from recipes import ENCODER, tiny

import labelfx
from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data.augment import to_float
from labelfx.data.sources.images import digits
from labelfx.evals import features, kept
from labelfx.loop.frozen import pretrained_weights, sample
from labelfx.loop.run import load_teacher, load_variables
from labelfx.models import backbone
from labelfx.models.adapters import lora
from labelfx.models.backbones import pretrained
from labelfx.models.pretrained import read

MODEL = {
    "name": "pretrained",
    "file": str(ENCODER),
    "image_size": 16,
    "frozen": False,
    "lora": None,
    "norm": "stored",
    "dtype": "float32",
}
FROZEN = MODEL | {"frozen": True}


def equal(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.mark.parametrize("name", ["simclr", "moco", "fixmatch", "meta_pseudo_labels", "mutual_learning", "byol"])
def test_methods_start_from_the_file(tmp_path, name):
    """None of them has a line for it; averages, teachers and second networks start there too."""
    config = tiny(name, model=MODEL, steps=0, phases=())
    labelfx.train(config, tmp_path / "run")
    assert equal(backbone(load_variables(tmp_path / "run")), read(ENCODER).weights())


def test_rows_go_through_a_frozen_encoder_once(tmp_path, monkeypatch):
    encoded, features = [], kept.features

    def count(model, variables, inputs, rows=None, **how):
        encoded.append(len(inputs) if rows is None else len(rows))
        return features(model, variables, inputs, rows, **how)

    monkeypatch.setattr(kept, "features", count)
    evals = {"head": {}, "linear_probe": {}}
    with kept.kept_in(tmp_path):
        first = labelfx.train(tiny("frozen", model=FROZEN, evals=evals), tmp_path / "few")
        rows = first["labels"]["n"] + first["metrics"]["head"]["n"]
        assert rows < sum(encoded) <= rows + 512  # and those by which features are standardised
        del encoded[:]
        again = labelfx.train(tiny("frozen", model=FROZEN, evals=evals, seed=1), tmp_path / "again")
        assert not encoded and again["metrics"]["linear_probe"] == first["metrics"]["linear_probe"]
        more = tiny("frozen", model=FROZEN, evals=evals, labels={"name": "per_class", "k": 30})
        labelfx.train(more, tmp_path / "more")
        assert 0 < sum(encoded) <= 300
    assert {path.name for path in (tmp_path / "few").iterdir()}.isdisjoint({"features"})
    variables = load_variables(tmp_path / "few")
    assert equal(backbone(variables)["params"], read(ENCODER).weights()["params"])  # stored once, and not touched
    assert load_variables(tmp_path / "few", 0)["params"].keys() == {"head"}


def test_a_frozen_run_predicts_for_raw_rows_as_its_evals_saw_them(tmp_path):
    found = labelfx.train(tiny("frozen", model=FROZEN, evals={"head": {}}, steps=40), tmp_path / "run")
    encoder, test = labelfx.load(tmp_path / "run"), digits().test
    weights = read(ENCODER).weights()
    alone = pretrained(None, **{k: v for k, v in FROZEN.items() if k != "name"})
    np.testing.assert_allclose(
        encoder(test.inputs[:5]), alone.apply(weights, to_float(test.inputs[:5]), train=False)[0], rtol=1e-5, atol=1e-5
    )
    accuracy = np.mean(encoder.predict(test.inputs).argmax(1) == test.labels)
    assert accuracy == pytest.approx(found["metrics"]["head"]["accuracy"], abs=2e-3)


def test_the_file_is_not_opened_again_once_a_run_has_begun(tmp_path):
    file = shutil.copytree(ENCODER, tmp_path / "encoder")
    config = tiny("lora", model=MODEL | {"file": str(file)}, evals={"head": {}}, save_every=3)
    whole = labelfx.train(config, tmp_path / "whole")
    labelfx.train(config | {"steps": 6, "phases": ()}, tmp_path / "stopped")
    shutil.rmtree(file)
    again = labelfx.train(config, tmp_path / "whole")
    assert again["metrics"] == whole["metrics"]
    assert labelfx.load(tmp_path / "whole").predict(np.zeros((1, 8, 8, 1), np.uint8)).shape == (1, 10)
    with pytest.raises(ConfigError, match=r"config.model.file: .*encoder.*no such file"):
        labelfx.train(config, tmp_path / "new")


def test_where_a_file_lies_changes_no_result_and_another_file_is_another_run(tmp_path):
    moved = shutil.copytree(ENCODER, tmp_path / "encoder")
    here, there = (configs.check(tiny("frozen", model=FROZEN | {"file": str(place)})) for place in (ENCODER, moved))
    assert configs.config_hash(here) == configs.config_hash(there)
    other = configs.check(tiny("frozen", model=FROZEN | {"file": str(ENCODER.parent / "dinov2")}))
    assert configs.config_hash(here) != configs.config_hash(other)
    labelfx.train(tiny("frozen", model=FROZEN), tmp_path / "run")
    configs.compare(there, tmp_path / "run")
    with pytest.raises(ConfigError, match="another configuration"):
        configs.compare(other, tmp_path / "run")
    changed = configs.check(tiny("frozen", model=FROZEN | {"file": str(moved)}))
    shutil.copy(ENCODER.parent / "dinov2/model.safetensors", moved)
    shutil.copy(ENCODER.parent / "dinov2/config.json", moved)
    with pytest.raises(ConfigError, match="another file than the configuration describes"):
        pretrained_weights(changed, tmp_path / "none")


def test_a_run_of_no_steps_is_the_encoder_as_it_is(tmp_path):
    config = tiny("supervised", model=MODEL, steps=0, evals={"linear_probe": {}})
    found = labelfx.train(config, tmp_path / "run")
    assert found["training"]["steps"] == 0 and found["metrics"]["linear_probe"]["accuracy"] > 0.2
    assert equal(backbone(load_variables(tmp_path / "run")), read(ENCODER).weights())
    assert labelfx.train(config, tmp_path / "run")["metrics"] == found["metrics"]


def test_lora_starts_as_the_model_is_and_moves_nothing_else(tmp_path):
    model = pretrained(read(ENCODER).weights(), **{k: v for k, v in MODEL.items() if k != "name"})
    with_updates = lora(model, rank=2, alpha=4.0, paths=("attn",))
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1))
    variables = with_updates.init(jax.random.key(1), x)
    assert {path.rpartition(".")[2] for path in variables["params"]} == {"qkv", "proj"}
    np.testing.assert_array_equal(
        with_updates.apply(variables, x, train=True)[0], model.apply(model.init(jax.random.key(1), x), x, train=True)[0]
    )
    changed = jax.tree.map(lambda leaf: leaf + 0.1, variables["params"])
    by_hand = jax.tree.map(lambda leaf: leaf, {"params": variables["base"]})
    for path, own in changed.items():
        block, last = path.split(".attn.")
        node = by_hand["params"][block]
        last = f"attn.{last}"
        node[last]["kernel"] = node[last]["kernel"] + 2 * own["down"] @ own["up"]
    np.testing.assert_allclose(
        with_updates.apply(variables | {"params": changed}, x, train=False)[0],
        model.apply(by_hand, x, train=False)[0],
        rtol=1e-5,
        atol=1e-5,
    )
    with pytest.raises(ValueError, match=r"lora.paths = \('nowhere',\): in no path of a dense kernel, as in "):
        lora(model, rank=2, alpha=4.0, paths=("nowhere",)).init(jax.random.key(1), x)

    labelfx.train(tiny("lora", evals={"head": {}}), tmp_path / "run")
    after = load_variables(tmp_path / "run")
    assert equal(after["base"]["backbone"], read(ENCODER).weights()["params"])
    rows = digits().train.inputs
    before = features(model, read(ENCODER).weights(), rows, sample(len(rows)))
    np.testing.assert_allclose(after["scale"]["head"]["mean"], before.mean(0), rtol=1e-4, atol=1e-5)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(after["params"]["backbone"]))


@pytest.mark.parametrize("name", ["frozen", "lora"])
def test_a_run_on_the_encoder_teaches_a_small_network(tmp_path, name):
    labelfx.train(tiny(name), tmp_path / "teacher")
    teacher, test = load_teacher(tmp_path / "teacher", [*map(str, range(10))]), digits().test
    logits = teacher.model.apply(teacher.variables, to_float(test.inputs[:64]), train=False)[0]["head"]
    expected = labelfx.load(tmp_path / "teacher").predict(test.inputs[:64])
    np.testing.assert_allclose(jax.nn.softmax(logits), expected, rtol=1e-4, atol=1e-5)
    config = tiny("distillation", teacher=str(tmp_path / "teacher"), evals={"head": {}})
    student = labelfx.train(config, tmp_path / "student")
    assert student["training"]["parameters"] < 3_000 and "accuracy" in student["metrics"]["head"]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": FROZEN | {"file": ""}}, "config.model.file: must say which file or folder of weights"),
        ({"model": FROZEN | {"file": "/nowhere"}}, "config.model.file: /nowhere: no such file"),
        ({"model": FROZEN | {"outputs": "map"}}, "config.model: outputs = 'map': must be 'features'"),
        ({"model": FROZEN | {"lora": {"rank": 1, "alpha": 1.0, "paths": ("",)}}}, "config.model: lora: must be None"),
        ({"data": {"name": "breast_cancer"}}, "an encoder of images, but rows are float32 [N, 30]"),
    ],
)
def test_what_does_not_fit_is_said_in_a_line(tmp_path, changes, line):
    with pytest.raises(ConfigError) as error:
        labelfx.train(tiny("frozen") | changes, tmp_path / "run")
    assert line in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("place", [ENCODER, ENCODER / "model.safetensors"])
def test_weights_of_others_are_no_run_to_start_from(place, tmp_path):
    with pytest.raises(ConfigError, match=r"weights of others, no run; take model=dict.name='pretrained', file="):
        labelfx.train(tiny("finetune", backbone=str(place)), tmp_path / "run")


def test_a_frozen_encoder_sees_no_augmented_row(tmp_path):
    method = tiny("supervised")["method"]
    with pytest.raises(ConfigError, match=r"config.method.augment.name = 'crop_flip' must be 'identity'"):
        labelfx.train(tiny("frozen", method=method), tmp_path / "run")


def test_a_file_of_weights_is_an_encoder(tmp_path, capsys):
    encoder = labelfx.load(ENCODER)
    assert "tensors read" in capsys.readouterr().err
    assert encoder.shape[0] == encoder.shape[1] and encoder.head is None
    with pytest.raises(ConfigError, match=r"pickled files run code .*torch.load\('w.pth', weights_only=True\)"):
        (tmp_path / "w.pth").write_bytes(b"no pickle is read")
        labelfx.load(tmp_path / "w.pth")
