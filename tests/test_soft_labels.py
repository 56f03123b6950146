"""Networks taught distributions over classes, and what mixing makes of rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Dataset, Split, mixing
from labelfx.objectives.classification import cross_entropy, soft_cross_entropy

CLASSES = ("a", "b", "c")


def opinions(rows, seed):
    """Points of which people say three classes, the less unanimously the nearer the middle; the label is what most
    say."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(rows, 2)).astype(np.float32)
    scores = 1.5 * inputs @ np.array([[1, -0.5, -0.5], [0, 0.9, -0.9]])
    share = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    target = np.stack([rng.multinomial(50, p) for p in share]).astype(np.float32) / 50
    return Split(inputs, target.argmax(1).astype(np.int32), {"target": target})


def config_of(**changes):
    config = recipe("soft_labels") | {"data": {"name": "arrays"}, "devices": 1, "steps": 80}
    config["model"] = {"name": "mlp", "hidden": (16,), "dtype": "float32"}
    config["method"]["augment"] = {"name": "identity"}
    config["optimizer"]["learning_rate"] = 3e-2
    return config | changes


def test_shares_teach_doubt_and_majorities_do_not(tmp_path):
    """The distance to what people say of new points, for one network."""
    data = Dataset(opinions(300, 0), opinions(300, 1), CLASSES)
    soft = labelfx.train(config_of(), tmp_path / "soft", dataset=data)["metrics"]["soft_labels"]
    method = config_of()["method"] | {"objective": {"name": "cross_entropy", "label_smoothing": 0.0}}
    config = config_of(labels={"name": "all_labels"}, method=method)
    hard = labelfx.train(config, tmp_path / "hard", dataset=data)["metrics"]["soft_labels"]
    assert hard["kl"] > 5 * soft["kl"] and abs(hard["accuracy"] - soft["accuracy"]) < 0.1


def test_a_set_without_shares_is_refused(tmp_path):
    data = Dataset(opinions(20, 0), opinions(20, 1)._replace(columns={}), CLASSES)
    with pytest.raises(ConfigError, match="config.evals.soft_labels: 'arrays' has no column 'target' of its test rows"):
        labelfx.train(config_of(), tmp_path, dataset=data)
    config = config_of(evals={"bag_auc": {"pool": "max"}})
    with pytest.raises(ConfigError, match="config.evals.bag_auc: 'arrays' has no column 'bag' of its test rows"):
        labelfx.train(config, tmp_path, dataset=data)


# Mixing.


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_a_mix_is_of_rows_and_of_targets_by_the_same_share(name):
    """In float64, against loops: pixels, a map of targets, distributions; the share is that of the pixels."""
    rng, shares = np.random.default_rng(0), []
    images, maps = rng.random((6, 8, 5, 3)), rng.random((6, 8, 5, 2))
    target = rng.dirichlet(np.ones(4), 6)
    with jax.enable_x64(True):
        mix = jax.jit(lambda rng: getattr(mixing, name)(alpha=1.0)(rng, 6, images.shape[1:]))
        for seed in range(40):
            found = mix(jax.random.key(seed))
            partner, share = np.asarray(found.partner), float(found.share)
            assert sorted(partner) == list(range(6))
            mask = np.full((8, 5), share) if found.mask is None else np.asarray(found.mask)
            assert mask.mean() == pytest.approx(share)
            if name == "cutmix":
                outside = np.argwhere(mask == 0)
                box = np.prod(np.ptp(outside, axis=0) + 1) if len(outside) else 0
                assert set(np.unique(mask)) <= {0, 1} and len(outside) == box
            for rows in (images, maps, target):
                expected = np.empty_like(rows)
                for i, j in enumerate(partner):
                    if rows.ndim == 2:
                        expected[i] = share * rows[i] + (1 - share) * rows[j]
                        continue
                    for y in range(8):
                        for x in range(5):
                            expected[i, y, x] = mask[y, x] * rows[i, y, x] + (1 - mask[y, x]) * rows[j, y, x]
                np.testing.assert_allclose(jax.jit(mixing.blend)(found, jnp.asarray(rows)), expected, atol=1e-12)
            shares.append(share)
    assert min(shares) < 0.4 and max(shares) > 0.8 and 0.4 < np.mean(shares) < 0.85


def test_the_loss_of_the_mixed_target_is_the_mix_of_the_losses():
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 6).astype(np.int32)
    with jax.enable_x64(True):
        logits = jnp.asarray(rng.normal(size=(6, 4)))
        found = mixing.mixup(alpha=1.0)(jax.random.key(0), 6, (2,))
        target = mixing.blend(found, jnp.eye(4)[label])

        def mixed(logits):
            of = lambda columns: cross_entropy(logits, columns["label"], label_smoothing=0.1)  # noqa: E731
            return mixing.blended(found, of, {"label": jnp.asarray(label)})

        def whole(logits):
            return soft_cross_entropy(logits, 0.9 * target + 0.1 / 4)

        for one, other in zip(jax.value_and_grad(mixed)(logits), jax.value_and_grad(whole)(logits), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-14)


def test_what_cannot_be_mixed_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"cutmix takes images \[B, H, W, C\], got rows of shape \(7,\); mixup takes"):
        mixing.cutmix(alpha=1.0)(jax.random.key(0), 4, (7,))
    with pytest.raises(ValueError, match="rows of int32 cannot be mixed; must be floats"):
        mixing.blend(mixing.mixup(alpha=1.0)(jax.random.key(0), 4, (7,)), jnp.ones((4, 7), jnp.int32))
    found = mixing.cutmix(alpha=1.0)(jax.random.key(0), 4, (3, 2, 1))
    with pytest.raises(ValueError, match="cutmix: a label of every pixel goes with its pixel, not by the share"):
        mixing.blended(found, len, {"label": jnp.zeros((4, 3, 2), jnp.int32)})
    config = recipe("multiple_instance") | {"devices": 1}
    config["method"] |= {"mix": {"name": "mixup", "alpha": 1.0}}
    with pytest.raises(ConfigError, match="config.method: mix: the objective reads whole bags"):
        labelfx.train(config, tmp_path)
    config["method"]["mix"] = {"name": "mixap", "alpha": 1.0}
    with pytest.raises(ConfigError, match="config.method.mix.name = 'mixap': .*did you mean 'mixup'"):
        labelfx.train(config, tmp_path)
