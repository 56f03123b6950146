"""The contract battery: what every method must do, found and run without being listed anywhere."""

import json

import chex
import jax
import numpy as np
import pytest
from recipes import BATTERY, METHODS, recipe_of, tiny

import labelfx
from labelfx.config import TRAINED
from labelfx.data.batches import batch_at
from labelfx.data.batches import label_view as real_label_view
from labelfx.finished import weights
from labelfx.loop import said as told
from labelfx.loop.dispatch import complete
from labelfx.loop.training import Loop

# The metrics that are about the truth; every other one must not know it.
AUDIT_METRICS = {"false_negatives", "pseudo_label_accuracy"}


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A finished run, for methods that start from a backbone."""
    folder = tmp_path_factory.mktemp("pretrained")
    labelfx.train(tiny("supervised"), folder)
    return str(folder)


@pytest.fixture(scope="module", params=BATTERY)
def run(request, pretrained, tmp_path_factory):
    """(configuration, workdir, results) of an uninterrupted run of each method."""
    config = tiny(recipe_of(request.param))
    config |= {field: pretrained for field in TRAINED if config.get(field)}
    folder = tmp_path_factory.mktemp(request.param)
    results = labelfx.train({**config, "eval_every": 4, "evals": {"rankme": {}}}, folder)
    return config, folder, results


def arrays(folder):
    """Every array that a run ends with, by phase and name."""
    paths = sorted((folder / "weights").iterdir())
    return {
        f"{path.stem}/{jax.tree_util.keystr(keys)}": leaf
        for path in paths
        for keys, leaf in jax.tree_util.tree_leaves_with_path(weights.load(path))
    }


def assert_same(left, right):
    chex.assert_trees_all_equal(arrays(left), arrays(right))


def metrics(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_compiles_once_over_evals_and_epochs(run):
    _, folder, results = run
    assert results["training"]["compilations"] == 1
    last = max((folder / "weights").glob("[0-9]*"))
    assert results["training"]["parameters"] == sum(x.size for x in jax.tree.leaves(weights.load(last)["params"]))
    assert any("rankme/value" in line for line in metrics(folder))


def test_stopped_and_resumed_with_permuted_audit_is_bitwise_the_same(run, tmp_path, monkeypatch):
    """Every random choice follows from the seeds; hidden truth may be looked at but never learnt from; a run stopped in
    the middle of each phase in turn, between two saves, goes on as if it had not been."""
    config, folder, _ = run

    def permuted(split, rows, *said, **how):
        view = real_label_view(split, rows, *said, **how)
        hidden = np.setdiff1d(np.arange(len(view.truth)), rows if config["labels"].get("weak") is None else [])

        def one(array):
            array = array.copy()
            array[hidden] = np.random.default_rng(0).permutation(array[hidden])
            return array

        return view._replace(truth=one(view.truth), audit={name: one(array) for name, array in view.audit.items()})

    total = metrics(folder)[-1]["step"]
    real, stops = Loop.log, list(range(5, total, 6))

    def killed(self, values):
        real(self, values)
        if stops and self.done >= stops[0]:
            stops.pop(0)
            raise KeyboardInterrupt

    monkeypatch.setattr(told, "label_view", permuted)
    monkeypatch.setattr(Loop, "log", killed)
    for _ in range(len(stops)):
        with pytest.raises(KeyboardInterrupt):
            labelfx.train(config, tmp_path)
    labelfx.train(config, tmp_path)
    assert not stops
    assert_same(folder, tmp_path)
    lines = [[line for line in metrics(path) if "loss" in line] for path in (folder, tmp_path)]
    pairs = list(zip(*lines, strict=True))
    differing = {name for before, after in pairs for name in before if before[name] != after.get(name)}
    assert differing - {"images_per_second"} == AUDIT_METRICS & lines[0][0].keys()


def first_step(config, folder, monkeypatch):
    """(step, state, batch, key) of a run's first step."""
    seen = {}

    def stop(self):
        batch = complete(batch_at(self.phase.start, **self.how(self.phase, self.table)), self.fixed)
        seen["step"] = self.phase.method.step, self.state, batch, jax.random.key(0)
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", stop)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config, folder)
    return seen["step"]


def test_state_keeps_its_types(run, tmp_path, monkeypatch):
    step, state, batch, key = first_step(run[0], tmp_path, monkeypatch)
    after, values = jax.eval_shape(step, state, batch, key)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)
    weak = lambda tree: jax.tree.map(lambda x: x.weak_type, tree)  # noqa: E731
    assert weak(after) == weak(state)
    assert all(value.shape == () and value.dtype == np.float32 for value in values.values())


@pytest.mark.slow
def test_jit_changes_nothing(run, tmp_path, monkeypatch):
    # Without jit every operation is compiled by itself: the smallest network there is.
    smallest = {"name": "conv3", "width": 2, "outputs": "map"} if "head" in run[0] else {"name": "mlp", "hidden": (4,)}
    config = run[0] | {"model": {**smallest, "dtype": "float32"}}
    if "projector" in config["method"]:
        smallest = {"hidden": (), "batch_norm": False, "output_norm": False}
        config["method"]["projector"] |= {k: v for k, v in smallest.items() if k in config["method"]["projector"]}
    schedule = {"name": "constant", "warmup_steps": 0}
    plain = {"momentum": 0.0, "weight_decay": 0.0, "schedule": schedule, "clip_norm": None, "accumulate": 1}
    config |= {"phases": (), "optimizer": {"name": "sgd", "learning_rate": 0.1, **plain}}
    if any(config.get(field) for field in TRAINED):
        config |= {field: str(tmp_path / "pretrained") for field in TRAINED if config.get(field)}
        labelfx.train(tiny("supervised", model=config["model"]), tmp_path / "pretrained")
    step, *arguments = first_step(config, tmp_path / "run", monkeypatch)
    after, values = jax.jit(step)(*arguments)
    with jax.disable_jit():
        plain, plain_values = step(*arguments)
    for name, value in values.items():
        np.testing.assert_allclose(plain_values[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
    trees = (jax.tree.leaves(tree) for tree in (arguments[0], after, plain))
    for before, one, other in zip(*trees, strict=True):
        scale = max(float(np.abs(np.asarray(one, np.float64) - np.asarray(before, np.float64)).max(initial=0)), 1e-6)
        np.testing.assert_allclose(other, one, atol=1e-2 * scale, rtol=1e-4)


def test_every_method_has_a_recipe():
    assert [recipe_of(method) for method in METHODS]
