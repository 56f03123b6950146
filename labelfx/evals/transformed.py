"""What a network says of the transformed copies of a test image together."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.evals import features
from labelfx.models import Model, backbone, part
from labelfx.models.heads import linear
from labelfx.objectives.label_augmentation import aggregated_logits


def aggregated(
    model: Model,
    variables: dict[str, Any],
    transformation: Callable[..., jax.Array],
    test_inputs: Any,
    test_labels: np.ndarray,
    test_logits: np.ndarray,
    num_classes: int,
) -> dict[str, Any]:
    """Joint labels of class and transformation: what all transformed copies of a row say together, and single passes
    (Lee et al. 2020, section 3.2).

    Args:
      model: the backbone; `variables` are those of the method, a head `joint` of C M outputs among them.
      transformation: images [B, ...] to [B, M, ...].
      test_inputs: uint8 [Q, H, W, C], an ndarray or lazy.
      test_labels: int32 [Q].
      test_logits: float32 [Q, C], of the method's head.
      num_classes: C.

    Returns:
      accuracy (aggregated over the copies), single (of the joint head on the untransformed row), head (of the head,
      where it was distilled what the paper calls SLA+SD), split, n (= Q).
    """

    (trained,) = variables["params"]["joint"].values()
    head = linear(features=trained["bias"].size)

    def apply(variables, images, *, train):
        copies = transformation(images)
        encoded, _ = model.apply(backbone(variables), jax.lax.collapse(copies, 0, 2), train=train)
        joint, _ = head.apply(part(variables, "joint"), encoded, train=train)
        joint = joint.reshape(*copies.shape[:2], num_classes, -1)
        return jnp.concatenate([aggregated_logits(joint), joint[:, 0, :, 0]], -1), {}

    logits = features(Model(model.init, apply), variables, test_inputs)
    guesses = {"accuracy": logits[:, :num_classes], "single": logits[:, num_classes:], "head": test_logits}
    return {name: float(np.mean(np.argmax(each, axis=1) == test_labels)) for name, each in guesses.items()} | {
        "split": "test",
        "n": len(test_labels),
    }
