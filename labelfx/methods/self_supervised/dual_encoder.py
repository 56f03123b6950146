"""Two encoders, one for each half of a pair, contrastive between them (CLIP, Radford et al. 2021, figure 3; with hard
negatives, Choi, Beedu & Essa 2023)."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, Objective, Pair
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.contrastive import same_class
from labelfx.models import Model, stack
from labelfx.objectives.matching import cross_modal_diagnostics


def dual_encoder(
    model: Model,
    tx: optax.GradientTransformation,
    *,
    pair: Pair,
    augment: Augment,
    shared: bool,
    projector: Head,
    objective: Objective,
) -> Method:
    """`pair` splits the rows of `batch["unlabelled"]`; each half is augmented with random numbers of its own, encoded,
    and the objective taken on the projections.

    The temperature is the objective's, a constant: CLIP learns it.

    With `shared` both halves go through one encoder, and BatchNorm statistics are those of both together; otherwise
    each encoder has its own parameters, statistics and optimiser state. Evals read the left encoder and give it the
    images as the source has them: with `halves`, whole images, of which it has seen left halves in training.

    Metrics: `loss`, `cross_modal_diagnostics` under the settings of the objective (among them the retrieval accuracy
    within the batch, both ways), `false_negatives` as in `contrastive`.
    """
    net = stack(backbone=model, projector=projector)
    settings = {k: v for k, v in objective.keywords.items() if k in ("temperature", "tau_plus", "beta", "block_size")}

    def init(rng, batch):
        sides = zip(state.named(rng, "model", "right"), pair(batch["unlabelled"]["input"]), strict=True)
        networks = tuple(state.create(net, tx, rng, rows) for rng, rows in sides)
        return networks[:1] if shared else networks

    def project(params, networks, views, rngs):
        """Projections of both halves, and the model state of each network."""
        if shared:  # row by row, so that a device holds both halves of its own rows
            views = (jnp.stack(views, 1).reshape(-1, *views[0].shape[1:]),)
        found = [
            net.apply({"params": own, **network.model_state}, view, train=True, rng=rng)
            for own, network, view, rng in zip(params, networks, views, rngs[: len(views)], strict=True)
        ]
        z = tuple(outputs["projector"] for outputs, _ in found)
        if shared:
            z = jnp.unstack(z[0].reshape(len(views[0]) // 2, 2, -1), axis=1)
        return z, [model_state for _, model_state in found]

    def step(old, batch, rng):
        rngs = state.named(rng, "unlabelled/left", "unlabelled/right")
        sides = pair(batch["unlabelled"]["input"])
        views = tuple(augment(rng, rows) for rng, rows in zip(rngs, sides, strict=True))

        def loss_fn(params):
            z, model_states = project(params, old, views, state.named(rng, "model/left", "model/right"))
            return objective(*z), (z, model_states)

        params = [network.params for network in old]
        (loss, (z, model_states)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        metrics = {
            "loss": loss,
            "false_negatives": same_class(batch["audit"]["unlabelled"]["label"]),
            **cross_modal_diagnostics(*z, **settings),
        }
        new = (state.descend(*each) for each in zip(old, [tx] * len(old), gradients, model_states, strict=True))
        return tuple(new), metrics

    return Method(init, step, lambda state: state[0].variables)
