"""The state that most methods share, averages of it, and random streams by name."""

import zlib
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import optax

from labelfx.data.augment import to_float
from labelfx.models import Model


class TrainState(NamedTuple):
    """One network and its optimiser."""

    params: chex.ArrayTree
    model_state: Any  # BatchNorm statistics: every collection of variables but `params`
    opt_state: optax.OptState

    @property
    def variables(self) -> dict:
        return {"params": self.params, **self.model_state}

    @property
    def moved(self) -> bool | jax.Array:
        """Whether the last step updated the parameters: where the optimiser accumulates, not every step does."""
        return self.opt_state.mini_step == 0 if isinstance(self.opt_state, optax.MultiStepsState) else True


def create(net: Model, tx: optax.GradientTransformation, rng: jax.Array, images: jax.Array) -> TrainState:
    """A fresh state for images of this shape (uint8 or float [B, H, W, C])."""
    return start(tx, net.init(rng, to_float(images[:1])))


def start(tx: optax.GradientTransformation, variables: dict) -> TrainState:
    """A state at step 0 of the optimiser with these variables."""
    params = variables["params"]
    return TrainState(params, {k: v for k, v in variables.items() if k != "params"}, tx.init(params))


def descend(
    state: TrainState, tx: optax.GradientTransformation, gradient: chex.ArrayTree, model_state: Any
) -> TrainState:
    """One step of the optimiser; the new state's `moved` tells whether it was an update."""
    updates, opt_state = tx.update(gradient, state.opt_state, state.params)
    return TrainState(optax.apply_updates(state.params, updates), model_state, opt_state)


def ema(
    average: chex.ArrayTree, new: chex.ArrayTree, decay: chex.Numeric, *, where: bool | jax.Array = True
) -> chex.ArrayTree:
    """Exponential moving average of arrays: decay * average + (1 - decay) * new; `average` where not `where`.

    An average of a network's parameters moves where the network has `moved`: at updates, not at the steps between.
    """
    return jax.tree.map(
        lambda average, new: jnp.where(where, decay * average + (1 - decay) * new, average), average, new
    )


def follow(average: dict, network: TrainState, decay: float | jax.Array) -> dict:
    """The average of a network's variables after its step: `ema` of "params" and "batch_stats" where it has `moved`.

    Any other collection is none to average (a graph, a vocabulary, a scale of inputs): it is the network's own.
    """
    new = {name: tree for name, tree in network.variables.items() if name in ("params", "batch_stats")}
    old = {name: average[name] for name in new}
    return network.variables | ema(old, new, decay, where=network.moved)


def fold_in_name(rng: jax.Array, name: str) -> jax.Array:
    """A random stream of its own for each name."""
    return jax.random.fold_in(rng, zlib.crc32(name.encode()))


def named(rng: jax.Array, *names: str) -> list[jax.Array]:
    """A key for each name, whatever the others are, so that a method may draw one more thing and move no other.

    The names of a method's keys: in `init` "model", or the network's name, and whatever else is drawn; in `step`
    "STREAM/VIEW" for an augmentation ("labelled/weak", "unlabelled/query"), and "model", "model/NETWORK" or
    "model/NETWORK/VIEW" for the noise of a forward pass. No two passes share one, or their dropout masks are the same.
    """
    return [fold_in_name(rng, name) for name in names]
