"""Optimisers and schedules against loops in NumPy float64."""

from functools import partial
from math import cos, pi
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.loop import optim
from labelfx.models.pretrained import read, shapes_of

PARTS = ("kernel", "bias", "scale")
COMMON = {"learning_rate": 0.1, "clip_norm": None, "accumulate": 1}
WARM = partial(optim.cosine, warmup_steps=2)


def problem(seed=0, steps=6):
    rng = np.random.default_rng(seed)
    shapes = {"kernel": (3, 2), "bias": (2,), "scale": (2,)}
    params = {name: rng.normal(size=shapes[name]) for name in PARTS}
    return params, [{name: rng.normal(size=shapes[name]) for name in PARTS} for _ in range(steps)]


def run(tx, params, gradients):
    """The parameters after each step, float64."""
    with jax.enable_x64(True):
        tree = {"layer": jax.tree.map(jnp.asarray, params)}
        state = tx.init(tree)
        update = jax.jit(tx.update)
        history = []
        for gradient in gradients:
            updates, new_state = update({"layer": jax.tree.map(jnp.asarray, gradient)}, state, tree)
            assert jax.tree.map(lambda a: (a.shape, a.dtype), state) == jax.tree.map(
                lambda a: (a.shape, a.dtype), new_state
            )
            state, tree = new_state, jax.tree.map(jnp.add, tree, updates)
            history.append(jax.tree.map(np.asarray, tree["layer"]))
    return history


def assert_same(history, expected, rtol=1e-7):
    for got, want in zip(history, expected, strict=True):
        for name in PARTS:
            np.testing.assert_allclose(got[name], want[name], rtol=rtol, atol=1e-14)


def cosine_rate(step, peak, steps, warmup):
    return peak * step / warmup if step < warmup else peak * (1 + cos(pi * (step - warmup) / (steps - warmup))) / 2


def test_sgd_is_coupled_decay_then_nesterov_momentum():
    params, gradients = problem()
    tx = optim.sgd(6, **COMMON, momentum=0.9, weight_decay=0.05, schedule=WARM)
    w, velocity, expected = dict(params), {name: 0.0 for name in PARTS}, []
    for step, gradient in enumerate(gradients):
        for name in PARTS:
            g = gradient[name] + (0.05 * w[name] if name == "kernel" else 0)
            velocity[name] = 0.9 * velocity[name] + g
            w[name] = w[name] - cosine_rate(step, 0.1, 6, 2) * (g + 0.9 * velocity[name])
        expected.append(dict(w))
    assert_same(run(tx, params, gradients), expected)


def test_adamw_decays_beside_the_moments():
    params, gradients = problem(1)
    tx = optim.adamw(6, **COMMON, b1=0.9, b2=0.95, weight_decay=0.05, schedule=WARM)
    w, first, second, expected = dict(params), {n: 0.0 for n in PARTS}, {n: 0.0 for n in PARTS}, []
    for step, gradient in enumerate(gradients):
        for name in PARTS:
            g = gradient[name]
            first[name] = 0.9 * first[name] + 0.1 * g
            second[name] = 0.95 * second[name] + 0.05 * g**2
            corrected = first[name] / (1 - 0.9 ** (step + 1)), second[name] / (1 - 0.95 ** (step + 1))
            move = corrected[0] / (np.sqrt(corrected[1]) + 1e-8) + (0.05 * w[name] if name == "kernel" else 0)
            w[name] = w[name] - cosine_rate(step, 0.1, 6, 2) * move
        expected.append(dict(w))
    assert_same(run(tx, params, gradients), expected)


def test_lars_trusts_kernels_only():
    params, gradients = problem(2)
    tx = optim.lars(6, **COMMON, momentum=0.9, weight_decay=0.05, schedule=WARM)
    w, velocity, expected = dict(params), {name: 0.0 for name in PARTS}, []
    for step, gradient in enumerate(gradients):
        for name in PARTS:
            g = gradient[name]
            if name == "kernel":
                g = g + 0.05 * w[name]
                g = 0.001 * np.linalg.norm(w[name]) / np.linalg.norm(g) * g
            velocity[name] = 0.9 * velocity[name] + cosine_rate(step, 0.1, 6, 2) * g
            w[name] = w[name] - velocity[name]
        expected.append(dict(w))
    assert_same(run(tx, params, gradients), expected)


@pytest.mark.parametrize("trust_coefficient", [0.02, 10.0])
def test_larc_is_no_faster_than_the_schedule(trust_coefficient):
    """At 0.02 the trust ratio binds after the first step, at 10 it never does."""
    params, gradients = problem(2)
    tx = optim.larc(6, **COMMON, momentum=0.9, weight_decay=0.05, trust_coefficient=trust_coefficient, schedule=WARM)
    w, velocity, expected, bound = dict(params), {name: 0.0 for name in PARTS}, [], []
    for step, gradient in enumerate(gradients):
        rate = cosine_rate(step, 0.1, 6, 2)
        for name in PARTS:
            g = gradient[name]
            if name == "kernel":
                g = g + 0.05 * w[name]
                trusted = trust_coefficient * np.linalg.norm(w[name]) / np.linalg.norm(g)
                bound.append(trusted < rate)
                g = g if rate <= trusted else trusted / rate * g
            velocity[name] = 0.9 * velocity[name] + g
            w[name] = w[name] - rate * velocity[name]
        expected.append(dict(w))
    assert any(bound) == (trust_coefficient < 1)
    assert_same(run(tx, params, gradients), expected, 1e-5)  # one entry ends near 0, the schedule is in float32


def test_larc_leaves_a_kernel_of_zeros_to_the_schedule():
    schedule = partial(optim.constant, warmup_steps=0)
    tx = optim.larc(1, **COMMON, momentum=0.9, weight_decay=0.0, trust_coefficient=0.02, schedule=schedule)
    params, (gradient,) = problem(5, steps=1)
    zeros = {name: np.zeros_like(params[name]) for name in PARTS}
    assert_same(run(tx, zeros, [zeros, gradient]), [zeros, {name: -0.1 * gradient[name] for name in PARTS}], 1e-6)


def test_accumulation_is_the_step_on_the_averaged_gradient():
    params, gradients = problem(3, steps=7)
    keywords = dict(learning_rate=0.1, momentum=0.9, weight_decay=0.05, schedule=WARM, clip_norm=0.5)
    averages = [{n: np.mean([g[n] for g in gradients[i : i + 2]], 0) for n in PARTS} for i in (0, 2, 4)]
    plain = run(optim.sgd(3, accumulate=1, **keywords), params, averages)
    history = run(optim.sgd(7, accumulate=2, **keywords), params, gradients)
    assert_same(history, [params, plain[0], plain[0], plain[1], plain[1], plain[2], plain[2]], 1e-6)


@pytest.mark.parametrize("clip_norm", [0.01, 1e6])
def test_clipping_bounds_the_global_norm_before_decay(clip_norm):
    params, gradients = problem(4, steps=1)
    schedule = partial(optim.constant, warmup_steps=0)
    tx = optim.sgd(
        1, learning_rate=0.1, momentum=0.0, weight_decay=0.05, schedule=schedule, clip_norm=clip_norm, accumulate=1
    )
    norm = np.sqrt(sum((g**2).sum() for g in gradients[0].values()))
    factor = min(1, clip_norm / norm)
    decay = {"kernel": 0.05 * params["kernel"], "bias": 0.0, "scale": 0.0}
    expected = {n: params[n] - 0.1 * (factor * gradients[0][n] + decay[n]) for n in PARTS}
    assert_same(run(tx, params, gradients), [expected])


def test_schedules_at_every_step():
    def values(schedule):
        return [float(schedule(float(step))) for step in range(9)]

    np.testing.assert_allclose(values(optim.constant(0.5, 8, warmup_steps=0)), [0.5] * 9)
    np.testing.assert_allclose(values(optim.constant(0.5, 8, warmup_steps=2)), [0, 0.25] + [0.5] * 7)
    for warmup in (0, 3):
        expected = [cosine_rate(step, 0.5, 8, warmup) for step in range(9)]
        assert max(expected) == 0.5 and expected[-1] == 0
        np.testing.assert_allclose(values(optim.cosine(0.5, 8, warmup_steps=warmup)), expected, atol=1e-7)
    expected = [0.5 * cos(7 * pi * step / (16 * 8)) for step in range(9)]
    np.testing.assert_allclose(values(optim.fixmatch_cosine(0.5, 8)), expected, rtol=1e-6)
    assert expected[-1] / 0.5 == pytest.approx(0.195, abs=1e-3)


def test_impossible_lengths_are_named():
    with pytest.raises(ValueError, match="warmup_steps = 8 must be less than the 8 updates"):
        optim.cosine(0.1, 8, warmup_steps=8)
    with pytest.raises(ValueError, match="accumulate = 4 is more than the 3 steps"):
        schedule = partial(optim.constant, warmup_steps=0)
        optim.adamw(
            3, learning_rate=0.1, b1=0.9, b2=0.999, weight_decay=0.0, schedule=schedule, clip_norm=None, accumulate=4
        )


def test_step_decay_drops_once_each_fraction_is_done():
    schedule = optim.step_decay(30.0, 10, at=(0.6, 0.8), factor=0.1)
    with jax.numpy_dtype_promotion("standard"):  # as an optimiser's update does
        rates = [float(schedule(np.int32(step))) for step in range(10)]
    np.testing.assert_allclose(rates, [30.0] * 6 + [3.0] * 2 + [0.3] * 2, rtol=1e-6)


LAYERS = {  # of the tiny encoders: how many layers lie above
    "vit": {
        "cls_token": 3,
        "pos_embed": 3,
        "patch_embed.proj/kernel": 3,
        "blocks.0/attn.qkv/kernel": 2,
        "blocks.1/norm2/scale": 1,
        "norm/scale": 0,
    },
    "clip": {"norm_pre/scale": 3, "blocks.0/mlp.fc1/kernel": 2, "blocks.1/mlp.fc1/kernel": 1, "norm/bias": 0},
    "siglip": {"patch_embed.proj/bias": 3, "blocks.0/norm1/bias": 2, "attn_pool.qkv/kernel": 0},
    "dinov3": {"reg_token": 3, "blocks.0/attn.proj/kernel": 2, "norm/scale": 0},
    "bert": {
        "embeddings.word_embeddings/embedding": 3,
        "embeddings.LayerNorm/scale": 3,
        "encoder.layer.0.attention.self.query/kernel": 2,
        "encoder.layer.1.output.LayerNorm/scale": 1,
    },
    "resnet18": {
        "conv1/kernel": 6,
        "bn1/scale": 6,
        "layer1.0.conv1/kernel": 5,
        "layer2.0.downsample.0/kernel": 4,
        "layer2.1.bn2/bias": 3,
        "layer3.0.conv2/kernel": 2,
        "layer4.0.conv1/kernel": 1,
    },
    "convnext_tiny": {
        "stem.0/kernel": 6,
        "stages.0.blocks.0.mlp.fc1/kernel": 5,
        "stages.1.downsample.1/kernel": 4,
        "stages.2.downsample.1/kernel": 3,
        "stages.2.blocks.0.gamma": 3,
        "stages.2.blocks.1.gamma": 2,
        "stages.3.blocks.0.norm/scale": 1,
        "head.norm/scale": 0,
    },
    "tf_efficientnet_lite0": {
        "conv_stem/kernel": 8,
        "bn1/scale": 8,
        "blocks.0.0.bn1/scale": 7,
        "blocks.3.0.conv_pwl/kernel": 4,
        "blocks.6.0.bn3/bias": 1,
        "conv_head/kernel": 0,
        "bn2/bias": 0,
    },
}


@pytest.mark.parametrize("name", LAYERS)
def test_layer_decay_is_a_rate_for_each_layer(name):
    schedule = partial(optim.constant, warmup_steps=0)
    plain = partial(optim.sgd, **COMMON, momentum=0.0, weight_decay=0.0, schedule=schedule)
    said = read(Path(__file__).parent / "pretrained" / name).description
    shapes = shapes_of(said["family"], said["architecture"])["params"]
    params = {"backbone": jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)}
    params["head"] = {"Dense_0": {"kernel": np.ones((2, 2), np.float32)}}
    tx = optim.layer_decay(4, optimizer=plain, decay=0.5)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    found = {
        "/".join(key.key for key in keys): float(leaf.ravel()[0])
        for keys, leaf in jax.tree_util.tree_leaves_with_path(updates)
    }
    for path, above in {f"backbone/{path}": above for path, above in LAYERS[name].items()}.items():
        assert [each for at, each in found.items() if at.startswith(path)] == pytest.approx([-0.1 * 0.5**above])
    assert found["head/Dense_0/kernel"] == pytest.approx(-0.1)
    assert max(LAYERS[name].values()) == -np.log2(max(found.values()) / -0.1).round()


def test_layer_decay_wants_numbered_blocks_and_keeps_what_others_check():
    schedule = partial(optim.constant, warmup_steps=0)
    plain = partial(optim.sgd, **COMMON | {"accumulate": 2}, momentum=0.9, weight_decay=0.0, schedule=schedule)
    slowed = partial(optim.layer_decay, optimizer=plain, decay=0.5)
    with pytest.raises(ValueError, match="no parameter's path numbers a block, such as backbone/Dense_0/kernel"):
        slowed(4).init({"backbone": {"Dense_0": {"kernel": np.ones((2, 2))}}})
    with pytest.raises(ValueError, match="accumulate must be 1 in each"):
        optim.by_path(4, paths=("",), optimizers=(slowed,))
