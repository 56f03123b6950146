"""Graphs, as side data of a set whose rows are node ids, and what is computed on them without training."""

from typing import NamedTuple

import numpy as np


class Graph(NamedTuple):
    """An undirected graph without loops.

    features: uint8 (words that a node has, 0 or 1) or float32 [num_nodes, F]; a model scales them.
    edges: int32 [E, 2], (sender, receiver), each edge both ways, in the order of receivers, then senders.
    """

    features: np.ndarray
    edges: np.ndarray

    @property
    def num_nodes(self) -> int:
        return len(self.features)
