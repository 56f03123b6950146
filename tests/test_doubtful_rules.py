"""Gates of losses and the rules for labels that may be wrong: on planted rows, and what they are worth in training."""

import functools

import jax
import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from labelfx.labels import gate
from labelfx.labels.evidence import Evidence
from labelfx.labels.rules import doubtful

RNG = np.random.default_rng(0)
SETTINGS = {
    "early_learning": {"momentum": 0.7},
    "dividemix": {"threshold": 0.5, "temperature": 0.5},
    "loss_gate": {"confidence": 0.6, "temperature": 0.5},
    "noise_model": {"estimate": "confusion"},
}


def mixture(seed, n=4000, share=0.4):
    """Log losses of two normal distributions, and which is whose."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < share
    return np.where(wrong, rng.normal(1.0, 0.5, n), rng.normal(-2.0, 0.8, n)), wrong


def test_the_gate_is_where_the_components_cross():
    log_losses, wrong = mixture(0)
    found = gate.loss_gate(np.exp(log_losses))
    cross = brentq(lambda x: 0.6 * norm.pdf(x, -2.0, 0.8) - 0.4 * norm.pdf(x, 1.0, 0.5), -2, 1)
    assert abs(np.log(found.threshold) - cross) < 0.1
    np.testing.assert_array_equal(found.reliable, np.exp(log_losses) < found.threshold)
    assert (found.reliable != wrong).mean() > 0.98


@pytest.mark.parametrize("losses", [np.exp(RNG.normal(size=2000)), np.ones(50), np.zeros(50)])
def test_losses_of_one_kind_are_all_believed(losses):
    """A fixed share would leave rows out whatever there is."""
    found = gate.loss_gate(losses)
    assert found.reliable.all() and found.threshold == np.inf
    assert not np.ptp(losses) == 0 or (gate.clean_probability(losses) == 1).all()


def test_a_fixed_threshold_goes_wrong_as_losses_fall_and_the_gate_follows():
    """P165: the ablation is the gate of the first round, kept."""
    log_losses, wrong = mixture(1)
    first = gate.loss_gate(np.exp(log_losses)).threshold
    for fall in (0.0, 2.0, 4.0):
        fallen = np.exp(log_losses - fall)
        dynamic, fixed = gate.loss_gate(fallen).reliable, fallen < first
        print(fall, (dynamic != wrong).mean(), (fixed != wrong).mean())
        assert (dynamic == ~wrong).mean() > 0.98
    assert (fixed == ~wrong).mean() < 0.7


def test_clean_probabilities_are_those_of_the_lower_component():
    losses = np.concatenate([RNG.normal(0.2, 0.05, 300), RNG.normal(2.0, 0.2, 200)])
    found = gate.clean_probability(losses)
    assert (found[:300] > 0.9).all() and (found[300:] < 0.1).all()


def evidence_of(progress, probs=None, given=None, **columns):
    """A network that is sure of the truth, of rows of which a third have a wrong label and one in ten has none."""
    n = 300
    truth = (np.arange(n) % 3).astype(np.int32)
    wrong = np.arange(n) // 3 % 3 == 0
    given = np.where(wrong, (truth + 1) % 3, truth).astype(np.int32)
    given[::10] = -1
    rng = np.random.default_rng(0)
    logits = 4 * np.eye(3)[truth] + rng.normal(size=(n, 3))
    probs = np.asarray(jax.nn.softmax(logits.astype(np.float32)))
    rows = np.flatnonzero(given >= 0)
    losses = np.full(n, np.nan, np.float32)
    losses[rows] = -np.log(probs[rows, given[rows]])
    return Evidence(probs, probs, losses, {"label": given, **columns}, rows, progress), truth, wrong


@pytest.mark.parametrize("name", SETTINGS)
def test_labels_are_taught_as_given_during_the_warm_up(name):
    evidence, *_ = evidence_of(0.1)
    taught = getattr(doubtful, name)(evidence, RNG, warmup=0.2, **SETTINGS[name])
    given = evidence.columns["label"]
    np.testing.assert_array_equal(taught["label"], given)
    np.testing.assert_array_equal(taught["weight"], given >= 0)
    assert not taught["pinned"].any() and taught["target"].dtype == taught["weight"].dtype == np.float32
    if name == "early_learning":
        assert np.isnan(taught["target"]).all()
    else:
        np.testing.assert_array_equal(taught["target"][given >= 0], np.eye(3)[given[given >= 0]])


@pytest.mark.parametrize("name", ["dividemix", "loss_gate", "noise_model"])
def test_wrong_labels_are_righted(name):
    evidence, truth, _ = evidence_of(0.5)
    taught = getattr(doubtful, name)(evidence, RNG, warmup=0.2, **SETTINGS[name])
    given, counted = evidence.columns["label"], taught["weight"] > 0
    assert not counted[given < 0].any() and counted[given >= 0].mean() > 0.9
    assert (taught["label"] == truth)[counted].mean() > 0.95 > 0.7 > (given == truth)[counted].mean()
    np.testing.assert_allclose(taught["target"][counted].sum(1), 1, rtol=1e-5)
    np.testing.assert_array_equal(taught["label"][counted], taught["target"][counted].argmax(1))


def test_targets_of_early_learning_are_a_running_average():
    rule = functools.partial(doubtful.early_learning, rng=RNG, momentum=0.7, warmup=0.2)
    evidence, *_ = evidence_of(0.3)
    first = rule(evidence)["target"]
    np.testing.assert_array_equal(first, evidence.probs)
    before = np.full_like(first, 1 / 3)
    again, *_ = evidence_of(0.6, target=before)
    np.testing.assert_allclose(rule(again)["target"], 0.7 * before + 0.3 * evidence.probs, rtol=1e-5)


def test_the_noise_model_knows_how_classes_are_called():
    """An unsure row that is called what class 0 is often called is rather a 0."""
    transition = np.array([[0.5, 0.5, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    truth = np.arange(300) % 3
    given = np.where((truth == 0) & (np.arange(300) // 3 % 2 == 0), 1, truth).astype(np.int32)
    probs = np.where(np.arange(3) == truth[:, None], 0.98, 0.01).astype(np.float32)
    probs[:3] = 0.4, 0.4, 0.2
    given[:3] = 1
    evidence = Evidence(probs, probs, np.zeros(300), {"label": given}, np.arange(300), 0.5)
    found = doubtful.noise_model(evidence, RNG, estimate="confusion", warmup=0.0)["target"][0]
    expected = probs[0] * transition[:, 1]
    np.testing.assert_allclose(found, expected / expected.sum(), atol=0.03)


def test_several_labels_are_refused():
    evidence, *_ = evidence_of(0.0)
    evidence.columns["label"] = np.zeros((300, 3), np.int8)
    with pytest.raises(ValueError, match="the rule is of one class a row"):
        doubtful.early_learning(evidence, RNG, momentum=0.7, warmup=0.2)
