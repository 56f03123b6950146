"""Which labels to believe, by the losses that a network has with them: a mixture of two normal distributions."""

import logging
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq
from scipy.stats import norm

logger = logging.getLogger(__name__)


class Gate(NamedTuple):
    """threshold: the loss at which both components are as likely; infinite where one is enough. reliable: bool [N], of
    less loss."""

    threshold: float
    reliable: np.ndarray


def clean_probability(losses: np.ndarray) -> np.ndarray:
    """P(the component of less loss | loss), float64 [N], of two on losses scaled to 0..1 (DivideMix, Li et al. 2020,
    ICLR, section 3.1; Arazo et al. 2019); 1 where all losses are the same."""
    span = np.ptp(losses)
    if span == 0:
        return np.ones(len(losses))
    x = ((losses - losses.min()) / span)[:, None].astype(np.float64)
    mixture = _mixture(x, 2, reg_covar=5e-4)
    return mixture.predict_proba(x)[:, mixture.means_[:, 0].argmin()]


def loss_gate(losses: np.ndarray) -> Gate:
    """The dynamic loss gate (DLG; "Self-Supervised Learning with Cluster-Aware-DINO for High-Performance Robust Speaker
    Verification"): where the components of the log losses [N] cross between their means.

    All are reliable, which is logged, where a single normal distribution explains them as well, by BIC, or the two do
    not cross there.
    """
    x = np.log(np.maximum(losses, 1e-12))[:, None].astype(np.float64)
    everything = Gate(np.inf, np.ones(len(losses), bool))
    if np.ptp(x) == 0:
        return everything
    one, two = (_mixture(x, count, reg_covar=1e-6) for count in (1, 2))
    low, high = np.argsort(two.means_[:, 0])

    def difference(at: float) -> float:
        log_weights = [
            np.log(two.weights_[k]) + norm.logpdf(at, two.means_[k, 0], np.sqrt(two.covariances_[k, 0, 0]))
            for k in (low, high)
        ]
        return float(log_weights[0] - log_weights[1])

    between = two.means_[low, 0], two.means_[high, 0]
    if one.bic(x) <= two.bic(x) or not difference(between[0]) > 0 > difference(between[1]):
        logger.info("loss_gate: the losses are of one kind, and all labels are believed")
        return everything
    threshold = float(np.exp(brentq(difference, *between)))
    return Gate(threshold, losses < threshold)


def _mixture(x, count, reg_covar):
    from sklearn.mixture import GaussianMixture  # slow to import

    return GaussianMixture(count, reg_covar=reg_covar, random_state=0).fit(x)
