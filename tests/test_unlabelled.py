"""Expectation maximisation with propensities against the likelihood over both classes in float64, and what learnt
propensities are worth."""

import numpy as np
import pytest
from scipy.special import expit
from toys import assert_beats

from labelfx.labels.evidence import Evidence
from labelfx.labels.rules import propensity_em
from labelfx.labels.unlabelled import posterior, sar_em

RNG = np.random.default_rng(0)
RULE = {"covariates": "inputs", "propensity_columns": (1,), "l2": 1.0, "steps": 100}


def selected(seed, n):
    """Rows whose first column makes them positive and whose second, which is alike, makes them observed."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    x[:, 1] = 0.8 * x[:, 0] + 0.6 * x[:, 1]
    y = rng.random(n) < expit(3 * x[:, 0])
    propensity = expit(2.5 * x[:, 1] - 0.5)
    return x, y & (rng.random(n) < propensity), propensity


def evidence_of(x, observed):
    n = len(x)
    nothing, columns = np.zeros((n, 2), np.float32), {"label": np.full(n, -1, np.int32), "observed": observed}
    return Evidence(nothing, nothing, np.full(n, np.nan), columns, np.empty(0, np.int64), 0.0, inputs=x)


def joint(f, e, s):
    """P(y, s) of y = 0 and 1, row by row."""
    return np.array(
        [[0.0 if s_i else 1 - f_i, f_i * (e_i if s_i else 1 - e_i)] for f_i, e_i, s_i in zip(f, e, s, strict=True)]
    )


def test_the_posterior_is_that_of_enumeration():
    f, e, s = RNG.random(20), RNG.random(20), RNG.random(20) < 0.4
    both = joint(f, e, s)
    np.testing.assert_allclose(posterior(f, e, s), both[:, 1] / both.sum(1), rtol=1e-12)
    assert posterior(np.ones(2), np.ones(2), np.array([True, False])).tolist() == [1, 1]


def test_em_ends_where_the_penalised_likelihood_is_flat():
    """Its gradient, by differences of the sum over both classes, and before that it rises."""
    x, observed, _ = selected(0, 300)
    attributes, l2 = x[:, 1:], 1.0

    def objective(theta):
        f, e = expit(x @ theta[:2] + theta[2]), expit(attributes[:, 0] * theta[3] + theta[4])
        return np.log(joint(f, e, observed).sum(1)).sum() - l2 / 2 * (theta[:2] @ theta[:2] + theta[3] ** 2)

    def coefficients(found):
        rows = np.hstack([x, np.ones((len(x), 1))])
        logits = [np.log(p) - np.log1p(-p) for p in found]
        return np.concatenate([np.linalg.lstsq(r, z)[0] for r, z in zip((rows, rows[:, 1:]), logits, strict=True)])

    thetas = [coefficients(sar_em(x, attributes, observed, l2=l2, steps=steps)) for steps in (1, 5, 20, 500)]
    values = [objective(theta) for theta in thetas]
    assert (np.diff(values) > 0).all()
    start, end = (
        np.abs([(objective(t + d) - objective(t - d)) / 2e-5 for d in 1e-5 * np.eye(5)]).max()
        for t in (thetas[0], thetas[-1])
    )
    print(start, end)
    assert end < 0.05 < 1 < start


def test_learnt_propensities_undo_selection_and_one_for_all_does_not():
    """P152: the paper's ablation, SCAR, is the same algorithm without an attribute."""
    right, error = {"sar": [], "scar": []}, {"sar": [], "scar": []}
    for seed in range(3):
        x, observed, propensity = selected(seed, 4000)
        for name, attributes in (("sar", x[:, 1:]), ("scar", x[:, :0])):
            found = sar_em(x, attributes, observed, l2=1.0, steps=50)
            right[name].append(np.mean((found.probability > 0.5) == (x[:, 0] > 0)))
            error[name].append(np.abs(found.propensity - propensity).mean())
    print({name: (np.round(np.mean(right[name]), 3), np.round(np.mean(error[name]), 3)) for name in right})
    assert min(right["sar"]) > 0.9
    assert_beats(np.array(right["sar"]) - 0.1, right["scar"])
    assert_beats(np.array(error["scar"]) - 0.3, error["sar"])


def test_the_rule_gives_propensities_and_the_posterior():
    x, observed, _ = selected(0, 300)
    taught = propensity_em(evidence_of(x, observed), RNG, **RULE)
    assert taught["propensity"].dtype == taught["target"].dtype == np.float32
    assert taught["propensity"].min() >= np.float32(0.01) and (taught["target"][observed] == [0, 1]).all()
    np.testing.assert_allclose(taught["target"].sum(1), 1, rtol=1e-6)
    assert (taught["pinned"] == observed).all() and taught["weight"].all()


def test_what_cannot_be_is_named():
    x, observed, _ = selected(0, 50)
    for all_or_none in (np.zeros(50, bool), np.ones(50, bool)):
        with pytest.raises(ValueError, match="of 50 rows; some must be, and some not"):
            sar_em(x, x[:, 1:], all_or_none, l2=1.0, steps=1)
    with pytest.raises(ValueError, match=r"propensity_columns has 2; a row has entries 0\.\.1"):
        propensity_em(evidence_of(x, observed), RNG, **RULE | {"propensity_columns": (2,)})
    evidence = evidence_of(x, observed)
    del evidence.columns["observed"]
    with pytest.raises(ValueError, match="config.labels gives no `observed`: take labels.weak positive_unlabelled"):
        propensity_em(evidence, RNG, **RULE)
