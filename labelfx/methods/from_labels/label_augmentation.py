"""SLA: labels of class and transformation together, aggregated over the transformations (Lee et al. 2020, ICML,
"Self-supervised Label Augmentation via Input Transformations")."""

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Transformation
from labelfx.data.augment import to_float
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.models import Model, stack
from labelfx.models.heads import linear
from labelfx.objectives.classification import cross_entropy
from labelfx.objectives.distillation import kd
from labelfx.objectives.label_augmentation import aggregated_logits, joint_cross_entropy


def label_augmentation(
    model: Model,
    tx: optax.GradientTransformation,
    num_classes: int,
    *,
    augment: Augment,
    transformation: Transformation,
    distil: bool,
) -> Method:
    """`joint_cross_entropy` of the M transformed copies of one view of `batch["labelled"]`, by a linear head of C M
    outputs, `joint`; the eval `aggregated` has what the copies say together.

    With `distil` a second linear head on the features of the untransformed copy learns the labels, by cross-entropy,
    and the aggregated probabilities, whose gradient stops, by `kd` at temperature 1, as in the authors' code: a single
    pass that knows what M know. That is `head`; otherwise it is what `joint` says of a copy that is not transformed.
    BatchNorm statistics are those of all copies. The three losses are summed, without weights.

    Metrics: `loss`, `joint_loss`, `aggregated_accuracy`, `accuracy` of the head's single pass.

    Raises:
      ValueError: the images are not such as the transformation takes.
    """

    def network(images):
        copies = jax.eval_shape(transformation, images).shape[1]
        return copies, stack(backbone=model, joint=linear(features=num_classes * copies))

    second = linear(features=num_classes)

    def init(rng, batch):
        rng_model, rng_head = state.named(rng, "model", "head")
        image = to_float(batch["labelled"]["input"][:1])
        _, net = network(image)
        variables = net.init(rng_model, image)
        if distil:
            features = jax.eval_shape(lambda: net.apply(variables, image, train=False))[0]["backbone"]
            variables["params"]["head"] = second.init(rng_head, jnp.zeros(features.shape, features.dtype))["params"]
        return state.start(tx, variables)

    def step(old, batch, rng):
        rng_augment, rng_model = state.named(rng, "labelled/view", "model")
        label, image = batch["labelled"]["label"], augment(rng_augment, batch["labelled"]["input"])
        copies, net = network(image)
        rows = jax.lax.collapse(transformation(image), 0, 2)

        def loss_fn(params):
            outputs, model_state = net.apply({"params": params, **old.model_state}, rows, train=True, rng=rng_model)
            joint = outputs["joint"].reshape(-1, copies, num_classes, copies)
            aggregated, single = aggregated_logits(joint), joint[:, 0, :, 0]
            joint_loss = loss = joint_cross_entropy(joint, label)
            if distil:
                single, _ = second.apply({"params": params["head"]}, outputs["backbone"][::copies], train=True)
                loss += cross_entropy(single, label, label_smoothing=0.0)
                loss += kd(single, jax.lax.stop_gradient(aggregated), temperature=1.0)
            return loss, (joint_loss, aggregated, single, model_state)

        (loss, aux), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        joint_loss, aggregated, single, model_state = aux
        metrics = {
            "loss": loss,
            "joint_loss": joint_loss,
            "aggregated_accuracy": jnp.mean(jnp.argmax(aggregated, -1) == label),
            "accuracy": jnp.mean(jnp.argmax(single, -1) == label),
        }
        return state.descend(old, tx, gradient, model_state), metrics

    def variables(now):
        params = now.params
        if not distil:
            (joint,) = params["joint"].values()
            copies = joint["bias"].size // num_classes
            untransformed = jax.tree.map(lambda x: x[..., ::copies], joint)
            params = params | {"head": dict.fromkeys(params["joint"], untransformed)}
        return {"params": params, **now.model_state}

    return Method(init, step, variables)
