"""Which rows to ask a person for: `(evidence, rng) -> scores` float [N], the highest first."""

import numpy as np

from labelfx.labels.evidence import Evidence


def random(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
    """Any row as soon as another: what every query has to beat."""
    return rng.random(len(evidence.probs))


def entropy(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
    """The row whose class the network knows least (uncertainty sampling; Settles 2009, section 3.1)."""
    return -np.sum(evidence.probs * np.log(np.maximum(evidence.probs, 1e-30)), 1)


def margin(evidence: Evidence, rng: np.random.Generator) -> np.ndarray:
    """The row whose two most probable classes are the closest (Scheffer et al. 2001)."""
    first, second = np.partition(evidence.probs, -2, axis=1)[:, -2:].T[::-1]
    return second - first
