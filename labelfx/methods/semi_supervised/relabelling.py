"""Training in rounds: a rule says anew what all rows are taught, by the network of the round before."""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.config.annotations import Augment, Part
from labelfx.data import known
from labelfx.data.weak import Supervision, supervision
from labelfx.labels.evidence import gather
from labelfx.labels.rules import reads_network
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.from_labels.supervised import accuracy, seen_of
from labelfx.models import Model

Rule = Annotated[functools.partial, Part("labels.rules", ("evidence", "rng"))]


def relabelling(
    classifier: Model,
    tx: optax.GradientTransformation,
    *,
    augment: Augment,
    objective: Supervision,
    rule: Rule,
) -> Method:
    """The step of `supervised` on `batch["unlabelled"]`, whose columns the rule has replaced: of rows with a `weight`
    above 0, of all where the rule gives none.

    The rule is asked at the start of a phase and every `config.refresh_every` steps, of the network of the phase before
    or of this one as it is then; one with a warm-up needs no phase before. A round from fresh parameters is a phase:
    `phases=(dict(method=dict(..., rule=dict(name="given"))), dict(method=dict(..., rule=dict(name="percentile",
    percentile=80))), ...)` are rounds of Curriculum Labeling, each of which begins anew. Its paper stops by accuracy on
    labelled validation images; here the rounds are fixed in advance, so no label is spent on them. Its code also
    weights the classes of a round with pseudo-labels, by (N - n) / n for n of its N rows, and its CIFAR-10 command
    mixes images up and averages weights (SWA); none of these is done here.

    BatchNorm uses the statistics of the batch; rules and evals use the running ones. Metrics: `loss`; `accuracy`
    (against what is taught); `pseudo_label_accuracy` (of the batch's replaced labels, or entries of several labels,
    against the truth; 0 where there are none or nobody knows it); `labelled_share` of the batch, by people.
    """

    def init(rng, batch):
        return state.create(classifier, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["input"])

    def refresh(variables, source, rng, progress):
        if source.labels.ndim > 1 and source.labels.dtype == np.int32:
            raise ValueError("relabelling: goes row by row; labels of pixels or tokens stay as they are")
        evidence = gather(classifier, variables, source, progress)
        taught = rule(evidence, np.random.default_rng(np.asarray(jax.random.key_data(rng))))
        if "weight" in taught:
            taught["include"] = (taught["weight"] > 0).reshape(len(evidence.probs), -1).any(1)
        return taught

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "unlabelled/view", "model")
        columns = batch["unlabelled"]
        rows = augment(rng_augment, columns["input"])

        def loss_fn(params):
            variables = {"params": params, **old.model_state}
            found, model_state = classifier.apply(variables, rows, train=True, rng=rng_model)
            seen = columns | seen_of(found["backbone"], rows, params)
            return supervision(objective, found["head"], seen), (found["head"], model_state)

        (loss, (logits, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {"loss": loss, **accuracy(objective, logits, columns)}
        truth, pinned = batch["audit"]["unlabelled"]["label"], columns["pinned"]
        if truth.dtype != jnp.float32:
            taught = columns["label"] if "label" in columns else jnp.argmax(columns["target"], -1)
            replaced = known(truth) & known(taught) & ~pinned
            right = jnp.sum(replaced & (truth == taught)) / jnp.maximum(jnp.sum(replaced), 1)
            metrics["pseudo_label_accuracy"] = right
        metrics["labelled_share"] = jnp.mean(pinned)
        return state.descend(old, tx, gradient, model_state), metrics

    name = rule.func.__name__
    follows = f"the rule {name} goes by the network of the phase before" if reads_network(rule) else ""
    return Method(init, step, lambda state: state.variables, refresh, follows=follows)
