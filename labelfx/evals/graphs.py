"""Labels that spread over a graph, and floors of its nodes: what their words or their edges say by themselves."""

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.linalg

from labelfx.config.annotations import Fraction, Positive, PositiveInt
from labelfx.evals.blocks import own_devices
from labelfx.evals.classification import MANY, linear_probe
from labelfx.graphs import Graph
from labelfx.mining.search import top_k


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
    shape = graph.num_nodes, graph.num_nodes
    spread = _normalised(scipy.sparse.csr_matrix((np.ones(len(sender)), (receiver, sender)), shape))
    labels = np.zeros((graph.num_nodes, num_classes))
    labels[_nodes(labelled_inputs), labelled_labels] = 1
    found = labels
    for _ in range(rounds):
        found = alpha * (spread @ found) + (1 - alpha) * labels
    return _result(found[_nodes(test_inputs)], labelled_labels, test_labels)


def feature_propagation(
    rows: np.ndarray,
    labelled_features: np.ndarray,
    labelled_labels: np.ndarray,
    scored_rows: np.ndarray,
    features: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    k: PositiveInt,
    gamma: Positive,
    alpha: Fraction,
) -> dict[str, Any]:
    """Labels spread over the nearest neighbours of features, of which nothing else is learnt: transductive, test rows
    are in the graph, without their labels (Zhou et al. 2004; of features Iscen et al. 2019, "Label Propagation for Deep
    Semi-supervised Learning", section 3.2, who take k = 50, gamma = 3 and alpha = 0.99).

    Rows i and j are joined by A_ij = max(cos, 0)^gamma where j is one of the k nearest of i, W = A + A^T, and Z solves
    (I - alpha D^-1/2 W D^-1/2) Z = Y, by conjugate gradients in float64; a row takes the class of its largest entry.
    With neighbours by `labelfx.mining.search.top_k`, O(N^2 F) time of N = L + S + Q rows, O(N k) memory.

    Args:
      labelled_features, test_features: float32 [L, F], [Q, F].
      labelled_labels, test_labels: int32 [L], [Q].
      features: float32 [S, F], of training rows without their labels; one that is labelled is not there twice.
      rows, scored_rows: int64 [L], [S], the places of both in the training split.
      num_classes: C.

    Returns:
      accuracy, reached (the share of test rows that any label comes to; others count as wrong), rows (= N), split, n (=
      Q), n_labels (= L).
    """
    x = np.concatenate([labelled_features, features[~np.isin(scored_rows, rows)], test_features])
    size = len(x)
    k, many = min(k, size - 1), x.size * size > MANY
    cosine, nearest = top_k(
        x, x, k, similarity="cosine", exclude=np.arange(size)[:, None], mesh=own_devices(every=many)
    )
    weight = np.maximum(np.asarray(cosine, np.float64).ravel(), 0) ** gamma
    joined = scipy.sparse.csr_matrix((weight, np.asarray(nearest).ravel(), np.arange(0, size * k + 1, k)), (size, size))
    system = scipy.sparse.identity(size, format="csr") - alpha * _normalised(joined + joined.T)
    found = np.zeros((size, num_classes))
    for c in range(num_classes):
        start = np.zeros(size)
        start[: len(labelled_labels)] = labelled_labels == c
        found[:, c] = scipy.sparse.linalg.cg(system, start, rtol=1e-6)[0]
    return _result(found[-len(test_labels) :], labelled_labels, test_labels) | {"rows": size}


def _normalised(adjacency: scipy.sparse.csr_matrix) -> scipy.sparse.csr_matrix:
    """D^-1/2 A D^-1/2; a row without an edge stays 0."""
    degree = np.asarray(adjacency.sum(1)).ravel()
    scale = scipy.sparse.diags(np.where(degree > 0, degree, 1) ** -0.5)
    return (scale @ adjacency @ scale).tocsr()


def _result(scores: np.ndarray, labelled_labels: np.ndarray, test_labels: np.ndarray) -> dict[str, Any]:
    """Of test rows' scores [Q, C]."""
    reached = scores.any(1)
    right = reached & (scores.argmax(1) == test_labels)
    return {
        "accuracy": float(right.mean()),
        "reached": float(reached.mean()),
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }
