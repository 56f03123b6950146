"""Parts of tiny problems: networks of one matrix, and what their embeddings are worth."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.models import Model, stack
from labelfx.models.heads import linear


def one_layer(name, width, activation=lambda x: x):
    """A network with one named kernel."""

    def init(rng, x):
        size = x.reshape(len(x), -1).shape[1]
        return {"params": {name: jax.random.normal(rng, (size, width)) / np.sqrt(size)}}

    def apply(variables, x, *, train, rng=None):
        return activation(x.reshape(len(x), -1) @ variables["params"][name]), {}

    return Model(init, apply)


def with_head(model, num_classes):
    """The backbone with a linear head, as a run gives it to methods."""
    return stack(backbone=model, head=linear(features=num_classes))


def adam(rate):
    tx = optax.adam(rate)

    def update(*arguments):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counts with floats
            return tx.update(*arguments)

    return optax.GradientTransformation(tx.init, update)


def noise(scale):
    """An augmentation that adds noise."""
    return lambda rng, images: images + scale * jax.random.normal(rng, images.shape)


def one_label_accuracy(z, classes):
    """Accuracy of the nearest of one labelled row of each class, a mean over all such sets.

    z: [N, D], N a multiple of `classes`; row i has class i % classes.
    """
    z = z / jnp.linalg.norm(z, axis=-1, keepdims=True)
    nearest = jnp.argmax((z @ z.T).reshape(len(z), -1, classes), -1)
    return jnp.mean(nearest == jnp.arange(len(z))[:, None] % classes)


def assert_beats(ours, ablation):
    """Mean paired margin over three standard errors; both [seeds]."""
    margin = np.asarray(ours, np.float64) - np.asarray(ablation, np.float64)
    error = margin.std(ddof=1) / np.sqrt(len(margin))
    print(f"margin {margin.mean():.3f}, standard error {error:.3f}")
    assert margin.mean() > 3 * error > 0


def trained(model, images, labels, seed, *, steps=60, rate=5e-3):
    """Variables of a classifier, NumPy arrays, after so many steps of Adam on all of these uint8 images at once."""
    x, tx = images / np.float32(255), adam(rate)

    def step(carry, _):
        variables, moments = carry

        def loss(params):
            outputs, state = model.apply({**variables, "params": params}, x, train=True)
            return optax.softmax_cross_entropy_with_integer_labels(outputs["head"], jnp.asarray(labels)).mean(), state

        gradient, state = jax.grad(loss, has_aux=True)(variables["params"])
        updates, moments = tx.update(gradient, moments)
        return ({**state, "params": optax.apply_updates(variables["params"], updates)}, moments), None

    start = model.init(jax.random.key(seed), x[:1])
    fit = jax.jit(lambda start: jax.lax.scan(step, (start, tx.init(start["params"])), None, steps)[0][0])
    return jax.tree.map(np.asarray, fit(start))
