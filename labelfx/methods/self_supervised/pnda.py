"""PNDA: a rotated copy is a positive or a negative, as its image tells (Miyai et al. 2023, WACV, and their code)."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from labelfx.config.annotations import Augment, Head, NonNegative, NonNegativeInt, Optimizer, Positive
from labelfx.data.augment import to_float
from labelfx.data.transformations import rotations
from labelfx.loop import state
from labelfx.methods import Method
from labelfx.methods.self_supervised.contrastive import same_class
from labelfx.models import Model, stack
from labelfx.models.heads import linear
from labelfx.objectives.contrastive import normalise, sup_con_mask

MIDDLE = math.log(4) / 2  # half of the largest entropy of four rotations


class PndaState(NamedTuple):
    """The encoder, the network that predicts rotations, and the steps done (int32)."""

    encoder: state.TrainState
    predictor: state.TrainState
    done: jax.Array


def pnda(
    model: Model,
    tx: optax.GradientTransformation,
    steps: int,
    *,
    augment: Augment,
    projector: Head,
    temperature: Positive,
    predictor_optimizer: Optimizer,
    predictor_steps: NonNegativeInt,
    margin: NonNegative,
    separation: NonNegative,
    threshold: NonNegative,
) -> Method:
    """SimCLR with two rotated copies of each image, by different ones of 90, 180 and 270 degrees, one in each view.

    A second network of `config.model` tells the four rotations of an image apart. Where it is at a loss, the rotation
    says nothing about the image and the copies are positives: mean entropy over the four above `threshold`, in nats.
    Otherwise they are negatives, as they are in any case to other images. The loss is `sup_con_mask` of those anchors
    that are not rotated. The predictor learns by cross-entropy for `predictor_steps`, then by cross-entropy of what it
    is sure of (entropy below ln(4) / 2 - margin) and, with a weight that rises to `separation`, by moving entropies
    that are further than the margin from ln(4) / 2 away from there. The paper's margin is 0.2, its threshold
    ln(4) / 2 + 0.2 = 0.893; 0 makes every copy a positive, more than ln(4) a negative.

    Otherwise than in the paper, which trains the predictor first and then keeps its choice, both networks learn in one
    run, and the choice follows the predictor; until it has had `predictor_steps` every copy is a negative. It sees
    images without augmentation, the code's flips left out. Rotations are drawn for each image; the code draws two for
    the batch.

    Metrics: `loss`, `false_negatives` as `contrastive`, `embedding_std` of the images and their copies,
    `rotation_positive` (share of images whose copies are positives), `rotation_entropy` (its mean), `rotation_accuracy`
    and `predictor_loss`.

    Raises:
      ValueError: the images are not square.
    """
    net, predictor = stack(backbone=model, projector=projector), stack(backbone=model, head=linear(features=4))
    predictor_tx = predictor_optimizer(steps)

    def init(rng, batch):
        image = batch["unlabelled"]["input"]
        jax.eval_shape(rotations, image)  # raises
        rng_encoder, rng_predictor = state.named(rng, "model", "predictor")
        return PndaState(
            state.create(net, tx, rng_encoder, image),
            state.create(predictor, predictor_tx, rng_predictor, image),
            jnp.zeros((), jnp.int32),
        )

    def predict(old, image, done, rng):
        """One step of the predictor, its entropies [B] of the images and its metrics."""
        turned = jax.lax.collapse(rotations(image), 0, 2)
        label = jnp.tile(jnp.arange(4, dtype=jnp.int32), len(image))
        ramp = (done - predictor_steps) / max(1, steps - predictor_steps)

        def loss_fn(params):
            outputs, model_state = predictor.apply({"params": params, **old.model_state}, turned, train=True, rng=rng)
            log_p = jax.nn.log_softmax(outputs["head"])
            entropy = -jnp.sum(jnp.exp(log_p) * log_p, -1)
            sure = (entropy < MIDDLE - margin) | (done < predictor_steps)
            true = -jnp.take_along_axis(log_p, label[:, None], 1)[:, 0]
            apart = jnp.maximum(jnp.abs(entropy - MIDDLE), margin)
            weight = separation * jnp.maximum(ramp, 0).astype(apart.dtype)
            loss = jnp.mean(jnp.where(sure, true, 0)) - weight * jnp.mean(apart)
            return loss, (entropy.reshape(-1, 4).mean(-1), jnp.mean(jnp.argmax(log_p, -1) == label), model_state)

        (loss, (entropy, accuracy, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.params)
        metrics = {"predictor_loss": loss, "rotation_accuracy": accuracy, "rotation_entropy": jnp.mean(entropy)}
        return state.descend(old, predictor_tx, gradient, model_state), entropy, metrics

    def step(old, batch, rng):
        rng_a, rng_b, rng_model, rng_predictor = state.named(
            rng, "unlabelled/a", "unlabelled/b", "model", "model/predictor"
        )
        image = to_float(batch["unlabelled"]["input"])
        predictor_state, entropy, metrics = predict(old.predictor, image, old.done, rng_predictor)
        is_positive = (entropy > threshold) & (old.done >= predictor_steps)
        # Item 2 i is image i, item 2 i + 1 its rotated copy; each has two views.
        turns = different_turns(rng, len(image))
        pairs = [
            augment(rng, jnp.stack([image, turn(image, turns[i])], 1).reshape(-1, *image.shape[1:]))
            for i, rng in enumerate((rng_a, rng_b))
        ]
        views = jax.lax.collapse(jnp.stack(pairs, 1), 0, 2)
        mask = positives(is_positive)

        def loss_fn(params):
            variables = {"params": params, **old.encoder.model_state}
            outputs, model_state = net.apply(variables, views, train=True, rng=rng_model)
            z = outputs["projector"].reshape(len(mask), 2, -1)
            # Twice, since half of the anchors that the mean is over are rotated and contribute 0.
            loss = 2 * sup_con_mask(z, mask, temperature=temperature, base_temperature=temperature)
            return loss, (outputs["projector"], model_state)

        (loss, (z, model_state)), gradient = jax.value_and_grad(loss_fn, has_aux=True)(old.encoder.params)
        metrics |= {
            "loss": loss,
            "rotation_positive": jnp.mean(is_positive),
            "embedding_std": jnp.mean(jnp.std(normalise(z), 0)),
            "false_negatives": same_class(batch["audit"]["unlabelled"]["label"]),
        }
        encoder_state = state.descend(old.encoder, tx, gradient, model_state)
        return PndaState(encoder_state, predictor_state, old.done + 1), metrics

    return Method(init, step, lambda state: state.encoder.variables)


def different_turns(rng, count):
    """Two different numbers from 1 to 3 for each of `count` images, int32 [2, count]."""
    rng_one, rng_other = state.named(rng, "turns/one", "turns/other")
    one = jax.random.randint(rng_one, (count,), 0, 3, jnp.int32)
    other = (one + jax.random.randint(rng_other, (count,), 1, 3, jnp.int32)) % 3
    return jnp.stack([one, other]) + 1


def turn(images, turns):
    """Each image [B, H, H, C] turned counter-clockwise by its number [B] of quarters, from 0 to 3."""
    chosen = turns[:, None] == jnp.arange(4, dtype=turns.dtype)[None]
    return jnp.sum(jnp.where(chosen[..., None, None, None], rotations(images), 0), 1)


def positives(is_positive):
    """Of 2B items, images with their rotated copies in turn, which are an image's positives: bool [2B, 2B]."""
    yes, no = jnp.ones_like(is_positive), jnp.zeros_like(is_positive)
    of_image = jnp.stack([yes, is_positive, no, no], -1).reshape(-1, 2, 2)
    own = jnp.eye(len(is_positive), dtype=bool)
    return (own[:, None, :, None] & of_image[:, :, None]).reshape(2 * len(own), -1)
