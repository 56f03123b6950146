"""Nodes of a graph, as rows of one id; the graph itself is side data."""

import numpy as np

from labelfx.config import local
from labelfx.data import DataError, Dataset, Split
from labelfx.data.npy import read_arrays
from labelfx.graphs import Graph

PLANETOID = {
    "cora": tuple(
        "theory, reinforcement learning, genetic algorithms, neural networks, probabilistic methods, case based, "
        "rule learning".split(", ")
    ),
    "citeseer": tuple("AI, machine learning, information retrieval, databases, agents, HCI".split(", ")),
}


def planetoid(which: str, *, data_dir: str) -> Dataset:
    """Cora (2,708 papers, 7 fields) or CiteSeer (3,327, 6), which cite each other: node ids int32 [N, 1] and a `Graph`.

    data_dir: holds `cora.npz` or `citeseer.npz`: the words of each paper as a sparse matrix feat_data, feat_indices,
      feat_indptr, feat_shape; edges [E, 2], labels [N] with -1 for unknown, train_idx, val_idx and test_idx. The
      pickled `ind.*` are never read.

    The split is the public one: the test rows are the published 1,000. The training rows are all others, first the
    published labelled ones, 20 a field, so that `labels=dict(name="first", n=140)` (CiteSeer: 120) is their label view,
    then the 500 by which papers choose a network. 15 papers of CiteSeer have neither words nor a label.

    Source: Sen et al. 2008, "Collective Classification in Network Data"; Yang, Cohen and Salakhutdinov 2016,
    "Revisiting Semi-Supervised Learning with Graph Embeddings".
    """
    name = which.lower()
    if name not in PLANETOID:
        raise ValueError(f"{which!r}: no such graph; allowed: {', '.join(PLANETOID)}")
    path = local(data_dir) / f"{name}.npz"
    one, kinds = ("iu", 1), dict.fromkeys(("feat_indices", "feat_indptr", "feat_shape"), ("iu", 1))
    data, indices, indptr, shape, edges, labels, *parts = read_arrays(
        path, feat_data=("fiu", 1), **kinds, edges=("iu", 2), labels=one, train_idx=one, val_idx=one, test_idx=one
    )
    count = len(labels)
    features = _dense(path, data, indices, indptr, tuple(shape.tolist()), count)
    if edges.shape[1] != 2 or edges.size and not (0 <= edges.min() and edges.max() < count):
        raise DataError(f"{path}: edges must be pairs of nodes 0..{count - 1}")
    if labels.min() < -1 or labels.max() >= len(PLANETOID[name]):
        raise DataError(f"{path}: labels lie in {labels.min()}..{labels.max()}; allowed -1..{len(PLANETOID[name]) - 1}")
    named = np.concatenate(parts)
    if not (len(parts[2]) and len(named) < count and len(np.unique(named)) == len(named)):
        raise DataError(f"{path}: train_idx, val_idx and test_idx must name nodes once, some for testing, and not all")
    if named.min() < 0 or named.max() >= count or (labels[named] < 0).any():
        raise DataError(f"{path}: train_idx, val_idx and test_idx must be nodes 0..{count - 1} that have a label")
    rest = np.setdiff1d(np.arange(count), named)
    both = np.concatenate([edges, edges[:, ::-1]])
    both = np.unique(both[both[:, 0] != both[:, 1]][:, ::-1], axis=0)[:, ::-1]  # by receivers
    train, test = (
        Split(rows[:, None].astype(np.int32), labels[rows].astype(np.int32))
        for rows in (np.concatenate([*parts[:2], rest]), parts[2])
    )
    graph = Graph(features, np.ascontiguousarray(both, np.int32))
    return Dataset(train, test, PLANETOID[name], {"graph": graph})


def _dense(
    path: object, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, shape: tuple[int, ...], count: int
) -> np.ndarray:
    """uint8 [N, F], 1 where a node has a word."""
    right = len(shape) == 2 and shape[0] == count > 0 and len(indptr) == count + 1 and len(data) == len(indices)
    right = (
        right and indptr[0] == 0 and indptr[-1] == len(indices) and bool((np.diff(indptr.astype(np.int64)) >= 0).all())
    )
    if not right or not (indices.size and 0 <= indices.min() and indices.max() < shape[1]):
        raise DataError(f"{path}: feat_indptr, feat_indices and feat_shape are no sparse matrix of {count} rows")
    if shape[0] * shape[1] > 2**30:
        raise DataError(f"{path}: feat_shape is {list(shape)}; at most {2**30} entries")
    if not (data == 1).all():
        raise DataError(f"{path}: feat_data must be 1 wherever a node has a word")
    features = np.zeros(shape, np.uint8)
    features[np.repeat(np.arange(count), np.diff(indptr)), indices] = 1
    return features
