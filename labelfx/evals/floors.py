"""What a linear probe reaches without any training: the floors that a trained backbone must clear."""

from typing import Any

import jax
import numpy as np

from labelfx.config.annotations import NonNegativeInt
from labelfx.data.augment import to_float
from labelfx.evals import features
from labelfx.evals.classification import linear_probe
from labelfx.evals.kept import kept_features
from labelfx.models import Model
from labelfx.models.backbones import pretrained as backbone
from labelfx.models.pretrained import read


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


def pretrained(
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_inputs: Any,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    file: str,
    image_size: NonNegativeInt,
) -> dict[str, Any]:
    """`linear_probe` on features of a frozen encoder from elsewhere (`models.backbones.pretrained`). What went into
    its training counts too: labels of ImageNet's classes say much of photographs of the same things."""
    encoder = read(file)
    how: dict[str, Any] = {"file": file, "image_size": image_size, "description": encoder.description}
    model, variables = backbone(None, frozen=True, lora=None, norm="stored", dtype="float32", **how), encoder.weights()
    labelled, test = (kept_features(model, variables, images) for images in (labelled_inputs, test_inputs))
    return linear_probe(labelled, labelled_labels, test, test_labels, num_classes)


def _pixels(images):
    rows = images[np.arange(len(images))]
    return rows.reshape(len(rows), -1).astype(np.float32) / 255
