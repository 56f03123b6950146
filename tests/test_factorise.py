"""`labelfx.derived.factorise`: by loops in float64, what it leaves as it is, and what transfers to other classes."""

import jax
import numpy as np
import pytest
from toys import with_head

from labelfx.derived.factorise import truncated, uses
from labelfx.derived.layers import layers_of
from labelfx.models import backbones


@pytest.mark.parametrize("shape", [(7, 5), (5, 7)])
def test_the_nearest_matrix_of_each_rank(shape):
    """It leaves the sum of the squares of the values behind, by eigenvalues of W'W; of full rank it is W to the bit."""
    w = np.random.default_rng(0).normal(size=shape)
    squares = np.sort(np.linalg.eigvalsh(w.T @ w if shape[0] > shape[1] else w @ w.T))[::-1]
    for rank in range(1, 5):
        found = truncated(w, rank)
        assert np.linalg.matrix_rank(found) == rank
        np.testing.assert_allclose(np.sum((w - found) ** 2), squares[rank:].sum(), rtol=1e-12)
        assert abs(np.linalg.svd(w - found)[1][0] - np.sqrt(squares[rank])) < 1e-12
    assert truncated(w, 5) is w and truncated(w, 99) is w
    chosen = truncated(w, 2, np.array([0.0, 3.0, 1.0, 2.0, 0.0]))
    np.testing.assert_allclose(np.linalg.svd(chosen)[1][:2] ** 2, squares[[1, 3]], rtol=1e-12)


@pytest.mark.parametrize("name", ["mlp", "conv3"])
def test_uses_by_loops(name):
    """Of each row, position and component; the parts of what a layer makes without its bias, which add up to it."""
    config = {"mlp": {"hidden": (6, 5)}, "conv3": {"width": 3}}[name] | {"dtype": "float32"}
    network = with_head(getattr(backbones, name)(**config), 3)
    rng = np.random.default_rng(1)
    x, labels = rng.random((7, 8, 8, 1)).astype(np.float32), np.array([0, 2, 2, 0, 4, 4, 4])
    variables = jax.device_get(network.init(jax.random.key(0), x[:1]))
    layers = layers_of({"name": name, **config})
    found = uses(layers, variables, x, labels)
    assert len(found) == len(layers) - 1
    kernel = variables["params"]["backbone"][layers[0][0].split("/")[1]]["kernel"].astype(np.float64)
    u, s, _ = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), full_matrices=False)
    for place, c in enumerate((0, 2, 4)):
        for r in range(len(s)):
            total = count = 0
            for row in x[labels == c].astype(np.float64):
                for seen in seen_by_units(2 * row - 1, kernel.shape):
                    total, count = total + (s[r] * u[:, r] @ seen) ** 2, count + 1
            np.testing.assert_allclose(found[0][place, r], total / count, rtol=1e-10)


def seen_by_units(image, shape):
    if len(shape) == 2:
        return [image.ravel()]
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    return [padded[i : i + 3, j : j + 3].ravel() for i in range(0, 8, 2) for j in range(0, 8, 2)]


SHARED, CLASSES = 4, 6


@pytest.mark.parametrize("seed", range(10))
def test_what_all_classes_use_transfers_to_others(seed):
    """A planted network: it reads four directions in which all six classes have means, and three times as strongly one
    of each class's own. Six new classes have other means in the four, and the others say nothing of them. At rank four
    the components that all the old classes use are found, and tell the new ones apart by .5 more than the largest."""
    rng = np.random.default_rng(seed)
    layers, config = layers_of({"name": "mlp", "hidden": (32,)}), {"hidden": (32,), "dtype": "float32"}

    def draw(means, count, private):
        y = np.arange(count) % CLASSES
        x = 0.3 * rng.normal(size=(count, 40))
        x[:, :SHARED] += means[y]
        x[np.arange(count), SHARED + private(y)] += 3.0
        return (0.5 + x.reshape(count, 4, 10, 1) / 2).astype(np.float32), y

    codes = 2.0 * np.array([[1 if code >> i & 1 else -1 for i in range(SHARED)] for code in rng.permutation(16)])
    x, y = draw(codes[:CLASSES], 1200, lambda y: y)
    network = with_head(backbones.mlp(**config), CLASSES)
    variables = jax.device_get(network.init(jax.random.key(seed), x[:1]))
    directions = np.linalg.qr(rng.normal(size=(32, 32)))[0][: SHARED + CLASSES]
    sizes = np.where(np.arange(SHARED + CLASSES) < SHARED, 1.0, 3.0) + 0.01 * rng.random(SHARED + CLASSES)
    kernel = np.zeros((40, 32))
    kernel[: len(sizes)] = sizes[:, None] * directions
    variables["params"]["backbone"]["Dense_0"]["kernel"] = kernel
    score = uses(layers, variables, x, y)[0].min(0)
    few = draw(codes[CLASSES : 2 * CLASSES], 5 * CLASSES, lambda y: rng.integers(0, CLASSES, len(y)))
    rest = draw(codes[CLASSES : 2 * CLASSES], 1200, lambda y: rng.integers(0, CLASSES, len(y)))
    found = []
    for chosen in (score, None):
        left = truncated(kernel, SHARED, chosen)
        z, new = (np.maximum((2 * each[0] - 1).reshape(-1, 40) @ left, 0) for each in (few, rest))
        centres = np.stack([z[few[1] == c].mean(0) for c in range(CLASSES)])
        found.append(np.mean(((new[:, None] - centres) ** 2).sum(-1).argmin(1) == rest[1]))
        if chosen is score:
            np.testing.assert_allclose(left[:SHARED], kernel[:SHARED], atol=1e-12)
    print(found)
    assert found[0] - found[1] > 0.5
