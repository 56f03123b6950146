"""Rows and labels of every kind lie where they lie and go to the devices as many steps at a time as they go: no number
changes."""

import jax
import numpy as np
import pytest
from recipes import KINDS, tiny

import labelfx
from labelfx import config as configs
from labelfx.finished import weights
from labelfx.loop import dispatch


@pytest.mark.parametrize("kind", KINDS)
def test_placement_and_steps_a_dispatch_change_nothing(kind, tmp_path, monkeypatch):
    seen, place = [], dispatch.place_batches

    def record(mesh, batches):
        seen.append(set(next(batches[name] for name in ("labelled", "unlabelled") if name in batches)))
        return place(mesh, batches)

    monkeypatch.setattr(dispatch, "place_batches", record)
    found, starts = {}, {field: str(tmp_path / "before") for field in configs.TRAINED if tiny(kind).get(field)}
    if starts:
        labelfx.train(tiny("supervised"), tmp_path / "before")
    for placement, steps in (("host", 1), ("device", 2)):
        config = tiny(kind, steps_per_dispatch=steps, **starts)
        config["data"] = config["data"] | {"placement": placement}
        folder = tmp_path / f"{placement} {steps}"
        labelfx.train(config, folder)
        found[placement, steps] = weights.load(folder / "weights" / "0.safetensors")
    close = dict(rtol=1e-4, atol=1e-5)  # each is compiled otherwise; in float64 test_dispatch.py compares them
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **close), found["host", 1], found["device", 2])
    read = {
        "multiple_instance": {"bag", "bag_target", "valid"},
        "partial_labels": {"candidates"},
        "positive_unlabelled": {"observed", "propensity"},
        "reinforced": {"view", "soft_index", "soft_value"},
    }
    assert seen[0] - {"index", "input", "label"} == read.get(kind, set())  # no other column travels
    assert "input" in seen[0] and "input" not in seen[-1]
