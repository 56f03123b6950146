"""The contract battery: what every method must do, found and run without being listed anywhere."""

import json

import chex
import jax
import numpy as np
import pytest
from recipes import BATTERY, KINDS, METHODS, recipe_of, tiny

import labelfx
from labelfx.config import TRAINED
from labelfx.data.batches import batch_at
from labelfx.data.batches import label_view as real_label_view
from labelfx.finished import weights
from labelfx.loop import dispatch
from labelfx.loop import said as told
from labelfx.loop.dispatch import complete
from labelfx.loop.training import Loop

# The metrics that are about the truth; every other one must not know it.
AUDIT_METRICS = {"false_negatives", "pseudo_label_accuracy"}
BATTERY_OF_KINDS = [pytest.param(name, marks=() if name in KINDS else pytest.mark.slow) for name in BATTERY]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A finished run, for methods that start from a backbone."""
    folder = tmp_path_factory.mktemp("pretrained")
    labelfx.train(tiny("supervised"), folder)
    return str(folder)


def first_step(loop):
    """(step, state, batch, key) of the step that a loop is at."""
    batch = complete(batch_at(loop.phase.start, **loop.how(loop.phase, loop.table)), loop.fixed)
    return loop.phase.method.step, loop.state, batch, jax.random.key(0)


@pytest.fixture(scope="module", params=BATTERY)
def run(request, pretrained, tmp_path_factory):
    """(configuration, workdir, results, first step with the shapes of its arguments) of an uninterrupted run of each
    method."""
    config = tiny(recipe_of(request.param))
    config |= {field: pretrained for field in TRAINED if config.get(field)}
    folder = tmp_path_factory.mktemp(request.param)
    real, steps = Loop.run, []

    def watched(self):
        step, *arguments = first_step(self)
        steps.append((step, *jax.eval_shape(lambda *each: each, *arguments)))
        real(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Loop, "run", watched)
        results = labelfx.train({**config, "eval_every": 4, "evals": {"rankme": {}}}, folder)
    return config, folder, results, steps[0]


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
    _, folder, results, _ = run
    assert results["training"]["compilations"] == 1
    last = max((folder / "weights").glob("[0-9]*"))
    assert results["training"]["parameters"] == sum(x.size for x in jax.tree.leaves(weights.load(last)["params"]))
    assert any("rankme/value" in line for line in metrics(folder))


def test_stopped_and_resumed_with_permuted_audit_is_bitwise_the_same(run, tmp_path, monkeypatch):
    """Every random choice follows from the seeds; hidden truth may be looked at but never learnt from; a run stopped in
    the middle of each phase in turn, between two saves, goes on as if it had not been."""
    config, folder, *_ = run

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


# What each kind of rows and labels sends to the devices beside the rows, their places and classes.
READ = {
    "multiple_instance": {"bag", "bag_target", "valid"},
    "partial_labels": {"candidates"},
    "positive_unlabelled": {"observed", "propensity"},
    "reinforced": {"view", "soft_index", "soft_value"},
}


@pytest.mark.parametrize("run", BATTERY_OF_KINDS, indirect=True)
def test_placement_and_steps_a_dispatch_change_nothing(run, request, tmp_path, monkeypatch):
    """Rows of every kind lie where they lie and go to the devices as many steps at a time as they go."""
    config, folder, *_ = run
    seen, place = [], dispatch.place_batches

    def record(mesh, batches):
        seen.append(set(next(batches[name] for name in ("labelled", "unlabelled") if name in batches)))
        return place(mesh, batches)

    monkeypatch.setattr(dispatch, "place_batches", record)
    labelfx.train({**config, "data": config["data"] | {"placement": "device"}, "steps_per_dispatch": 2}, tmp_path)
    close = dict(rtol=1e-4, atol=1e-5)  # each is compiled otherwise; in float64 test_dispatch.py compares them
    before, after = arrays(folder), arrays(tmp_path)
    assert before.keys() == after.keys()
    for name, array in before.items():
        np.testing.assert_allclose(after[name], array, **close, err_msg=name)
    if (kind := request.node.callspec.params["run"]) in KINDS:
        assert seen[0] - {"index", "label"} == READ.get(kind, set())  # no other column travels


def test_state_keeps_its_types(run):
    step, *arguments = run[-1]
    after, values = jax.eval_shape(step, *arguments)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, arguments[0])
    weak = lambda tree: jax.tree.map(lambda x: x.weak_type, tree)  # noqa: E731
    assert weak(after) == weak(arguments[0])
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
    steps = []

    def stopped(self):
        steps.append(first_step(self))
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", stopped)
    with pytest.raises(KeyboardInterrupt):
        labelfx.train(config, tmp_path / "run")
    step, *arguments = steps[0]
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
