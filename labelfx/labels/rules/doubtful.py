"""Rules of `relabelling` for labels of which some are wrong: none is pinned, as any may be.

In the warm-up of a phase all labels are taught as they were given; rows without a label are left out.
"""

import logging
from typing import Literal

import numpy as np

from labelfx.config.annotations import Fraction, Positive, Probability
from labelfx.data import known
from labelfx.labels.evidence import Evidence
from labelfx.labels.gate import clean_probability
from labelfx.labels.gate import loss_gate as gate_of
from labelfx.labels.noise import anchor_transitions, count_transitions, posterior

__all__ = ["dividemix", "early_learning", "loss_gate", "noise_model"]  # what a config may name

logger = logging.getLogger(__name__)


def early_learning(
    evidence: Evidence, rng: np.random.Generator, *, momentum: Fraction, warmup: Fraction
) -> dict[str, np.ndarray]:
    """`target`: the running average of the network's probabilities, for the objective `early_learning_regularised`;
    `label` as it was given (temporal ensembling in ELR, Liu et al. 2020, NeurIPS, eq. 10).

    The authors average at every step, with the momentum 0.7 on CIFAR-10, here it is at every refresh; before the
    warm-up is over there is no target.
    """
    said = _given(evidence)
    before = evidence.columns.get("target", np.full_like(evidence.probs, np.nan))
    if evidence.progress < warmup:
        return said | {"target": np.full_like(evidence.probs, np.nan)}
    average = momentum * before + (1 - momentum) * evidence.probs
    return said | {"target": np.where(np.isnan(before), evidence.probs, average).astype(np.float32)}


def dividemix(
    evidence: Evidence, rng: np.random.Generator, *, threshold: Probability, temperature: Positive, warmup: Fraction
) -> dict[str, np.ndarray]:
    """`target`: of labels that the gate takes for right with a probability w above the threshold, w times the label and
    1 - w times the network's probabilities; of the others these alone; then sharpened (DivideMix's co-divide and
    label refinement, Li et al. 2020, ICLR, eq. 3 to 5).

    The gate is the mixture of two normal distributions on the losses of all rows. The authors take two networks, each
    gated by the other's losses, and MixMatch with rows of the two kinds; here there is one network, and rows are not
    mixed.
    """
    if evidence.progress < warmup:
        return _taught(evidence, _one_hot(evidence), known(evidence.columns["label"]))
    rows = evidence.rows
    right = np.zeros(len(evidence.probs))
    right[rows] = clean_probability(evidence.losses[rows])
    believed = right > threshold
    logger.info("dividemix: %d of %d labels are believed", believed.sum(), len(rows))
    share = np.where(believed, right, 0)[:, None]
    target = _sharpened(share * _one_hot(evidence) + (1 - share) * evidence.probs, temperature)
    return _taught(evidence, target, known(evidence.columns["label"]))


def loss_gate(
    evidence: Evidence, rng: np.random.Generator, *, confidence: Probability, temperature: Positive, warmup: Fraction
) -> dict[str, np.ndarray]:
    """`target`: the label where its loss is below the dynamic gate; else the network's sharpened probabilities where
    the largest is above `confidence`; other rows are left out (DLG-LC; "Self-Supervised Learning with
    Cluster-Aware-DINO for High-Performance Robust Speaker Verification")."""
    said = known(evidence.columns["label"])
    if evidence.progress < warmup:
        return _taught(evidence, _one_hot(evidence), said)
    reliable = np.zeros(len(said), bool)
    reliable[evidence.rows] = gate_of(evidence.losses[evidence.rows]).reliable
    sure = said & (evidence.probs.max(1) > confidence)
    logger.info("loss_gate: %d of %d labels are believed", reliable.sum(), said.sum())
    target = np.where(reliable[:, None], _one_hot(evidence), _sharpened(evidence.probs, temperature))
    return _taught(evidence, target, reliable | sure)


def noise_model(
    evidence: Evidence, rng: np.random.Generator, *, estimate: Literal["anchors", "confusion"], warmup: Fraction
) -> dict[str, np.ndarray]:
    """`target`: P(true class | row, label given) by a transition that is learnt too, of which the network's
    probabilities are the prior (Hedderich, Zhu and Klakow 2021, AAAI; Bekker and Goldberger 2016).

    estimate: the transition is read off the rows that are surest, the 0.97 quantile of each class ("anchors"), or
      counted from predicted and given labels, with 1 added to each count ("confusion").
    """
    said = known(evidence.columns["label"])
    if evidence.progress < warmup:
        return _taught(evidence, _one_hot(evidence), said)
    given, probs = evidence.columns["label"][said], evidence.probs[said]
    if estimate == "anchors":
        transition = anchor_transitions(probs, quantile=0.97)
    else:
        transition = count_transitions(given, probs.argmax(1), probs.shape[1], smoothing=1.0)
    logger.info("noise_model: %.3f of labels are right, by the transition", transition.diagonal().mean())
    target = np.zeros(evidence.probs.shape)
    target[said] = posterior(np.maximum(probs, 1e-12), np.maximum(transition, 1e-12), given)
    return _taught(evidence, target, said)


def _given(evidence: Evidence) -> dict[str, np.ndarray]:
    label = evidence.columns["label"]
    if label.ndim > 1:
        raise ValueError("the rule is of one class a row, int32 [N]; take data of such, or another rule")
    return {"label": label, "weight": known(label).astype(np.float32), "pinned": np.zeros(len(label), bool)}


def _taught(evidence: Evidence, target: np.ndarray, counted: np.ndarray) -> dict[str, np.ndarray]:
    label = np.where(counted, target.argmax(1), -1).astype(np.int32)
    weight = counted.astype(np.float32)
    return _given(evidence) | {"label": label, "weight": weight, "target": target.astype(np.float32)}


def _one_hot(evidence: Evidence) -> np.ndarray:
    """Of the labels given, zeros where there is none."""
    label = evidence.columns["label"]
    return np.eye(evidence.probs.shape[1])[np.maximum(label, 0)] * known(label)[:, None]


def _sharpened(probs: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.asarray(probs, np.float64) ** (1 / temperature)
    return powers / powers.sum(1, keepdims=True)
