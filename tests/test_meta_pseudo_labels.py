"""The mathematics of Meta Pseudo Labels on a two-layer linear network in float64, with every label draw enumerated.

The expectations are written without a derivative of the student: its gradients are in closed form.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import make_moons
from toys import with_head

from labelfx.data.augment import identity
from labelfx.loop import meta, state
from labelfx.loop.optim import adamw, constant, sgd
from labelfx.methods.semi_supervised.meta_pseudo_labels import Network, Views, meta_pseudo_labels, meta_update
from labelfx.methods.semi_supervised.self_meta_pseudo_labels import self_meta_pseudo_labels
from labelfx.models import stack
from labelfx.models.backbones import conv3, mlp
from labelfx.models.heads import linear

CLASSES, ROWS, RATE = 3, 3, 0.5
DRAWS = np.array(list(itertools.product(range(CLASSES), repeat=ROWS)), np.int32)


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def linear_apply(variables, batches, *, train, rng):
    params = variables["params"]
    return jnp.concatenate(batches) @ params["first"] @ params["second"], {}


def problem(seed=0):
    """Parameters of the student and the teacher, and a step's views."""
    rng = np.random.default_rng(seed)
    student, teacher = (
        {"first": rng.normal(size=(4, 3)), "second": rng.normal(size=(3, CLASSES))} for _ in ("student", "teacher")
    )
    labelled, weak, strong = (rng.normal(size=(rows, 4)) for rows in (5, ROWS, ROWS))
    views = Views(labelled, rng.integers(0, CLASSES, 5), weak, strong)
    return jax.tree.map(jnp.asarray, (student, teacher, views))


OPTIONS = {"feedback": "difference", "feedback_forward": "frozen", "baseline_decay": None, "label_smoothing": 0.0}
STATIC = ("tx", "apply", "feedback", "feedback_forward", "baseline_decay", "label_smoothing")


@functools.partial(jax.jit, static_argnames=STATIC)
def update(student, teacher, views, *, rate=RATE, tx=None, apply=linear_apply, label=None, baseline=0.0, **changes):
    """`meta_update` without another loss of the teacher; label: int [B], or None for soft labels."""
    net = Network(apply, tx or optax.sgd(rate))
    return meta_update(
        state.start(net.tx, {"params": student}),
        state.start(net.tx, {"params": teacher}),
        jnp.asarray(baseline),
        views,
        jax.random.key(0),
        student_net=net,
        teacher_net=net,
        teacher_loss=lambda logits, label: (0.0, {}),
        pseudo_label=None if label is None else lambda logits: label,
        mpl_weight=1.0,
        **{**OPTIONS, **changes},
    )


def probabilities(teacher, views):
    return jax.nn.softmax(views.strong @ teacher["first"] @ teacher["second"])


def chances(teacher, views):
    """The probability of every draw, [K^B]."""
    return jnp.prod(probabilities(teacher, views)[np.arange(ROWS)[None], DRAWS], axis=1)


def labelled_loss(student, views):
    log_probs = jax.nn.log_softmax(views.labelled @ student["first"] @ student["second"])
    return -jnp.mean(log_probs[jnp.arange(len(views.label)), views.label])


def sgd_step(student, views, target, rate):
    """The student after one step of SGD, its gradients by hand."""
    hidden = views.strong @ student["first"]
    error = (jax.nn.softmax(hidden @ student["second"]) - target) / ROWS
    return {
        "first": student["first"] - rate * views.strong.T @ (error @ student["second"].T),
        "second": student["second"] - rate * hidden.T @ error,
    }


@jax.jit
def after_soft_labels(teacher, student, views, rate=RATE):
    return labelled_loss(sgd_step(student, views, probabilities(teacher, views), rate), views)


@jax.jit
def expected_after_draws(teacher, student, views, rate=RATE):
    after = jax.vmap(lambda draw: labelled_loss(sgd_step(student, views, jax.nn.one_hot(draw, CLASSES), rate), views))
    return chances(teacher, views) @ after(jnp.asarray(DRAWS))


def over_draws(student, teacher, views, **options):
    """`meta_update` of every draw."""
    return jax.vmap(lambda draw: update(student, teacher, views, label=draw, **options))(jnp.asarray(DRAWS))


def mean_gradient(teacher, views, gradients):
    weights = chances(teacher, views)
    return jax.tree.map(lambda leaf: jnp.tensordot(weights, leaf, 1), gradients)


def error(found, expected):
    return max(float(jnp.max(jnp.abs(found[name] - expected[name]))) for name in expected)


def size(gradient):
    return max(float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(gradient))


def scaled(tree, factor):
    return jax.tree.map(lambda leaf: factor * leaf, tree)


@pytest.mark.parametrize("seed", range(3))
def test_soft_labels_have_the_unrolled_meta_gradient(seed):
    student, teacher, views = problem(seed)
    exact = jax.grad(after_soft_labels)(teacher, student, views)
    found = update(student, teacher, views)
    assert error(found.student.params, sgd_step(student, views, probabilities(teacher, views), RATE)) < 1e-14
    assert error(found.teacher_gradient, exact) < 1e-10
    _, by_meta = meta.unrolled(
        lambda teacher, student, strong: sgd_step(student, views, probabilities(teacher, views), RATE),
        lambda student: labelled_loss(student, views),
        teacher,
        student,
        views.strong[None],
    )
    assert error(by_meta, exact) < 1e-10
    assert size(exact) > 1e-3
    # It is a descent direction: the other sign makes the student worse.
    down, up = (
        after_soft_labels(jax.tree.map(jnp.add, teacher, scaled(found.teacher_gradient, sign)), student, views)
        for sign in (-0.1, 0.1)
    )
    assert down < after_soft_labels(teacher, student, views) < up


@pytest.mark.parametrize("smoothing", (0.0, 0.2))
@pytest.mark.parametrize("seed", range(3))
def test_dot_product_at_the_soft_student_is_the_unrolled_meta_gradient(seed, smoothing):
    """(i) B times the mean over draws, with the labelled gradient where the soft labels lead."""
    student, teacher, views = problem(seed)
    options = {"feedback": "dot_product", "baseline_decay": 0.5, "label_smoothing": smoothing}
    at_soft = jax.grad(labelled_loss)(update(student, teacher, views, **options).student.params, views)
    # The gradient is 0.5 (h - baseline) times that of the cross-entropy: two baselines tell the latter.
    drawn, other = (over_draws(student, teacher, views, baseline=baseline, **options) for baseline in (0.0, 1.0))
    cross_entropy = jax.tree.map(
        lambda left, right: (left - right) / 0.5, drawn.teacher_gradient, other.teacher_gradient
    )
    h = sum(
        jnp.sum(at_soft[name][None] * (student[name][None] - drawn.student.params[name]), axis=(1, 2))
        for name in student
    )
    gradients = jax.tree.map(lambda leaf: h[:, None, None] * leaf, cross_entropy)
    exact = update(student, teacher, views, **options).teacher_gradient
    found = scaled(mean_gradient(teacher, views, gradients), ROWS)
    print(f"dot product, seed {seed}: {error(found, exact):.1e}")
    assert error(found, exact) < 1e-10
    assert size(exact) > 1e-3


PLAIN = {
    "weight_decay": 0.0,
    "schedule": functools.partial(constant, warmup_steps=0),
    "clip_norm": None,
    "accumulate": 1,
}
OPTIMIZERS = {
    "sgd": sgd(100, learning_rate=RATE, momentum=0.0, **PLAIN),
    "nesterov": sgd(100, learning_rate=RATE, momentum=0.9, **PLAIN),
    "adam": adamw(100, learning_rate=0.1, b1=0.9, b2=0.999, **PLAIN),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("seed", range(3))
def test_difference_is_the_gradient_of_the_expected_labelled_loss(seed, optimizer):
    """(ii) B times the mean over draws, for any optimiser of the student."""
    student, teacher, views = problem(seed)
    drawn = over_draws(student, teacher, views, tx=OPTIMIZERS[optimizer])
    after = jax.vmap(lambda student: labelled_loss(student, views))(drawn.student.params)
    exact = jax.grad(lambda teacher: chances(teacher, views) @ after)(teacher)
    if optimizer == "sgd":
        assert error(exact, jax.grad(expected_after_draws)(teacher, student, views)) < 1e-13
    found = scaled(mean_gradient(teacher, views, drawn.teacher_gradient), ROWS)
    print(f"difference, {optimizer}, seed {seed}: {error(found, exact):.1e}")
    assert error(found, exact) < 1e-10
    assert size(exact) > 1e-3
    np.testing.assert_allclose(drawn.h, labelled_loss(student, views) - after, atol=1e-14)
    with_baseline = over_draws(student, teacher, views, tx=OPTIMIZERS[optimizer], baseline=0.3, baseline_decay=0.99)
    kept = scaled(mean_gradient(teacher, views, with_baseline.teacher_gradient), ROWS / 0.99)
    assert error(kept, exact) < 1e-10
    np.testing.assert_allclose(with_baseline.baseline, 0.99 * 0.3 + 0.01 * drawn.h, atol=1e-14)


def test_the_published_step_is_biased_by_the_order_of_the_learning_rate():
    """(iii) The labelled gradient at the sampled student instead; relative to the unrolled meta-gradient."""
    student, teacher, views = problem()
    rates, biases = (0.4, 0.2, 0.1, 0.05, 0.025), []
    for rate in rates:
        drawn = over_draws(student, teacher, views, rate=rate, feedback="dot_product")
        exact = jax.grad(after_soft_labels)(teacher, student, views, rate)
        found = scaled(mean_gradient(teacher, views, drawn.teacher_gradient), ROWS)
        biases.append(error(found, exact) / size(exact))
    slope = np.polyfit(np.log(rates), np.log(biases), 1)[0]
    print("bias of the published step:", ", ".join(f"{r} {b:.4f}" for r, b in zip(rates, biases, strict=True)))
    print(f"slope {slope:.3f}")
    assert abs(slope - 1) < 0.15
    assert biases[0] > 0.01


def test_the_copied_soft_feedback_has_no_gradient():
    """(iv) CE(stop_gradient(p), p), whatever it is multiplied with."""
    student, teacher, views = problem()

    def copied(teacher):
        logits = views.strong @ teacher["first"] @ teacher["second"]
        return jnp.mean(optax.softmax_cross_entropy(logits, jax.lax.stop_gradient(jax.nn.softmax(logits))))

    assert size(jax.grad(copied)(teacher)) < 1e-15
    assert size(update(student, teacher, views).teacher_gradient) > 1e-3


def dropout_apply(variables, batches, *, train, rng):
    x = jnp.concatenate(batches)
    kept = jax.random.bernoulli(rng, 0.5, x.shape)
    return linear_apply(variables, (jnp.where(kept, 2 * x, 0),), train=train, rng=rng)


@pytest.mark.parametrize("feedback", ("dot_product", "difference"))
def test_a_student_that_stays_gives_no_feedback_unless_masks_are_redrawn(feedback):
    student, teacher, views = problem()
    h = {
        forward: update(
            student, teacher, views, rate=0.0, apply=dropout_apply, feedback=feedback, feedback_forward=forward
        ).h
        for forward in ("frozen", "redrawn")
    }
    assert h["frozen"] == 0
    assert (h["redrawn"] != 0) == (feedback == "difference")


def test_a_teacher_without_labels_learns_from_the_feedback_alone():
    """Three blobs, ten seeds: the teacher's own loss is 0, so only the student can tell it the classes.

    With soft labels, whose feedback has no sampling noise; without the feedback, or with its sign turned, both fail.
    """
    student_net, teacher_net = Network(linear_apply, optax.sgd(0.1)), Network(linear_apply, optax.sgd(1.0))

    def accuracies(key, weight):
        label_key, noise_key, student_key, teacher_key, rows_key = jax.random.split(key, 5)
        label = jax.random.randint(label_key, (300,), 0, CLASSES)
        points = 3 * jnp.eye(CLASSES, 4)[label] + jax.random.normal(noise_key, (300, 4))

        def start(key, net):
            noise = 0.1 * jax.random.normal(key, (7, CLASSES))
            params = {"first": jnp.eye(4, 3) + noise[:4], "second": noise[4:]}
            return state.start(net.tx, {"params": params})

        def step(networks, number):
            rows = jax.random.permutation(jax.random.fold_in(rows_key, number), 300)[:60]
            strong = points[rows[30:]]
            found = meta_update(
                *networks,
                jnp.zeros(()),
                Views(points[rows[:30]], label[rows[:30]], strong, strong),
                rows_key,
                student_net=student_net,
                teacher_net=teacher_net,
                teacher_loss=lambda logits, label: (0.0, {}),
                pseudo_label=None,
                mpl_weight=weight,
                **OPTIONS,
            )
            return (found.student, found.teacher), None

        networks = start(student_key, student_net), start(teacher_key, teacher_net)
        networks, _ = jax.lax.scan(step, networks, jnp.arange(400))
        logits = [points @ network.params["first"] @ network.params["second"] for network in networks]
        return jnp.stack([jnp.mean(jnp.argmax(each, -1) == label) for each in logits])

    every_weight = jax.vmap(accuracies, in_axes=(None, 0))
    keys = jax.random.split(jax.random.key(0), 10)
    found = jax.jit(jax.vmap(every_weight, in_axes=(0, None)))(keys, jnp.asarray([1.0, 0.0, -1.0]))
    for name, accuracy in zip(
        ("with feedback", "without", "wrong sign"), np.moveaxis(np.asarray(found), 1, 0), strict=True
    ):
        print(f"{name}: student {accuracy[:, 0].mean():.3f}, teacher {accuracy[:, 1].mean():.3f}")
    assert found[:, 0].min() > 0.9
    assert found[:, 1].mean() < 0.5
    assert found[:, 2].max() < 0.2


def method(builder, backbone, steps, **changes):
    plain = functools.partial(sgd, learning_rate=0.1, momentum=0.9, **PLAIN)
    options = {
        "weak": identity(),
        "strong": identity(),
        "feedback_forward": "frozen",
        "baseline_decay": 0.99,
        "label_smoothing": 0.0,
        "mpl_weight": 1.0,
        "uda_weight": 1.0,
        "uda_ramp": 200,
        "uda_temperature": 0.7,
        "uda_threshold": 0.6,
        "ema": 0.99,
    }
    if builder is meta_pseudo_labels:
        options |= {"teacher_optimizer": plain, "pseudo_label": "hard_sampled", "feedback": "difference"}
        options |= {"student_wait": 0}
    else:
        options |= {"first_optimizer": functools.partial(sgd, learning_rate=0.1, momentum=0.0, **PLAIN)}
    classes = (2,) if builder is self_meta_pseudo_labels else ()
    return builder(with_head(backbone, 2), plain(steps), steps, *classes, **{**options, **changes})


def a_step(builder, **changes):
    """The state before and after a step of conv3 on noise, and the metrics."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (16, 8, 8, 1)).astype(np.uint8)
    label = rng.integers(0, 2, 16).astype(np.int32)
    batch = {"labelled": {"input": image[:8], "label": label[:8]}, "unlabelled": {"input": image}}
    batch["audit"] = {"unlabelled": {"label": label}}
    built = method(builder, conv3(width=2, dtype="float32"), 10, **changes)
    with jax.enable_x64(False):
        before = jax.jit(built.init)(jax.random.key(0), batch)
        return before, *jax.jit(built.step)(before, batch, jax.random.key(1))


def same(left, right):
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: bool(jnp.all(a == b)), left, right)))


def test_a_waiting_student_stays_while_the_teacher_learns():
    before, after, frozen = a_step(meta_pseudo_labels, student_wait=5)
    assert same(before.student.params, after.student.params)
    assert not same(before.teacher.params, after.teacher.params)
    assert abs(frozen["feedback"]) < 1e-6
    # BatchNorm's statistics are then those of the labelled images alone.
    _, _, redrawn = a_step(meta_pseudo_labels, student_wait=5, feedback_forward="redrawn")
    assert abs(redrawn["feedback"]) > 1e-3


@pytest.mark.parametrize("builder", (meta_pseudo_labels, self_meta_pseudo_labels))
def test_the_control_without_the_term_is_the_same_code(builder):
    """The first h, without a baseline, changes the network that it teaches, and that one only."""
    steps = [a_step(builder, baseline_decay=None, mpl_weight=weight)[1:] for weight in (0.0, 1.0)]
    (without, values), (with_term, other) = steps
    assert values["feedback"] == other["feedback"] != 0
    if builder is meta_pseudo_labels:
        assert same(without.student, with_term.student)
        assert not same(without.teacher.params, with_term.teacher.params)
    else:
        assert same(without.first_opt_state, with_term.first_opt_state)
        assert not same(without.network.params, with_term.network.params)


@pytest.mark.slow
def test_two_moons():
    """Six labels, ten paired seeds. UDA helps the student; the gain of the feedback is within the noise."""
    steps, seeds = 1000, 10
    points, labels, given = [], [], []
    for seed in range(seeds):
        x, y = make_moons(1000, noise=0.1, random_state=seed)
        points.append(((x - x.mean(0)) / x.std(0) / 6 + 0.5).reshape(-1, 1, 1, 2).astype(np.float32))
        labels.append(y)
        rows = np.random.default_rng(seed).permutation(len(y))
        given.append(np.concatenate([rows[y[rows] == label][:3] for label in (0, 1)]))

    def jitter(scale):
        return lambda rng, x: x + scale * jax.random.normal(rng, x.shape, x.dtype)

    def accuracy(**changes):
        views = {"weak": jitter(0.02), "strong": jitter(0.08), "uda_weight": 4.0, "mpl_weight": 16.0}
        backbone = mlp(hidden=(16, 16), dtype="float32")
        built = method(meta_pseudo_labels, backbone, steps, **{**views, **changes})

        def train(x, y, rows, key):
            def batch(key):
                drawn = jax.random.randint(key, (64,), 0, len(y))
                labelled = {"input": x[rows], "label": y[rows]}
                return {
                    "labelled": labelled,
                    "unlabelled": {"input": x[drawn]},
                    "audit": {"unlabelled": {"label": y[drawn]}},
                }

            def step(old, number):
                batch_key, step_key = jax.random.split(jax.random.fold_in(key, number))
                return built.step(old, batch(batch_key), step_key)

            end, _ = jax.lax.scan(step, built.init(key, batch(key)), jnp.arange(steps, dtype=jnp.int32))
            net = stack(backbone=backbone, head=linear(features=2))
            return jnp.mean(jnp.argmax(net.apply(built.variables(end), x, train=False)[0]["head"], -1) == y)

        keys = jax.random.split(jax.random.key(0), seeds)
        return np.asarray(jax.jit(jax.vmap(train))(np.stack(points), np.stack(labels), np.stack(given), keys))

    with jax.enable_x64(False):
        full = accuracy()
        print(f"full: {full.mean():.3f}, sd {full.std(ddof=1):.3f}")
        differences = {}
        for name, changes in {"without feedback": {"mpl_weight": 0.0}, "without UDA": {"uda_weight": 0.0}}.items():
            found = accuracy(**changes)
            differences[name] = full - found
            error = differences[name].std(ddof=1) / np.sqrt(seeds)
            print(
                f"{name}: {found.mean():.3f}; paired gain {differences[name].mean():+.3f}, standard error {error:.3f}"
            )
    assert differences["without UDA"].mean() > 0
    assert abs(differences["without feedback"].mean()) < 0.05
