"""What class a test image is given: linear probe, weighted kNN, the method's own head.

Every number is on the test split; whatever an eval chooses, it chooses inside the label view.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from labelfx.config.annotations import Positive, PositiveInt

GRID = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # strong to weak: each fit starts from the one before
# The best of GRID at 1, 2 and 4 labels a class over 8 draws of MNIST's training images, pixels and random features.
FIXED = 1e-2
FOLDS = 5
TOLERANCE, MOST_STEPS = 3e-5, 1000  # of L-BFGS: the largest slope at which it has converged, and where it gives up
# Rows x features x classes beyond which five folds take minutes of a core; there a slope of 5e-3 is enough to choose
# by, and at 5e-4 the accuracy is that of full convergence to a few hundredths of a point.
LARGE, CHOOSING, FINAL = 1e8, 5e-3, 5e-4
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
    in the label view or, where some class has fewer than 5 labels, fixed at 1e-2.

    optax's L-BFGS fits all folds and the whole view at once, on the accelerator where there is one.

    Args:
      labelled_features, test_features: float32 [L, F], [Q, F].
      labelled_labels, test_labels: int32 [L], [Q].
      num_classes: C.

    Returns:
      accuracy, regularisation, chosen_by, converged (whether every fit did), split, n (= Q), n_labels (= L).
    """
    mean = labelled_features.mean(axis=0, keepdims=True)
    x, test = labelled_features - mean, test_features - mean
    scale = max(np.sqrt(np.mean(np.sum(x**2, axis=1))), np.finfo(np.float32).tiny)
    x, test = x / scale, test / scale
    large = x.size * num_classes > LARGE
    rotated, second_moment, axes = _principal_axes(x, large)
    everything = np.ones((1, len(x)), np.float32)
    grid: tuple[float, ...] = GRID
    train_on, tolerance = everything, TOLERANCE
    if np.bincount(labelled_labels, minlength=num_classes).min() < FOLDS:
        grid, chosen_by = (FIXED,), f"fixed (fewer than {FOLDS} labels a class)"
    elif large:
        train_on, tolerance, chosen_by = _folds(labelled_labels)[:1], CHOOSING, HELD_OUT
    else:
        train_on = np.concatenate([everything, _folds(labelled_labels)])
        chosen_by = f"{FOLDS}-fold cross-validation in the label view"

    def fit(weights, bias, train_on, regularisation, tolerance):
        curvature = _curvature(weights, bias, rotated, train_on) if large else np.ones((1, 1), np.float32)
        how = second_moment, curvature, np.float32(regularisation), np.float32(tolerance)
        return _fit(weights, bias, rotated, labelled_labels, train_on, *how)

    weights = np.zeros((len(second_moment), len(train_on), num_classes), np.float32)
    bias = np.zeros((len(train_on), num_classes), np.float32)
    fits = []
    for regularisation in grid:
        weights, bias, held_out, converged = fit(weights, bias, train_on, regularisation, tolerance)
        fits.append((regularisation, weights, bias, float(held_out), bool(converged)))
    best = min(fits, key=lambda fit: fit[3])
    if chosen_by == HELD_OUT:
        weights, bias, _, converged = fit(best[1], best[2], everything, best[0], FINAL)
        best = (best[0], weights, bias, best[3], bool(converged))
        fits.append(best)
    predicted = np.argmax(test @ axes.T @ np.asarray(best[1][:, 0]) + np.asarray(best[2][:1]), axis=1)
    return {
        "accuracy": float(np.mean(predicted == test_labels)),
        "regularisation": best[0],
        "chosen_by": chosen_by,
        "converged": all(fit[4] for fit in fits),
        "split": "test",
        "n": len(test_labels),
        "n_labels": len(labelled_labels),
    }


def _folds(labels):
    """1 where a fold trains, 0 where it holds out: float32 [5, L]."""
    from sklearn.model_selection import StratifiedKFold

    train_on = np.ones((FOLDS, len(labels)), np.float32)
    splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    for fold, (_, held_out) in zip(train_on, splitter.split(labels, labels), strict=True):
        fold[held_out] = 0
    return train_on


def _principal_axes(x, large):
    """x on its principal axes, [L, R]; the second moment along each; the axes as rows, [R, F].

    The penalty does not change under rotation, and on their principal axes the features are easily preconditioned.
    """
    if large and len(x) > x.shape[1]:  # float32 will do: any rotation is right, this one need only be nearly the best
        second_moment, axes = np.linalg.eigh(x.T @ x / np.float32(len(x)))
        return jnp.asarray(x @ axes), np.maximum(second_moment, 0), axes.T
    left, singular, axes = np.linalg.svd(x, full_matrices=False)
    return jnp.asarray(left * singular), singular**2 / len(x), axes


def _logits(weights, bias, x):
    return jnp.einsum("lf,fkc->klc", x, weights, precision=HIGHEST) + bias[:, None]


@jax.jit
def _curvature(weights, bias, x, train_on):
    """That of the mean cross-entropy along each class's logit, p (1 - p): [K, C]."""
    p = jax.nn.softmax(_logits(weights, bias, x))
    return jnp.einsum("kl,klc->kc", train_on, p * (1 - p), precision=HIGHEST) / jnp.sum(train_on, axis=1)[:, None]


@jax.jit
def _fit(weights, bias, x, labels, train_on, second_moment, curvature, regularisation, tolerance):
    """Fits K probes at once, probe k on the rows where train_on[k] is 1; weights [F, K, C], bias [K, C].

    L-BFGS moves in coordinates in which the loss curves alike in all directions, as far as `curvature`, [K, C] or
    [1, 1], times `second_moment`, [F], and the penalty tell. `tolerance` is of the slope there.

    Returns weights, bias, the mean cross-entropy over all held-out rows, and whether L-BFGS converged.
    """
    stretch = jnp.sqrt(second_moment[:, None, None] * curvature[None] + regularisation)
    stretch_bias = jnp.sqrt(curvature)
    num_rows = jnp.sum(train_on, axis=1)

    def cross_entropies(weights, bias):
        logits = _logits(weights, bias, x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.broadcast_to(labels, logits.shape[:2]))

    def loss(params):
        weights, bias = params["weights"] / stretch, params["bias"] / stretch_bias
        each = jnp.sum(cross_entropies(weights, bias) * train_on, axis=1) / num_rows
        return jnp.sum(each) + regularisation / 2 * jnp.sum(weights**2)

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
    weights, bias = params["weights"] / stretch, params["bias"] / stretch_bias
    held_out = jnp.sum(cross_entropies(weights, bias) * (1 - train_on)) / jnp.maximum(jnp.sum(1 - train_on), 1)
    return weights, bias, held_out, slope <= tolerance


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

    Nearest is by cosine; a neighbour adds to the score of its own class. Queries are taken 1,024 at a time, so memory
    is 1,024 x N. At equal cosines the earlier training row is nearer.

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
    return _votes(train_features, train_labels, test_features, k=k, temperature=temperature, num_classes=num_classes)


@functools.partial(jax.jit, static_argnames=("k", "temperature", "num_classes"))
def _votes(train_features, train_labels, test_features, *, k, temperature, num_classes):
    dtype = jnp.promote_types(jnp.promote_types(train_features.dtype, test_features.dtype), jnp.float32)

    def normalise(x):
        x = x.astype(dtype)
        return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-12)

    train = normalise(train_features)
    classes = jax.nn.one_hot(train_labels, num_classes, dtype=dtype)

    def votes(query):
        cosine, nearest = jax.lax.top_k(jnp.matmul(train, query, precision=HIGHEST), k)
        shift = cosine[0] if temperature < 1 / 70 else 0.0
        return jnp.matmul(jnp.exp((cosine - shift) / temperature), classes[nearest], precision=HIGHEST)

    return jax.lax.map(votes, normalise(test_features), batch_size=1024)


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
