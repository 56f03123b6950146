"""W-MSE: views of an image agree after the batch is whitened, without negatives (Ermolov et al. 2021, ICML)."""

import jax
import jax.numpy as jnp
import optax

from labelfx import objectives
from labelfx.config.annotations import Augment, Fraction, Head, PositiveInt
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.objectives.contrastive import normalise as unit


def whitening(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    projector: Head,
    views: PositiveInt,
    group_size: PositiveInt,
    iterations: PositiveInt,
    epsilon: Fraction,
    normalise: bool,
) -> Method:
    """`views` augmented views of `batch["unlabelled"]`, one forward pass over all, `objectives.w_mse` of projections.

    The batch is cut into groups of `group_size` rows at random, anew at each step and `iterations` times; each group of
    each view is whitened on its own. The paper has groups of twice the projections' width, epsilon 0 and distances of
    normalised rows. BatchNorm statistics are those of all views together, as in the authors' head.

    Metrics, of the projections before they are whitened: `loss`, `positive_score` (mean cosine of two views),
    `embedding_std` and `least_spread`, the standard deviation along their narrowest direction over that along the
    widest. Where it nears 0 the views have collapsed into fewer dimensions and whitening blows up what is noise.

    Raises:
      ValueError: there is one view only, `group_size` does not divide the unlabelled batch, or a group is too small for
        the projections' width (`w_mse`).
    """
    net = stack(backbone=model, projector=projector)

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        if views < 2:
            raise ValueError(f"views = {views}: must be at least 2")
        if len(image) % group_size:
            raise ValueError(f"group_size = {group_size}: must divide batch.unlabelled = {len(image)}")
        return state.create(net, tx, state.fold_in_name(rng, "model"), image)

    def step(old, batch, rng):
        rng_model = state.fold_in_name(rng, "model")
        rng_views = state.named(rng, *(f"unlabelled/{view}" for view in range(views)))
        rng_groups = state.named(rng, *(f"groups/{iteration}" for iteration in range(iterations)))
        image = batch["unlabelled"]["input"]
        # Row by row, not view after view: a device then holds all views of its own rows, and none has to move.
        augmented = jax.lax.collapse(jnp.stack([augment(key, image) for key in rng_views], 1), 0, 2)
        shuffled = [jax.random.permutation(key, len(image)) for key in rng_groups]
        permutations = jnp.stack(shuffled).reshape(iterations, -1, group_size)

        def loss_fn(params):
            variables = {"params": params, **old.model_state}
            outputs, model_state = net.apply(variables, augmented, train=True, rng=rng_model)
            z = outputs["projector"].reshape(len(image), views, -1).swapaxes(0, 1)
            return objectives.w_mse(z, permutations, epsilon=epsilon, normalise=normalise), (z, model_state)

        (loss, (z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        rows = unit(z)
        agreement = jnp.mean(jnp.sum(jnp.sum(rows, 0) ** 2, -1))  # V + the cosines of V (V - 1) ordered pairs
        metrics = {
            "loss": loss,
            "positive_score": (agreement - views) / (views * (views - 1)),
            "embedding_std": jnp.mean(jnp.std(rows, (0, 1))),
            "least_spread": least_spread(z.reshape(-1, z.shape[-1])),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    return Method(init, step, lambda state: state.variables)


def least_spread(z: jax.Array) -> jax.Array:
    """Smallest over largest standard deviation of the rows of z [N, D] along any direction; 0 where all are equal."""
    centred = z.astype(jnp.float32) - jnp.mean(z.astype(jnp.float32), 0, keepdims=True)
    variance = jnp.linalg.eigvalsh(jnp.matmul(centred.T, centred, precision=jax.lax.Precision.HIGHEST))
    return jnp.sqrt(jnp.maximum(variance[0], 0) / jnp.maximum(variance[-1], jnp.finfo(jnp.float32).tiny))
