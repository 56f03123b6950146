"""What dropout views and DCLR are for: tiny problems that they must solve and that their ablations must not.

A sentence has three of the six words of its topic, in any order; there are eight topics. A test sentence of the first
three words of a topic asks for one of the other three: they share no word, so only what was learnt of words that stand
together can tell which. Chance is 1/8, and so about is an untrained encoder.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.data.augment import identity
from labelfx.loop.optim import adamw, constant
from labelfx.methods.self_supervised.contrastive import contrastive
from labelfx.methods.self_supervised.dclr import dclr
from labelfx.models import backbone
from labelfx.models.backbones import mean_pool
from labelfx.models.heads import projector
from labelfx.objectives.contrastive import nt_xent

TOPICS, WORDS, LENGTH = 8, 6, 3
BATCH, STEPS, SEEDS, TESTED = 64, 60, 10, 64
ADAM = adamw(
    STEPS,
    learning_rate=1e-2,
    b1=0.9,
    b2=0.999,
    weight_decay=0.0,
    schedule=functools.partial(constant, warmup_steps=0),
    clip_norm=None,
    accumulate=1,
)
HEAD = projector(hidden=(), features=16, batch_norm=False, dtype="float32")


def sentences(rng, count, words):
    """Token ids int32 [count, LENGTH] of different words from `words` of a topic, and the topics."""
    topic = rng.integers(0, TOPICS, (count, 1))
    words = rng.permuted(np.tile(words, (count, 1)), axis=1)[:, :LENGTH]
    return (1 + topic * WORDS + words).astype(np.int32), topic[:, 0]


def accuracy_of(model, method):
    """The share of test sentences whose nearest one is of their topic, after training: [SEEDS]."""
    rngs = [np.random.default_rng(seed) for seed in range(SEEDS)]
    train = [sentences(rng, STEPS * BATCH, np.arange(WORDS))[0].reshape(STEPS, BATCH, LENGTH) for rng in rngs]
    asked, others = ([sentences(rng, TESTED, words) for rng in rngs] for words in (np.arange(3), np.arange(3, 6)))
    hidden = {"unlabelled": {"label": jnp.full(BATCH, -1)}}
    frozen = {} if method.frozen is None else {"frozen": method.frozen}

    @jax.jit
    @jax.vmap
    def run(key, train, asked, topic, others, others_topic):
        def step(state, each):
            tokens, rng = each
            return method.step(state, {"unlabelled": {"input": tokens}, "audit": hidden} | frozen, rng)[0], None

        state = method.init(key, {"unlabelled": {"input": train[0]}})
        state, _ = jax.lax.scan(step, state, (train, jax.random.split(key, STEPS)))
        query, index = (model.apply(backbone(method.variables(state)), x, train=False)[0] for x in (asked, others))
        index = index / jnp.linalg.norm(index, axis=1, keepdims=True)
        return jnp.mean(others_topic[jnp.argmax(query @ index.T, axis=1)] == topic)

    keys = jax.vmap(jax.random.key)(jnp.arange(SEEDS))
    arrays = (np.stack(part) for part in (*zip(*asked, strict=True), *zip(*others, strict=True)))
    return np.asarray(run(keys, np.stack(train), *arrays))


def assert_beats(better, worse):
    margin = better - worse
    error = margin.std(ddof=1) / np.sqrt(SEEDS)
    print(f"{better.mean():.3f} against {worse.mean():.3f}: margin {margin.mean():.3f} +- {error:.3f}")
    assert margin.mean() > 3 * error


def test_dropout_views_learn_which_words_stand_together():
    """SimCSE. Under dropout the views agree only where the words of a sentence stand for one another. Without it both
    views are the same, the loss can only push sentences apart, those that share words first, and the topics are lost.
    """

    def with_dropout(dropout):
        model = mean_pool(1 + TOPICS * WORDS, width=32, dropout=dropout, dtype="float32")
        objective = functools.partial(nt_xent, temperature=0.5)
        return accuracy_of(model, contrastive(model, ADAM, augment=identity(), projector=HEAD, objective=objective))

    views, same = with_dropout(0.5), with_dropout(0.0)
    assert_beats(views, same)
    assert views.mean() > 0.9


def test_dclr_spares_false_negatives():
    """DCLR. A complementary model that knows the topics takes the sentences of an anchor's own out of its negatives.
    Without (no cosine reaches a threshold of 2) the low temperature drives just those apart, as they share words.
    """
    model = mean_pool(1 + TOPICS * WORDS, width=32, dropout=0.2, dtype="float32")
    embedding = np.zeros((1 + TOPICS * WORDS, 32), np.float32)
    embedding[np.arange(TOPICS * WORDS) + 1, np.arange(TOPICS * WORDS) // WORDS] = 1
    complementary = {"params": {"backbone": {"embedding": embedding}}}

    def with_threshold(threshold):
        settings = {"temperature": 0.1, "noise_ratio": 1.0, "noise_steps": 1, "noise_step_size": 1e-3}
        method = dclr(model, ADAM, complementary, augment=identity(), projector=HEAD, threshold=threshold, **settings)
        return accuracy_of(model, method)

    spared, pushed = with_threshold(0.9), with_threshold(2.0)
    assert_beats(spared, pushed)
    assert spared.mean() > 0.9
