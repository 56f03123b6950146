"""Curriculum Labeling: rounds of pseudo-labels of falling confidence, each from fresh parameters (Cascante-Bonilla et
al. 2021, Algorithm 1)."""

from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.config.annotations import Augment, Fraction, Limit
from labelfx.evals import features
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.models.heads import linear
from labelfx.objectives.classification import cross_entropy

Percentile = Annotated[float, Limit("a number in [0, 100]", lambda v: 0 <= v <= 100)]


def curriculum_labeling(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    *,
    augment: Augment,
    label_smoothing: Fraction,
    percentile: Percentile,
) -> Method:
    """One round a phase: `phases=tuple(dict(method=dict(..., percentile=p)) for p in (100, 80, 60, 40, 20, 0))`.

    At the start of a phase the network of the phase before labels the images without a label; those whose confidence
    reaches `percentile` of all confidences keep their pseudo-label, and none does at 100: the round on labels alone.
    Each step draws `batch["unlabelled"]` from the labelled and the kept rows together. The paper stops by accuracy on
    labelled validation images; here the rounds are fixed in advance, so no label is spent on them. The authors' code
    also weights the classes of a round with pseudo-labels, by (N - n) / n for n of its N rows, and its CIFAR-10 command
    mixes images up and averages weights (SWA); none of these is done here.

    BatchNorm uses the statistics of the batch; the pseudo-labels and evals use the running ones. Metrics: `loss`,
    `accuracy` (against the labels and pseudo-labels trained on), `pseudo_label_accuracy` (of the batch's pseudo-labels
    against the truth; 0 where there are none or nobody knows it), `labelled_share` of the batch.
    """
    net = stack(backbone=model, head=linear(features=num_classes))

    def classify(variables, image, *, train):
        outputs, model_state = net.apply(variables, image, train=train)
        return outputs["head"], model_state

    classifier = Model(net.init, classify)

    def init(rng, batch):
        return state.create(net, tx, state.fold_in_name(rng, "model"), batch["unlabelled"]["image"])

    def refresh(variables, source, rng):
        hidden = source.labels < 0
        label, include = source.labels.copy(), ~hidden
        if percentile < 100 and hidden.any():
            logits = features(classifier, variables, source.images)
            confidence = np.asarray(jax.nn.softmax(logits).max(-1))
            include |= hidden & (confidence >= np.percentile(confidence[hidden], percentile))
            label[hidden] = logits.argmax(-1)[hidden]
        return {"include": include, "pseudo_label": label, "given": ~hidden}

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "unlabelled/view", "model")
        image = augment(rng_augment, batch["unlabelled"]["image"])
        label, given = batch["unlabelled"]["pseudo_label"], batch["unlabelled"]["given"]

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, image, train=True, rng=rng_model)
            return cross_entropy(outputs["head"], label, label_smoothing=label_smoothing), (
                outputs["head"],
                model_state,
            )

        (loss, (logits, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        truth = batch["audit"]["unlabelled"]["label"]
        known = (truth >= 0) & ~given
        metrics = {
            "loss": loss,
            "accuracy": jnp.mean(jnp.argmax(logits, -1) == label),
            "pseudo_label_accuracy": jnp.sum(known & (truth == label)) / jnp.maximum(jnp.sum(known), 1),
            "labelled_share": jnp.mean(given),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    follows = f"percentile = {percentile} takes pseudo-labels from the network of the phase before" * (percentile < 100)
    return Method(init, step, lambda state: state.variables, refresh, follows=follows)
