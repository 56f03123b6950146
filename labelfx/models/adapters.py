"""Few new parameters in a network whose own stay as they are."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Positive, PositiveInt
from labelfx.models import Model


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
    """rank, alpha: of the update, which counts `alpha / rank`. paths: which kernels have one, by a part of their path
    such as "attn"; "" is in every path."""

    rank: PositiveInt
    alpha: Positive
    paths: tuple[str, ...]


def lora(model: Model, *, rank: int, alpha: float, paths: tuple[str, ...]) -> Model:
    """The model with kernels W + alpha / rank * down up (LoRA, Hu et al. 2022, equation 3), of which down [I, rank] and
    up [rank, O] are all its parameters: down starts as PyTorch's dense layers do, up at 0, so that the model starts as
    it is. Kernels of dense layers have one, and of convolutions of 1 x 1.

    The model's own parameters are a collection `base`, which no optimiser sees.

    Raises:
      ValueError: no such kernel has any of `paths`.
    """

    def targets(params):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        named = {"/".join(key.key for key in keys): leaf.shape for keys, leaf in leaves}
        found = {
            path: shape[-2:]
            for path, shape in named.items()
            if path.endswith("/kernel") and math.prod(shape[:-2]) == 1 and any(each in path for each in paths)
        }
        if not found:
            raise ValueError(f"lora.paths = {paths}: in no path of a dense kernel, as in {', '.join([*named][:3])}")
        return found

    def init(rng, x):
        variables = model.init(rng, x)
        base = variables.pop("params")
        new = {}
        for i, (path, (inputs, outputs)) in enumerate(sorted(targets(base).items())):
            bound = 1 / math.sqrt(inputs)
            down = jax.random.uniform(jax.random.fold_in(rng, i), (inputs, rank), minval=-bound, maxval=bound)
            new[_name(path.split("/"))] = {"down": down, "up": jnp.zeros((rank, outputs))}
        return {"params": new, "base": base, **variables}

    def merged(variables):
        def one(keys, leaf):
            own = variables["params"].get(_name([key.key for key in keys])) if keys[-1].key == "kernel" else None
            return leaf if own is None else leaf + (alpha / rank * own["down"] @ own["up"]).reshape(leaf.shape)

        return jax.tree_util.tree_map_with_path(one, variables["base"])

    def apply(variables, x, *, train, rng=None):
        rest = {name: tree for name, tree in variables.items() if name not in ("params", "base")}
        outputs, state = model.apply({"params": merged(variables), **rest}, x, train=train, rng=rng)
        return outputs, {"base": variables["base"], **state}

    return model._replace(init=init, apply=apply)


def _name(path: list[str]) -> str:
    """Of the update of a kernel at this path: without a "/", at which a file of weights would take it apart."""
    return ".".join(path[:-1])
