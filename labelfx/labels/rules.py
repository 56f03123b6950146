"""Rules of `relabelling`: what a round is taught, by what the network of the round before makes of all rows.

A rule is `(evidence, rng, *, ...) -> columns`, arrays [N, ...] in the place of those that were said: `label` where it
is hard, `target` where soft, `weight` (0 leaves a row out), and `pinned`, bool: what a person has said, and no rule
changes.
"""

import functools
import logging
from typing import Annotated, Literal

import numpy as np

from labelfx.config.annotations import Limit, NonNegative, PositiveInt, Probability
from labelfx.data import labelled
from labelfx.labels import votes as voting
from labelfx.labels.evidence import Evidence

logger = logging.getLogger(__name__)

Percentile = Annotated[float, Limit("a number in [0, 100]", lambda v: 0 <= v <= 100)]


def given(evidence: Evidence, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The labels that were said, and no others: the round before there is a network."""
    pinned = labelled(evidence.columns["label"])
    return {"label": evidence.columns["label"], "weight": pinned.astype(np.float32), "pinned": pinned}


def percentile(evidence: Evidence, rng: np.random.Generator, *, percentile: Percentile) -> dict[str, np.ndarray]:
    """Rows without a label whose confidence reaches this percentile of all such confidences take the most probable
    class; the others are left out, all of them at 100.

    Curriculum Labeling, Cascante-Bonilla et al. 2021, Algorithm 1.
    """
    said = given(evidence, rng)
    hidden, confidence = ~said["pinned"], evidence.probs.max(1)
    if hidden.any() and percentile < 100:
        said["weight"] += hidden & (confidence >= np.percentile(confidence[hidden], percentile))
    said["label"] = np.where(hidden, evidence.probs.argmax(1).astype(np.int32), said["label"])
    return said


def votes(
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    model: Literal["majority", "moments", "one_coin"],
    l2: NonNegative,
    steps: PositiveInt,
) -> dict[str, np.ndarray]:
    """`target`: what labelling functions say of each row by the column `votes`, through a label model (weak
    supervision, Smith et al. 2022, "Language Models in the Loop"); rows on which none votes are left out.

    model: a label model of `labelfx.labels.votes`, uniform over classes before the votes, or the majority alone.
    l2, steps: of label models.

    Raises:
      ValueError: nothing gives votes, or there are fewer than three functions.
    """
    cast = _column(evidence, "votes", "take labels.weak column of a source that has some, annotators or recorded")
    classes, covered = evidence.probs.shape[1], np.any(cast >= 0, axis=1)
    if not covered.all():
        logger.info("votes: %d of %d rows have none and are left out", (~covered).sum(), len(cast))
    if model == "majority":
        target = voting.majority_vote(cast, classes)
    else:
        fitted = voting.fit_label_model(cast[covered], classes, method=model, l2=l2, steps=steps)
        target = voting.predict_proba(fitted, cast)
    return _soft(evidence, target, covered)


def observer(evidence: Evidence, rng: np.random.Generator, *, consensus: Probability) -> dict[str, np.ndarray]:
    """`label`: with probability `consensus` what most of a row's `votes` name, else what one observer does, drawn anew
    at every refresh; nothing where nobody votes (after "Development and evaluation of intraoperative ultrasound
    segmentation with negative image frames and multiple observer labels")."""
    cast = _column(evidence, "votes", "take labels.weak column of a source that has some, annotators or recorded")
    drawn = voting.sample(rng, cast, evidence.probs.shape[1], consensus=consensus)
    said = given(evidence, rng)
    label = np.where(said["pinned"], said["label"], drawn).astype(np.int32)
    return {"label": label, "weight": (label >= 0).astype(np.float32), "pinned": said["pinned"]}


def _column(evidence: Evidence, name: str, instead: str) -> np.ndarray:
    if name not in evidence.columns:
        raise ValueError(f"config.labels gives no `{name}`: {instead}")
    return evidence.columns[name]


def _soft(evidence: Evidence, target: np.ndarray, said: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of soft targets [N, C] of the rows `said`, and one-hot of the labels that people said."""
    label = evidence.columns["label"]
    pinned = labelled(label)
    hard = np.eye(target.shape[1])[np.where(pinned, label, 0)]
    target = np.where(pinned[:, None], hard, target).astype(np.float32)
    return {"target": target, "weight": (pinned | said).astype(np.float32), "pinned": pinned}


def reads_network(rule: functools.partial) -> bool:
    """Whether a rule goes by a network, so that the first round cannot have it."""
    return rule.func not in (given, votes, observer)
