"""Where soft labels come from, on problems that each part solves and what its paper argues against does not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize
from recipes import recipe
from test_methods import identity
from toys import adam, one_layer, with_head

import labelfx
from labelfx.data import Split, sources
from labelfx.labels.choose import robust_query
from labelfx.labels.recorded import majority, read
from labelfx.methods.from_teachers import distillation as module
from labelfx.methods.from_teachers.distillation import Adversary, distillation
from labelfx.methods.targets.soft_labels import Seen, SoftLabels, chosen
from labelfx.methods.targets.soft_labels.networks import teachers
from labelfx.models import Trained, heads
from labelfx.objectives.classification import cross_entropy, margin_cross_entropy
from labelfx.objectives.distillation import focal_kd, kd, negative_kd
from labelfx.objectives.pseudo_label import confident, freematch_thresholds

SEEDS = 3
CROSS_ENTROPY = functools.partial(cross_entropy, label_smoothing=0.0)


def network(classes, width=8, activation=lambda x: x):
    """Of one hidden layer, linear to the end where nothing else is said."""
    return with_head(one_layer("w", width, activation), classes)


def logits_of(model, variables, rows):
    return np.asarray(model.apply(variables, jnp.asarray(rows), train=False)[0]["head"], np.float64)


def log_softmax(logits):
    return logits - np.log(np.sum(np.exp(logits), -1, keepdims=True))


def trained(method, streams, steps, size=32):
    """The states and the metrics [SEEDS, steps] of a method on `size` random rows a step of each stream's columns."""
    streams = {name: {"index": np.arange(len(columns["input"])), **columns} for name, columns in streams.items()}

    def batch(rng):
        found = {} if method.frozen is None else {"frozen": method.frozen}
        for name, columns in streams.items():
            rows = jax.random.choice(jax.random.fold_in(rng, len(name)), len(columns["input"]), (size,))
            found[name] = jax.tree.map(lambda x, rows=rows: jnp.asarray(x)[rows], columns)
        return found | {"audit": {name: {"label": jnp.full(size, -1)} for name in streams}}

    def run(seed):
        first, rest = jax.random.split(jax.random.key(seed))
        state = method.init(first, batch(first))
        return jax.lax.scan(
            lambda state, rng: method.step(state, batch(rng), rng), state, jax.random.split(rest, steps)
        )

    return jax.jit(jax.vmap(run))(jnp.arange(SEEDS))


def each_seed(variables):
    """Of every seed."""
    return [jax.tree.map(lambda x, i=i: x[i], variables) for i in range(SEEDS)]


OPPOSED = module.opposed


# Several teachers and an adversary (MEAL V2).


def shared_sign(head, params, before, student, teacher):
    """The released code has one loss for both: the student helps the adversary to tell it from its teachers."""
    telling, _ = OPPOSED(head, params, before, student, teacher)
    fixed = {"params": jax.lax.stop_gradient(params), **before.model_state}
    score = head.apply(fixed, jax.nn.log_softmax(student), train=True)[0]
    return telling, jnp.mean(jax.nn.softplus(score))


def test_an_adversary_brings_log_probabilities_together(monkeypatch):
    """A student as sure as its teachers are not: what it says moves to what they say, as a distribution; with one sign
    for both it moves away."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(256, 8)).astype(np.float32)
    model = network(3)
    known = [model.init(jax.random.key(k), rows[:1]) for k in range(3)]
    taught = tuple(Trained(model, variables, (0, 1, 2)) for variables in known)
    start = jax.tree.map(lambda x: 2 * x, known[0])
    target = np.mean([np.exp(log_softmax(logits_of(model, variables, rows))) for variables in known], 0)

    def gap(variables):
        return np.linalg.norm(np.mean(log_softmax(logits_of(model, variables, rows)) - np.log(target), 0))

    def after():
        head = heads.projector(hidden=(8,), features=1, batch_norm=False, dtype="float32")
        method = distillation(
            model,
            optax.sgd(0.01),
            60,
            "class",
            start,
            augment=identity,
            soft_labels=teachers(taught, "class", 3, augment=identity, combine="probabilities"),
            soft_objective=functools.partial(kd, temperature=1.0),
            soft_weight=1.0,
            objective=CROSS_ENTROPY,
            adversary=Adversary(head=head, optimizer=lambda steps: optax.sgd(0.1), weight=30.0),
        )
        states, _ = trained(method, {"unlabelled": {"input": rows}}, 60)
        return np.array([gap(variables) for variables in each_seed(method.variables(states))])

    before, ours = gap(start), after()
    monkeypatch.setattr(module, "opposed", shared_sign)
    wrong = after()
    print(f"gap {before:.2f}; {ours.round(2)}; with one sign {wrong.round(2)}")
    assert ours.max() < 0.25 * before < before < wrong.min()


# Specialists (Knowledge Concentration).


def rows_of(split):
    return split.inputs.reshape(len(split.inputs), -1).astype(np.float32) / 255


def fitted(model, rows, labels, steps=60, objective=CROSS_ENTROPY):
    """Variables of a network that has learnt these labels, all at once."""
    tx = adam(0.03)
    variables = model.init(jax.random.key(9), rows[:1])

    def step(carry, _):
        params, opt_state = carry
        loss = lambda params: objective(model.apply({"params": params}, rows, train=True)[0]["head"], labels)  # noqa: E731
        updates, opt_state = tx.update(jax.grad(loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    start = variables["params"], tx.init(variables["params"])
    (params, _), _ = jax.jit(lambda start: jax.lax.scan(step, start, None, steps))(start)
    return {"params": params}


@pytest.fixture(scope="module")
def specialists():
    """The digits, and networks that know four, three and three of them, of which nothing else was seen."""
    data = sources.digits()
    rows, labels = rows_of(data.train), data.train.labels
    found = []
    for classes in ((0, 1, 2, 3), (4, 5, 6), (7, 8, 9)):
        own = np.isin(labels, classes)
        model = network(len(classes), 48, jax.nn.relu)
        found.append(Trained(model, fitted(model, rows[own], labels[own] - classes[0]), classes))
    return data, tuple(found)


def concentrated(specialists, combine, around=lambda soft: soft):
    """Accuracy of students of ten labels a class, one a seed."""
    data, taught = specialists
    rows, labels = rows_of(data.train), data.train.labels
    rng = np.random.default_rng(0)
    few = np.concatenate([rng.choice(np.flatnonzero(labels == c), 10, False) for c in range(10)])
    soft = teachers(taught, "class", 10, augment=identity, combine=combine)
    method = distillation(
        network(10, 48, jax.nn.relu),
        adam(0.01),
        150,
        "class",
        augment=identity,
        soft_labels=around(soft),
        soft_objective=functools.partial(kd, temperature=1.0),
        soft_weight=0.5,
        objective=CROSS_ENTROPY,
    )
    streams = {"labelled": {"input": rows[few], "label": labels[few]}, "unlabelled": {"input": rows}}
    found = method.variables(trained(method, streams, 150)[0])
    guess = [logits_of(network(10, 48, jax.nn.relu), each, rows_of(data.test)).argmax(1) for each in each_seed(found)]
    return np.mean(np.array(guess) == data.test.labels, 1)


def test_specialists_teach_what_they_know_and_nothing_else(specialists):
    """Compared among its own classes, each teaches how to tell these apart and the few labels whose row it is; padded
    with zeros and averaged, each is as sure of a digit that it has never seen."""
    ours, padded = (concentrated(specialists, combine) for combine in ("each", "probabilities"))
    print("own classes", ours.round(3), "padded", padded.round(3))
    assert ours.min() > 0.8 and padded.max() < ours.min() - 0.05


def test_what_is_hard_comes_later(specialists):
    """A specialist of noise, which nobody can follow: a student that begins with the easy ones is not spoilt by it."""
    data, taught = specialists
    noise = jax.tree.map(
        lambda x: 10 * np.random.default_rng(0).normal(size=x.shape).astype(np.float32), taught[0].variables
    )
    spoilt = data, (*taught, taught[0]._replace(variables=noise))
    ours = concentrated(spoilt, "each", lambda soft: chosen.paced("class", of=soft, start=0.5, growth=1.0))
    ablation = concentrated(spoilt, "each")
    print("paced", ours.round(3), "all at once", ablation.round(3))
    assert ablation.max() < ours.min() - 0.05


def test_the_bound_of_what_is_easy_grows():
    """The divergences of two sources against a bound that doubles; the easiest is there from the first step on."""
    rng = np.random.default_rng(0)
    logits = np.stack([rng.normal(size=(5, 3)), 9 * rng.normal(size=(5, 3))]).astype(np.float32)
    student = rng.normal(size=(5, 3)).astype(np.float32)
    of = SoftLabels(
        lambda seen, before: (jnp.asarray(logits), jnp.ones((2, 5)), before + 1), lambda: jnp.zeros((), int)
    )
    part = chosen.paced("class", of=of, start=1e-3, growth=2.0)
    divergence = [np.mean(np.sum(p * (np.log(p) - log_softmax(student)), 1)) for p in np.exp(log_softmax(logits))]
    seen, state = Seen({}, None, None, None, jnp.asarray(student), None), part.init()
    for step in range(20):
        found, weight, state = part.assign(seen, state)
        wanted = [each <= max(1e-3 * 2**step, min(divergence)) for each in divergence]
        np.testing.assert_array_equal(weight, np.repeat(wanted, 5).reshape(2, 5))
        np.testing.assert_array_equal(found, logits)
    assert state[1] == 20 and all(wanted)


# Rows that a teacher is not sure of (FerKD).


def told(logits, label, student=None, columns=None):
    """(a part that gives these logits of its one source, what is seen of the rows)."""
    ones = jnp.ones(logits.shape[:-1], logits.dtype)
    of = SoftLabels(lambda seen, before: (jnp.asarray(logits)[None], ones[None], before))
    return of, Seen(columns or {}, None, None, jnp.asarray(label), student, None)


def test_what_is_kept_replaced_and_left_out():
    sure = np.array([0.95, 0.9, 0.6, 0.6, 0.4])
    probs = np.stack([sure, (1 - sure) * 2 / 3, (1 - sure) / 3], 1).astype(np.float32)
    of, seen = told(np.log(probs), np.array([2, -1, 2, -1, 2], np.int32))
    part = chosen.calibrated("class", of=of, low=0.5, high=0.85, smoothing=0.3)
    logits, weight, _ = part.assign(seen, ())
    np.testing.assert_array_equal(weight, [[1, 1, 1, 0, 0]])
    np.testing.assert_array_equal(logits[0, :2], np.log(probs[:2]))
    np.testing.assert_allclose(np.exp(logits[0, 2]), [0.1, 0.1, 0.8], rtol=1e-6)
    whole = chosen.calibrated("class", of=of, low=0.0, high=0.0, smoothing=0.3).assign(seen, ())
    for ours, plain in zip(whole, of.assign(seen, ()), strict=True):
        np.testing.assert_array_equal(ours, plain)
    with pytest.raises(ValueError, match="low = 0.9: must be at most high = 0.5"):
        chosen.calibrated("class", of=of, low=0.9, high=0.5, smoothing=0.0)
    with pytest.raises(ValueError, match="these have several labels"):
        chosen.calibrated("several", of=of, low=0.1, high=0.5, smoothing=0.0)


def test_what_a_teacher_does_not_see_is_told_by_the_label():
    """Views with and without the object, of which the teacher takes the latter for the class 3 by its bias; what stands
    around it says the class too. Accuracy on views without."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 4, 400).astype(np.int32)
    there = rng.random(400) < 0.5
    rows = np.concatenate([np.eye(4)[label] * there[:, None], np.eye(4)[label]], 1) + 0.1 * rng.normal(size=(400, 8))
    model = with_head(one_layer("w", 8), 4)
    start = model.init(jax.random.key(0), jnp.ones((1, 8)))
    head = {"kernel": np.eye(8, 4, dtype=np.float32) * 9, "bias": np.array([0, 0, 0, 1.5], np.float32)}
    variables = {
        "params": {"backbone": {"w": np.eye(8, dtype=np.float32)}, "head": {next(iter(start["params"]["head"])): head}}
    }
    rows = rows.astype(np.float32)

    def accuracy(around):
        soft = teachers((Trained(model, variables, (0, 1, 2, 3)),), "class", 4, augment=identity, combine="logits")
        method = distillation(
            model,
            adam(0.03),
            100,
            "class",
            augment=identity,
            soft_labels=around(soft),
            soft_objective=functools.partial(kd, temperature=1.0),
            soft_weight=1.0,
            objective=CROSS_ENTROPY,
        )
        found = method.variables(trained(method, {"labelled": {"input": rows, "label": label}}, 100)[0])
        guess = [logits_of(model, each, rows[~there]).argmax(1) for each in each_seed(found)]
        return np.mean(np.array(guess) == label[~there], 1)

    ours = accuracy(lambda soft: chosen.calibrated("class", of=soft, low=0.3, high=0.95, smoothing=0.1))
    plain = accuracy(lambda soft: soft)
    print("calibrated", ours.round(3), "as it is", plain.round(3))
    assert ours.min() > 0.95 and plain.max() < 0.5


# Rows that a student has not learnt (LLKD).


def test_what_is_right_and_not_learnt_is_kept():
    """The teacher is wrong where it is not sure, the student sure of half of what is right. By the teacher's confidence
    alone what is learnt is kept as well."""
    rng = np.random.default_rng(0)
    kept, sure_alone, useful = [], [], []
    part = state = None
    for _ in range(30):
        label = rng.integers(0, 4, 64)
        right, learnt = rng.random(64) < 0.5, rng.random(64) < 0.5
        named = np.where(right, label, (label + 1) % 4)
        scale = np.where(right, 6.0, 1.5) + 0.2 * rng.normal(size=64)
        student = (np.eye(4)[label] * np.where(learnt, 8.0, 0.5)[:, None]).astype(np.float32)
        of, seen = told((np.eye(4)[named] * scale[:, None]).astype(np.float32), label, jnp.asarray(student))
        part = chosen.selected("class", 4, of=of, momentum=0.8)
        state = part.init() if state is None else state
        (of_teacher, _), _ = state
        logits, weight, state = part.assign(seen, state)
        kept.append(np.asarray(weight[0]) > 0)
        useful.append(right & ~learnt)
        probs = jax.nn.softmax(logits[0])
        sure_alone.append(np.asarray(confident(probs, freematch_thresholds(probs, of_teacher, momentum=0.8)[0])))
    kept, sure_alone, useful = (np.concatenate(each[10:]) for each in (kept, sure_alone, useful))
    print("kept", kept.mean(), "of use", useful.mean(), "by confidence", sure_alone.mean())
    assert np.mean(kept == useful) > 0.98 and 0.2 < kept.mean() < 0.3
    assert np.mean(sure_alone & ~useful) > 0.2


def test_the_weight_is_confidence_times_doubt():
    rng = np.random.default_rng(1)
    logits, student = rng.normal(size=(2, 6, 3)).astype(np.float32)
    of, seen = told(logits, np.zeros(6, np.int32), jnp.asarray(student))
    part = chosen.selected("class", 3, of=of, momentum=0.0)
    _, weight, _ = part.assign(seen, part.init())
    p, q = np.exp(log_softmax(logits)), np.exp(log_softmax(student))
    guess, sure, doubt = p.argmax(1), p.max(1), -np.sum(q * np.log(q), 1) / np.log(3)
    mass = np.stack([p.mean(0), [np.sum(doubt[guess == c]) / 6 for c in range(3)]])
    least_sure, least_doubt = (np.mean(x) * m / m.max() for x, m in zip((sure, doubt), mass, strict=True))
    kept = (sure >= least_sure[guess]) & (doubt >= least_doubt[guess])
    assert 0 < kept.sum() < 6
    np.testing.assert_allclose(weight[0], kept * sure * doubt, rtol=1e-5)
    never = jax.value_and_grad(lambda z: kd(z, jnp.asarray(logits), jnp.zeros(6), temperature=1.0))(
        jnp.asarray(student)
    )
    assert never[0] == 0 and not np.any(never[1])
    with pytest.raises(ValueError, match="goes by the class of a row"):
        chosen.selected("dense", 3, of=of, momentum=0.9)


# Rows that a teacher is asked about (Robust Active Distillation).


def value_of(chance, gains, wrong):
    """What is left when an adversary takes the `wrong` largest."""
    brought = np.sort(chance * gains)
    return brought[: len(brought) - wrong].sum()


@pytest.mark.parametrize("seed", range(20))
def test_the_robust_query_solves_the_game(seed):
    """Against a linear programme: sum p g - wrong t - sum s, with s_i >= p_i g_i - t."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 12))
    wrong = int(rng.integers(0, count))
    gains = rng.random(count) * (rng.random(count) < 0.9)
    cost = np.concatenate([-gains, [wrong], np.ones(count)])
    above = np.concatenate([np.diag(gains), -np.ones((count, 1)), -np.eye(count)], 1)
    once = np.concatenate([np.ones(count), np.zeros(count + 1)])[None]
    best = scipy.optimize.linprog(cost, above, np.zeros(count), once, [1.0])
    chance = robust_query(gains, wrong)
    assert chance.sum() == pytest.approx(1) and chance.min() >= 0
    assert value_of(chance, gains, wrong) == pytest.approx(-best.fun, abs=1e-9)


def test_the_largest_gains_may_be_lies():
    """Half of the largest gains are of wrong answers: who takes these rows alone is fooled more."""
    gains = np.concatenate([np.full(20, 1.0), np.full(80, 0.8)])
    correct = np.concatenate([np.zeros(10), np.ones(90)])
    greedy = np.where(np.arange(100) < 20, 1 / 20, 0)
    ours = robust_query(gains, 20)
    print("expected gain", np.sum(ours * gains * correct), "of the largest", np.sum(greedy * gains * correct))
    assert np.sum(ours * gains * correct) > 1.4 * np.sum(greedy * gains * correct)


def test_robust_queries_at_their_edges():
    np.testing.assert_array_equal(robust_query(np.zeros(4), 1), np.full(4, 0.25))
    np.testing.assert_array_equal(robust_query(np.array([0.0, 3.0, 1.0]), 0), [0, 1, 0])
    for gains, wrong in [([1.0, 2.0], 2), ([1.0, -2.0], 0), ([1.0], -1), ([np.nan, 1.0], 0)]:
        with pytest.raises(ValueError, match="gains must be from 0 up, and wrong from 0 to less than their number"):
            robust_query(np.array(gains), wrong)


def test_only_rows_that_are_asked_about_count():
    """Those between two classes, of rows without a label; as many as the budget."""
    model = with_head(one_layer("w", 2), 2)
    start = model.init(jax.random.key(0), jnp.ones((1, 2)))
    head = {"kernel": np.array([[4.0, -4.0], [0.0, 0.0]], np.float32), "bias": np.zeros(2, np.float32)}
    params = {"backbone": {"w": np.eye(2, dtype=np.float32)}, "head": {next(iter(start["params"]["head"])): head}}
    x = np.linspace(-1, 1, 201).astype(np.float32)
    source = Split(np.stack([x, 0 * x], 1), np.where(np.arange(201) % 10, -1, 0).astype(np.int32), {})
    part = chosen.queried(
        model, 201, "class", of=told(np.zeros((201, 2), np.float32), source.labels)[0], budget=20, error=0.1
    )
    first, again, other = (
        part.refresh({"params": params}, source, jax.random.key(seed), 0.0)["include"] for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert first.sum() == other.sum() == 20 and not np.array_equal(first, other)
    assert not np.any(first & (source.labels >= 0)) and np.abs(x[first]).max() < 0.4
    seen = told(np.zeros((201, 2), np.float32), source.labels, columns={"unlabelled": {"include": jnp.asarray(first)}})[
        1
    ]
    np.testing.assert_array_equal(part.assign(seen, ())[1][0], first)
    with pytest.raises(ValueError, match="queried goes by the class of a row"):
        chosen.queried(model, 201, "several", of=part, budget=2, error=0.0)
    with pytest.raises(ValueError, match="budget = 202: must be at most 201, the training rows"):
        chosen.queried(
            model, 201, "class", of=told(np.zeros((1, 2), np.float32), source.labels)[0], budget=202, error=0.0
        )


# An update that flips nothing (margin-preserving training).


def four_classes(count, seed):
    """Three classes that lie apart, and a fourth, of eight times their rows, that overlaps with one of them."""
    rng = np.random.default_rng(seed)
    label = np.repeat(np.arange(4), [count, count, count, 8 * count]).astype(np.int32)
    centre = np.array([[0.0, 0], [8, 0], [4, 7], [-3.2, 0]])
    return (centre[label] + rng.normal(size=(len(label), 2))).astype(np.float32), label


def test_a_new_class_flips_nothing_and_is_learnt():
    """Trained anew, some of the old class are taken for the new one; with a margin alone the new one is lost; taught by
    the old and the new network beside the margin, neither."""
    (rows, label), (test, truth), model = four_classes(80, 0), four_classes(300, 1), network(4)
    margin = functools.partial(margin_cross_entropy, margin=8.0, classes=(3,))
    seen = label < 3
    old = Trained(network(3), fitted(network(3), rows[seen], label[seen], 200), (0, 1, 2))
    new = Trained(model, fitted(model, rows, label, 200), (0, 1, 2, 3))
    was_right = (logits_of(*old[:2], test).argmax(1) == truth)[truth < 3]

    def judged(variables):
        """(the share of old rows that were right and are not, recall of the new class)"""
        right = logits_of(model, variables, test).argmax(1) == truth
        return np.mean(was_right & ~right[truth < 3]), np.mean(right[truth == 3])

    method = distillation(
        model,
        adam(0.03),
        300,
        "class",
        augment=identity,
        soft_labels=teachers((old, new), "class", 4, augment=identity, combine="each"),
        soft_objective=functools.partial(focal_kd, temperature=5.0, base=1.0, focus=5.0),
        soft_weight=0.5,
        objective=margin,
    )
    found = method.variables(trained(method, {"labelled": {"input": rows, "label": label}}, 300, 64)[0])
    ours = np.array([judged(variables) for variables in each_seed(found)])
    plain, alone = judged(new.variables), judged(fitted(model, rows, label, 200, margin))
    print(
        "flips and recall: ours",
        ours.round(3).tolist(),
        "plain",
        np.round(plain, 3),
        "margin alone",
        np.round(alone, 3),
    )
    assert was_right.mean() > 0.99 and plain[0] > 0.05 and alone[1] < 0.4
    assert ours[:, 0].max() < 0.015 and ours[:, 1].min() > 0.8


# Away from a bad teacher (negative distillation).


def coloured(count, seed, bad):
    """Four classes by a signal, beside a colour that has nothing to do with them; the share `bad` of the rows has it
    for a label: rows, labels, which are bad."""
    rng = np.random.default_rng(seed)
    truth, colour = rng.integers(0, 4, (2, count)).astype(np.int32)
    is_bad = rng.random(count) < bad
    rows = np.concatenate([2 * np.eye(4)[truth] + rng.normal(size=(count, 4)), 3 * np.eye(4)[colour]], 1)
    return rows.astype(np.float32), np.where(is_bad, colour, truth).astype(np.int32), is_bad


def test_a_negative_teacher_keeps_its_student_from_the_cue():
    """Accuracy on good rows, trained on as many bad ones; the negative teacher has seen the bad ones alone."""
    (rows, label, bad), (test, truth, _), model = coloured(600, 0, 0.5), coloured(1000, 1, 0.0), network(4)
    negative = Trained(model, fitted(model, rows[bad], label[bad], 100), (0, 1, 2, 3))
    method = distillation(
        model,
        adam(0.03),
        150,
        "class",
        augment=identity,
        soft_labels=teachers((negative,), "class", 4, augment=identity, combine="logits"),
        soft_objective=functools.partial(negative_kd, temperature=1.0),
        soft_weight=0.5,
        objective=CROSS_ENTROPY,
    )
    found = method.variables(trained(method, {"labelled": {"input": rows, "label": label}}, 150, 64)[0])
    ours = [np.mean(logits_of(model, each, test).argmax(1) == truth) for each in each_seed(found)]
    plain = np.mean(logits_of(model, fitted(model, rows, label, 150), test).argmax(1) == truth)
    print("with the negative teacher", np.round(ours, 3), "without", plain.round(3))
    assert min(ours) > plain + 0.15


# Recorded answers of a network that is not at hand (TAIL).


def test_a_student_of_recorded_answers_is_as_good_as_these(data_root, tmp_path):
    """Comments on YouTube, the votes of ten rules as answers: a student of those alone, on new comments."""
    config = recipe("response_distillation")
    config["data"] |= {"data_dir": str(data_root / "wrench")}
    config["labels"]["weak"]["path"] = str(tmp_path / "answers.npz")
    train = sources.wrench("youtube", **{k: v for k, v in config["data"].items() if k != "name"}).train
    row, judge = np.nonzero(train.columns["votes"] >= 0)
    vote = train.columns["votes"][row, judge].astype(int)
    np.savez(tmp_path / "answers.npz", row=row, judge=judge, vote=vote, confidence=np.full(len(row), np.nan))
    said, _ = majority(read(tmp_path / "answers.npz", len(train.labels), 2), len(train.labels), 2)
    right = np.mean((said == train.labels)[said >= 0])
    config |= {"model": {**config["model"], "width": 32}, "steps": 120, "devices": 1}
    found = labelfx.train(config, tmp_path / "run")["metrics"]["head"]["accuracy"]
    print("student", found, "answers", right)
    assert found > right - 0.06 > 0.7
