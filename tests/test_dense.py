"""Dense targets: maps of features, heads that read them, labels that move with their pictures."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from labelfx.data.augment import to_float
from labelfx.evals import features, head_outputs
from labelfx.models import backbone, backbones, classifiers, part, pooled, stack

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3)).astype(np.uint8)
TEXTS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 0], [4, 5, 6, 7]], np.int32)
MAPS = {  # backbone, keywords, rows, map
    "conv3": (dict(width=2), IMAGES, (4, 4, 8)),
    "resnet18": (dict(stem="cifar", width=2), IMAGES, (1, 1, 16)),
    "wrn28": (dict(width=1, dropout=0.5), IMAGES, (2, 2, 64)),
    "vit": (dict(size="ti", patch=4, dropout=0.5), IMAGES, (2, 2, 192)),
    "mean_pool": (dict(vocab_size=9, width=4, dropout=0.5), TEXTS, (4, 4)),
    "transformer": (dict(vocab_size=9, layers=1, width=4, heads=2, dropout=0.5), TEXTS, (4, 4)),
}


@pytest.mark.parametrize("name", MAPS)
def test_a_map_has_the_variables_of_the_features_and_pools_to_them(name):
    keywords, rows, shape = MAPS[name]
    plain, maps = (
        getattr(backbones, name)(**keywords, outputs=outputs, dtype="float32") for outputs in ("features", "map")
    )
    x = to_float(jnp.asarray(rows))
    variables = jax.jit(plain.init)(jax.random.key(0), x)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, jax.jit(maps.init)(jax.random.key(0), x)))
    wanted, found = (jax.jit(lambda v, x, of=of: of.apply(v, x, train=False)[0])(variables, x) for of in (plain, maps))
    assert found.shape == (len(rows), *shape)
    if name == "conv3":  # which has no pooling of its own
        np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
        wanted = found.mean((1, 2))
    np.testing.assert_allclose(pooled(found, x), wanted, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(features(maps, variables, rows, batch=2), wanted, rtol=1e-5, atol=1e-6)
    if rows is TEXTS:
        assert not np.any(np.asarray(found)[TEXTS == 0])


def test_the_dense_head_is_a_linear_map_of_each_position_resized():
    head = classifiers.dense(3, size=(8, 6))
    maps = np.random.default_rng(1).normal(size=(2, 4, 3, 5)).astype(np.float32)
    variables = head.init(jax.random.key(0), maps)
    found, state = jax.jit(lambda v, x: head.apply(v, x, train=True))(variables, maps)
    kernel, bias = (np.asarray(variables["params"]["Dense_0"][name], np.float64) for name in ("kernel", "bias"))
    expected = np.zeros((2, 8, 6, 3))
    for b, i, j in np.ndindex(2, 8, 6):
        y, x = np.clip((i + 0.5) / 2 - 0.5, 0, 3), np.clip((j + 0.5) / 2 - 0.5, 0, 2)
        for row, column in np.ndindex(4, 3):
            weight = max(0, 1 - abs(y - row)) * max(0, 1 - abs(x - column))
            expected[b, i, j] += weight * (maps[b, row, column] @ kernel + bias)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not state
    with pytest.raises(ValueError, match=r"size = \(8,\): must be \(H, W\)"):
        classifiers.dense(3, size=(8,))
    with pytest.raises(ValueError, match=r"dense reads a map \[B, H, W, F\], not \[2, 12\]; take config.model.outputs"):
        head.init(jax.random.key(0), np.zeros((2, 12), np.float32))


def test_a_head_reads_the_map_of_a_batch_at_a_time():
    model = backbones.conv3(width=2, outputs="map", dtype="float32")
    network = stack(backbone=model, head=classifiers.dense(3, size=(8, 8)))
    variables = network.init(jax.random.key(0), to_float(jnp.asarray(IMAGES)))
    whole = network.apply(variables, to_float(jnp.asarray(IMAGES)), train=False)[0]["head"]
    head = classifiers.dense(3, size=(8, 8)), part(variables, "head")
    found = head_outputs(model, backbone(variables), *head, IMAGES, batch=2)
    assert found.shape == (5, 8, 8, 3) and found.dtype == np.float32
    np.testing.assert_allclose(found, whole, atol=1e-5)
