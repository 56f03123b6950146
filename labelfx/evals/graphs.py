"""Floors of nodes of a graph: what the words or the edges say by themselves."""

from typing import Any

import numpy as np
import scipy.sparse

from labelfx.config.annotations import Fraction, PositiveInt
from labelfx.evals.classification import linear_probe
from labelfx.graphs import Graph


def _nodes(inputs: Any) -> np.ndarray:
    """The node of each row, int [N]."""
    return np.asarray(inputs[np.arange(len(inputs))])[:, 0]


def node_words(
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_inputs: Any,
    test_labels: np.ndarray,
    num_classes: int,
    graph: Graph,
) -> dict[str, Any]:
    """Logistic regression on the nodes' own features, scaled to a sum of 1, without an edge; returns as
    `linear_probe`."""
    words = np.asarray(graph.features, np.float32)
    words /= np.maximum(words.sum(1, keepdims=True), 1)
    labelled, test = (words[_nodes(inputs)] for inputs in (labelled_inputs, test_inputs))
    return linear_probe(labelled, labelled_labels, test, test_labels, num_classes)


def label_propagation(
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_inputs: Any,
    test_labels: np.ndarray,
    num_classes: int,
    graph: Graph,
    *,
    alpha: Fraction,
    rounds: PositiveInt,
) -> dict[str, Any]:
    """Labels spread over the edges, without features (Zhou et al. 2004, "Learning with Local and Global Consistency"):
    F <- alpha S F + (1 - alpha) Y, with S = D^-1/2 A D^-1/2 and the labels Y one-hot.

    Returns:
      accuracy, reached (the share of test nodes that any label comes to; others count as wrong), split, n, n_labels.
    """
    sender, receiver = graph.edges.T
    degree = np.maximum(np.bincount(receiver, minlength=graph.num_nodes), 1) ** -0.5
    shape = graph.num_nodes, graph.num_nodes
    spread = scipy.sparse.csr_matrix((degree[receiver] * degree[sender], (receiver, sender)), shape)
    labels = np.zeros((graph.num_nodes, num_classes))
    labels[_nodes(labelled_inputs), labelled_labels] = 1
    found = labels
    for _ in range(rounds):
        found = alpha * (spread @ found) + (1 - alpha) * labels
    scores = found[_nodes(test_inputs)]
    reached = scores.any(1)
    right = reached & (scores.argmax(1) == test_labels)
    return {
        "accuracy": float(right.mean()),
        "reached": float(reached.mean()),
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }
