"""Consistency training: steps against loop-form NumPy in float64, and a problem that only pseudo-labels solve."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import with_head

from labelfx.methods.semi_supervised.consistency import consistency
from labelfx.methods.targets import pseudo_labels
from labelfx.models import Model

CLASSES, EXAMPLES, STEPS, RATE = 3, 12, 8, 0.5
RULES = {
    "fixmatch": dict(threshold=0.55),
    "uda": dict(temperature=0.4, threshold=0.5),
    "flexmatch": dict(threshold=0.5, warmup=True),
    "freematch": dict(momentum=0.7, fairness=0.3),
    "softmatch": dict(momentum=0.7, n_sigma=2.0),
}
OFF = dict(alignment=None, unlabelled_weight=1.0, tsa=None, ema=0.9)


def weak(rng, images):
    return images * 0.9


def strong(rng, images):
    return images[:, ::-1] * 0.8 + 0.05


def affine(start):
    """A linear network that starts as `start` [F, W]."""

    def init(rng, x):
        return {"params": {"w": jnp.asarray(start, jnp.float32)}}

    return Model(init, lambda variables, x, *, train, rng=None: (x.reshape(len(x), -1) @ variables["params"]["w"], {}))


MODEL = affine(np.random.default_rng(0).normal(size=(4, 5)))


def make(name, model=MODEL, classes=CLASSES, examples=EXAMPLES, views=(weak, strong), settings=None, **options):
    return consistency(
        with_head(model, classes),
        optax.sgd(RATE),
        STEPS,
        classes,
        examples,
        weak=views[0],
        strong=views[1],
        pseudo_labels=getattr(pseudo_labels, name)(**(settings or RULES[name])),
        **{**OFF, **options},
    )


def batches(count, seed=1):
    rng = np.random.default_rng(seed)
    for _ in range(count):
        truth = rng.integers(-1, CLASSES, 6).astype(np.int32)
        yield {
            "labelled": {"input": rng.normal(size=(4, 2, 2, 1)), "label": rng.integers(0, CLASSES, 4).astype(np.int32)},
            "unlabelled": {
                "input": 2 * rng.normal(size=(6, 2, 2, 1)),
                "index": rng.permutation(EXAMPLES)[:6].astype(np.int32),
            },
            "audit": {"unlabelled": {"label": truth}},
        }


def double(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64) if np.asarray(x).dtype == np.float32 else x, tree)


def kernels(params):
    return [params["backbone"]["w"], params["head"]["Dense_0"]["kernel"], params["head"]["Dense_0"]["bias"]]


def predict(params, view):
    """Probabilities of each image, which may be complex."""
    w, kernel, bias = params
    logits = [x.ravel() @ w @ kernel + bias for x in view]
    scores = [np.exp(row - np.max(np.real(row))) for row in logits]
    return [row / sum(row) for row in scores]


def blend(old, new, momentum):
    return momentum * old + (1 - momentum) * new


class Loops:
    """The method row by row, with the options of `consistency`."""

    def __init__(self, name, *, alignment, unlabelled_weight, tsa, ema):
        self.name, self.settings = name, RULES[name]
        self.alignment, self.unlabelled_weight, self.tsa, self.ema = alignment, unlabelled_weight, tsa, ema
        self.done, self.marginal, self.last = 0, np.full(CLASSES, 1 / CLASSES), [-1] * EXAMPLES
        self.mean, self.variance = float(np.float32(1 / CLASSES)), 1.0
        self.probs = self.histogram = np.full(CLASSES, self.mean)

    def fixmatch(self, raw, rows, index, threshold):
        labels = [int(np.argmax(row)) for row in rows]
        limits = np.broadcast_to(threshold, CLASSES)
        weights = [float(max(row) >= limits[label]) for row, label in zip(rows, labels, strict=True)]
        return np.eye(CLASSES)[labels], weights, np.mean(limits)

    def uda(self, raw, rows, index, temperature, threshold):
        targets = [[p ** (1 / temperature) for p in row] for row in rows]
        return [np.array(t) / sum(t) for t in targets], [float(max(row) > threshold) for row in rows], threshold

    def flexmatch(self, raw, rows, index, threshold, warmup):
        sizes = [self.last.count(c) for c in range(CLASSES)]
        most = max(*sizes, self.last.count(-1))
        for row, i in zip(rows, index, strict=True):
            if max(row) >= threshold:
                self.last[i] = int(np.argmax(row))
        return self.fixmatch(raw, rows, index, [threshold * (s / most) / (2 - s / most) for s in sizes])

    def freematch(self, raw, rows, index, momentum, fairness):
        self.mean = blend(self.mean, np.mean([max(row) for row in rows]), momentum)
        self.probs = blend(self.probs, np.mean(rows, 0), momentum)
        self.histogram = blend(self.histogram, np.eye(CLASSES)[[np.argmax(row) for row in rows]].mean(0), momentum)
        return self.fixmatch(raw, rows, index, self.mean * self.probs / max(self.probs))

    def softmatch(self, raw, rows, index, momentum, n_sigma):
        sure = [max(row) for row in rows]
        self.mean = blend(self.mean, np.mean(sure), momentum)
        self.variance = blend(self.variance, np.var(sure, ddof=1), momentum)
        gauss = [np.exp(-((min(s - self.mean, 0)) ** 2) / (2 * self.variance / n_sigma**2)) for s in sure]
        return np.eye(CLASSES)[[np.argmax(row) for row in raw]], gauss, self.mean

    def penalty(self, rows, weights):
        """FreeMatch's fairness of the strong view's probabilities, which may be complex."""
        if self.name != "freematch":
            return 0.0
        kept = [row for row, weight in zip(rows, weights, strict=True) if weight]
        share = [sum(np.argmax(np.real(row)) == c for row in kept) for c in range(CLASSES)]
        ratio = [sum(row[c] for row in kept) / share[c] if share[c] else 0.0 for c in range(CLASSES)]
        target = self.probs / self.histogram / sum(self.probs / self.histogram)
        terms = [t * np.log(r / sum(ratio) + 1e-12) for t, r in zip(target, ratio, strict=True)]
        return self.settings["fairness"] * sum(terms)

    def ceiling(self):
        progress = self.done / STEPS
        alpha = {"linear": progress, "log": 1 - np.exp(-5 * progress), "exp": np.exp(5 * (progress - 1))}
        return alpha[self.tsa] * (1 - 1 / CLASSES) + 1 / CLASSES if self.tsa else np.inf

    def step(self, params, average, batch):
        """Metrics, parameters and their average: the gradient by a step of 1e-30 along the imaginary axis, which is
        exact, with the pseudo-labels held."""
        image, label = batch["unlabelled"]["input"], batch["labelled"]["label"]
        raw = rows = predict(params, weak(None, image))
        if self.alignment is not None:
            self.marginal = blend(self.marginal, np.mean(raw, 0), self.alignment)
            rows = [row * (1 / CLASSES + 1e-6) / (self.marginal + 1e-6) for row in raw]
            rows = [row / sum(row) for row in rows]
        targets, weights, threshold = getattr(self, self.name)(raw, rows, batch["unlabelled"]["index"], **self.settings)
        given = predict(params, weak(None, batch["labelled"]["input"]))
        counted = [i for i, row in enumerate(given) if row[label[i]] <= self.ceiling()]
        self.done += 1

        def losses(params):
            given = predict(params, weak(None, batch["labelled"]["input"]))
            labelled = sum(-np.log(given[i][label[i]]) for i in counted) / max(len(counted), 1)
            rows, unlabelled = predict(params, strong(None, image)), 0.0
            for row, target, weight in zip(rows, targets, weights, strict=True):
                divergence = sum(t * (np.log(t) - np.log(p)) for t, p in zip(target, row, strict=True) if t > 0)
                unlabelled += weight * divergence / len(rows)
            return labelled + self.unlabelled_weight * unlabelled + self.penalty(rows, weights), labelled, unlabelled

        def slope(which, entry):
            moved = [p.astype(complex) for p in params]
            moved[which][entry] += 1e-30j
            return losses(moved)[0].imag / 1e-30

        loss, labelled, unlabelled = losses(params)
        truth = batch["audit"]["unlabelled"]["label"]
        known = [w * (t >= 0) for w, t in zip(weights, truth, strict=True)]
        right = [w * (np.argmax(target) == t) for w, target, t in zip(known, targets, truth, strict=True)]
        metrics = {
            "loss": loss,
            "labelled_loss": labelled,
            "unlabelled_loss": unlabelled,
            "accuracy": np.mean([np.argmax(row) == y for row, y in zip(given, label, strict=True)]),
            "acceptance": np.mean(weights),
            "pseudo_label_accuracy": sum(right) / sum(known) if sum(known) else 0.0,
            "threshold": threshold,
        }
        slopes = [np.array([slope(k, e) for e in np.ndindex(p.shape)]).reshape(p.shape) for k, p in enumerate(params)]
        params = [p - RATE * g for p, g in zip(params, slopes, strict=True)]
        return metrics, params, [blend(a, p, self.ema) for a, p in zip(average, params, strict=True)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *[(name, {}) for name in RULES],
        *[(name, dict(alignment=0.6)) for name in ("fixmatch", "softmatch")],
        ("uda", dict(tsa="linear")),
        ("uda", dict(tsa="exp", unlabelled_weight=0.3, ema=0.0)),
    ],
)
def test_steps_equal_the_loop_form(name, options):
    """Metrics, parameters and their moving average over four steps."""
    method, seen = make(name, **options), list(batches(4))
    with jax.enable_x64(True), jax.numpy_dtype_promotion("standard"):  # indices are int64 here
        step = jax.jit(method.step)
        state = double(method.init(jax.random.key(2), seen[0]))
        loops, acceptances = Loops(name, **{**OFF, **options}), []
        params = average = kernels(state.network.params)
        for batch in seen:
            metrics, params, average = loops.step(params, average, batch)
            state, values = step(state, batch, jax.random.key(1))
            assert values.keys() == metrics.keys()
            for key, value in metrics.items():
                np.testing.assert_allclose(values[key], value, rtol=1e-11, atol=1e-11, err_msg=key)
            for mine, theirs in zip(kernels(state.network.params), params, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)
            for mine, theirs in zip(kernels(method.variables(state)["params"]), average, strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=1e-11, atol=1e-11)
            acceptances.append(metrics["acceptance"])
    assert 0 < np.mean(acceptances) < 1
    assert int(state.done) == 4


def single(tree):
    return jax.tree.map(lambda x: x.astype(np.float32) if x.dtype == np.float64 else x, tree)


def test_flexmatch_touches_the_rows_of_the_batch_only():
    method, batch = make("flexmatch", settings=dict(threshold=0.0, warmup=True)), single(next(batches(1)))
    state = method.init(jax.random.key(0), batch)
    assert state.adapted.tolist() == [-1] * EXAMPLES
    before = jnp.full(EXAMPLES, CLASSES, jnp.int32)  # a class that there is not
    after, _ = jax.jit(method.step)(state._replace(adapted=before), batch, jax.random.key(1))
    np.testing.assert_array_equal(np.flatnonzero(after.adapted != before), np.sort(batch["unlabelled"]["index"]))


def test_one_forward_pass_over_three_views_of_their_own_noise():
    """A network that keeps what it sees in place of BatchNorm statistics."""
    passes = []

    def init(rng, x):
        return {"params": {}, "batch_stats": {"seen": jnp.zeros((16, *x.shape[1:]))}}

    def apply(variables, x, *, train, rng=None):
        passes.append(train)
        return x.reshape(len(x), -1), {"batch_stats": {"seen": x}}

    def noise(rng, images):
        return images + jax.random.normal(rng, images.shape)

    blank = jax.tree.map(np.zeros_like, single(next(batches(1))))
    method = make("fixmatch", model=Model(init, apply), views=(noise, lambda rng, images: 10 + noise(rng, images)))
    state = method.init(jax.random.key(0), blank)
    passes.clear()
    after, _ = jax.jit(method.step)(state, blank, jax.random.key(1))
    assert passes == [True]
    seen = np.asarray(after.network.model_state["batch_stats"]["backbone"]["seen"])
    labelled, weakly, strongly = np.split(seen, [4, 10])
    assert strongly.min() > 5 > np.abs(np.concatenate([labelled, weakly])).max()
    assert not {*labelled.ravel().tolist()} & {*weakly.ravel().tolist()}
    assert np.abs(weakly - (strongly - 10)).min() > 1e-5
    averaged = method.variables(after)["batch_stats"]["backbone"]["seen"]
    np.testing.assert_allclose(averaged, 0.1 * seen, rtol=1e-5)


def test_the_truth_is_for_one_metric_only():
    method, batch = make("freematch"), single(next(batches(1)))
    state, step = method.init(jax.random.key(0), batch), jax.jit(method.step)
    blind = batch | {"audit": {"unlabelled": {"label": np.full(6, -1, np.int32)}}}
    runs = [step(state, each, jax.random.key(1)) for each in (batch, blind)]
    for left, right in zip(*(jax.tree.leaves(state) for state, _ in runs), strict=True):
        np.testing.assert_array_equal(left, right)
    values = [{key: float(value) for key, value in metrics.items()} for _, metrics in runs]
    assert {key for key in values[0] if values[0][key] != values[1][key]} == {"pseudo_label_accuracy"}
    assert values[1]["pseudo_label_accuracy"] == 0


def features(rng, count):
    """Images [count, 1, 2, 1] of two numbers, each of which tells the class, and the classes."""
    label = np.arange(count, dtype=np.int32) % 2
    x = 2.0 * (2 * label[:, None] - 1) + 0.5 * rng.normal(size=(count, 2))
    return x.astype(np.float32).reshape(count, 1, 2, 1), label


def problem(seed):
    rng = np.random.default_rng(seed)
    (images, label), (hidden, truth) = features(rng, 4), features(rng, 64)
    images[:, :, 1] = 0
    return {
        "labelled": {"input": images, "label": label},
        "unlabelled": {"input": hidden, "index": np.arange(64, dtype=np.int32)},
        "audit": {"unlabelled": {"label": truth}},
    }


def jitter(rng, images):
    return images * (1 + 0.1 * jax.random.normal(rng, images.shape, images.dtype))


def lose_the_first(rng, images):
    kept = jax.random.bernoulli(rng, 0.5, (len(images), 1, 1, 1))
    return images * jnp.concatenate([kept, jnp.ones_like(kept)], 2).astype(images.dtype)


def accuracy_by_the_second(name, settings, **options):
    """Accuracies of ten seeds by the second number alone, which no labelled image has.

    The strong view often loses the first, so that the pseudo-label that the weak view has from the first is learnt from
    the second.
    """
    views = (jitter, lose_the_first)
    method = make(name, affine(np.eye(2)), 2, 64, views, settings, **options)
    start = method.init(jax.random.key(0), problem(0))
    head = jax.tree.map(jnp.zeros_like, start.network.params["head"])
    start = start._replace(network=start.network._replace(params=start.network.params | {"head": head}))

    @jax.jit
    @jax.vmap
    def train(batch, rng):
        return jax.lax.scan(lambda state, rng: method.step(state, batch, rng), start, jax.random.split(rng, 100))[0]

    many = jax.tree.map(lambda *leaves: np.stack(leaves), *map(problem, range(10)))
    states = train(many, jax.random.split(jax.random.key(0), 10))
    test, label = features(np.random.default_rng(10), 400)
    second = test.reshape(-1, 2) * np.array([0, 1])
    networks = zip(*map(np.asarray, kernels(method.variables(states)["params"])), strict=True)
    return np.array([np.mean(np.argmax(second @ w @ k + b, -1) == label) for w, k, b in networks])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("fixmatch", dict(threshold=0.95)),
        ("uda", dict(temperature=0.4, threshold=0.8)),
        ("flexmatch", dict(threshold=0.95, warmup=True)),
        ("freematch", dict(momentum=0.9, fairness=0.01)),
        ("softmatch", dict(momentum=0.9, n_sigma=2.0)),
    ],
)
def test_pseudo_labels_carry_the_class_to_what_no_label_shows(name, settings):
    assert accuracy_by_the_second(name, settings).min() > 0.95


def test_labels_alone_do_not_show_it():
    assert accuracy_by_the_second("fixmatch", dict(threshold=0.95), unlabelled_weight=0.0).max() < 0.6
