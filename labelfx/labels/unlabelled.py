"""What positive rows that somebody has observed say of the others, of which nobody says anything."""

from typing import NamedTuple

import numpy as np
import scipy.special

TOLERANCE = 1e-4  # of propensities: none moves further in the last step


class Propensities(NamedTuple):
    """probability: float64 [N], P(y = 1 | x). propensity: float64 [N], P(observed | y = 1, x)."""

    probability: np.ndarray
    propensity: np.ndarray


def posterior(probability: np.ndarray, propensity: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """P(y = 1 | x, observed), float64 [N]: 1 where a positive was observed, else f (1 - e) / (1 - f e) of the
    probability f of a positive and its propensity e (Bekker et al. 2019, section 5.2); 1 too where both are 1."""
    positive, negative = probability * (1 - propensity), 1 - probability
    never = positive + negative == 0  # a row that is surely positive and surely observed, and was not
    return np.where(observed | never, 1.0, positive / np.where(never, 1.0, positive + negative))


def sar_em(x: np.ndarray, attributes: np.ndarray, observed: np.ndarray, *, l2: float, steps: int) -> Propensities:
    """Two logistic regressions whose product is the probability of being observed: which rows are positive, by x, and
    which positives are observed, by some attributes (SAR-EM, Bekker et al. 2019, ECML PKDD, "Beyond the Selected
    Completely At Random Assumption for Learning from Positive and Unlabeled Data", section 5.2).

    Expectation maximisation of the penalised likelihood: from the posterior of y both are fitted anew, the first to it
    and the second to `observed` with the posterior as weight. It starts from rows that are not observed as negatives,
    in weights of which both kinds have a half. Classes and propensities can be told apart only as far as propensities
    go by other columns than classes do, or by the curve of a logistic function: the attributes are an assumption.

    Args:
      x: float [N, F], columns of like scale, such as standardised ones.
      attributes: float [N, K], likewise; with K = 0 all positives are alike (selected completely at random, SCAR).
      observed: bool [N], rows known to be positive.
      l2: l2 / 2 |coefficients|^2, intercepts apart, is added to each loss, a sum over rows; above 0.
      steps: at most so many; fewer where no propensity moves by more than 1e-4.

    Raises:
      ValueError: none or all rows are observed.
    """
    if not 0 < observed.sum() < len(observed):
        raise ValueError(f"observed: {observed.sum()} of {len(observed)} rows; some must be, and some not")
    ones = np.ones((len(x), 1))
    of_classes, of_propensities = np.hstack([x, ones]), np.hstack([attributes, ones])
    share = observed.mean()

    weight = np.where(observed, 1 - share, share)
    classes = _fit(np.zeros(of_classes.shape[1]), of_classes, observed, weight, l2)
    f = scipy.special.expit(of_classes @ classes)
    start = np.zeros(of_propensities.shape[1])
    propensities = _fit(start, of_propensities, observed, np.where(observed, 1, f), l2)
    e = scipy.special.expit(of_propensities @ propensities)
    for _ in range(steps):
        before, expected = e, posterior(f, e, observed)
        propensities = _fit(propensities, of_propensities, observed, expected, l2)
        classes = _fit(classes, of_classes, expected, np.ones(len(x)), l2)
        f, e = scipy.special.expit(of_classes @ classes), scipy.special.expit(of_propensities @ propensities)
        if np.abs(e - before).max() < TOLERANCE:
            break
    return Propensities(f, e)


def _fit(theta: np.ndarray, x: np.ndarray, target: np.ndarray, weight: np.ndarray, l2: float) -> np.ndarray:
    """Coefficients of the logistic regression of a target in [0, 1], by Newton steps from theta, halved where the loss
    does not fall; the last is the intercept."""
    penalty = np.append(np.full(len(theta) - 1, l2), 0) / len(x)

    def loss(theta):
        z = x @ theta
        return weight @ (np.logaddexp(0, z) - target * z) / len(x) + penalty @ theta**2 / 2

    while True:
        p = scipy.special.expit(x @ theta)
        gradient = (weight * (p - target)) @ x / len(x) + penalty * theta
        hessian = (x.T * (weight * p * (1 - p))) @ x / len(x) + np.diag(penalty)
        step = np.linalg.solve(hessian, gradient)
        fall = gradient @ step
        if fall < 1e-12:
            return theta
        before = loss(theta)
        while loss(theta - step) > before - 1e-4 * fall:
            step, fall = step / 2, fall / 2
        theta = theta - step
