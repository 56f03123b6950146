"""Labels that are asked for between phases: by the network alone, written before they are shown, and once."""

import json
import shutil

import jax
import numpy as np
import pytest
from recipes import tiny

import labelfx
from labelfx.config import ConfigError
from labelfx.data.batches import label_view as real_label_view
from labelfx.finished import weights
from labelfx.loop import said
from labelfx.loop.training import Loop

MLP = {"name": "mlp", "hidden": (8,), "dtype": "float32"}


def config(**changes):
    found = tiny("supervised", model=MLP, evals={"head": {}, "knn": {"k": 3, "temperature": 0.1}}, steps=6)
    ask = {"name": "margin", "count": 7}
    return found | {"phases": ({}, {"ask": ask}, {"ask": ask | {"name": "uniform", "count": 5}})} | changes


def test_phases_ask_in_order_and_a_killed_run_asks_for_the_same(tmp_path, monkeypatch):
    seen, enter = [], Loop.enter

    def record(self, index):
        enter(self, index)
        seen.append(self.view.rows)

    monkeypatch.setattr(Loop, "enter", record)
    found = labelfx.train(config(), tmp_path / "whole")
    asked = np.load(tmp_path / "whole/asked.npy")
    assert [len(rows) for rows in seen] == [20, 27, 32] and len({*asked}) == 12 and not {*asked} & {*seen[0]}
    np.testing.assert_array_equal(seen[1], np.union1d(seen[0], asked[:7]))
    np.testing.assert_array_equal(seen[2], np.union1d(seen[0], asked))
    assert found["labels"]["n"] == 32 and found["labels"]["oracle"] == 12
    assert found["metrics"]["knn"]["n_labels"] == 32
    kept = json.loads((tmp_path / "whole/labels.json").read_text())
    assert kept["rows"] == seen[0].tolist() and kept["said_hash"] != found["labels"]["said_hash"]

    after, stops = Loop.after, [8, 14]  # in the second phase, then in the third

    def die(self, values):
        after(self, values)
        if stops and self.done >= stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "after", die)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            labelfx.train(config(), tmp_path / "killed")
    again = labelfx.train(config(), tmp_path / "killed")
    assert not stops and again["metrics"] == found["metrics"] and again["labels"] == found["labels"]
    np.testing.assert_array_equal(np.load(tmp_path / "killed/asked.npy"), asked)
    for phase in range(3):
        pair = (weights.load(tmp_path / run / f"weights/{phase}.safetensors") for run in ("whole", "killed"))
        jax.tree.map(np.testing.assert_array_equal, *pair)


def test_a_run_that_goes_on_from_before_it_asked_does_not_see_what_it_will_ask_for(tmp_path):
    labelfx.train(config(keep=9, evals={}), tmp_path)
    kept = [weights.load(tmp_path / f"weights/{phase}.safetensors") for phase in range(3)]
    for checkpoint in (tmp_path / "checkpoints").iterdir():
        if checkpoint.name.isdecimal() and int(checkpoint.name) > 8:  # the second phase, of which 7 labels are
            shutil.rmtree(checkpoint)
    for phase in (1, 2):
        (tmp_path / f"weights/{phase}.safetensors").unlink()
    labelfx.train(config(keep=9, evals={}), tmp_path)
    for phase in range(3):
        found = weights.load(tmp_path / f"weights/{phase}.safetensors")
        jax.tree.map(np.testing.assert_array_equal, found, kept[phase])


def test_what_is_asked_for_hangs_on_no_hidden_truth(tmp_path, monkeypatch):
    def permuted(split, rows, *more, **how):
        labels, hidden = split.labels.copy(), np.setdiff1d(np.arange(len(split.labels)), rows)
        labels[hidden] = np.random.default_rng(0).permutation(labels[hidden])
        return real_label_view(split._replace(labels=labels), rows, *more, **how)

    one = config(evals={}, phases=config()["phases"][:2])
    labelfx.train(one, tmp_path / "as it is")
    monkeypatch.setattr(said, "label_view", permuted)
    labelfx.train(one, tmp_path / "permuted")
    before, after = (np.load(tmp_path / run / "asked.npy") for run in ("as it is", "permuted"))
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize(
    "phases, message",
    [
        (({"ask": {"name": "margin", "count": 7}},), r"config.phases\[0\].ask: goes by the classifier of the phase"),
        (
            ({}, {"ask": {"name": "margn", "count": 7}}),
            r"config.phases\[1\].ask.name = 'margn': .*mean 'margin'",
        ),
        (({}, {"ask": {"name": "margin"}}), r"config.phases\[1\].ask.count: missing; must be an integer from 1"),
        (({}, {"ask": {"name": "margin", "count": 1400}}), r"ask.count = 1400: 1395 rows are left to ask for"),
    ],
)
def test_what_cannot_be_asked_is_named(phases, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        labelfx.train(config(phases=phases), tmp_path)


def test_a_damaged_list_is_named(tmp_path):
    labelfx.train(config(evals={}, phases=config()["phases"][:2]), tmp_path)
    (tmp_path / "asked.npy").write_bytes((tmp_path / "asked.npy").read_bytes()[:-3])
    with pytest.raises(ConfigError, match="asked.npy: not as it was written"):
        labelfx.evaluate(tmp_path)


def test_a_query_by_features_and_one_by_the_classifier_itself(tmp_path):
    """Dropout of features goes through the head of the run."""
    drop = {"name": "dropquery", "count": 4, "dropout": 0.5, "passes": 3}
    typical = {"name": "typiclust", "count": 3, "neighbours": 20, "max_clusters": 500}
    labelfx.train(config(evals={}, phases=({}, {"ask": drop}, {"ask": typical})), tmp_path)
    assert len({*np.load(tmp_path / "asked.npy").tolist()}) == 7
