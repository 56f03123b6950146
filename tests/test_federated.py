"""Federated rounds against supervised training and NumPy, and which network is the expert of which rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from loops import in_float64
from recipes import tiny
from toys import adam, assert_beats, noise, one_layer, with_head

import labelfx
from labelfx.config import ConfigError
from labelfx.data.batches import draw
from labelfx.data.miners import by_client
from labelfx.data.weak import clients
from labelfx.methods.from_labels.supervised import supervised
from labelfx.methods.semi_supervised.federated import federated
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.federated import more_confident


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def test_more_confident():
    rng = np.random.default_rng(0)
    local, other = softmax(rng.normal(size=(40, 3))), softmax(rng.normal(size=(40, 3)))
    other[0] = local[0][::-1]  # a tie
    target, accepted, own = in_float64(jax.jit(more_confident), local, other, threshold=0.6)
    assert target.dtype == np.float64 and own[0] and 0 < own.mean() < 1 and 0 < accepted.mean() < 1
    for i in range(40):
        mine = max(local[i]) >= max(other[i])
        best = local[i] if mine else other[i]
        assert own[i] == mine and accepted[i] == (max(best) >= 0.6)
        assert target[i].tolist() == [float(c == np.argmax(best)) for c in range(3)]
    with pytest.raises(ValueError, match=r"global_probs \[..., C\], got \(40, 3\), \(40, 2\)"):
        more_confident(local, other[:, :2], threshold=0.6)


NET = with_head(one_layer("w", 4, jnp.tanh), 3)
WEIGHTS = {"unlabelled_weight": 0.5, "agreement_weight": 2.0}


def build(tx, local_steps, threshold=0.4, net=NET, steps=100):
    still = noise(0.0)
    how = {"weak": still, "strong": still, "local_steps": local_steps, "threshold": threshold}
    return federated(net, tx, steps, **how, **WEIGHTS)


def labelled_batch(seed, share, size=12):
    rng = np.random.default_rng(seed)
    rows = {"input": rng.random((size, 1, 5, 1), np.float32), "label": rng.integers(0, 3, size).astype(np.int32)}
    return {"labelled": rows | {"client_share": np.tile(np.float32(share), (size, 1))}}


def of_client(batch, client, clients):
    """The block of a client, as a batch of its own."""
    size = len(batch["labelled"]["label"]) // clients
    block = {k: x[client * size : (client + 1) * size] for k, x in batch["labelled"].items() if k != "client_share"}
    return {"labelled": block}


def alone(batches, tx):
    """Supervised training of a client by itself: its parameters after the last step."""
    objective = functools.partial(cross_entropy, label_smoothing=0.0)
    method = supervised(NET, tx, augment=noise(0.0), objective=objective)
    state, step = method.init(jax.random.key(0), batches[0]), jax.jit(method.step)
    for batch in batches:
        state, metrics = step(state, batch, jax.random.key(9))
    return method.variables(state)["params"], metrics


def test_one_client_and_one_step_are_supervised_training():
    batches = [labelled_batch(seed, [1.0]) for seed in range(3)]
    method = build(adam(0.1), local_steps=1)
    state, step = method.init(jax.random.key(0), batches[0]), jax.jit(method.step)
    for batch in batches:
        state, metrics = step(state, batch, jax.random.key(9))
    expected, of_supervised = alone([of_client(batch, 0, 1) for batch in batches], adam(0.1))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)  # products of a batch of one matrix
    jax.tree.map(close, method.variables(state)["params"], expected)
    close(metrics["loss"], of_supervised["loss"])
    assert metrics["accuracy"] == of_supervised["accuracy"]
    assert metrics["drift"] == 0


@pytest.mark.parametrize("share", [[0.25, 0.75], [1.0, 0.0]])
def test_the_server_takes_the_weighted_mean_once_a_round(share):
    batches = [labelled_batch(seed, share) for seed in range(2)]
    method = build(optax.sgd(0.3), local_steps=2)
    state, step = method.init(jax.random.key(0), batches[0]), jax.jit(method.step)
    start = method.variables(state)["params"]
    state, _ = step(state, batches[0], jax.random.key(9))
    jax.tree.map(np.testing.assert_array_equal, method.variables(state)["params"], start)
    state, metrics = step(state, batches[1], jax.random.key(9))
    one, other = (alone([of_client(batch, k, 2) for batch in batches], optax.sgd(0.3))[0] for k in range(2))
    mean = jax.tree.map(lambda a, b: share[0] * a + share[1] * b, one, other)
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    jax.tree.map(close, method.variables(state)["params"], mean)
    for client in range(2):  # all go on from there
        jax.tree.map(lambda x, y, k=client: close(x[k], y), state.clients.params, mean)
    squares = [
        np.square(np.asarray(x - m))
        for tree in (one, other)
        for x, m in zip(*map(jax.tree.leaves, (tree, mean)), strict=True)
    ]
    np.testing.assert_allclose(
        metrics["drift"], np.sqrt(np.concatenate([x.ravel() for x in squares]).mean()), rtol=1e-4
    )


def test_losses_of_a_step():
    """Of two clients that have moved away from the server, one of them without a label."""
    rng = np.random.default_rng(0)
    batch = labelled_batch(0, [0.25, 0.75])
    batch["labelled"]["label"][6:] = -1
    truth = rng.integers(-1, 3, 8).astype(np.int32)
    batch |= {"unlabelled": {"input": rng.random((8, 1, 5, 1), np.float32)}, "audit": {"unlabelled": {"label": truth}}}
    method = build(optax.sgd(2.0), local_steps=9)
    state, step = method.init(jax.random.key(0), batch), jax.jit(method.step)
    for _ in range(3):
        state, _ = step(state, batch, jax.random.key(1))
    other = NET.init(jax.random.key(5), batch["labelled"]["input"])
    other["params"]["head"]["Dense_0"]["kernel"] *= 3.0
    state = state._replace(server=other)
    _, metrics = step(state, batch, jax.random.key(1))

    def log_probs(params, image):
        hidden = np.tanh(image.reshape(-1) @ params["backbone"]["w"])
        logits = hidden @ params["head"]["Dense_0"]["kernel"] + params["head"]["Dense_0"]["bias"]
        return logits - np.log(np.sum(np.exp(logits)))

    server = jax.tree.map(np.float64, state.server["params"])
    found = {"labelled_loss": 0.0, "unlabelled_loss": 0.0, "agreement_loss": 0.0, "acceptance": 0.0, "from_local": 0.0}
    seen = set()
    for client, share in enumerate((0.25, 0.75)):
        params = jax.tree.map(lambda x, k=client: np.float64(x[k]), state.clients.params)
        if client == 0:
            rows = zip(batch["labelled"]["input"][:6], batch["labelled"]["label"][:6], strict=True)
            found["labelled_loss"] += share * np.mean([-log_probs(params, x)[y] for x, y in rows])
        own = accepted = 0
        for x in batch["unlabelled"]["input"][4 * client : 4 * client + 4]:
            q, p = log_probs(params, x), np.exp(log_probs(server, x))
            local, confident = np.exp(q).max() >= p.max(), max(np.exp(q).max(), p.max()) >= 0.4
            label = np.argmax(q) if local else np.argmax(p)
            accepted, own = accepted + confident, own + (confident and local)
            found["unlabelled_loss"] += share * -q[label] * confident / 4
            if np.argmax(q) == np.argmax(p):
                found["agreement_loss"] += share * np.sum(p * (np.log(p) - q)) / 4
            seen.add((bool(local), bool(confident), np.argmax(q) == np.argmax(p)))
        found["acceptance"] += share * accepted / 4
        found["from_local"] += share * own / accepted
    assert len(seen) >= 3
    found["loss"] = found["labelled_loss"] + 0.5 * found["unlabelled_loss"] + 2.0 * found["agreement_loss"]
    for name, value in found.items():
        np.testing.assert_allclose(metrics[name], value, rtol=2e-4, err_msg=name)
    assert found["agreement_loss"] > 1e-4 and 0 <= metrics["pseudo_label_accuracy"] <= 1


def test_clients_hold_shares_of_classes():
    label = np.repeat(np.arange(4, dtype=np.int32), 500)
    few, even = (
        clients(label, np.random.default_rng(0), 4, count=5, alpha=alpha).columns["client"] for alpha in (0.1, 1e4)
    )
    counts = [np.bincount(5 * label + client, minlength=20).reshape(4, 5) / 500 for client in (few, even)]
    assert np.abs(counts[1] - 0.2).max() < 0.06 and counts[0].max(1).mean() > 0.6
    said = clients(label, np.random.default_rng(0), 4, count=5, alpha=0.1)
    assert said.everywhere == {"client"} and said.columns["label"] is label


def test_blocks_of_a_batch_are_of_one_client_each():
    client = np.array([0, 0, 0, 1, 1, 3, 3, 3, 3, 3], np.int32)  # client 2 has no row, client 3 no label
    miner = by_client(client, np.array([0, 1, 3]))
    rows, extra = miner.labelled(functools.partial(draw, 0, 0, 0), 8)
    assert set(rows[:2]) == {0, 1} and set(rows[2:4]) == {3} and set(client[rows[6:]]) == {3}
    np.testing.assert_allclose(extra["client_share"], np.tile(np.float32([0.3, 0.2, 0, 0.5]), (8, 1)))
    drawn = miner.rows(np.random.default_rng(0), np.arange(8), {})
    assert set(client[drawn[:2]]) == {0} and set(drawn[2:4]) == {3, 4} and set(client[drawn[6:]]) == {3}
    with pytest.raises(ValueError, match="a batch of 6 rows: must be a multiple of the 4 clients"):
        miner.rows(np.random.default_rng(0), np.arange(6), {})
    for nobody in (None, np.full(3, -1)):
        with pytest.raises(ValueError, match="no column says which client a row is of; take labels.weak clients"):
            by_client(nobody, np.arange(2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"batches": {"name": "uniform"}},
            "config.batches gives no 'client_share', which federated reads; take by_client",
        ),
        ({"batch": {"labelled": 16, "unlabelled": 6}}, "batch.unlabelled = 6: must be a multiple of the 4 clients"),
        ({"steps": 2}, "local_steps = 3: no round would be finished in 2 steps"),
        (
            {"labels": {"name": "per_class", "k": 2}},
            "config.batches: by_client: no column says which client a row is of",
        ),
    ],
)
def test_what_cannot_run_is_said_before_training(changes, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        labelfx.train(tiny("federated", **changes), tmp_path)


def test_who_is_more_confident_is_the_expert():
    """Two clients. Of classes 0 and 1 one holds the other's looks: their mean network is at a loss. Classes 2 and 3 are
    labelled by the first client alone, 4 and 5 by the second: steps on its own labels make a client forget the others.
    Labels from its own network fail on those, labels from the server's on the former."""
    clients, rounds, local, classes = 2, 3, 50, 6
    net = with_head(one_layer("w", 16, jax.nn.relu), classes)
    method = build(optax.sgd(0.5), local, net=net, steps=rounds * local)

    def rows(rng, label):
        sign = jnp.where(jnp.arange(len(label)) < len(label) // 2, 1.0, -1.0)  # the first half is the first client's
        looks = jnp.where(label == 0, sign, jnp.where(label == 1, -sign, 0))
        own = [(label == c).astype(looks.dtype) for c in range(2, classes)]
        x = jnp.stack([looks, (label < 2).astype(looks.dtype), *own], -1)
        return (x + 0.3 * jax.random.normal(rng, x.shape))[:, None, :, None]

    told = jnp.concatenate([jnp.tile(jnp.array(own, jnp.int32), 5) for own in ((0, 1, 2, 3), (0, 1, 4, 5))])
    truth = jnp.tile(jnp.arange(classes, dtype=jnp.int32), 40)

    def run(seed):
        rng_told, rng_rest, rng_init, rng_steps = jax.random.split(jax.random.key(seed), 4)
        share = jnp.full((len(told), clients), 1 / clients)
        batch = {"labelled": {"input": rows(rng_told, told), "label": told, "client_share": share}}
        # The last round is not finished: the clients have moved on from the server.
        keys = jax.random.split(rng_steps, rounds * local - 1)
        state, _ = jax.lax.scan(
            lambda state, rng: (method.step(state, batch, rng)[0], None), method.init(rng_init, batch), keys
        )
        images = rows(rng_rest, truth)

        def probs(variables, images):
            return jax.nn.softmax(net.apply(variables, images, train=False)[0]["head"])

        own = jax.vmap(probs)(state.clients.variables, images.reshape(clients, -1, *images.shape[1:]))
        own, server = own.reshape(-1, classes), probs(state.server, images)
        selected, _, _ = more_confident(own, server, threshold=0.0)
        return [jnp.mean(jnp.argmax(each, -1) == truth) for each in (selected, own, server)]

    selected, own, server = jax.jit(jax.vmap(run))(jnp.arange(10))
    print("selected", jnp.mean(selected), "local", jnp.mean(own), "global", jnp.mean(server))
    assert_beats(selected, own)
    assert_beats(selected, server)
