"""Models as pairs of pure functions; everything outside this package sees only nested dicts of arrays."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Model(NamedTuple):
    """A network as two pure functions. Backbones and heads are Models, and so is a `stack` of them.

    Variables are `{"params": ..., "batch_stats": ...}`, nested dicts of arrays; a collection that a model does not
    need is absent. Parameters are float32; outputs have the dtype of the input, whatever the compute dtype, or that of
    the parameters where the input are token ids (int32).
    """

    init: Callable[..., Any]
    """`(rng, x) -> variables`."""
    apply: Callable[..., Any]
    """`(variables, x, *, train, rng=None) -> (outputs, new_model_state)`; the state is every collection but "params"
    (`{}` if there is none), unchanged when `train` is False. `rng` is for models that draw noise, such as dropout."""
    norm_groups: int = 1
    """The groups of rows that BatchNorm normalises by themselves in training, the most of any part."""
    key: str = ""
    """What the network is beside its variables, for features that are kept; "" where they are not."""


class Trained(NamedTuple):
    """A trained classifier: its model gives `{"backbone": [B, F], "head": [B, O]}`. `classes` are those of the run that
    learns from it, int [O], one for each of its outputs."""

    model: Model
    variables: dict[str, Any]
    classes: tuple[int, ...] = ()


def from_linen(module) -> Model:
    """The Model of a Linen module whose `__call__` takes `(x, train)`."""

    def init(rng, x):
        return module.init(rng, _float32(x), train=False)

    def apply(variables, x, *, train, rng=None):
        state = {name: tree for name, tree in variables.items() if name != "params"}
        rngs = {} if rng is None else {"dropout": rng}
        if not train:
            return module.apply(variables, x, train=False, rngs=rngs), state
        return module.apply(variables, x, train=True, rngs=rngs, mutable=list(state))

    return Model(init, apply, getattr(module, "norm_groups", 1))


def stack(**models: Model) -> Model:
    """Chains models in the order given: each takes the output of the one before.

    `stack(backbone=m, head=h)` has variables `{"params": {"backbone": ..., "head": ...}, "batch_stats": {...}}`, and
    its outputs are a dict of every part's output, `{"backbone": [B, F], "head": [B, O]}`.
    """
    first = next(iter(models.values()))

    def init(rng, x):
        variables: dict[str, dict] = {}
        for i, (name, model) in enumerate(models.items()):
            own = model.init(jax.random.fold_in(rng, i), x)
            _insert(variables, name, own)
            x, _ = model.apply(with_sentences(first, backbone(variables), own), _float32(x), train=False)
        return variables

    def apply(variables, x, *, train, rng=None):
        outputs: dict[str, Any] = {}
        state: dict[str, dict] = {}
        for i, (name, model) in enumerate(models.items()):
            own_rng = None if rng is None else jax.random.fold_in(rng, i)
            own = with_sentences(first, backbone(variables), part(variables, name))
            x, own_state = model.apply(own, x, train=train, rng=own_rng)
            outputs[name] = x
            _insert(state, name, own_state)
        return outputs, state

    return Model(init, apply, max(model.norm_groups for model in models.values()))


def with_sentences(model: Model, variables: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Variables of a head that reads sentences beside the rows, such as names of labels: those that it keeps, `rows`
    int32 [S, L] of the collection `sentences`, as `vectors` [S, F] of the backbone as it is now, pooled and without
    dropout. Of any other head as they are."""
    if "sentences" not in head:
        return head
    rows = head["sentences"]["rows"]
    vectors = pooled(model.apply(variables, rows, train=False)[0], rows)
    return head | {"sentences": {"rows": rows, "vectors": vectors}}


def scaled(model: Model, inputs: Any = None, *, alike: bool = False) -> Model:
    """The model on vectors float32 [B, F], standardised; on anything else it is the model.

    Their mean and deviation, of the columns of `inputs` float32 [N, F], are a collection of its variables, `scale`, and
    so go wherever the weights go: who loads them gives raw vectors. Where columns are `alike` they share a deviation.
    """

    def init(rng, x):
        variables = model.init(rng, x)
        if x.ndim != 2 or not jnp.issubdtype(x.dtype, jnp.floating):
            return variables
        if inputs is None:
            mean, deviation = jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])
        else:
            spread = np.std(inputs, 0, np.float64)
            spread = np.full_like(spread, np.sqrt(np.mean(spread**2))) if alike else spread
            mean, deviation = (jnp.asarray(x, jnp.float32) for x in (np.mean(inputs, 0, np.float64), spread))
        return variables | {"scale": {"mean": mean, "deviation": jnp.where(deviation == 0, 1, deviation)}}

    def apply(variables, x, *, train, rng=None):
        scale = variables.get("scale")
        if scale is None:
            return model.apply(variables, x, train=train, rng=rng)
        own = {name: tree for name, tree in variables.items() if name != "scale"}
        x = ((x - scale["mean"][None]) / scale["deviation"][None]).astype(x.dtype)
        outputs, state = model.apply(own, x, train=train, rng=rng)
        return outputs, state | {"scale": scale}

    return model._replace(init=init, apply=apply)


def rescaled(model: Model, mean: np.ndarray, deviation: np.ndarray) -> Model:
    """The model with outputs times `deviation` plus `mean`, its collection `target`: a regressor in their units."""

    def init(rng, x):
        found = {"mean": mean, "deviation": deviation}
        return model.init(rng, x) | {"target": {k: jnp.asarray(v, jnp.float32).reshape(-1) for k, v in found.items()}}

    def apply(variables, x, *, train, rng=None):
        target = variables["target"]
        own = {name: tree for name, tree in variables.items() if name != "target"}
        outputs, state = model.apply(own, x, train=train, rng=rng)
        outputs = (outputs * target["deviation"][None] + target["mean"][None]).astype(outputs.dtype)
        return outputs, state | {"target": target}

    return model._replace(init=init, apply=apply)


def pooled(outputs: jax.Array, inputs: jax.Array) -> jax.Array:
    """Features [B, F] of a backbone's outputs for these inputs: as they are, or the mean of a map over its positions,
    of text over its tokens. That is the pooling of every backbone that pools."""
    if outputs.ndim == 2:
        return outputs
    if inputs.dtype == jnp.int32:
        return mean_of_tokens(outputs, inputs, outputs.dtype)
    return outputs.mean(range(1, outputs.ndim - 1))


def mean_of_tokens(x, tokens, dtype):
    """[B, F] of [B, L, F], over the tokens that are not padding, of which a text may have none: then 0."""
    real = (tokens > 0)[..., None]
    return jnp.sum(x, 1, where=real, dtype=dtype) / jnp.maximum(jnp.sum(real, 1, dtype=dtype), 1)


def apply_together(
    model: Model, variables: dict[str, Any], batches: Sequence[jax.Array], *, train: bool, rng: jax.Array | None = None
) -> tuple[Any, dict[str, Any]]:
    """`model.apply` on several batches [B_i, ...] in one pass: outputs of all their rows, batch after batch, and state.

    Each of the model's `norm_groups` has its share of every batch, as a device has, where a plain concatenation would
    give it rows of one batch.

    Raises:
      ValueError: in training, `norm_groups` does not divide the rows of a batch.
    """
    groups = model.norm_groups if train else 1
    if groups == 1:  # no rows have to move
        return model.apply(variables, jnp.concatenate(batches), train=train, rng=rng)
    sizes = [len(batch) for batch in batches]
    if any(size % groups for size in sizes):
        raise ValueError(f"norm_groups must divide each batch: {groups} groups of {sizes} rows")
    shares = [batch.reshape(groups, -1, *batch.shape[1:]) for batch in batches]
    rows = jnp.concatenate(shares, 1).reshape(-1, *batches[0].shape[1:])
    outputs, state = model.apply(variables, rows, train=train, rng=rng)

    def in_order(x):
        ends = [end // groups for end in itertools.accumulate(sizes)]
        shares = jnp.split(x.reshape(groups, -1, *x.shape[1:]), ends[:-1], 1)
        return jnp.concatenate([share.reshape(-1, *x.shape[1:]) for share in shares])

    return jax.tree.map(in_order, outputs), state


def batch_statistics(model: Model, variables: dict[str, Any], x: jax.Array) -> dict[str, Any]:
    """The mean and biased variance of the rows at each BatchNorm, in the tree of `variables["batch_stats"]`: read from
    how far a pass in training moves the running ones (`labelfx.models.layers.BatchNorm`, a tenth of the way). Every
    layer sees rows that those before it have normalised by the statistics of these rows."""
    _, state = model.apply(variables, x, train=True)
    return jax.tree.map(lambda old, new: old + (new - old) * 10, variables["batch_stats"], state["batch_stats"])


def backbone(variables):
    """The backbone's own variables, out of those of `stack(backbone=..., ...)`: what evals and export read."""
    return part(variables, "backbone")


def _float32(x):
    """Parameters are float32 whatever the input, whose token ids stay integers."""
    return x if x.dtype == "int32" else x.astype("float32")


def part(variables, name):
    """The variables of one part of a `stack`."""
    return {collection: trees[name] for collection, trees in variables.items() if name in trees}


def _insert(variables, name, own):
    for collection, tree in own.items():
        variables.setdefault(collection, {})[name] = tree
