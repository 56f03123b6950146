"""Reliability balancing: the classifier and its loss as loops in float64, edges, what anchors are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import softmax, worst_error
from toys import adam, assert_beats

from labelfx.models.classifiers import anchored
from labelfx.objectives.reliability import reliability_balancing

LABEL = np.array([1, -1, 0, 2, 2], np.int32)
HEAD = anchored(3, anchors=2, delta=0.7)
TERMS = {"centre": 0.3, "spread": 0.2}


def unit(v):
    return v / np.sqrt(np.sum(v * v))


def sureness(p):
    return 1 + sum(each * np.log(each) for each in p) / np.log(len(p))


def loop_log_p(h, params):
    p = softmax(h @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"])
    anchors, near, attended = params["anchors"], {}, {}
    for c, k in np.ndindex(anchors.shape[:2]):
        a = unit(anchors[c, k])
        near[c, k] = np.exp(-np.sqrt(np.sum((unit(h) - a) ** 2)) / 0.7)
        attended[c, k] = np.exp((unit(h) @ params["query"]["kernel"]) @ (a @ params["key"]["kernel"]) / np.sqrt(len(h)))
    g, q = (np.array([sum(x[c, k] for k in range(2)) for c in range(3)]) / sum(x.values()) for x in (near, attended))
    correction = (sureness(g) * g + sureness(q) * q) / (sureness(g) + sureness(q))
    return np.log(sureness(p) * p + (1 - sureness(p)) * correction)


def loop(features, anchors, params):
    params = {**params, "anchors": anchors}
    rows = [i for i, y in enumerate(LABEL) if y >= 0]
    surprise = sum(-loop_log_p(features[i], params)[LABEL[i]] for i in rows) / len(rows)
    nearest = []
    for i in rows:
        to = [np.sqrt(np.sum((unit(features[i]) - unit(a)) ** 2)) for a in anchors[LABEL[i]]]
        nearest.append(min(to, key=np.real))
    apart = [
        np.sum((unit(anchors[c, k]) - unit(anchors[d, m])) ** 2)
        for c, d in np.ndindex(3, 3)
        for k, m in np.ndindex(2, 2)
        if c != d
    ]
    return surprise + 0.3 * sum(nearest) / len(rows) - 0.2 * sum(apart) / len(apart)


def loss(features, anchors, params):
    params = {**params, "anchors": anchors}
    logits, _ = HEAD.apply({"params": params}, features, train=True)
    return reliability_balancing(logits, jnp.asarray(LABEL), features, params, **TERMS)


def test_the_classifier_and_its_loss_are_the_loop_form():
    rng = np.random.default_rng(0)
    features, anchors = 2 * rng.normal(size=(5, 4)), rng.normal(size=(3, 2, 4))
    shapes = {"query": {"kernel": (4, 4)}, "key": {"kernel": (4, 4)}, "Dense_0": {"kernel": (4, 3), "bias": (3,)}}
    params = jax.tree.map(lambda s: rng.normal(size=s), shapes, is_leaf=lambda s: isinstance(s, tuple))
    of_rows = worst_error(
        lambda x: loss(x, jnp.asarray(anchors), params),
        functools.partial(loop, anchors=anchors, params=params),
        features,
    )
    of_anchors = worst_error(
        lambda a: loss(jnp.asarray(features), a, params), lambda a: loop(features.astype(complex), a, params), anchors
    )
    print(of_rows, of_anchors)
    assert max(of_rows, of_anchors) < 1e-11


def test_sure_rows_and_rows_on_an_anchor_have_finite_gradients():
    x = np.eye(4, dtype=np.float32)[[0, 1, 2, 3, 0]]
    params = {name: {"kernel": np.eye(4, dtype=np.float32)} for name in ("query", "key")}
    anchors = np.stack([x[:2], x[1:3], x[:2]])
    call = jax.jit(jax.value_and_grad(loss, (0, 1, 2)))
    for scale in (0.0, 1e4):
        kernel = scale * np.array([[1, -1, 0]], np.float32).repeat(4, 0)
        value, gradient = call(x, anchors, params | {"Dense_0": {"kernel": kernel, "bias": np.zeros(3, np.float32)}})
        assert np.isfinite(value) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradient))


def test_rows_without_a_label_say_nothing():
    x, params = jnp.zeros((2, 4)), {"anchors": jnp.ones((3, 2, 4))}
    assert reliability_balancing(jnp.zeros((2, 3)), -jnp.ones(2, jnp.int32), x, params, centre=1.0, spread=0.0) == 0


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match="two classes or more; the data have 1"):
        anchored(1, anchors=2, delta=1.0)
    with pytest.raises(ValueError, match="the head has no anchors; take config.head = anchored"):
        reliability_balancing(jnp.zeros((5, 3)), LABEL, jnp.zeros((5, 4)), {"kernel": jnp.zeros(())}, **TERMS)


def test_what_anchors_are_for():
    """Two modes a class, across from each other: no affine classifier tells them; anchors, two a class, do. Where those
    of a class start alike, as in the authors' code, they stay so, and are one."""
    head, tx = anchored(2, anchors=2, delta=0.2), adam(0.05)

    def fit(key, alike):
        keys = jax.random.split(key, 3)
        quadrant = jnp.arange(80) % 4
        angle = jnp.pi / 2 * quadrant.astype(jnp.float32) + 0.2 * jax.random.normal(keys[0], (80,))
        x, label = jnp.stack([jnp.cos(angle), jnp.sin(angle)], 1), quadrant % 2
        params = head.init(keys[1], x)["params"]
        anchors = params["anchors"]
        params |= {"anchors": jnp.where(alike, jnp.broadcast_to(anchors[:, :1], anchors.shape), anchors)}

        def loss(params):
            logits = head.apply({"params": params}, x, train=True)[0]
            return reliability_balancing(logits, label, x, params, centre=0.1, spread=0.1)

        def step(carry, _):
            params, moments = carry
            updates, moments = tx.update(jax.grad(loss)(params), moments)
            return (optax.apply_updates(params, updates), moments), None

        params = jax.lax.scan(step, (params, tx.init(params)), None, 200)[0][0]
        right = jnp.argmax(head.apply({"params": params}, x, train=False)[0], 1) == label
        within = params["anchors"][:, 0] - params["anchors"][:, 1]
        return jnp.mean(right), jnp.max(jnp.abs(within))

    fits = jax.jit(jax.vmap(fit, (0, None)))
    (ours, _), (ablation, within) = (fits(jax.random.split(jax.random.key(0), 8), alike) for alike in (False, True))
    print(ours, ablation)
    assert np.max(within) < 1e-4
    assert_beats(ours, ablation)
