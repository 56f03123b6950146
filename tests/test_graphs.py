"""Networks and floors on the nodes of a graph, against matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from recipes import recipe

import labelfx
from labelfx.config import ConfigError
from labelfx.data import Dataset, Split
from labelfx.evals.graphs import label_propagation, node_words
from labelfx.finished import weights
from labelfx.graphs import Graph
from labelfx.loop.mesh import make_mesh, split_state
from labelfx.models import graphs
from labelfx.models.backbones import gcn

NAMES = ("a", "b")


def blocks(nodes=80, seed=0, words=12):
    """A stochastic block model of two classes, whose words say little and whose edges much."""
    rng = np.random.default_rng(seed)
    label = (np.arange(nodes) % 2).astype(np.int32)
    linked = rng.random((nodes, nodes)) < np.where(label[:, None] == label[None], 0.15, 0.02)
    pairs = np.argwhere(np.triu(linked, 1))
    features = (rng.random((nodes, words)) < 0.3 + 0.1 * (np.arange(words) % 2 == label[:, None])).astype(np.uint8)
    return Graph(features, np.concatenate([pairs, pairs[:, ::-1]]).astype(np.int32)), label


def dataset(seed=0):
    graph, label = blocks(seed=seed)
    rows = np.arange(len(label), dtype=np.int32)[:, None]
    train, test = (Split(rows[part], label[part]) for part in (slice(0, 40), slice(40, None)))
    return Dataset(train, test, NAMES, {"graph": graph})


def dense(graph):
    adjacency = np.eye(graph.num_nodes)
    adjacency[graph.edges[:, 1], graph.edges[:, 0]] = 1
    scale = adjacency.sum(1) ** -0.5
    return scale[:, None] * adjacency * scale[None]


def test_propagation_is_the_product_with_the_normalised_adjacency():
    graph, _ = blocks()
    with jax.enable_x64(True):
        x = np.random.default_rng(0).normal(size=(graph.num_nodes, 3))
        np.testing.assert_allclose(
            graphs.propagate(jnp.asarray(x), jnp.asarray(graph.edges)), dense(graph) @ x, atol=1e-12
        )
        grad = jax.grad(lambda x: jnp.sum(graphs.propagate(x, jnp.asarray(graph.edges)) ** 3))(jnp.asarray(x))
        np.testing.assert_allclose(grad, dense(graph).T @ (3 * (dense(graph) @ x) ** 2), atol=1e-11)


def test_gcn_is_two_products_and_keeps_its_graph_among_its_variables():
    graph, _ = blocks()
    model, nodes = gcn(graph, hidden=(5,), dropout=0.5, dtype="float32"), np.array([[3], [0], [3]], np.int32)
    variables = model.init(jax.random.key(0), nodes)
    np.testing.assert_array_equal(variables["graph"]["features"], graph.features)
    layer = jax.device_get(variables["params"]["Dense_0"])
    x = graph.features / np.maximum(graph.features.sum(1, keepdims=True), 1)
    hidden = np.maximum(dense(graph) @ (x @ layer["kernel"] + layer["bias"]), 0)
    found, state = model.apply(variables, nodes, train=False)
    np.testing.assert_allclose(found, (dense(graph) @ hidden)[[3, 0, 3]], rtol=1e-5, atol=1e-6)
    assert state.keys() == {"graph"}
    lone = Graph(graph.features, np.zeros((0, 2), np.int32))  # without an edge a node is by itself
    alone, _ = model.apply(variables | {"graph": {"features": lone.features, "edges": lone.edges}}, nodes, train=False)
    np.testing.assert_allclose(
        alone, np.maximum(x @ layer["kernel"] + layer["bias"], 0)[[3, 0, 3]], rtol=1e-5, atol=1e-6
    )
    with pytest.raises(ValueError, match="the graph takes 512 MB, of which every checkpoint has a copy; at most 256"):
        gcn(Graph(np.broadcast_to(np.uint8(0), (1, 2**29)), graph.edges), hidden=(5,), dropout=0.0, dtype="float32")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_edges_solve_what_words_do_not(seed, tmp_path):
    """The network is ten points and more above the words; with edges that lead nowhere it is not."""
    whole = dataset(seed)
    bare = whole._replace(side={"graph": Graph(whole.side["graph"].features, np.array([[0, 1], [1, 0]], np.int32))})
    found = []
    for name, data in (("whole", whole), ("bare", bare)):
        config = recipe("gcn") | {"data": {"name": "arrays"}, "labels": {"name": "first", "n": 20}, "steps": 100}
        config |= {"devices": 1, "batch": {"labelled": 20, "unlabelled": 0}, "evals": {"head": {}, "node_words": {}}}
        results = labelfx.train(config, tmp_path / name, dataset=data)["metrics"]
        found.append(results["head"]["accuracy"])
    assert found[0] > results["node_words"]["accuracy"] + 0.1 and found[0] > found[1] + 0.1
    encoder = labelfx.load(tmp_path / "whole")  # the graph is among the weights
    right = encoder.predict(whole.test.inputs).argmax(1) == whole.test.labels
    assert right.mean() == found[0]
    kept = weights.load(tmp_path / "whole/weights/0.safetensors")["graph"]["backbone"]
    np.testing.assert_array_equal(kept["edges"], whole.side["graph"].edges)


def test_label_propagation_is_the_closed_form_in_the_limit():
    graph, label = blocks()
    known, asked = np.arange(10, dtype=np.int32)[:, None], np.arange(10, 80, dtype=np.int32)[:, None]
    how = (known, label[:10], asked, label[10:], 2, graph)
    found = label_propagation(*how, alpha=0.8, rounds=400)
    adjacency = np.zeros((80, 80))
    adjacency[graph.edges[:, 1], graph.edges[:, 0]] = 1
    scale = np.maximum(adjacency.sum(1), 1) ** -0.5
    spread, start = scale[:, None] * adjacency * scale[None], np.zeros((80, 2))
    start[np.arange(10), label[:10]] = 1
    limit = np.linalg.solve(np.eye(80) - 0.8 * spread, 0.2 * start)[10:]
    reached = limit.max(1) > 1e-12
    assert (
        found["accuracy"] == np.mean(reached & (limit.argmax(1) == label[10:])) and found["reached"] == reached.mean()
    )
    assert node_words(*how)["n"] == 70


def test_the_graph_is_on_every_device_and_eight_compute_what_one_does(tmp_path):
    data = dataset()
    config = recipe("gcn") | {"data": {"name": "arrays"}, "labels": {"name": "first", "n": 24}, "steps": 5}
    config |= {"batch": {"labelled": 24, "unlabelled": 0}, "evals": {}, "fsdp": 2}
    config["model"] = config["model"] | {"hidden": (256,), "dropout": 0.0}
    found = []
    for devices in (8, 1):
        labelfx.train(config | {"devices": devices, "fsdp": min(2, devices)}, tmp_path / f"{devices}", dataset=data)
        found.append(weights.load(tmp_path / f"{devices}/weights/0.safetensors"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *found)
    state = {"params": {"kernel": np.zeros((256, 256))}, "graph": {"backbone": {"features": np.zeros((256, 256))}}}
    where = split_state(make_mesh(8, 2), state)
    assert not where["params"]["kernel"].is_fully_replicated
    assert where["graph"]["backbone"]["features"].is_fully_replicated


def test_a_network_of_nodes_wants_a_graph(tmp_path):
    config = recipe("gcn") | {"data": {"name": "digits"}, "labels": {"name": "per_class", "k": 2}, "devices": 1}
    config["evals"] = {}
    with pytest.raises(ConfigError, match="config.model.name = 'gcn': reads a graph, but 'digits' has none"):
        labelfx.train(config, tmp_path)
    config = recipe("supervised") | {"devices": 1, "evals": {"label_propagation": {"alpha": 0.9, "rounds": 5}}}
    with pytest.raises(ConfigError, match="config.evals.label_propagation: 'digits' has no graph"):
        labelfx.train(config, tmp_path)
