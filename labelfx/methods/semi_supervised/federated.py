"""FedLabel: clients with few labels, who take pseudo-labels from their own network or from the server's, whichever is
the more confident (Cho, Joshi and Dimitriadis 2023, ICCV, "Local or Global: Selective Knowledge Assimilation for
Federated Learning with Limited Labels")."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, NonNegative, PositiveInt, Probability
from labelfx.data import known
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.semi_supervised.consistency import accuracy
from labelfx.models import Model, apply_together
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.federated import more_confident
from labelfx.objectives.pseudo_label import masked_consistency

AVERAGED = ("params", "batch_stats")


class FederatedState(NamedTuple):
    """The clients' networks and optimisers, each with a leading axis [K]; the server's variables; the steps done."""

    clients: state.TrainState
    server: Any
    done: jax.Array  # int32


def federated(
    classifier: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    weak: Augment,
    strong: Augment,
    local_steps: PositiveInt,
    threshold: Probability,
    unlabelled_weight: NonNegative,
    agreement_weight: NonNegative,
) -> Method:
    """Each step is one of all K clients side by side, on blocks of the batch (the miner `by_client`). After every
    `local_steps` of them the server takes the mean of the clients' parameters and BatchNorm statistics, weighted by
    their numbers of rows, and all go on from there (federated averaging, McMahan et al. 2017, AISTATS). Evals read the
    server's network; steps after the last whole round do not reach it.

    A client's loss is the cross-entropy of its labelled rows, weakly augmented; plus `unlabelled_weight` times that of
    the strong view of its unlabelled rows to the `more_confident` label of the weak view, 0 below the threshold; plus
    `agreement_weight` times the KL divergence of the strong view from the server's probabilities where both networks
    give the weak view one class. The last two are means over all of its rows, and left out without an unlabelled
    stream. The server's network is that of the round's beginning, in evaluation mode. A client's BatchNorm uses the
    statistics of all its views, and its optimiser keeps its state between rounds. With one client, `local_steps` 1 and
    no unlabelled stream this is `supervised`. Of the paper only the abstract was at hand: that the views are two, and
    what the weights are, is not from there.

    Metrics, means over clients, weighted as the server's: `loss`, `labelled_loss`, `accuracy`; of an unlabelled stream
    `unlabelled_loss`, `agreement_loss`, `acceptance`, `pseudo_label_accuracy` (of those accepted whose truth is known)
    and `from_local`, the share of the accepted that are a client's own. `drift`: the root mean square of the
    difference between a client's parameters and the mean.

    Raises:
      ValueError: no round would be finished, or the clients do not divide a batch.
    """
    if steps < local_steps:
        raise ValueError(f"local_steps = {local_steps}: no round would be finished in {steps} steps")

    def init(rng, batch):
        clients = batch["labelled"]["client_share"].shape[1]
        sizes = {stream: len(batch[stream]["input"]) for stream in ("labelled", "unlabelled") if stream in batch}
        for stream, size in sizes.items():
            if size % clients:
                raise ValueError(f"batch.{stream} = {size}: must be a multiple of the {clients} clients")
        one = state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["labelled"]["input"])
        every = jax.tree.map(lambda x: jnp.repeat(x[None], clients, 0), one)
        return FederatedState(every, one.variables, jnp.zeros((), jnp.int32))

    def learn(client, block, rng):
        """A client's step: its new state and its metrics."""
        views = [block[name] for name in ("labelled", "weak", "strong") if name in block]

        def loss_fn(params):
            variables = {"params": params, **client.model_state}
            outputs, model_state = apply_together(classifier, variables, views, train=True, rng=rng)
            logits, label = outputs["head"][: len(views[0])], block["label"]
            loss = cross_entropy(logits, label, label_smoothing=0.0)
            right = jnp.sum(jnp.argmax(logits, -1) == label) / jnp.maximum(jnp.sum(known(label)), 1)
            metrics = {"labelled_loss": loss, "accuracy": right}
            if "weak" in block:
                weak_logits, strong_logits = jnp.split(outputs["head"][len(views[0]) :], 2)
                own = jax.lax.stop_gradient(jax.nn.softmax(weak_logits))
                target, accepted, local = more_confident(own, block["probs"], threshold=threshold)
                agreed = jnp.argmax(own, -1) == jnp.argmax(block["probs"], -1)
                metrics |= {
                    "unlabelled_loss": masked_consistency(accepted, target, strong_logits),
                    "agreement_loss": masked_consistency(agreed, block["probs"], strong_logits),
                    "acceptance": jnp.mean(accepted),
                    "from_local": jnp.sum(accepted & local) / jnp.maximum(jnp.sum(accepted), 1),
                    "pseudo_label_accuracy": accuracy(target, accepted, block["truth"]),
                }
                loss += unlabelled_weight * metrics["unlabelled_loss"] + agreement_weight * metrics["agreement_loss"]
            return loss, (model_state, metrics | {"loss": loss})

        gradient, (model_state, metrics) = jax.grad(loss_fn, has_aux=True)(client.params)
        return state.descend(client, tx, gradient, model_state), metrics

    def step(old, batch, rng):
        rng_labelled, rng_weak, rng_strong, rng_model = state.named(
            rng, "labelled/view", "unlabelled/weak", "unlabelled/strong", "model"
        )
        share, labelled = batch["labelled"]["client_share"][0], batch["labelled"]
        rows = {"labelled": weak(rng_labelled, labelled["input"]), "label": labelled["label"]}
        if "unlabelled" in batch:
            image, truth = batch["unlabelled"]["input"], batch["audit"]["unlabelled"]["label"]
            rows |= {"weak": weak(rng_weak, image), "strong": strong(rng_strong, image), "truth": truth}
            logits = classifier.apply(old.server, rows["weak"], train=False)[0]["head"]
            rows["probs"] = jax.nn.softmax(logits)
        blocks = {name: x.reshape(len(share), -1, *x.shape[1:]) for name, x in rows.items()}
        clients, metrics = jax.vmap(learn)(old.clients, blocks, jax.random.split(rng_model, len(share)))
        metrics = {name: jnp.sum(share * values) for name, values in metrics.items()}

        own = {name: tree for name, tree in clients.variables.items() if name in AVERAGED}
        mean = jax.tree.map(lambda x: jnp.sum(share.reshape(-1, *[1] * (x.ndim - 1)) * x, 0), own)
        away = jax.tree.map(lambda x, y: jnp.sum(jnp.square(x - y[None])), own["params"], mean["params"])
        metrics["drift"] = jnp.sqrt(sum(jax.tree.leaves(away)) / sum(x.size for x in jax.tree.leaves(own["params"])))

        ends = (old.done + 1) % local_steps == 0
        server = old.server | {
            name: jax.tree.map(lambda new, old: jnp.where(ends, new, old), mean[name], old.server[name])
            for name in mean
        }
        every = clients.variables | jax.tree.map(lambda mean, x: jnp.where(ends, mean[None], x), mean, own)
        params = every.pop("params")
        return FederatedState(state.TrainState(params, every, clients.opt_state), server, old.done + 1), metrics

    return Method(init, step, lambda state: state.server)
