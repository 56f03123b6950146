"""The best step's weights are kept beside the last one's, by an eval on validation rows."""

import json
import shutil

import jax
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx.config import ConfigError, check
from labelfx.finished import weights
from labelfx.loop import choice
from labelfx.loop.run import load_data, load_variables
from labelfx.loop.training import Loop

MLP = {"name": "mlp", "hidden": (8,), "dtype": "float32"}


def config(**changes):
    found = tiny("supervised", model=MLP, evals={"head": {}}, steps=12, eval_every=3, save_every=5, log_every=3)
    found["labels"] = {"name": "per_class", "k": 5, "validation": 15}
    found["optimizer"] = found["optimizer"] | {"learning_rate": 0.3}  # the last step is not the best
    return found | {"keep_best": "head"} | changes


def test_the_best_step_is_kept_and_a_killed_run_keeps_the_same(tmp_path, monkeypatch):
    values, validate = [], choice.validate

    def record(*arguments):
        values.append(validate(*arguments))
        return values[-1]

    monkeypatch.setattr(choice, "validate", record)
    found = labelfx.train(config(), tmp_path / "whole")
    assert len(values) == 4
    kept = json.loads((tmp_path / "whole/weights/best.json").read_text())
    step = 3 * (1 + int(np.argmax(values)))
    assert kept == {"step": step, "value": max(values), "file": f"best-{step}.safetensors"}
    assert found["metrics"]["head"]["weights"] == f"step {step}, the best by head on validation rows"
    assert found["labels"]["validation"] == 15 and found["labels"]["n"] == 35
    assert sorted(each.name for each in (tmp_path / "whole/weights").glob("*.safetensors")) == sorted(
        ["0.safetensors", kept["file"]]
    )
    of_best, of_last = load_variables(tmp_path / "whole"), load_variables(tmp_path / "whole", 0)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: not np.array_equal(a, b), of_best, of_last)))

    after, count = Loop.after, 0

    def die(self, values):
        nonlocal count
        after(self, values)
        count += 1
        if count == 7:  # two steps after a save, one after an eval
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "after", die)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config(), tmp_path / "killed")
    monkeypatch.setattr(Loop, "after", after)
    labelfx.train(config(), tmp_path / "killed")
    for name in ("0.safetensors", kept["file"], "best.json"):
        first, second = ((tmp_path / run / "weights" / name).read_bytes() for run in ("whole", "killed"))
        assert first == second, name
    shutil.rmtree(tmp_path / "killed/weights")
    weights.save(tmp_path / "killed/weights/0.safetensors", of_last)  # of before there was a choice
    jax.tree.map(np.testing.assert_array_equal, load_variables(tmp_path / "killed"), of_last)


def test_validation_rows_are_apart_and_told_only_to_whoever_chooses(tmp_path):
    dataset, view = load_data(check(config()), tmp_path)
    assert len(view.rows) == 35 and len(view.validation) == 15 and not {*view.rows} & {*view.validation}
    assert (view.split.labels[view.validation] == -1).all()
    np.testing.assert_array_equal(view.held_out.labels, dataset.train.labels[view.validation])
    np.testing.assert_array_equal(view.held_out.inputs[np.arange(15)], dataset.train.inputs[view.validation])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"keep_best": "hed"}, "config.keep_best = 'hed': did you mean 'head'"),
        ({"eval_every": 0}, "config.eval_every = 0: config.keep_best = 'head' needs it above 0"),
        ({"labels": {"name": "per_class", "k": 5}}, "config.labels.validation = 0: config.keep_best"),
        (
            {"labels": {"name": "per_class", "k": 1, "validation": 10}},
            "config.labels.validation = 10: must be less than",
        ),
    ],
)
def test_what_cannot_be_chosen_by_is_named(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        labelfx.train(config(**changes), tmp_path)


def test_a_workdir_of_before_is_refused_in_one_line(tmp_path):
    labelfx.train(config(keep_best="", steps=2, save_every=2, log_every=2), tmp_path)
    path = tmp_path / "labels.json"
    kept = json.loads(path.read_text())
    path.write_text(json.dumps({"hash": kept["said_hash"], "rows": kept["rows"]}))
    with pytest.raises(
        ConfigError, match="labels.json: of an older labelfx, whose runs do not go on in this one; use an"
    ):
        labelfx.evaluate(tmp_path)
