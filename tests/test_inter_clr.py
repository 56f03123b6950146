"""InterCLR's bank and clusters against NumPy, its step on many devices, and what it is for."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_parity import double, relative_error, updated
from toys import adam, assert_beats, noise, one_label_accuracy, one_layer

from labelfx.methods.self_supervised import inter_clr as parts
from labelfx.methods.self_supervised.inter_clr import inter_clr


def build(num_examples, inter_weight=0.5, tx=None, augment=None, **changes):
    settings = {"clusters": 8, "min_cluster": 2, "pool": 32, "negatives": 16} | changes
    return inter_clr(
        one_layer("w", 8),
        tx or adam(0.03),
        num_examples,
        augment=augment or noise(0.1),
        projector=one_layer("v", 8),
        temperature=0.1,
        momentum=0.9,
        queue_size=64,
        bank_momentum=changes.pop("bank_momentum", 0.0),
        margin=-0.5,
        inter_weight=inter_weight,
        **{key: value for key, value in settings.items() if key != "bank_momentum"},
    )


def batch_of(images, rows, classes=4):
    truth = rows % classes
    return {"unlabelled": {"input": images[rows], "index": rows}, "audit": {"unlabelled": {"label": truth}}}


def normalised(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_bank_labels_and_centroids_after_a_step():
    """Rows move by the momentum or, if new, to their key; labels follow old centroids, centroids the new rows."""
    rng = np.random.default_rng(0)
    images = rng.random((40, 2, 2, 1), np.float32)
    method = build(40, augment=lambda rng, images: images, bank_momentum=0.75, clusters=3, min_cluster=1)
    state = method.init(jax.random.key(0), batch_of(images, np.arange(8, dtype=np.int32)))
    state = state._replace(
        bank=normalised(rng.normal(size=(40, 8))).astype(np.float32),
        label=np.where(np.arange(40) % 3, np.arange(40) % 7 % 3, -1).astype(np.int32),
        centroids=rng.normal(size=(3, 8)).astype(np.float32),
    )
    before = jax.tree.map(lambda x: np.asarray(x, np.float64), state)
    rows = np.array([1, 0, 5, 9, 11, 5, 30, 0], np.int32)
    state, metrics = jax.jit(method.step)(state, batch_of(images, rows), jax.random.key(1))

    params = jax.tree.map(lambda q, k: 0.1 * q + 0.9 * k, before.moco.query.params, before.moco.key_params)
    bank, label = before.bank.copy(), before.label.astype(int)
    for row in set(rows.tolist()):
        key = normalised(images[row].reshape(-1) @ params["backbone"]["w"] @ params["projector"]["v"])
        keep = 0.75 if before.label[row] >= 0 else 0
        bank[row] = normalised(keep * before.bank[row] + (1 - keep) * key)
        label[row] = np.argmax(before.centroids @ bank[row])
    np.testing.assert_allclose(state.bank, bank, atol=1e-6)
    np.testing.assert_array_equal(state.label, label)
    for cluster in range(3):
        np.testing.assert_allclose(state.centroids[cluster], bank[label == cluster].mean(0), atol=1e-6)
    assert metrics["label_change"] == np.mean(label[rows] != before.label[rows])
    np.testing.assert_allclose(metrics["largest_cluster"], np.bincount(label[label >= 0]).max() / np.sum(label >= 0))


def test_positives_are_drawn_evenly_from_the_label():
    bank_label = np.array([2, 0, -1, 2, 1, 2, -1, 0], np.int32)
    label = np.repeat(np.array([0, 1, 2, 5], np.int32), 3000)
    drawn = np.asarray(jax.jit(parts.draw)(jax.random.key(0), label, bank_label)).reshape(4, -1)
    for rows, own in zip(drawn[:3], ([1, 7], [4], [0, 3, 5]), strict=True):
        share = np.bincount(rows, minlength=8) / 3000
        np.testing.assert_allclose(share[own], 1 / len(own), atol=0.05)
        assert set(rows) == set(own)
    assert np.all((drawn >= 0) & (drawn < 8))


def test_a_small_cluster_takes_half_of_the_largest():
    """Cluster 2 has one row, near centroid 1; cluster 0 is two heaps of six rows."""
    rng = np.random.default_rng(0)
    heaps = normalised(np.array([[3.0, 1, 0], [3, -1, 0], [0, 0, 1]]))
    bank = normalised(heaps[[0] * 6 + [1] * 6 + [2] * 5] + 0.02 * rng.normal(size=(17, 3))).astype(np.float32)
    label = np.array([0] * 12 + [1] * 4 + [2], np.int32)
    order = rng.permutation(17)
    bank, label = bank[order], label[order]
    redirect = jax.jit(parts.redirect, static_argnames="min_cluster")
    centroids, _ = parts.means(bank, label, jnp.zeros((3, 3)))
    after = np.asarray(redirect(bank, label, centroids, min_cluster=2))[np.argsort(order)]
    assert set(after[12:]) == {1} and {*after[:6]} != {*after[6:12]}
    assert len({*after[:6]}) == len({*after[6:12]}) == 1 and set(after[:12]) == {0, 2}
    for enough in (1, 7):  # no cluster is too small; the largest is too small for two
        np.testing.assert_array_equal(redirect(bank, label, centroids, min_cluster=enough), label)


def test_pair_accuracy():
    label, truth = np.array([0, 0, 0, 1, 1, 2]), np.array([5, 5, 6, 7, -1, 5])
    assert parts.pair_accuracy(label, truth) == jnp.float32(1 / 3)
    assert parts.pair_accuracy(label[3:], truth[3:]) == 0


@pytest.mark.slow  # two compilations of a step for many devices
def test_a_met_bank_gives_the_same_update_on_every_mesh():
    """As the contract's parity test, but at a step where every query has positives and negatives in the bank."""
    rng = np.random.default_rng(0)
    images = rng.random((256, 2, 2, 1), np.float32)
    method = build(256, tx=optax.sgd(1.0))
    state = method.init(jax.random.key(0), batch_of(images, np.arange(16, dtype=np.int32)))
    state = state._replace(bank=normalised(rng.normal(size=(256, 8))), label=np.arange(256, dtype=np.int32) % 8)
    batch = batch_of(images, rng.permutation(256)[:16].astype(np.int32))
    batch["unlabelled"]["index"][3] = batch["unlabelled"]["index"][12]  # an epoch ended in this batch
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):
        state, batch = double(state), double(batch)
        expected, _ = updated(method.step, state, batch, 1, 1)
        after, split = updated(method.step, state, batch, 8, 2)
        assert split and relative_error(state, after, expected) < 1e-9
        np.testing.assert_array_equal(after.label, expected.label)


def test_inter_image_positives_find_classes_that_instance_discrimination_does_not():
    """64 images, 4 entries that tell the class and 12 that tell the image, so that either tells images apart.

    Without the inter-image loss every image is pushed from all others, those of its class too. The ablation is
    inter_weight 0, MoCo, at the same number of steps.
    """

    def run(seed, inter_weight):
        rng_data, rng_init, rng_steps = jax.random.split(jax.random.key(seed), 3)
        own = 0.3 * jax.random.normal(rng_data, (64, 12))
        x = jnp.concatenate([jax.nn.one_hot(jnp.arange(64) % 4, 4), own], 1)
        images = x.reshape(64, 4, 4, 1)
        method = build(64, inter_weight)

        def step(state, rng):
            rows = jax.random.permutation(jax.random.fold_in(rng, 1), 64)[:32].astype(jnp.int32)
            return method.step(state, batch_of(images, rows), rng)

        state = method.init(rng_init, batch_of(images, jnp.arange(32, dtype=jnp.int32)))
        state, metrics = jax.lax.scan(step, state, jax.random.split(rng_steps, 100))
        params = method.variables(state)["params"]
        return one_label_accuracy(x @ params["backbone"]["w"] @ params["projector"]["v"], 4), metrics

    over = jax.vmap(jax.vmap(run, (None, 0)), (0, None))
    accuracy, metrics = jax.jit(over)(jnp.arange(10), jnp.array([0.5, 0.0]))
    assert_beats(accuracy[:, 0], accuracy[:, 1])
    assert not np.any(metrics["empty_clusters"][..., -1])


def test_impossible_settings():
    with pytest.raises(ValueError, match="negatives = 16, pool = 8: must rise, up to the 40 images"):
        build(40, pool=8)
    with pytest.raises(ValueError, match="pool = 41: must rise, up to the 40 images"):
        build(40, pool=41)
