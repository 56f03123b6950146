"""Rules of `relabelling`: what a round is taught, by what the network of the round before makes of all rows.

A rule is `(evidence, rng, *, ...) -> columns`, arrays [N, ...] in the place of those that were said: `label` where it
is hard, `target` where soft, `weight` (0 leaves a row out), and `pinned`, bool: what a person has said, and no rule
changes. Of several labels [N, C] each entry is by itself; rows without a known entry are left out. A rule with a
`warmup` changes nothing in the first steps of a phase, the share of them that this is; it then takes ever more entries
up to its `share` at the end, in proportion to the steps that are done.
"""

import functools
import logging
from typing import Annotated, Any, Literal

import numpy as np

from labelfx.config.annotations import Fraction, Limit, NonNegative, NonNegativeInt, Positive, PositiveInt, Probability
from labelfx.data import known, labelled
from labelfx.labels import votes as voting
from labelfx.labels.bags import belief_propagation
from labelfx.labels.evidence import Evidence
from labelfx.labels.unlabelled import posterior, sar_em

logger = logging.getLogger(__name__)

LEAST = 0.01  # a propensity
Percentile = Annotated[float, Limit("a number in [0, 100]", lambda v: 0 <= v <= 100)]


def given(evidence: Evidence, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The labels that were said, and no others: the round before there is a network."""
    label = evidence.columns["label"]
    return {"label": label, "weight": labelled(label).astype(np.float32), "pinned": known(label)}


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


def asymmetric(
    evidence: Evidence, rng: np.random.Generator, *, share: Probability, warmup: Fraction
) -> dict[str, np.ndarray]:
    """Of each label the unknown entries of lowest probability become soft negatives, for good: their `target` is the
    probability of that round (asymmetric pseudo-labelling, APL; Zhou et al. 2022, ECCV).

    `target` is 1 and 0 where that is known, and NaN where it is still unknown; such negatives have `label` 0. The
    authors take a share of 0.9 and half of ten epochs to warm up.

    Raises:
      ValueError: rows do not have several labels.
    """
    said, unknown = _entries(evidence, rng)
    before = evidence.columns.get("target")
    target = np.where(said["pinned"], said["label"], np.nan).astype(np.float32) if before is None else before.copy()
    for c in range(target.shape[1]):
        count = int(share * _done(evidence, warmup) * unknown[:, c].sum() + 1e-6)
        open_ = np.flatnonzero(unknown[:, c] & np.isnan(target[:, c]))
        count = max(0, count - (unknown[:, c].sum() - len(open_)))
        lowest = open_[np.argsort(evidence.probs[open_, c], kind="stable")[:count]]
        target[lowest, c] = evidence.probs[lowest, c]
    label = np.where(unknown & ~np.isnan(target), 0, said["label"]).astype(np.int8)
    return said | {"label": label, "target": target}


def large_loss(
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    share: Probability,
    warmup: Fraction,
    scheme: Literal["reject", "correct"],
) -> dict[str, np.ndarray]:
    """Unknown entries count as negative, but for the share of them of highest probability, whose loss is largest: they
    are left out ("reject"), or count as positive ("correct"; LL-R and LL-Ct, Kim et al. 2022, CVPR).

    The authors choose within each batch, by the network as it is then; here it is of all rows, once a round.

    Raises:
      ValueError: rows do not have several labels.
    """
    said, unknown = _entries(evidence, rng)
    places = np.flatnonzero(unknown)
    count = int(np.ceil(share * _done(evidence, warmup) * len(places) - 1e-6))
    largest = np.zeros(unknown.shape, bool)
    largest.flat[places[np.argsort(-evidence.probs.flat[places], kind="stable")[:count]]] = True
    label = np.where(unknown, np.where(largest, -1 if scheme == "reject" else 1, 0), said["label"])
    return said | {"label": label.astype(np.int8)}


def reflective(
    evidence: Evidence, rng: np.random.Generator, *, threshold: Probability, power: NonNegative, warmup: Fraction
) -> dict[str, np.ndarray]:
    """Unknown entries become positive whose probability is above the threshold and above the label's mean; `weight`
    float32 [N, C] is that of the label, (1 + log(n_max / n))^power, n of its positives, the recalled among them
    (COMIC's reflective label corrector; Zhang et al. 2023, ICCV).

    The mean is over rows of which any entry is known. A label without a positive has the weight of one with 1. With a
    threshold of 1 there are weights alone. The authors take 0.7, a sixth as power and the first epoch to warm up, the
    mean over the batch, and add the recalled of an epoch to n one by one.

    Raises:
      ValueError: rows do not have several labels.
    """
    said, unknown = _entries(evidence, rng)
    rows = said["weight"] > 0
    label = said["label"]
    if evidence.progress >= warmup:
        mean = evidence.probs.mean(0, where=rows[:, None], keepdims=True)
        recalled = unknown & (evidence.probs > threshold) & (evidence.probs > mean)
        label = np.where(recalled, 1, label).astype(np.int8)
    number = np.maximum((label == 1).sum(0), 1)
    weight = (1 + np.log(number.max() / number)) ** power
    return said | {"label": label, "weight": (rows[:, None] * weight).astype(np.float32)}


def proportion_bp(
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    covariates: Literal["inputs", "features"],
    neighbours: PositiveInt,
    bag_weight: NonNegative,
    similarity_weight: NonNegative,
    steps: PositiveInt,
    damping: Fraction,
) -> dict[str, np.ndarray]:
    """`target`: marginals of labels that agree with the class proportions of their bags and with like rows, by belief
    propagation (LLP-BP; "Learning from Label Proportions: Bootstrapping Supervised Learners via Belief Propagation");
    rows in no bag are left out.

    The paper's first round goes by the rows, its next by features of the network of the one before: `covariates`. They
    are standardised and of unit length; each row in a bag and its nearest `neighbours` there are as like as e^-distance
    says. Of more than two classes each is told from the others by itself, and the marginals are scaled to sum 1.

    Raises:
      ValueError: nothing gives bags, or a class is in all rows of bags or in none.
    """
    instead = "take labels.weak proportions"
    bag, said = _column(evidence, "bag", instead), _column(evidence, "bag_target", instead)
    rows = np.flatnonzero((bag >= 0) & ~np.isnan(said).any(1))
    _, first, number = np.unique(bag[rows], return_index=True, return_inverse=True)
    share = said[rows].mean(0)
    if not ((share > 0) & (share < 1)).all():
        raise ValueError(f"classes have shares {share.tolist()} of the rows in bags: each must be above 0 and below 1")
    x = np.asarray(evidence.inputs[rows] if covariates == "inputs" else evidence.features[rows], np.float32)
    edges, distance = _nearest(x.reshape(len(rows), -1), neighbours)
    counts = np.rint(said[rows][first] * np.bincount(number)[:, None]).astype(np.int64)
    how: dict[str, Any] = {
        "bag_weight": bag_weight,
        "similarity_weight": similarity_weight,
        "steps": steps,
        "damping": damping,
    }
    chance = [belief_propagation(number, count, edges, np.exp(-distance), **how) for count in counts.T]
    target = np.zeros(said.shape)
    target[rows] = np.stack(chance, 1) / np.sum(chance, 0)[:, None]
    return _soft(evidence, target, np.isin(np.arange(len(bag)), rows))


def propensity_em(
    evidence: Evidence,
    rng: np.random.Generator,
    *,
    covariates: Literal["inputs", "features"],
    propensity_columns: tuple[NonNegativeInt, ...],
    l2: Positive,
    steps: PositiveInt,
) -> dict[str, np.ndarray]:
    """`propensity`: of every row, learnt from which rows are `observed` to be positive, and `target`: the posterior of
    (negative, positive), by SAR-EM (Bekker et al. 2019). Its last step, a classifier of the risk with these
    propensities, is the objective `positive_unlabelled`; they are at least 0.01, as a row counts 1 / e times.

    covariates: what tells classes apart: inputs or, after a phase, features; standardised.
    propensity_columns: entries of a flattened input that propensities go by; without any, one for all positives (SCAR).
    l2, steps: as in `labelfx.labels.unlabelled.sar_em`.

    Raises:
      ValueError: nothing says which rows are observed, none or all are, or a row has no such entry.
    """
    observed = _column(evidence, "observed", "take labels.weak positive_unlabelled")
    n = len(observed)
    inputs = np.asarray(evidence.inputs[np.arange(n)], np.float64).reshape(n, -1)
    if propensity_columns and max(propensity_columns) >= inputs.shape[1]:
        raise ValueError(
            f"propensity_columns has {max(propensity_columns)}; a row has entries 0..{inputs.shape[1] - 1}"
        )
    x = _standardised(inputs if covariates == "inputs" else np.asarray(evidence.features, np.float64))
    attributes = _standardised(inputs[:, list(propensity_columns)])
    found = sar_em(x, attributes, observed, l2=l2, steps=steps)
    low = observed & (found.propensity < LEAST)
    logger.info(
        "propensity_em: mean propensity %.3f, share of positives %.3f; %d observed rows below %g",
        *(found.propensity.mean(), found.probability.mean(), low.sum(), LEAST),
    )
    positive = posterior(found.probability, found.propensity, observed)
    return {
        "propensity": np.maximum(found.propensity, LEAST).astype(np.float32),
        "target": np.stack([1 - positive, positive], 1).astype(np.float32),
        "weight": np.ones(n, np.float32),
        "pinned": observed,
    }


def reads_network(rule: functools.partial) -> bool:
    """Whether a rule goes by a network, so that the first round cannot have it."""
    alone = rule.func in (given, votes, observer) or rule.keywords.get("covariates") == "inputs"
    return not alone and not rule.keywords.get("warmup")


def _column(evidence: Evidence, name: str, instead: str) -> np.ndarray:
    if name not in evidence.columns:
        raise ValueError(f"config.labels gives no `{name}`: {instead}")
    return evidence.columns[name]


def _nearest(x: np.ndarray, neighbours: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs [E, 2] of rows of which one is among the other's nearest, each once, and their distances [E], when columns
    are standardised and rows of unit length."""
    from sklearn.neighbors import NearestNeighbors  # slow to import

    x = _standardised(x)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    distance, other = NearestNeighbors(n_neighbors=min(neighbours, len(x) - 1)).fit(x).kneighbors()
    pairs = np.stack([np.repeat(np.arange(len(x)), other.shape[1]), other.ravel()], 1)
    edges, first = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    return edges, distance.ravel()[first]


def _standardised(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(0)) / np.maximum(x.std(0), 1e-6)


def _soft(evidence: Evidence, target: np.ndarray, said: np.ndarray) -> dict[str, np.ndarray]:
    """Columns of soft targets [N, C] of the rows `said`, and one-hot of the labels that people said."""
    label = evidence.columns["label"]
    pinned = labelled(label)
    hard = np.eye(target.shape[1])[np.where(pinned, label, 0)]
    target = np.where(pinned[:, None], hard, target).astype(np.float32)
    return {"target": target, "weight": (pinned | said).astype(np.float32), "pinned": pinned}


def _entries(evidence: Evidence, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """What was said of several labels, and the unknown entries [N, C] of rows of which any is known."""
    said = given(evidence, rng)
    if said["label"].ndim != 2 or said["label"].dtype != np.int8:
        raise ValueError("the rule is of several labels a row, int8 [N, C]; take data of several labels, or percentile")
    return said, ~said["pinned"] & (said["weight"] > 0)[:, None]


def _done(evidence: Evidence, warmup: float) -> float:
    """The share of the steps after the warm-up that are done, 0 before its end."""
    return max(0.0, evidence.progress - warmup) / (1 - warmup)
