"""What class a test image is given: linear probe, weighted kNN, the method's own head.

Every number is on the test split; whatever an eval chooses, it chooses inside the label view.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.special

from labelfx.config.annotations import Positive, PositiveInt
from labelfx.evals import blocks
from labelfx.loop.mesh import on_every_device
from labelfx.mining.search import top_k

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # strong to weak: each fit starts from the one before
# The best of GRID at 1, 2 and 4 labels a class over 8 draws of MNIST's training images, pixels and random features.
FIXED = 1e-2
FOLDS = 5
TOLERANCE, MOST_STEPS = 3e-5, 1000  # of L-BFGS: the largest slope at which it has converged, and where it gives up
# Rows x features x classes beyond which five folds take minutes of a core; there a slope of 5e-3 is enough to choose
# by, and at 5e-4 the accuracy is that of full convergence to a few hundredths of a point.
LARGE, CHOOSING, FINAL = 1e8, 5e-3, 5e-4
MANY = 1e11  # training rows x features x queries of kNN beyond which devices share the search
VOTES = 2**24  # votes, neighbours x classes, of the queries that are counted at once
HELD_OUT = "a held-out fifth of the label view"
HIGHEST = jax.lax.Precision.HIGHEST  # accelerators round the factors of a float32 product to fewer bits by default


def linear_probe(
    labelled_features: np.ndarray,
    labelled_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
) -> dict[str, Any]:
    """Multinomial logistic regression on frozen features, by L-BFGS.

    Minimises mean cross-entropy + regularisation / 2 * ||W||^2, the bias not penalised. Features are centred on the
    mean of the labelled ones and divided by their root-mean-square norm: one scale for all, since with a label or two
    a class the spread of a single feature says nothing. So neither scale nor number of features changes what a
    regularisation means. It is chosen from `GRID` by the held-out cross-entropy of stratified 5-fold cross-validation
    in the label view or, where some class has fewer than 5 labels, fixed at 1e-2; classes then count alike, however
    many labels each has, or the bias alone would decide for the commonest.

    optax's L-BFGS fits all folds and the whole view at once, on the accelerator where there is one. Beyond `LARGE` rows
    x features x classes one held-out fifth stands for the folds, and all devices of this process share the rows and
    go through them in blocks: a device has its share of the features and half a gibibyte of logits at most, whatever
    the number of classes. A processor's blocks are small enough for its cache.

    Args:
      labelled_features, test_features: float32 [L, F], [Q, F].
      labelled_labels, test_labels: int32 [L], [Q].
      num_classes: C.

    Returns:
      accuracy, regularisation, chosen_by, converged (whether every fit did), split, n (= Q), n_labels (= L).
    """
    large = labelled_features.size * num_classes > LARGE
    train_on = np.ones((1, len(labelled_labels)), np.float32)
    grid: tuple[float, ...] = GRID
    tolerance = TOLERANCE
    counts = np.bincount(labelled_labels, minlength=num_classes)
    if counts.min() < FOLDS:
        grid, chosen_by = (FIXED,), f"fixed (fewer than {FOLDS} labels a class)"
        alike = len(labelled_labels) / (np.count_nonzero(counts) * counts[labelled_labels])
        train_on = alike.astype(np.float32)[None]
    elif large:
        train_on, tolerance, chosen_by = _folds(labelled_labels)[:1], CHOOSING, HELD_OUT
    else:
        train_on = np.concatenate([train_on, _folds(labelled_labels)])
        chosen_by = f"{FOLDS}-fold cross-validation in the label view"
    fits, fit, turned = _path(labelled_features, labelled_labels, num_classes, train_on, grid, tolerance)
    best = min(fits, key=lambda fit: fit[3])
    if chosen_by == HELD_OUT:
        best = fit(best, np.ones_like(train_on), best[0], FINAL)
        fits.append(best)
    logits = turned(test_features, best, 0)
    return {
        "accuracy": float(np.mean(np.argmax(logits, axis=1) == test_labels)),
        "regularisation": best[0],
        "chosen_by": chosen_by,
        "converged": all(fit[4] for fit in fits),
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }


def cross_val_pred_probs(features: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Probabilities float32 [N, C] of rows by linear probes that did not see them, as tools for wrong labels want them:
    those of 5-fold stratified cross-validation, all fitted at once, at the regularisation of `GRID` that is best there.

    Args: as `linear_probe`, float32 [N, F] and int32 [N]. Of a class of fewer than 5 rows, a fold may have seen none.

    Raises:
      ValueError: no class has 5 rows.
    """
    if np.bincount(labels).max() < FOLDS:
        raise ValueError(f"no class has {FOLDS} labels: there are {FOLDS} folds")
    train_on = _folds(labels)
    tolerance = CHOOSING if features.size * num_classes > LARGE else TOLERANCE
    fits, _, turned = _path(features, labels, num_classes, train_on, GRID, tolerance)
    best, probs = min(fits, key=lambda fit: fit[3]), np.empty((len(labels), num_classes), np.float32)
    for fold, trained in enumerate(train_on):
        held_out = trained == 0
        probs[held_out] = scipy.special.softmax(turned(features[held_out], best, fold), 1)
    return probs


def _path(features, labels, num_classes, train_on, grid, tolerance):
    """Probes [K] along a grid, each from the one before: (fits (regularisation, weights, bias, held-out cross-entropy,
    converged), how to go on from one, logits (features, fit, k))."""
    large, probes = features.size * num_classes > LARGE, len(train_on)
    mesh = blocks.own_devices(large)
    count, width = features.shape
    size = probe_block(count, width, num_classes, probes, mesh.size, blocks.largest(mesh))
    x, mean, turn, second_moment = _principal_axes(features, mesh, size, large)
    placed_labels = blocks.place(mesh, size, labels, fill=-1)

    def fit(start, train_on, regularisation, tolerance):
        weights, bias = start[1:3]
        where, placed = {"mesh": mesh, "size": size}, blocks.place(mesh, size, train_on.T)
        curvature = np.ones((1, 1), np.float32)
        if large:
            curvature = _curvature(weights, bias, x, placed, **where)
        how = second_moment, curvature, np.float32(regularisation), np.float32(tolerance)
        weights, bias, held_out, converged = _fit(weights, bias, x, placed_labels, placed, *how, **where)
        return regularisation, weights, bias, float(held_out), bool(converged)

    def logits(features, fit, k):
        return (features - mean) @ (turn @ np.asarray(fit[1][:, k])) + np.asarray(fit[2][k : k + 1])

    zeros = [
        np.zeros(shape, np.float32) for shape in ((len(second_moment), probes, num_classes), (probes, num_classes))
    ]
    fits = [(None, *jax.device_put(zeros, on_every_device(mesh)))]
    for regularisation in grid:
        fits.append(fit(fits[-1], train_on, regularisation, tolerance))
    return fits[1:], fit, logits


def probe_block(count: int, width: int, num_classes: int, probes: int, devices: int, most: int = blocks.BLOCK) -> int:
    """Rows of a block of the linear probe, which has a row's features and, some four times, its logits."""
    return blocks.rows_of_a_block(count, max(width, 8 * probes * num_classes), devices, most)


def _folds(labels):
    """1 where a fold trains, 0 where it holds out: float32 [5, L]."""
    from sklearn.model_selection import StratifiedKFold

    train_on = np.ones((FOLDS, len(labels)), np.float32)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (_, held_out) in zip(train_on, splitter.split(labels, labels), strict=True):
        fold[held_out] = 0
    return train_on


def _principal_axes(features, mesh, size, large):
    """Centred and scaled features on their principal axes, placed, [L + padding, R]; the mean [1, F] and the matrix
    [F, R] that lead there; the second moment along each axis [R].

    The penalty does not change under rotation, and on their principal axes the features are easily preconditioned.
    """
    if large and len(features) > features.shape[1]:
        # float32 will do for the axes: any rotation is right, this one need only be nearly the best
        x, count = blocks.place(mesh, size, features), np.int32(len(features))
        mean, second_moment = map(np.asarray, _moments(x, count, mesh=mesh, size=size))
        scale = _positive(np.sqrt(np.trace(second_moment)))
        second_moment, axes = np.linalg.eigh(second_moment / scale**2)
        turn = axes / scale
        return _turn(x, mean, turn, mesh=mesh, size=size), mean, turn, np.maximum(second_moment, 0)
    mean = features.mean(axis=0, keepdims=True)
    x = features - mean
    scale = _positive(np.sqrt(np.mean(np.sum(x**2, axis=1))))
    left, singular, axes = np.linalg.svd(x / scale, full_matrices=False)
    return blocks.place(mesh, size, left * singular), mean, axes.T / scale, singular**2 / len(x)


def _positive(scale):
    return max(scale, np.finfo(np.float32).tiny)


@functools.partial(jax.jit, static_argnames=("mesh", "size"))
def _moments(x, count, *, mesh, size):
    """The mean [1, F] and the centred second moment [F, F] of the first `count` of the placed rows."""
    real = (jnp.arange(len(x)) < count).astype(x.dtype)[:, None]
    mean = blocks.total(mesh, size, lambda _, x: jnp.sum(x, axis=0, keepdims=True), (), x) / count.astype(x.dtype)

    def products(mean, x, real):
        centred = (x - mean) * real
        return jnp.matmul(centred.T, centred, precision=HIGHEST)

    return mean, blocks.total(mesh, size, products, mean, x, real) / count.astype(x.dtype)


@functools.partial(jax.jit, static_argnames=("mesh", "size"), donate_argnames="x")
def _turn(x, mean, turn, *, mesh, size):
    """Placed rows, centred and turned, in the memory that they had."""

    def turned(shared, x):
        return jnp.matmul(x - shared[0], shared[1], precision=HIGHEST)

    return blocks.change(mesh, size, turned, (mean, turn), x)


def _logits(shared, x):
    weights, bias = shared
    return jnp.einsum("lf,fkc->klc", x, weights, precision=HIGHEST) + bias[:, None]


@functools.partial(jax.jit, static_argnames=("mesh", "size"))
def _curvature(weights, bias, x, train_on, *, mesh, size):
    """That of the mean cross-entropy along each class's logit, p (1 - p): [K, C]."""

    def of_block(shared, x, train_on):
        p = jax.nn.softmax(_logits(shared, x))
        return jnp.einsum("lk,klc->kc", train_on, p * (1 - p), precision=HIGHEST), jnp.sum(train_on, axis=0)

    sums, num_rows = blocks.total(mesh, size, of_block, (weights, bias), x, train_on)
    return sums / num_rows[:, None]


@functools.partial(jax.jit, static_argnames=("mesh", "size"))
def _fit(weights, bias, x, labels, train_on, second_moment, curvature, regularisation, tolerance, *, mesh, size):
    """Fits K probes at once, probe k on the rows where train_on[:, k] is 1; weights [R, K, C], bias [K, C]. Labels
    are [L], or [L, K] where each probe has its own.

    L-BFGS moves in coordinates in which the loss curves alike in all directions, as far as `curvature`, [K, C] or
    [1, 1], times `second_moment`, [R], and the penalty tell. `tolerance` is of the slope there. Rows are placed, and
    padded ones have the label -1. The gradient is summed in the pass that sums the loss, so that no more logits are
    there at once than a block's.

    Returns weights, bias, the mean cross-entropy over all held-out rows, and whether L-BFGS converged.
    """
    stretch = jnp.sqrt(second_moment[:, None, None] * curvature[None] + regularisation)
    stretch_bias = jnp.sqrt(curvature)
    share = train_on / jnp.sum(train_on, axis=0, keepdims=True)  # of a row in its probe's loss

    def each(shared, x, labels):
        logits = _logits(shared, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.broadcast_to(labels.T, logits.shape[:2]))

    def with_slopes(shared, x, labels, share):
        return jax.value_and_grad(lambda shared: jnp.sum(each(shared, x, labels) * share.T))(shared)

    def left_out(shared, x, labels, train_on):
        held_out = jnp.where(labels.T < 0, 0, 1 - train_on.T)
        return jnp.sum(each(shared, x, labels) * held_out), jnp.sum(held_out)

    def sums(*shared):
        """The mean cross-entropy on the rows trained on, summed over probes, and its gradient."""
        return blocks.total(mesh, size, with_slopes, shared, x, labels, share)

    @jax.custom_vjp
    def cross_entropy(*shared):
        return sums(*shared)[0]

    cross_entropy.defvjp(sums, lambda slopes, tangent: tuple(tangent * slope for slope in slopes))

    def loss(params):
        weights = params["weights"] / stretch
        return cross_entropy(weights, params["bias"] / stretch_bias) + regularisation / 2 * jnp.sum(weights**2)

    solver = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(loss)

    def step(carry):
        params, state, count, _ = carry
        value, grad = value_and_grad(params, state=state)
        updates, state = solver.update(grad, state, params, value=value, grad=grad, value_fn=loss)
        return optax.apply_updates(params, updates), state, count + 1, optax.tree.norm(grad, ord=jnp.inf)

    def unfinished(carry):
        return (carry[2] < MOST_STEPS) & (carry[3] > tolerance)

    params = {"weights": weights * stretch, "bias": bias * stretch_bias}
    start = params, solver.init(params), 0, jnp.float32(jnp.inf)
    params, _, _, slope = jax.lax.while_loop(unfinished, step, start)
    found = params["weights"] / stretch, params["bias"] / stretch_bias
    weights, bias = jax.lax.with_sharding_constraint(found, on_every_device(mesh))  # as they came: compiled once
    loss_left, count_left = blocks.total(mesh, size, left_out, (weights, bias), x, labels, train_on)
    return weights, bias, loss_left / jnp.maximum(count_left, 1), slope <= tolerance


def knn_predict(
    train_features: jax.Array | np.ndarray,
    train_labels: jax.Array | np.ndarray,
    test_features: jax.Array | np.ndarray,
    *,
    k: PositiveInt,
    temperature: Positive,
    num_classes: PositiveInt,
) -> jax.Array:
    """Weighted kNN votes (Wu et al. 2018, section 3.4): a class scores the sum of e^(cos / T) over the k nearest rows.

    Nearest is by cosine; a neighbour adds to the score of its own class. At equal cosines the earlier training row is
    nearer. Training rows are searched in blocks (`labelfx.mining.search.top_k`), by all devices of this process where
    there are many.

    Args:
      train_features, test_features: float [N, F], [Q, F]; normalised here, and a row of zeros has cosine 0.
      train_labels: int32 [N], from 0 to num_classes - 1.
      k, temperature: the field's usual values are k = 200 and T = 0.07 or 0.1.

    Returns:
      [Q, num_classes], float32, or float64 for float64 features. Below T = 1/70, where e^(1/T) nears the end of
      float32, each query's scores are divided by its nearest neighbour's weight, which leaves their order as it is.

    Raises:
      ValueError: k > N, or a label outside 0..num_classes - 1 (not checked under a caller's jit).
    """
    if k > len(train_features):
        raise ValueError(f"k = {k}, but there are {len(train_features)} training rows; k can be 1 to that number")
    if not isinstance(train_labels, jax.core.Tracer):
        wrong = np.setdiff1d(train_labels, np.arange(num_classes))
        if len(wrong):
            raise ValueError(f"train_labels has {wrong[0]}; labels must be 0 to {num_classes - 1}")
    many = train_features.size * len(test_features) > MANY
    score = _scores if many else _scores_at_once
    how = {"k": k, "temperature": temperature, "num_classes": num_classes, "mesh": blocks.own_devices(every=many)}
    return score(train_features, jnp.asarray(train_labels), test_features, **how)


def _scores(train_features, train_labels, test_features, *, k, temperature, num_classes, mesh):
    dtype = jnp.promote_types(jnp.promote_types(train_features.dtype, test_features.dtype), jnp.float32)
    cosines, nearest = top_k(test_features.astype(dtype), train_features, k, similarity="cosine", mesh=mesh)

    def votes(found):
        cosine, nearest = found
        shift = cosine[0] if temperature < 1 / 70 else 0.0
        classes = jax.nn.one_hot(train_labels[nearest], num_classes, dtype=dtype)
        return jnp.matmul(jnp.exp((cosine - shift) / temperature), classes, precision=HIGHEST)

    return jax.lax.map(votes, (cosines, nearest), batch_size=max(VOTES // (k * num_classes), 1))


_scores_at_once = jax.jit(_scores, static_argnames=("k", "temperature", "num_classes", "mesh"))


def knn(
    labelled_features: np.ndarray,
    labelled_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    k: PositiveInt,
    temperature: Positive,
) -> dict[str, Any]:
    """Accuracy of `knn_predict` from the label view; where it has fewer than k rows all of them vote.

    Returns:
      accuracy, k (the number that voted), temperature, split, n (= Q), n_labels (= L).
    """
    k = min(k, len(labelled_labels))
    scores = knn_predict(
        labelled_features, labelled_labels, test_features, k=k, temperature=temperature, num_classes=num_classes
    )
    return {
        "accuracy": float(np.mean(np.argmax(np.asarray(scores), axis=1) == test_labels)),
        "k": k,
        "temperature": temperature,
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }


def head(test_logits: np.ndarray, test_labels: np.ndarray) -> dict[str, Any]:
    """The method's own head: accuracy, and mean negative log-likelihood in nats.

    Args:
      test_logits: float32 [Q, C].
      test_labels: int32 [Q].

    Returns:
      accuracy, negative_log_likelihood, split, n (= Q).
    """
    each = optax.softmax_cross_entropy_with_integer_labels(jnp.asarray(test_logits), jnp.asarray(test_labels))
    return {
        "accuracy": float(np.mean(np.argmax(np.asarray(test_logits), axis=1) == test_labels)),
        "negative_log_likelihood": float(jnp.mean(each)),
        "split": "test",
        "n": len(test_labels),
    }
