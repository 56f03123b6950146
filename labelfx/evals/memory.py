"""What evals take of memory at most, known before a run starts: arithmetic, which tests hold against the compiler's.

Left out are the images, which are where they were, and what the network itself takes of a device to encode some of
them, as in training.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from labelfx.evals import classification, linear

FLOAT = 4  # bytes
AT_ONCE, BLOCK = 1024, 16384  # queries that kNN, recall and uniformity take at once; rows that kNN does
WIDEST = 2048  # features of a pretrained encoder, at most
READ_AHEAD = 16  # batches that are read before their time, at most


class Sizes(NamedTuple):
    """What memory depends on: the data, the network, and the devices of the process that evaluates."""

    labelled: int  # training rows of the label view
    scored: int  # training rows that label-free scores look at
    test: int
    inputs: int  # numbers of a row as the network takes it
    features: int
    classes: int
    devices: int
    positions: int = 1  # of a row that are given a class


class Memory(NamedTuple):
    """In bytes: of each device, and of the host."""

    device: int
    host: int


def needs(name: str, keywords: Mapping[str, Any], asked: Iterable[str], sizes: Sizes) -> Memory:
    """What an eval takes, with what is kept for it and others: `asked` is what a run's evals take, by name.

    One that is not of labelfx is taken to need nothing more.
    """
    kept = {
        "labelled_features": sizes.labelled * sizes.features,
        "features": sizes.scored * sizes.features,
        "test_features": sizes.test * sizes.features,
        "test_logits": sizes.test * sizes.classes * sizes.positions,
    }
    device, host = OWN[name](sizes, **keywords) if name in OWN else (0, 0)
    return Memory(FLOAT * device, FLOAT * (host + sum(kept.get(each, 0) for each in set(asked))))


def _linear_probe(sizes):
    rows, width, classes = max(sizes.labelled, 1), sizes.features, max(sizes.classes, 1)
    large = rows * width * classes > classification.LARGE
    probes, devices = (1, sizes.devices) if large else (classification.FOLDS + 1, 1)
    block = classification.probe_block(rows, width, classes, probes, devices)
    share = math.ceil(rows / devices / block) * block
    # The rows; weights, of which L-BFGS keeps ten steps and ten gradients, and a line search some; what a block makes.
    device = share * (width + 3 * probes + 1) + 40 * (width + 1) * probes * classes
    device += 3 * width**2 + block * (2 * width + 4 * probes * classes)
    # A device's rows are copied once on their way there; few rows go through an SVD on the host.
    host = (share if large else 4 * rows) * width + 4 * width**2 + sizes.test * (2 * width + 2 * classes)
    return device, host


def _knn(sizes, *, k, temperature):
    k, shared = min(k, sizes.labelled), sizes.labelled * sizes.features * sizes.test > classification.MANY
    rows = min(BLOCK, sizes.labelled) if shared else sizes.labelled
    search = 3 * sizes.test * sizes.features + rows * (3 * sizes.features + 2 * AT_ONCE)
    votes = sizes.test * (6 * k + 2 * sizes.classes) + 4 * max(classification.VOTES, k * sizes.classes)
    return max(search, votes), sizes.test * sizes.classes


def _feature_propagation(sizes, *, k, gamma, alpha):
    rows = sizes.labelled + sizes.scored + sizes.test
    block = min(BLOCK, rows) * (3 * sizes.features + 2 * AT_ONCE)
    # On the host the rows, and edges both ways, by 8 bytes and the number of a row, while the matrix is made of them.
    return rows * (3 * sizes.features + 8 * k) + block, rows * (sizes.features + 30 * k + 4 * sizes.classes)


def _linear_evaluation(sizes, *, optimizer, epochs, batch, initial_scale, augment):
    part = batch // linear.parts_of(batch)
    weights = 8 * (sizes.features + 1) * sizes.classes
    rows = 3 * batch * (sizes.features + sizes.classes)
    images = 2 * part * sizes.inputs  # as bytes, and those of the next part; the network's own memory is left out
    return (images + rows) // sizes.devices + weights, READ_AHEAD * batch * sizes.inputs // FLOAT


def _random_encoder(sizes):
    device, host = _linear_probe(sizes)
    return device, host + (sizes.labelled + sizes.test) * sizes.features


def _pretrained(sizes, *, file, image_size):
    return _random_encoder(sizes._replace(features=WIDEST))


def _raw_pixels(sizes):
    device, host = _linear_probe(sizes._replace(features=sizes.inputs))
    return device, host + 2 * (sizes.labelled + sizes.test) * sizes.inputs


def _pairs(rows, width):
    return 3 * rows * width + 4 * AT_ONCE * rows


OWN: dict[str, Any] = {
    "feature_propagation": _feature_propagation,
    "head": lambda sizes: (3 * sizes.test * sizes.classes, sizes.test * sizes.classes),
    "knn": _knn,
    "linear_evaluation": _linear_evaluation,
    "linear_probe": _linear_probe,
    "pretrained": _pretrained,
    "random_encoder": _random_encoder,
    "rankme": lambda sizes: (5 * sizes.scored * sizes.features + 8 * sizes.features**2, 0),
    "raw_pixels": _raw_pixels,
    "recall_at_k": lambda sizes, *, k: (_pairs(sizes.test, sizes.features), 0),
    "uniformity": lambda sizes, *, t: (_pairs(sizes.scored, sizes.features), 0),
}
