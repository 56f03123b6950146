"""What a linear probe reaches without any training: the floors that a trained backbone must clear."""

from typing import Any

import jax
import numpy as np

from labelfx.data.augment import to_float
from labelfx.evals import features
from labelfx.evals.classification import linear_probe
from labelfx.models import Model


def raw_pixels(
    labelled_inputs: Any, labelled_labels: np.ndarray, test_inputs: Any, test_labels: np.ndarray, num_classes: int
) -> dict[str, Any]:
    """`linear_probe` on pixels / 255: its arguments and result, with images uint8 [N, H, W, C] in place of features."""
    return linear_probe(_pixels(labelled_inputs), labelled_labels, _pixels(test_inputs), test_labels, num_classes)


def random_encoder(
    model: Model,
    seed: int,
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_inputs: Any,
    test_labels: np.ndarray,
    num_classes: int,
) -> dict[str, Any]:
    """`linear_probe` on features of the frozen backbone `model` at its initial parameters, drawn from `seed`.

    BatchNorm's running statistics are initial too, mean 0 and variance 1: it normalises nothing.
    """
    variables = jax.jit(model.init)(jax.random.key(seed), to_float(labelled_inputs[np.arange(1)]))
    labelled, test = (features(model, variables, images) for images in (labelled_inputs, test_inputs))
    return linear_probe(labelled, labelled_labels, test, test_labels, num_classes)


def _pixels(images):
    rows = images[np.arange(len(images))]
    return rows.reshape(len(rows), -1).astype(np.float32) / 255
