"""The protocol of papers: a linear classifier on the frozen network, trained by gradient descent on its views."""

import collections
import functools
import itertools
import math
import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx import models
from labelfx.config.annotations import Augment, NonNegative, Optimizer, PositiveInt
from labelfx.data import Split
from labelfx.data.batches import batches, label_view
from labelfx.data.miners import uniform
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows
from labelfx.loop.state import fold_in_name
from labelfx.models import Model

ENCODED = 1024  # images that the network sees at once, over all devices
MINUTE = 60  # seconds between two words of progress


def linear_evaluation(
    model: Model,
    variables: Any,
    seed: int,
    workers: int,
    labelled_inputs: Any,
    labelled_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    optimizer: Optimizer,
    epochs: PositiveInt,
    batch: PositiveInt,
    initial_scale: NonNegative,
    augment: Augment,
) -> dict[str, Any]:
    """A linear classifier on the frozen backbone, trained by gradient descent on augmented images: papers' protocol.

    Each step encodes a batch of augmented images, in evaluation mode, and moves the classifier by their mean
    cross-entropy. Its kernel starts with standard deviation `initial_scale`, its bias at 0, and those of the last step
    are tested, where some papers take the best epoch's. What is left of an epoch and fills no batch is left out.
    Batches are split over the devices of this process. Nothing is kept on the way: what is stopped begins anew.

    Published for ImageNet with random resized crops and flips: SGD at 0.1 batch / 256 with a cosine, batch 4096, 90
    epochs, from 0 (SimCLR); at 30, divided by 10 after 60 and 80 of 100 epochs, batch 256, from 0.01 (MoCo); LARS at
    1.6 with a cosine, batch 4096, 90 epochs, from 0.01 (SimSiam).

    Args:
      model, variables: the backbone, and the method's variables, of which it takes the backbone's.
      seed: of the kernel, the order of the images and their augmentation.
      workers: as `config.workers`.
      labelled_inputs: uint8 [L, H, W, C], an ndarray or lazy.
      test_features: float32 [Q, F].
      labelled_labels, test_labels: int32 [L], [Q].
      num_classes: C.

    Returns:
      accuracy, loss (the mean over the last epoch), steps, split, n (= Q), n_labels (= L).

    Raises:
      ValueError: the batch is larger than the label view, or the loss is not finite.
    """
    if batch > len(labelled_labels):
        raise ValueError(f"batch = {batch}: more than the {len(labelled_labels)} labelled images")
    per_epoch = len(labelled_labels) // batch
    steps = epochs * per_epoch
    tx = optimizer(steps)
    size = batch // parts_of(batch)
    mesh = make_mesh(max(n for n in range(1, jax.local_device_count() + 1) if size % n == 0), 1, jax.local_devices())
    root = fold_in_name(jax.random.key(seed), "linear_evaluation")
    shape = test_features.shape[1], num_classes
    params = {"kernel": initial_scale * jax.random.normal(root, shape), "bias": jnp.zeros(num_classes)}
    made = (params, tx.init(params)), models.backbone(variables), root
    state, backbone, root = jax.device_put(made, on_every_device(mesh))
    view = label_view(Split(labelled_inputs, labelled_labels), np.arange(len(labelled_labels)))
    how = {"view": view, "sizes": {"labelled": batch, "unlabelled": 0}, "seed": seed, "miner": uniform(), "table": {}}
    losses, said = collections.deque([0.0], maxlen=per_epoch), time.monotonic()
    for step, drawn in enumerate(batches(0, steps, workers=workers, **how)):
        images, labels = drawn["labelled"]["input"], drawn["labelled"]["label"]
        encoded = []
        for first in range(0, batch, size):
            part = jax.device_put(images[first : first + size], split_rows(mesh))
            encoded.append(
                _encode(backbone, part, root, np.array([step, first], np.int32), apply=model.apply, augment=augment)
            )
        jax.block_until_ready(losses[-1])  # one batch is read while another is at work, and no more wait
        if time.monotonic() > said + MINUTE:
            said = time.monotonic()
            print(
                f"linear_evaluation: step {step} of {steps}, loss {float(losses[-1]):.4g}", file=sys.stderr, flush=True
            )
        state, loss = _descend(state, encoded, jax.device_put(labels, split_rows(mesh)), update=tx.update)
        losses.append(loss)
    loss = float(np.mean(losses))
    if not math.isfinite(loss):
        raise ValueError(f"the loss of the last epoch is {loss}: take a smaller learning_rate")
    kernel, bias = (np.asarray(state[0][name]) for name in ("kernel", "bias"))
    return {
        "accuracy": float(np.mean(np.argmax(test_features @ kernel + bias, axis=1) == test_labels)),
        "loss": loss,
        "steps": steps,
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }


def parts_of(batch: int) -> int:
    """The fewest equal parts of a batch that the network sees one by one."""
    return next(n for n in itertools.count(math.ceil(batch / ENCODED)) if batch % n == 0)


@functools.partial(jax.jit, static_argnames=("apply", "augment"))
def _encode(backbone, images, root, place, *, apply, augment):
    rng = jax.random.fold_in(jax.random.fold_in(fold_in_name(root, "augment"), place[0]), place[1])
    rows = augment(rng, images)
    return models.pooled(apply(backbone, rows, train=False)[0], rows).astype(jnp.float32)


@functools.partial(jax.jit, static_argnames="update", donate_argnames="state")
def _descend(state, encoded, labels, *, update):
    params, opt_state = state
    x = jnp.concatenate(encoded)

    def loss(params):
        logits = jnp.matmul(x, params["kernel"], precision=jax.lax.Precision.HIGHEST) + params["bias"][None]
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))

    value, gradient = jax.value_and_grad(loss)(params)
    updates, opt_state = update(gradient, opt_state, params)
    return (optax.apply_updates(params, updates), opt_state), value
