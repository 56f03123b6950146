"""Siamese networks, SwAV and DINO: what a step does and in which order."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.loop.state import named
from labelfx.methods.self_supervised.dino import dino
from labelfx.methods.self_supervised.siamese import siamese
from labelfx.methods.self_supervised.swav import swav
from labelfx.models import Model, stack
from labelfx.models.backbones import mlp
from labelfx.models.heads import siamese_mlp
from labelfx.objectives.contrastive import byol, normalise

BACKBONE = mlp(hidden=(16,), dtype="float32")
NORMED = siamese_mlp(hidden=(16,), features=8, output_norm=False, dtype="float32")


def jitter(rng, images):
    return images + 0.2 * jax.random.normal(rng, images.shape, images.dtype)


def batches(count):
    return [np.random.default_rng(seed).random((6, 1, 4, 1), np.float32) for seed in range(count)]


def assert_trees_close(left, right, **tolerance):
    jax.tree.map(functools.partial(np.testing.assert_allclose, **tolerance), left, right)


def test_simsiam_is_momentum_zero():
    """Three steps against SimSiam written with one network and a stopped gradient, BatchNorm and all."""
    parts = dict(projector=NORMED, predictor=siamese_mlp(hidden=(3,), features=8, output_norm=False, dtype="float32"))
    tx = optax.sgd(0.5)
    method = siamese(BACKBONE, tx, 3, augment=jitter, momentum=0.0, final_momentum=0.0, objective=byol, **parts)
    state = method.init(jax.random.key(0), {"unlabelled": {"input": batches(1)[0]}})
    net, variables = stack(backbone=BACKBONE, **parts), state.online.variables

    def loss_fn(params, statistics, views):
        outputs = []
        for view in views:
            found, statistics = net.apply({"params": params, **statistics}, view, train=True)
            outputs.append(found)
        first, second = outputs
        z_a, z_b = (normalise(jax.lax.stop_gradient(out["projector"])) for out in outputs)
        score = jnp.sum(normalise(first["predictor"]) * z_b) + jnp.sum(normalise(second["predictor"]) * z_a)
        return 4 - 2 * score / 6, statistics

    differentiate, step = jax.jit(jax.value_and_grad(loss_fn, has_aux=True)), jax.jit(method.step)
    for image in batches(3):
        key = jax.random.key(1)
        views = [jitter(k, image) for k in named(key, "unlabelled/a", "unlabelled/b")]
        params, statistics = variables["params"], {"batch_stats": variables["batch_stats"]}
        (loss, statistics), gradient = differentiate(params, statistics, views)
        variables = {"params": jax.tree.map(lambda p, g: p - 0.5 * g, params, gradient), **statistics}
        state, metrics = step(state, {"unlabelled": {"input": image}}, key)
        np.testing.assert_allclose(metrics["loss"], loss, rtol=1e-5)
        assert_trees_close(method.variables(state), variables, rtol=1e-4, atol=1e-5)
        for part, tree in state.target_params.items():
            jax.tree.map(np.testing.assert_array_equal, tree, state.online.params[part])
        for part, tree in state.target_model_state["batch_stats"].items():
            assert_trees_close(tree, state.online.model_state["batch_stats"][part], rtol=1e-5, atol=1e-6)


def affine(width):
    """A linear network with one kernel, in NumPy or JAX."""

    def init(rng, x):
        return {"params": {"w": jax.random.normal(rng, (x.reshape(len(x), -1).shape[1], width))}}

    return Model(init, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"]["w"], {}))


def double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def still(rng, images):
    return images


def test_siamese_order_of_a_step():
    """Keys by the old target, the descent, then the target follows the new online network at BYOL's momentum."""
    method = siamese(
        affine(4),
        optax.sgd(0.5),
        4,
        augment=still,
        projector=affine(3),
        predictor=affine(3),
        momentum=0.6,
        final_momentum=1.0,
        objective=byol,
    )
    state = method.init(jax.random.key(0), {"unlabelled": {"input": batches(1)[0]}})
    target = double(state.target_params)
    for t, image in enumerate(batches(4)):
        online = double(state.online.params)
        key = image.reshape(6, -1) @ target["backbone"]["w"] @ target["projector"]["w"]
        query = image.reshape(6, -1)
        for part in ("backbone", "projector", "predictor"):
            query = query @ online[part]["w"]
        state, metrics = jax.jit(method.step)(state, {"unlabelled": {"input": image}}, jax.random.key(1))
        score = np.mean(np.sum(unit(query) * unit(key), -1))
        momentum = 1 - 0.4 * (np.cos(np.pi * t / 4) + 1) / 2
        np.testing.assert_allclose(metrics["loss"], 4 - 4 * score, rtol=1e-5)
        np.testing.assert_allclose(metrics["positive_score"], score, rtol=1e-5)
        np.testing.assert_allclose(metrics["momentum"], momentum, rtol=1e-6)
        new = {part: double(state.online.params[part]) for part in target}
        assert all(
            jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).max() > 1e-4, new, {k: online[k] for k in new}))
        )
        target = jax.tree.map(lambda old, new, m=momentum: m * old + (1 - m) * new, target, new)
        assert_trees_close(state.target_params, target, rtol=1e-5, atol=1e-6)


def test_swav_scales_prototypes_before_a_step():
    tx = optax.sgd(0.5)
    settings = dict(prototypes=5, temperature=0.1, epsilon=0.5, iterations=2)
    method = swav(affine(4), tx, augment=still, projector=affine(3), **settings)
    image = batches(1)[0]
    state = method.init(jax.random.key(0), {"unlabelled": {"input": image}})
    before = double(state.params)
    kernel = unit(before["prototypes"]["kernel"].T).T
    after, metrics = jax.jit(method.step)(state, {"unlabelled": {"input": image}}, jax.random.key(1))

    z = unit(image.reshape(6, -1) @ before["backbone"]["w"] @ before["projector"]["w"])
    q = np.exp(z @ kernel / 0.5)
    for _ in range(2):
        q = q / q.sum(0) / 5
        q = q / q.sum(1, keepdims=True) / 6
    p = softmax(z @ kernel / 0.1)
    np.testing.assert_allclose(metrics["loss"], -2 * np.mean(np.sum(6 * q * np.log(p), -1)), rtol=1e-5)
    entropy = -np.sum(6 * q * np.log(6 * q), -1).mean()
    np.testing.assert_allclose(metrics["assignment_entropy"], entropy, rtol=1e-5)
    # Both views are the same, and the gradient is one of free prototypes of unit length.
    gradient = 2 * z.T @ (p - 6 * q) / 0.1 / 6
    np.testing.assert_allclose(after.params["prototypes"]["kernel"], kernel - 0.5 * gradient, rtol=1e-4, atol=1e-5)


def test_dino_order_of_a_step():
    """Targets by the old teacher and the old centre; then descent, and teacher and centre follow."""
    method = dino(
        affine(4),
        optax.sgd(0.5),
        4,
        augment=still,
        projector=affine(3),
        prototypes=5,
        momentum=0.6,
        final_momentum=1.0,
        student_temperature=0.2,
        teacher_temperature=0.1,
        center_momentum=0.7,
    )
    state = method.init(jax.random.key(0), {"unlabelled": {"input": batches(1)[0]}})
    teacher, center = double(state.teacher_params), np.zeros(5)

    def embed(params, image):
        return unit(image.reshape(6, -1) @ params["backbone"]["w"] @ params["projector"]["w"])

    for t, image in enumerate(batches(3)):
        student = double(state.student.params)
        of_teacher = embed(teacher, image) @ unit(teacher["prototypes"]["kernel"].T).T
        z, kernel = embed(student, image), student["prototypes"]["kernel"]
        length = np.linalg.norm(kernel, axis=0)
        target, p = softmax((of_teacher - center) / 0.1), softmax(z @ (kernel / length) / 0.2)
        state, metrics = jax.jit(method.step)(state, {"unlabelled": {"input": image}}, jax.random.key(1))
        np.testing.assert_allclose(metrics["loss"], -np.mean(np.sum(target * np.log(p), -1)), rtol=1e-5)
        usage = -np.sum(target.mean(0) * np.log(target.mean(0)))
        np.testing.assert_allclose(metrics["usage_entropy"], usage, rtol=1e-5)
        # Weight normalisation: the gradient of the directions is at right angles to them, and divided by the length.
        free, direction = z.T @ (p - target) / 0.2 / 6, kernel / length
        gradient = (free - direction * np.sum(free * direction, 0)) / length
        new = double(state.student.params)
        np.testing.assert_allclose(new["prototypes"]["kernel"], kernel - 0.5 * gradient, rtol=1e-4, atol=1e-5)
        momentum = 1 - 0.4 * (np.cos(np.pi * t / 4) + 1) / 2
        teacher = jax.tree.map(lambda old, new, m=momentum: m * old + (1 - m) * new, teacher, new)
        center = 0.7 * center + 0.3 * of_teacher.mean(0)
        assert_trees_close(state.teacher_params, teacher, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(state.center, center, rtol=1e-4, atol=1e-6)
    assert method.variables(state)["params"] is state.teacher_params


def test_siamese_mlp_has_no_bias_and_may_end_in_batch_norm():
    x = np.random.default_rng(0).normal(size=(32, 5)).astype(np.float32)
    for output_norm in (False, True):
        head = siamese_mlp(hidden=(4,), features=3, output_norm=output_norm, dtype="float32")
        variables = head.init(jax.random.key(0), x)
        assert set(variables["params"]) == {"Dense_0", "BatchNorm_0", "Dense_1"}  # no scale and bias at the end
        assert all(set(variables["params"][f"Dense_{i}"]) == {"kernel"} for i in (0, 1))
        assert len(variables["batch_stats"]) == 1 + output_norm
        outputs, _ = head.apply(variables, x, train=True)
        spread = np.abs(np.std(outputs, 0) - 1).max()
        assert spread < 1e-3 if output_norm else spread > 1e-2
        assert not output_norm or np.abs(np.mean(outputs, 0)).max() < 1e-5
