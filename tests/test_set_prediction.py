"""Sets of labels, slot by slot: the loss in float64 by enumeration and a loop, the decoder, what matching is for."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from derivatives import softmax, worst_error
from toys import adam

from labelfx.models.classifiers import set_decoder
from labelfx.objectives.set_prediction import proximal_transport, set_matching

LABEL = np.array([[1, 0, 1, 0], [0, 0, 0, 0], [-1, 1, -1, 0], [-1] * 4, [1, 1, 1, 0]], np.int8)
TABLE = np.random.default_rng(1).normal(size=(5, 6))


def plan_of(cost):
    plan, b = np.ones(cost.shape), np.full(cost.shape[1], 1 / cost.shape[1])
    for _ in range(50):
        plan = np.exp(-cost) * plan
        a = 1 / (plan @ b * len(cost))
        b = 1 / (plan.T @ a * cost.shape[1])
        plan = a[:, None] * plan * b
    return plan


@pytest.mark.parametrize("transport", [0.0, 0.8])
def test_set_matching(transport):
    z = np.random.default_rng(0).normal(size=(5, 3, 5))

    def loop(z):
        crossed, weights, moved = 0, 0, 0
        for row, label in zip(z, LABEL, strict=True):
            if (label < 0).all():
                continue
            p, here = [softmax(slot) for slot in row], [c for c in range(4) if label[c] > 0]
            orders = itertools.permutations(range(3), len(here))
            best = max(orders, key=lambda order: sum(p[s][c].real for s, c in zip(order, here, strict=True)))
            wanted = {**dict.fromkeys(range(3), 4), **dict(zip(best, here, strict=True))}
            for s, c in wanted.items():
                crossed += (0.3 if c == 4 else 1) * -np.log(p[s][c])
                weights += 0.3 if c == 4 else 1
            targets, cost = here + [4] * (3 - len(here)), np.zeros((3, 3), complex)
            for s, t in itertools.product(range(3), range(3)):
                mean, there = p[s] @ TABLE, TABLE[targets[t]]
                cost[s, t] = 1 - mean @ there / np.sqrt((mean @ mean) * (there @ there))
            parts = plan_of(cost.real) * cost * np.where(np.array(targets) == 4, 0.3, 1)
            moved += parts.sum()
        return crossed / weights + transport * moved / 4

    def objective(z, label, table):
        return set_matching(z, label, {"embedding": table}, empty_weight=0.3, transport=transport)

    assert worst_error(objective, loop, z, LABEL, TABLE) < 1e-12
    gone = jax.value_and_grad(objective)(jnp.asarray(z[:1], jnp.float32), LABEL[3:4], jnp.asarray(TABLE, jnp.float32))
    assert gone[0] == 0 and not gone[1].any()


def test_plans_have_the_margins():
    plan = proximal_transport(jnp.asarray(np.random.default_rng(0).random((2, 4, 3)), jnp.float32))
    np.testing.assert_allclose(plan.sum(1), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(plan.sum(2), 1 / 4, rtol=1e-2)


def test_what_matching_is_for():
    """P28: a set is told in any order. Cross-entropy in the order told stays at log 2 a slot or above, matched it goes
    to 0, and the third slot stays empty: the set's size is known."""
    tx, label = adam(0.1), jnp.array([[1, 0, 1, 0]], jnp.int8)
    head = {"embedding": jnp.eye(5)}

    @jax.jit
    def fit(rng):
        def step(carry, rng, told):
            def loss(z):
                if not told:
                    return set_matching(z, label, head, empty_weight=1.0, transport=0.0)
                order = jnp.where(jax.random.bernoulli(rng), jnp.array([0, 2]), jnp.array([2, 0]))
                return -jnp.mean(jax.nn.log_softmax(z)[0, jnp.arange(2), order])

            z, moments = carry
            value, gradient = jax.value_and_grad(loss)(z)
            updates, moments = tx.update(gradient, moments)
            return (z + updates, moments), value

        found, start = [], jax.random.normal(rng, (1, 3, 5))
        for told in (False, True):
            carry = jax.lax.scan(
                lambda c, r, told=told: step(c, r, told), (start, tx.init(start)), jax.random.split(rng, 200)
            )
            found.append((carry[0][0], jnp.mean(carry[1][-50:])))
        return found

    for seed in range(3):
        (z, matched), (_, told) = fit(jax.random.key(seed))
        assert matched < 0.02 and told > 0.99 * np.log(2)
        assert sorted(np.argmax(z[0], -1).tolist()) == [0, 2, 4]


def test_the_decoder_reads_what_it_says_and_scores_by_its_surest_slot():
    head, rng = set_decoder(4, slots=3), np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    variables = head.init(jax.random.key(0), x)
    apply = jax.jit(lambda variables, train: head.apply(variables, x, train=train)[0], static_argnums=1)
    logits, scores = (np.asarray(apply(variables, train), np.float64) for train in (True, False))
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), p[:, :, :4].max(1), rtol=1e-5)
    said = variables["params"]["embedding"]
    moved = {"params": variables["params"] | {"embedding": said.at[logits[0, 0].argmax()].add(1.0)}}
    other = np.asarray(apply(moved, True))
    np.testing.assert_allclose(other[0, 0], logits[0, 0], rtol=1e-5)
    assert np.abs(other[0, 1] - logits[0, 1]).max() > 1e-3


def test_set_matching_wants_its_head():
    with pytest.raises(ValueError, match="of the head set_decoder and labels"):
        set_matching(jnp.zeros((2, 4)), jnp.zeros((2, 4), jnp.int8), {}, empty_weight=1.0, transport=0.0)
