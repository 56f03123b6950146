"""Optimisers `(steps, ...) -> optax.GradientTransformation`; learning-rate schedules are in `schedules`.

All optimisers share these keywords:
  learning_rate: the peak of the schedule.
  weight_decay: acts on kernels only (leaves named "kernel"), never on biases or BatchNorm's scale and bias.
  schedule: counts updates of the parameters, so with accumulation it runs over `steps // accumulate` of them.
  clip_norm: the largest global norm of a gradient (without weight decay), or None.
  accumulate: steps whose gradients are averaged into one update; 1 is plain training. Steps that are left over at the
    end (`steps % accumulate`) change nothing. A step without an update returns zeros. Averages of a network move at
    updates; what is of a batch stays that of a step's own small one: negatives, queues, BatchNorm's statistics, centres
    and thresholds that adapt. It is no way to a larger contrastive batch.
"""

from collections.abc import Callable
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Fraction, NonNegative, Optimizer, Part, Positive, PositiveInt
from labelfx.loop.optim.schedules import constant as constant
from labelfx.loop.optim.schedules import cosine as cosine
from labelfx.loop.optim.schedules import fixmatch_cosine as fixmatch_cosine
from labelfx.loop.optim.schedules import step_decay as step_decay
from labelfx.models.depth import STEM, block_of, blocks_of

Schedule = Annotated[Callable[..., Any], Part("loop.optim", ("peak", "steps"))]


def sgd(
    steps,
    *,
    learning_rate: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    schedule: Schedule,
    clip_norm: Positive | None,
    accumulate: PositiveInt,
) -> optax.GradientTransformation:
    """SGD with Nesterov momentum; the decay is added to the gradient before the momentum (PyTorch, FixMatch)."""
    tx = optax.chain(
        optax.add_decayed_weights(weight_decay, _kernels),
        optax.sgd(_rate(schedule, learning_rate, steps, accumulate), momentum, nesterov=True),
    )
    return _clip_and_accumulate(tx, clip_norm, accumulate)


def adamw(
    steps,
    *,
    learning_rate: Positive,
    b1: Fraction,
    b2: Fraction,
    weight_decay: NonNegative,
    schedule: Schedule,
    clip_norm: Positive | None,
    accumulate: PositiveInt,
) -> optax.GradientTransformation:
    """AdamW (Loshchilov & Hutter 2019) with epsilon 1e-8: the decay is decoupled, `learning_rate * weight_decay * w`.

    Without decay this is Adam; papers that state Adam's weight decay mostly mean the coupled kind, which this is not.
    """
    rate = _rate(schedule, learning_rate, steps, accumulate)
    tx = optax.adamw(rate, b1, b2, eps=1e-8, weight_decay=weight_decay, mask=_kernels)
    return _clip_and_accumulate(tx, clip_norm, accumulate)


def adam(
    steps,
    *,
    learning_rate: Positive,
    b1: Fraction,
    b2: Fraction,
    weight_decay: NonNegative,
    schedule: Schedule,
    clip_norm: Positive | None,
    accumulate: PositiveInt,
) -> optax.GradientTransformation:
    """Adam (Kingma and Ba 2015) with epsilon 1e-8, the decay added to the gradient, as L2 in the loss: what papers mean
    that state Adam's weight decay of before AdamW."""
    rate = _rate(schedule, learning_rate, steps, accumulate)
    tx = optax.chain(optax.add_decayed_weights(weight_decay, _kernels), optax.adam(rate, b1, b2, eps=1e-8))
    return _clip_and_accumulate(tx, clip_norm, accumulate)


def frozen(steps) -> optax.GradientTransformation:
    """Changes nothing: for parts of a network, by `by_path`."""
    return optax.set_to_zero()


def by_path(
    steps,
    *,
    paths: tuple[str, ...],
    optimizers: tuple[Optimizer, ...],
) -> optax.GradientTransformation:
    """An optimiser of its own for each part of the parameters, by the beginning of its path (`backbone/Dense_0`); the
    first that fits counts, and "" fits all. Clipping is by part.

    Raises:
      ValueError: there is not one optimiser a path, the last path is not "", or one of them accumulates.
    """
    if len(paths) != len(optimizers) or not paths or paths[-1]:
        raise ValueError(f"paths = {paths}: must be as many as optimizers, the last of them ''")
    every = [optimizer(steps) for optimizer in optimizers]
    if any(isinstance(tx.init({}), optax.MultiStepsState) for tx in every):
        raise ValueError("optimizers: accumulate must be 1 in each")

    def label(params):
        def one(keys, _):
            return next(str(i) for i, begin in enumerate(paths) if _path(keys).startswith(begin))

        return jax.tree_util.tree_map_with_path(one, params)

    return optax.multi_transform({str(i): tx for i, tx in enumerate(every)}, label)


def keep_zeros(steps, *, optimizer: Optimizer) -> optax.GradientTransformation:
    """The updates of an optimiser, but weights of kernels that are exactly 0 stay 0: for training a network that
    `labelfx.derive prune` made. No kernel of a fresh network holds a 0."""
    tx = optimizer(steps)

    def update(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        kept = jax.tree.map(lambda leaf, is_kernel: leaf == 0 if is_kernel else False, params, _kernels(params))
        return jax.tree.map(lambda leaf, zero: jnp.where(zero, jnp.zeros_like(leaf), leaf), updates, kept), state

    return optax.GradientTransformation(tx.init, update)


def layer_decay(steps, *, optimizer: Optimizer, decay: Fraction) -> optax.GradientTransformation:
    """The updates of an optimiser times `decay` to the power of how many layers lie above: a rate of its own for each
    layer of a pretrained encoder, decoupled weight decay included (ELECTRA, Clark et al. 2020, appendix A; BEiT, Bao et
    al. 2022, section 3.2).

    Layers are the blocks that parameters' paths number (`blocks.3/attn.qkv`, `layer2.1.conv1`,
    `encoder.layer.5.output.dense`, `stages.1.blocks.2.norm`; what leads to a stage is of its first block), from the
    last, at `decay`, down; then patches, positions and stem. All else lies on top, at the full rate: the last norm or
    convolution of the encoder, heads.

    Raises:
      ValueError: no path numbers a block.
    """
    tx = optimizer(steps)

    def init(params):
        leaves = jax.tree_util.tree_leaves_with_path(params)
        if leaves and not blocks_of(_path(keys) for keys, _ in leaves):
            raise ValueError(f"layer_decay: no parameter's path numbers a block, such as {_path(leaves[0][0])}")
        return tx.init(params)

    def update(gradient, state, params):
        updates, state = tx.update(gradient, state, params)
        blocks = blocks_of(_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(params))

        def slowed(keys, leaf):
            path = _path(keys)
            block = block_of(path)
            below = blocks.index(block) if block else -1 if STEM.search(path) else len(blocks)
            return leaf * decay ** (len(blocks) - below)

        return jax.tree_util.tree_map_with_path(slowed, updates), state

    return optax.GradientTransformation(init, update)


def _path(keys) -> str:
    return "/".join(str(key.key) for key in keys)


def lars(
    steps,
    *,
    learning_rate: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    schedule: Schedule,
    clip_norm: Positive | None,
    accumulate: PositiveInt,
) -> optax.GradientTransformation:
    """LARS (You et al. 2017) as in SimCLR: trust coefficient 0.001, decay inside the trust ratio, plain momentum.

    Leaves that are not kernels take plain momentum steps, without decay and without trust ratio.
    """
    rate = _rate(schedule, learning_rate, steps, accumulate)
    tx = optax.lars(rate, weight_decay, _kernels, trust_coefficient=0.001, trust_ratio_mask=_kernels, momentum=momentum)
    return _clip_and_accumulate(tx, clip_norm, accumulate)


def larc(
    steps,
    *,
    learning_rate: Positive,
    momentum: Fraction,
    weight_decay: NonNegative,
    trust_coefficient: Positive,
    schedule: Schedule,
    clip_norm: Positive | None,
    accumulate: PositiveInt,
) -> optax.GradientTransformation:
    """LARS that only slows down: a kernel's rate is at most the schedule's (LARC of NVIDIA's apex, there with 0.02).

    A kernel w with the gradient g, decay included, moves at the rate min(schedule, trust_coefficient |w| / |g|). Leaves
    that are not kernels take plain momentum steps. The rate comes after the momentum, as in PyTorch.
    """
    rate = _rate(schedule, learning_rate, steps, accumulate)
    tx = optax.chain(
        optax.add_decayed_weights(weight_decay, _kernels),
        optax.masked(_no_faster_than_trusted(rate, trust_coefficient), _kernels),
        optax.trace(momentum),
        optax.scale_by_learning_rate(rate),
    )
    return _clip_and_accumulate(tx, clip_norm, accumulate)


def _kernels(params):
    return jax.tree.map_with_path(lambda path, _: jax.tree_util.keystr(path[-1:], simple=True) == "kernel", params)


def _rate(schedule, peak, steps, accumulate):
    if steps < accumulate:
        raise ValueError(f"accumulate = {accumulate} is more than the {steps} steps of the run: no update would happen")
    return schedule(peak, steps // accumulate)


def _no_faster_than_trusted(rate, trust_coefficient):
    """Scales a leaf g of parameters w by min(1, trust_coefficient |w| / (rate |g|)); by 1 where w is 0."""

    def update(gradient, count, params):
        def scale(g, w):
            trusted, asked = trust_coefficient * jnp.linalg.norm(w.ravel()), rate(count) * jnp.linalg.norm(g.ravel())
            return g * jnp.where(trusted > 0, trusted / jnp.maximum(trusted, asked), 1.0)

        return jax.tree.map(scale, gradient, params), count + 1

    return optax.GradientTransformation(lambda params: jnp.zeros((), jnp.int32), update)


def _clip_and_accumulate(tx, clip_norm, accumulate):
    if clip_norm is not None:
        tx = optax.chain(optax.clip_by_global_norm(clip_norm), tx)
    if accumulate > 1:
        tx = optax.MultiSteps(tx, accumulate).gradient_transformation()

    def update(gradient, state, params):
        with jax.numpy_dtype_promotion("standard"):  # optax mixes its integer counts with floats
            return tx.update(gradient, state, params)

    return optax.GradientTransformation(tx.init, update)
