"""Rules of `relabelling`: what a round is taught, by what the network of the round before makes of all rows.

A rule is `(evidence, rng, *, ...) -> columns`, arrays [N, ...] in the place of those that were said: `label` where it
is hard, `target` where soft, `weight` (0 leaves a row out), and `pinned`, bool: what a person has said, and no rule
changes.
"""

from typing import Annotated

import numpy as np

from labelfx.config.annotations import Limit
from labelfx.data import labelled
from labelfx.labels.evidence import Evidence

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
