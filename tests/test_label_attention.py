"""The classifier `label_attention`: a loop form in float64, edges, what attention and names are for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from derivatives import softmax, worst_error
from toys import adam, assert_beats

from labelfx.data import Split
from labelfx.evals import head_outputs
from labelfx.evals.multilabel import _average_precision
from labelfx.labels.evidence import gather
from labelfx.models import backbone, part, pooled, stack
from labelfx.models.backbones import mean_pool
from labelfx.models.classifiers import label_attention, linear

LABELS, LENGTH = 24, 10
NAMES = tuple(f"{c}" for c in range(LABELS))


def tokenizer(texts):
    """A name is the token of its number; what is no number has none."""
    first = [int(text) + 1 if text.isdigit() else 0 for text in texts]
    return np.pad(np.array(first, np.int32)[:, None], ((0, 0), (0, LENGTH - 1)))


def head(names, extra=(), labels=LABELS):
    return label_attention(labels, NAMES[:labels], tokenizer, names=names, extra=extra)


@pytest.mark.parametrize("extra", [(), ("5", "7")])
@pytest.mark.parametrize("names", ["learned", "encoded"])
def test_label_attention(names, extra):
    rng, model = np.random.default_rng(0), head(names, extra, 3)
    x = rng.normal(size=(2, 4, 5))
    x[0, 2:] = 0  # padding
    vectors = rng.normal(size=((3 if names == "encoded" else 0) + len(extra), 5))
    with jax.enable_x64(True):
        params = model.init(jax.random.key(0), jnp.asarray(x))["params"]
        params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    kept = {"rows": np.zeros((len(vectors), LENGTH), np.int32), "vectors": vectors}

    def objective(x):
        variables = {"params": params} | ({"sentences": kept} if len(vectors) else {})
        return jnp.sum(model.apply(variables, x, train=False)[0] ** 2)

    def loop(x):
        own, known = jax.tree.map(np.asarray, params), vectors[len(vectors) - len(extra) :]
        total = 0
        for row, places in zip(x, (2, 4), strict=True):
            h = np.concatenate([row[:places], known])
            for c in range(3):
                q = vectors[c] if names == "encoded" else own["query"][c]
                w = vectors[c] @ own["kernel"] if names == "encoded" else own["kernel"][c]
                d = softmax(h @ q / np.sqrt(5)) @ h
                total += (w @ d + own["bias"][0 if names == "encoded" else c]) ** 2
        return total

    real = np.ones_like(x)
    real[0, 2:] = 0
    error = worst_error(lambda x: objective(x * real), lambda x: loop(x * real), x)
    assert error < 1e-12


def documents(draw):
    """Ten of the tokens of 24 labels each; a label is there where its token is."""
    tokens = np.argsort(np.random.default_rng(draw).random((256, LABELS)), 1)[:, :LENGTH]
    return (tokens + 1).astype(np.int32), (tokens[:, :, None] == np.arange(LABELS)).any(1)


SEEN = np.arange(LABELS) < 20


@functools.partial(jax.jit, static_argnames=("names", "outputs", "trained"))
def fit(seed, x, y, *, names, outputs, trained):
    body = mean_pool(LABELS + 1, width=8 if trained else 24, dropout=0.0, outputs=outputs, dtype="float32")
    net, tx = stack(backbone=body, head=head(names) if names else linear(LABELS)), adam(0.03 if trained else 0.003)
    start = net.init(jax.random.key(seed), x)
    start["params"]["backbone"]["embedding"] *= 50
    rest = {name: tree for name, tree in start.items() if name != "params"}

    def step(carry, _):
        params, moments = carry

        def loss(params):
            z = net.apply(rest | {"params": params}, x, train=True)[0]["head"]
            return jnp.mean(optax.sigmoid_binary_cross_entropy(z, y)[:, SEEN])

        gradient = jax.grad(loss)(params)
        gradient["backbone"] = gradient["backbone"] if trained else jax.tree.map(jnp.zeros_like, gradient["backbone"])
        updates, moments = tx.update(gradient, moments)
        return (optax.apply_updates(params, updates), moments), None

    return rest | {"params": jax.lax.scan(step, (start["params"], tx.init(start["params"])), None, length=150)[0][0]}


def precision(seed, names, outputs, labels, *, trained):
    (x, y), (test, truth) = documents(2 * seed), documents(2 * seed + 1)
    body = mean_pool(LABELS + 1, width=8 if trained else 24, dropout=0.0, outputs=outputs, dtype="float32")
    found = fit(seed, x, y.astype(np.float32), names=names, outputs=outputs, trained=trained)
    z = head_outputs(body, backbone(found), head(names) if names else linear(LABELS), part(found, "head"), test)
    return np.mean([_average_precision(z[:, c], truth[:, c]) for c in np.flatnonzero(labels)])


def test_what_attention_is_for():
    """P8: a label is in one token of ten. A mean of as few numbers as 8 cannot say which of 24 tokens are there."""
    hows = ("learned", "map"), (None, "features")
    found = [[precision(s, *how, SEEN, trained=True) for s in range(3)] for how in hows]
    assert min(found[0]) > 0.95
    assert_beats(*found)


def test_what_names_are_for():
    """P88: on an encoder that is given, four labels of which nothing is said are known by their names; with learnt
    queries they are not."""
    found = [[precision(s, each, "map", ~SEEN, trained=False) for s in range(3)] for each in ("encoded", "learned")]
    assert min(found[0]) > 0.8
    assert_beats(*found)


def test_bad_names_and_rows():
    text, picture = jnp.ones((2, LENGTH, 4)), jnp.ones((2, 3, 3, 4))
    named = label_attention(2, ("7", "no number"), tokenizer, names="encoded", extra=())
    with pytest.raises(ValueError, match="'no number' has no token"):
        named.init(jax.random.key(0), text)
    with pytest.raises(ValueError, match="take names = 'learned'"):
        label_attention(2, ("a", "b"), None, names="encoded", extra=()).init(jax.random.key(0), picture)
    with pytest.raises(ValueError, match="take outputs = 'map'"):
        head("learned").init(jax.random.key(0), text[:, 0])
    assert head("learned").apply(head("learned").init(jax.random.key(0), picture), picture, train=False)[0].shape == (
        2,
        LABELS,
    )


def test_rules_read_its_probabilities_and_pooled_features():
    rng = np.random.default_rng(0)
    rows = rng.integers(1, 20, (6, LENGTH), np.int32)
    rows[:, 6:] = 0
    network = stack(
        backbone=mean_pool(20, width=4, dropout=0.5, outputs="map", dtype="float32"), head=head("learned", labels=3)
    )
    variables = network.init(jax.random.key(0), rows)
    found = network.apply(variables, rows, train=False)[0]
    evidence = gather(network, variables, Split(rows, np.zeros((6, 3), np.int8)), 0.0)
    np.testing.assert_allclose(evidence.probs, jax.nn.sigmoid(found["head"]), rtol=1e-6)
    np.testing.assert_allclose(evidence.features, pooled(found["backbone"], rows), rtol=1e-6)
