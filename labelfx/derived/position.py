"""Where to stand between fine-tuned networks: found by gradient descent, on a few coefficients alone."""

import logging
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import ConfigError
from labelfx.config.annotations import Positive, PositiveInt
from labelfx.data import known
from labelfx.data.augment import to_float
from labelfx.derived import Derived, Finished, check_alike, check_classifiers, count_runs
from labelfx.objectives.classification import cross_entropy

logger = logging.getLogger(__name__)
APART = 0.5  # the cosine of a network with the base below which it was hardly tuned from it


def position(
    runs: tuple[Finished, ...], rng: np.random.Generator, *, steps: PositiveInt, rate: Positive, rows: PositiveInt
) -> Derived:
    """One network out of several that were fine-tuned from one base for a task each, `base + scale sum_k share_k
    (network_k - base)`, whose scale and shares stochastic gradient descent finds on a few rows of all tasks (Self
    Positioning: Li et al. 2024, "Improving General Text Embedding Model: Tackling Task Conflict and Data Imbalance
    through Model Merging").

    The rows are the base's label view, so that these and no training set's size say how much a task counts. The loss is
    their cross-entropy. With BatchNorm it is taken with the statistics of the batch. derived.json has the scale, the
    shares, the losses and the cosine of each network with the base, of which a small one is warned of.

    Args:
      runs: BASE, T1, T2..., with the same classes.
      steps: of gradient descent.
      rate: its step size.
      rows: of a batch; all labelled rows where there are no more.

    Raises:
      ConfigError: the networks cannot be merged, their classes are others, or the base was told no label.
    """
    count_runs(runs, 2, None, "BASE,T1 or BASE,T1,T2...")
    check_alike(runs)
    check_classifiers(runs)
    base, *experts = runs
    for run in experts:
        if run.encoder.class_names != base.encoder.class_names:
            raise ConfigError(f"{run.place}: other classes than {base.place}, or in another order")
    inputs, labels = base.labelled
    inputs, labels = inputs[known(labels)], labels[known(labels)]
    if not len(labels):
        raise ConfigError(f"{base.place}: its label view says no label, by which the networks would be weighed")
    train = "batch_stats" in base.variables
    key = jax.random.key(int(rng.integers(2**31)))

    def loss(params, batch):
        images, classes = batch
        outputs = base.network.apply({**base.variables, "params": params}, to_float(images), train=train, rng=key)[0]
        return cross_entropy(outputs["head"], classes, label_smoothing=0.0)

    size = min(rows, len(labels))
    drawn = (np.sort(rng.choice(len(labels), size, replace=False)) for _ in range(steps))
    tuned = [run.variables["params"] for run in experts]
    cosines = [_cosine(base.variables["params"], params) for params in tuned]
    for run, cosine in zip(experts, cosines, strict=True):
        if cosine < APART:
            logger.warning("%s: was hardly tuned from %s: their cosine is %.2f", run.place, base.place, cosine)
    scale, shares, losses = search(
        loss, base.variables["params"], tuned, ((inputs[each], labels[each]) for each in drawn), rate=rate
    )
    params = jax.device_get(combined(base.variables["params"], tuned, scale, shares))
    said = {"scale": scale, "shares": shares, "loss": {"first": losses[0], "last": losses[-1]}, "cosines": cosines}
    return Derived({**base.variables, "params": params}, said=said)


def combined(base: Any, experts: list[Any], scale: Any, shares: Any) -> Any:
    """`base + scale sum_k shares_k (expert_k - base)`, leaf by leaf."""

    def one(start, *tuned):
        moves = jnp.stack([jnp.asarray(each - start, start.dtype) for each in tuned])
        return start + jnp.asarray(scale, start.dtype) * jnp.tensordot(jnp.asarray(shares, start.dtype), moves, 1)

    return jax.tree.map(one, base, *experts)


def search(
    loss: Callable[[Any, Any], jax.Array], base: Any, experts: list[Any], batches: Iterable[Any], *, rate: float
) -> tuple[float, list[float], list[float]]:
    """The scale and the shares of `combined` that gradient descent finds from scale 1 and equal shares, which are a
    softmax of what it moves; a step a batch.

    Args:
      loss: `(parameters, batch) -> scalar`.

    Returns:
      scale, shares [K] of sum 1, and the loss before each step.
    """

    @jax.jit
    def step(place, batch):
        def at(place):
            return loss(combined(base, experts, place["scale"], jax.nn.softmax(place["logits"])), batch)

        value, slope = jax.value_and_grad(at)(place)
        return jax.tree.map(lambda x, d: x - jnp.asarray(rate, x.dtype) * d, place, slope), value

    dtype = jax.tree.leaves(base)[0].dtype
    place = {"scale": jnp.ones((), dtype), "logits": jnp.zeros(len(experts), dtype)}
    losses = []
    for batch in batches:
        place, value = step(place, batch)
        losses.append(value)
    return float(place["scale"]), jax.nn.softmax(place["logits"]).tolist(), [float(each) for each in losses]


def _cosine(a: Any, b: Any) -> float:
    x, y = (np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)]) for tree in (a, b))
    return float(x @ y / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-30))
