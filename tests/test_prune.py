"""`labelfx.derived.prune` and the optimiser `keep_zeros`: arithmetic by loops, and a rare class that is forgotten."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import adam, with_head

from labelfx.derived import logits
from labelfx.derived.prune import recall, thresholds, without_smallest
from labelfx.loop.optim import constant, keep_zeros, sgd
from labelfx.models import backbones
from labelfx.objectives.classification import cross_entropy


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_the_smallest_weights_by_loops(share):
    rng = np.random.default_rng(0)
    params = {"a": {"kernel": rng.normal(size=(4, 5)), "bias": rng.normal(size=5)}, "b": {"kernel": rng.normal(size=7)}}
    params["a"]["kernel"][0, :3] = 0  # of a round before
    found, left = without_smallest(params, share)
    ranked = sorted(abs(x) for tree in params.values() for x in np.ravel(tree["kernel"]) if x)
    gone = ranked[: int(share * 24)]
    for name in "ab":
        for x, y in zip(np.ravel(params[name]["kernel"]), np.ravel(found[name]["kernel"]), strict=True):
            assert y == (0 if abs(x) in gone else x)
    assert left == (24 - len(gone)) / 27 and (found["a"]["bias"] == params["a"]["bias"]).all()


def test_thresholds_are_the_least_that_give_the_recall():
    """None less by a thousandth does; classes that need none, and those that nobody named, keep theirs."""
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 4, 200)
    scores = rng.normal(size=(200, 4)) + np.eye(4)[labels]
    before = recall(scores, labels)
    found = thresholds(scores, labels, {2: before[2] + 0.3, 0: before[0] - 0.1})
    assert found[1] == found[3] == 0 < found[2] and found[0] >= 0
    assert (
        recall(scores + found, labels)[2] >= before[2] + 0.3 > recall(scores + found - 2e-3 * np.eye(4)[2], labels)[2]
    )
    assert recall(scores + found, labels)[0] >= before[0] - 0.1
    for c in range(4):
        rows = [np.argmax(each) == c for each in scores[labels == c]]
        assert before[c] == sum(rows) / len(rows)
    assert np.isnan(recall(scores, np.zeros(200, int))[1])
    tied = thresholds(np.zeros((4, 2)), np.array([0, 1, 1, 0]), {1: 1.0})  # the first of equal scores counts
    assert recall(np.zeros((4, 2)) + tied, np.array([0, 1, 1, 0]))[1] == 1


def test_zeros_stay_and_all_else_is_trained():
    plain = sgd(
        5, learning_rate=0.1, momentum=0.9, weight_decay=0.0, schedule=constant_rate, clip_norm=None, accumulate=1
    )
    tx = keep_zeros(5, optimizer=lambda steps: plain)
    params = {"kernel": jnp.array([0.0, 1.0, -2.0]), "bias": jnp.zeros(3)}
    own, free = (tx.init(params), params), (plain.init(params), params)
    for _ in range(5):
        gradient = jax.tree.map(lambda x: x + 1, own[1])
        updates, state = tx.update(gradient, own[0], own[1])
        own = state, optax.apply_updates(own[1], updates)
        updates, state = plain.update(jax.tree.map(lambda x: x + 1, free[1]), free[0], free[1])
        free = state, optax.apply_updates(free[1], updates)
    assert own[1]["kernel"][0] == 0 and free[1]["kernel"][0] != 0
    np.testing.assert_array_equal(own[1]["kernel"][1:], free[1]["kernel"][1:])
    np.testing.assert_array_equal(own[1]["bias"], free[1]["bias"])


def constant_rate(peak, steps):
    return constant(peak, steps, warmup_steps=0)


def test_a_rare_class_keeps_its_recall():
    """One row in twenty is of the second class. Of a network without nine tenths of its weights that class loses a
    fifth of its recall or more, and with a threshold it loses at most .05 on new rows, at the price of false alarms."""
    network = with_head(backbones.mlp(hidden=(32,), dtype="float32"), 2)
    found = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        means = np.stack([np.zeros(20), rng.normal(size=20) * 1.1])

        def draw(count, rng=rng, means=means):
            y = (rng.random(count) < 0.05).astype(np.int32)
            return (means[y] + rng.normal(size=(count, 20))).astype(np.float32).reshape(count, 4, 5, 1), y

        x, y = draw(2000)
        variables = fit(network, network.init(jax.random.key(seed), x[:1]), x, y)
        params, left = without_smallest(variables["params"], SHARE)
        pruned = {**variables, "params": params}
        had, has = (logits(network, v, x) for v in (variables, pruned))
        moves = thresholds(has, y, {1: recall(had, y)[1]})
        new, truth = draw(8000)
        had, has = (logits(network, v, new) for v in (variables, pruned))
        recalls = [recall(each, truth) for each in (had, has, has + moves)]
        print(left, *recalls)
        found.append(recalls)
    before, plain, kept = np.moveaxis(np.array(found), 1, 0)
    assert (before[:, 1] - plain[:, 1] > 0.2).all() and (before[:, 1] - kept[:, 1]).max() < 0.05
    assert (kept[:, 0] < plain[:, 0]).all()


SHARE = 0.9


def fit(network, start, x, y):
    tx = adam(1e-2)

    def step(carry, _):
        params, opt = carry

        def loss(params):
            outputs = network.apply({**start, "params": params}, x, train=True)[0]["head"]
            return cross_entropy(outputs, y, label_smoothing=0.0)

        updates, opt = tx.update(jax.grad(loss)(params), opt)
        return (optax.apply_updates(params, updates), opt), None

    trained = jax.jit(lambda p: jax.lax.scan(step, (p, tx.init(p)), None, 200)[0][0])(start["params"])
    return jax.device_get({**start, "params": trained})
