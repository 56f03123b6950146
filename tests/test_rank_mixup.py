"""RankMixup: its loss as loops in float64, edges, the step that gives it both kinds of rows, what it is for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import softmax, worst_error
from toys import adam, assert_beats, one_layer, with_head

from labelfx.data.augment import identity
from labelfx.data.mixing import mixup
from labelfx.methods.from_labels.supervised import supervised
from labelfx.objectives.classification import cross_entropy, mixup_ranking, rank_mixup

LABEL, PARTNER = np.array([0, 1, 1, 2, -1], np.int32), np.array([1, 2, 0, 4, 3], np.int32)
MIXED = (True, False, True, True, False)  # 1 and 2 have one class, 4 has none


def both(z, **how):
    return rank_mixup(z[:5], jnp.asarray(LABEL), z[5:], jnp.asarray(PARTNER), **how)


@pytest.mark.parametrize("on", ["logits", "probabilities"])
def test_the_loss_is_its_loop_form(on):
    z = np.random.default_rng(0).normal(size=(10, 3))

    def sure(row):
        row = softmax(row) if on == "probabilities" else row
        return row[np.argmax(row.real)]

    def loop(z):
        crossed = sum(-np.log(softmax(z[i])[LABEL[i]]) for i in range(4)) / 4
        above = [sure(z[5 + i]) - sure(z[i]) + 0.2 for i in range(5) if MIXED[i]]
        return crossed + 0.7 * sum(each for each in above if each.real > 0) / 4

    assert worst_error(both, loop, z, margin=0.2, on=on, share=0.7) < 1e-12


def test_where_nothing_is_to_be_ranked():
    z = jnp.ones((5, 3))
    how = {"margin": 0.2, "on": "logits"}
    assert rank_mixup(z, jnp.full(5, -1), z, jnp.asarray(PARTNER), share=1.0, **how) == 0
    assert mixup_ranking(z, z - 1, jnp.ones(5, bool), **how) == 0  # the margin is kept
    assert mixup_ranking(z, z, jnp.zeros(5, bool), **how) == 0
    with pytest.raises(ValueError, match="on must be one of logits, probabilities, got 'odds'"):
        mixup_ranking(z, z, jnp.ones(5, bool), margin=0.2, on="odds")


def method(objective, mix):
    classifier = with_head(one_layer("kernel", 64, jnp.cos), 2)
    return supervised(classifier, adam(0.03), augment=identity(), objective=objective, mix=mix)


RANKED = functools.partial(rank_mixup, margin=0.5, on="logits", share=2.0)
PLAIN = functools.partial(cross_entropy, label_smoothing=0.0)


def test_the_step_needs_a_mix():
    with pytest.raises(ValueError, match="compares rows with mixed ones; take mixup"):
        method(RANKED, None)


def test_what_ranking_is_for():
    """Trained to the end on few rows that overlap, a network is too sure; less so where it has to rank mixtures."""
    y = np.random.default_rng(0).integers(0, 2, (10, 1060)).astype(np.int32)
    x = (np.random.default_rng(1).normal(size=(10, 1060, 2)) + 2.0 * y[..., None] - 1).astype(np.float32)

    def gap(objective, mix):
        """Confidence less accuracy on rows that were not seen, of ten seeds."""
        own = method(objective, mix)

        def logits(x, y, key):
            batch = {"labelled": {"input": x[:60], "label": y[:60]}}
            state, _ = jax.lax.scan(
                lambda state, key: (own.step(state, batch, key)[0], 0), own.init(key, batch), jax.random.split(key, 200)
            )
            head = state.params["head"]["Dense_0"]
            return jnp.cos(x[60:] @ state.params["backbone"]["kernel"]) @ head["kernel"] + head["bias"][None]

        found = jax.jit(jax.vmap(logits))(x, y, jax.random.split(jax.random.key(0), 10))
        right = found.argmax(-1) == y[:, 60:]
        return np.asarray(jax.nn.softmax(found).max(-1).mean(1) - right.mean(1))

    plain, ranked = gap(PLAIN, None), gap(RANKED, mixup(alpha=2.0))
    assert_beats(plain, ranked)
