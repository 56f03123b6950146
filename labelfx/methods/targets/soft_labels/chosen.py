"""Soft labels of which not all are believed, or asked for: parts around another one, `of`."""

import functools
from typing import Annotated

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config.annotations import Fraction, Limit, Positive, PositiveInt, Probability
from labelfx.data import Task, labelled
from labelfx.labels.choose import robust_query
from labelfx.labels.evidence import gather
from labelfx.methods.targets.soft_labels import Seen, SoftLabel, SoftLabels
from labelfx.methods.targets.soft_labels.networks import log_of
from labelfx.models import Model
from labelfx.objectives.distillation import binary_kd, kd
from labelfx.objectives.pseudo_label import freematch_init, freematch_thresholds

AtLeastOne = Annotated[float, Limit("a number >= 1", lambda v: 1 <= v < float("inf"))]


def paced(task: Task, *, of: SoftLabel, start: Positive, growth: AtLeastOne) -> SoftLabels:
    """Easy sources first: one counts while the student's divergence from it is at most a bound, `start` at the first
    step and `growth` times the last one's at each other (Knowledge Concentration, Gao et al. 2017, whose weights of
    teachers are self-paced; the rule is that of Kumar et al. 2010, "Self-Paced Learning"). The easiest always counts.
    """
    divergence = functools.partial(binary_kd if task == "several" else kd, temperature=1.0)

    def assign(seen: Seen, before):
        bound, inner = before
        logits, weight, inner = of.assign(seen, inner)
        losses = jax.vmap(lambda target, weight: divergence(seen.logits, target, weight))(logits, weight)
        easy = losses <= jnp.maximum(bound, jnp.min(losses))
        easy = easy.reshape(-1, *[1] * (weight.ndim - 1))
        return logits, jnp.where(easy, weight, 0), (bound * growth, inner)

    return of._replace(assign=assign, init=lambda: (jnp.full((), start), of.init()))


def calibrated(task: Task, *, of: SoftLabel, low: Probability, high: Probability, smoothing: Fraction) -> SoftLabels:
    """What is said of a view by how sure it is (FerKD, Shen 2023, ICCV; its training code is not released): with a
    largest probability of `high` or more it stays; below, down to `low`, the view shows the context of the object, and
    the label takes its place, mixed with the uniform distribution; a view below `low`, or without a label, has no
    weight.

    Raises:
      ValueError: `low` is above `high`; rows have several labels, which are no distribution.
    """
    if low > high:
        raise ValueError(f"low = {low}: must be at most high = {high}")
    if task == "several":
        raise ValueError("calibrated goes by the largest probability of a row, and these have several labels")

    def assign(seen: Seen, before):
        logits, weight, before = of.assign(seen, before)
        classes, sure = logits.shape[-1], jnp.max(jax.nn.softmax(logits), -1)
        truth = jax.nn.one_hot(seen.label, classes, dtype=logits.dtype)
        truth = log_of((1 - smoothing) * truth + smoothing / classes)[None]
        kept, context = sure >= high, (sure >= low) & (seen.label >= 0)[None]
        logits = jnp.where(kept[..., None], logits, truth)
        return logits, jnp.where(kept | context, weight, 0), before

    return of._replace(assign=assign)


def selected(task: Task, num_classes: int, *, of: SoftLabel, momentum: Fraction) -> SoftLabels:
    """What the teacher is sure of and the student is not (LLKD, Li et al. 2025, Findings of NAACL, of which no code was
    found): rows whose confidence of the teacher and whose entropy of the student, over log C, both reach their
    thresholds, weighed by the product of the two.

    Thresholds are those of FreeMatch, moving averages over all rows and, relative to the largest, for each class that
    the teacher names; for the student with the entropy in that class's place.

    Raises:
      ValueError: the labels are not one class a row; there are several sources.
    """
    if task != "class":
        raise ValueError("selected goes by the class of a row, and these have none of their own")

    def assign(seen: Seen, before):
        (of_teacher, of_student), inner = before
        logits, weight, inner = of.assign(seen, inner)
        if len(logits) != 1:
            raise ValueError(f"selected: goes by one source, not {len(logits)}; take combine = 'probabilities'")
        probs, log_q = jax.nn.softmax(logits[0]), jax.nn.log_softmax(seen.logits)
        guess, sure = jnp.argmax(probs, -1), jnp.max(probs, -1)
        doubt = -jnp.sum(jnp.exp(log_q) * log_q, -1) / jnp.log(num_classes)
        by_class = doubt[:, None] * jax.nn.one_hot(guess, num_classes, dtype=doubt.dtype)
        least_sure, of_teacher = freematch_thresholds(probs, of_teacher, momentum=momentum)
        least_doubt, of_student = freematch_thresholds(by_class, of_student, momentum=momentum)
        kept = (sure >= least_sure[guess]) & (doubt >= least_doubt[guess])
        return logits, weight * jnp.where(kept, sure * doubt, 0)[None], ((of_teacher, of_student), inner)

    return of._replace(
        assign=assign, init=lambda: ((freematch_init(num_classes), freematch_init(num_classes)), of.init())
    )


def queried(
    classifier: Model, num_examples: int, task: Task, *, of: SoftLabel, budget: PositiveInt, error: Fraction
) -> SoftLabels:
    """The teacher is asked of `budget` rows alone, drawn anew at the start of a phase and at each refresh (Robust
    Active Distillation, Baykal et al. 2023, ICLR): of rows without a label those where the student's two most probable
    classes are the closest, but spread so that a share `error` of wrong answers, wherever they are, does the least
    harm (`labels.choose.robust_query`). Other rows have no weight. With `phases` each may ask by the network of the
    one before.

    Raises:
      ValueError: the budget is larger than the number of training rows; the labels are not one class a row.
    """
    if task != "class":
        raise ValueError("queried goes by the class of a row, and these have none of their own")
    if budget > num_examples:
        raise ValueError(f"budget = {budget}: must be at most {num_examples}, the training rows")

    def refresh(variables, source, rng, progress):
        second, first = np.partition(gather(classifier, variables, source, progress).probs, -2, -1)[:, -2:].T
        rows = np.flatnonzero(~labelled(source.labels))
        gains = 1 - (first - second)[rows]
        chance = robust_query(gains, error * len(rows))
        # Without replacement, by Gumbel noise; then the largest gains of those that are not to be asked about
        noise = np.random.default_rng(np.asarray(jax.random.key_data(rng))).gumbel(size=len(rows))
        score = np.where(chance > 0, np.log(np.maximum(chance, 1e-300)) + noise, gains - 1e6)
        include = np.zeros(len(source.labels), bool)
        include[rows[np.argsort(-score)[:budget]]] = True
        return {"include": include}

    def assign(seen: Seen, before):
        logits, weight, before = of.assign(seen, before)
        asked = seen.column("include")
        return logits, jnp.where(asked.reshape(1, -1, *[1] * (weight.ndim - 2)), weight, 0), before

    return of._replace(assign=assign, refresh=refresh)
