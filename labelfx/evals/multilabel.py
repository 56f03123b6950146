"""What is said of rows with several labels: precision, recall and rankings, of the method's head and of a linear probe.

Unknown entries, -1, of test labels are left out. Every number is on the test split; whatever an eval chooses, it
chooses inside the label view.
"""

from typing import Any

import jax
import numpy as np
import scipy.special

from labelfx.config.annotations import PositiveInt, Probability
from labelfx.evals import blocks, classification
from labelfx.loop.mesh import on_every_device


def multilabel(
    test_logits: np.ndarray,
    test_labels: np.ndarray,
    labelled_labels: np.ndarray,
    *,
    threshold: Probability,
    k: tuple[PositiveInt, ...],
) -> dict[str, Any]:
    """What the field reports of several labels: mean average precision, F1 over classes and overall, ranks of labels.

    Args:
      test_logits: float [Q, C].
      test_labels, labelled_labels: int8 [Q, C], [L, C]: 1, 0, or -1 for unknown.
      threshold: a label is predicted where its sigmoid is at least this; the field's is 0.5.
      k: how many labels of a row the ranking metrics look at; the field's usual values are 1, 3 and 5.

    Returns:
      mAP (average precision, a mean over the classes with a positive in the test) and micro_AP (of all entries
      together); CP and CR (precision and recall, means over the same classes; a class that is never predicted has
      precision 0), CF1 (the harmonic mean of these two means), OP, OR and OF1 (of all entries together);
      precision_at_k, recall_at_k and ndcg_at_k for each k (means over rows with a positive), ranking_loss (share of a
      row's pairs of a positive and a negative in the wrong order, ties too; a mean over rows with both), jaccard (a
      mean over rows; 1 where nothing is to be found and nothing is), subset_accuracy (rows without an error), hamming
      (wrong entries); head_mAP, medium_mAP and tail_mAP, of the third of those classes with most labelled positives
      and so on; prevalence and all_positive_OF1, the mAP of constant scores and the OF1 of predicting everything: the
      floors; n_empty_classes (without a positive), split, n (= Q), n_labels (known entries of the label view). None
      stands where there is nothing to take a mean of.

    Raises:
      ValueError: a k is greater than C, or no entry is known.
    """
    known, positive = test_labels >= 0, test_labels > 0
    if not known.any():
        raise ValueError("test_labels has no known entry")
    if max(k, default=0) > test_labels.shape[1]:
        raise ValueError(f"k = {k}: must be numbers up to the {test_labels.shape[1]} classes")
    predicted = (scipy.special.expit(test_logits.astype(np.float64)) >= threshold) & known
    hits = predicted & positive
    occurs = np.flatnonzero(positive.any(axis=0))
    precisions = np.array([_average_precision(test_logits[known[:, c], c], positive[known[:, c], c]) for c in occurs])
    found, taken, there, of = (each.sum(axis=0) for each in (hits, predicted, positive, known))
    precision, recall = (found / np.maximum(each, 1) for each in (taken, there))
    cp, cr = _mean(precision[occurs]), _mean(recall[occurs])
    op, overall_recall = (float(found.sum() / max(int(each.sum()), 1)) for each in (taken, there))
    common = np.argsort(-np.count_nonzero(labelled_labels > 0, axis=0)[occurs], kind="stable")
    thirds = {
        f"{name}_mAP": _mean(precisions[part])
        for name, part in zip(("head", "medium", "tail"), np.array_split(common, 3), strict=True)
    }
    some, wrong, union = known.any(axis=1), (predicted != positive) & known, predicted | positive
    return {
        "mAP": _mean(precisions),
        "micro_AP": _average_precision(test_logits[known], positive[known]) if len(occurs) else None,
        "CP": cp,
        "CR": cr,
        "CF1": _harmonic(cp, cr),
        "OP": op,
        "OR": overall_recall,
        "OF1": _harmonic(op, overall_recall),
        **_at_k(test_logits, positive, known, k),
        "ranking_loss": _ranking_loss(test_logits, positive, known),
        "jaccard": _mean(
            np.where(union.any(axis=1), hits.sum(axis=1) / np.maximum(union.sum(axis=1), 1), 1)[some],
        ),
        "subset_accuracy": _mean(~wrong.any(axis=1)[some]),
        "hamming": float(wrong.sum() / of.sum()),
        **thirds,
        "prevalence": _mean((there / np.maximum(of, 1))[occurs]),
        "all_positive_OF1": _harmonic(float(there.sum() / of.sum()), 1.0),
        "n_empty_classes": test_labels.shape[1] - len(occurs),
        "split": "test",
        "n": len(test_labels),
        "n_labels": int(np.count_nonzero(labelled_labels >= 0)),
    }


def multilabel_probe(
    labelled_features: np.ndarray,
    labelled_labels: np.ndarray,
    test_features: np.ndarray,
    test_labels: np.ndarray,
    num_classes: int,
    *,
    threshold: Probability,
    k: tuple[PositiveInt, ...],
) -> dict[str, Any]:
    """`multilabel` of C independent logistic regressions on frozen features, each on the entries that are known.

    Each minimises mean binary cross-entropy + regularisation / 2 * ||w||^2 as `linear_probe` does, on features scaled
    alike. One regularisation for all classes is chosen from the grid of `linear_probe` by the held-out cross-entropy of
    5-fold cross-validation in the label view or, where half of the classes have fewer than 5 positives, fixed at 1e-2.

    Args:
      labelled_features, test_features: float32 [L, F], [Q, F].
      labelled_labels, test_labels: int8 [L, C], [Q, C]: 1, 0, or -1 for unknown.
      num_classes: C.

    Returns:
      What `multilabel` does, and regularisation, chosen_by, converged (whether every fit did).
    """
    known = (labelled_labels >= 0).astype(np.float32)
    train_on, chosen_by = known[None], "fixed (fewer than 5 positives in half of the classes)"
    grid: tuple[float, ...] = (classification.FIXED,)
    if np.median(np.count_nonzero(labelled_labels > 0, axis=0)) >= classification.FOLDS:
        grid, chosen_by = classification.GRID, f"{classification.FOLDS}-fold cross-validation in the label view"
        fold = np.random.default_rng(0).permutation(len(known)) % classification.FOLDS
        kept = (fold != np.arange(classification.FOLDS)[:, None]).astype(np.float32)
        train_on = np.concatenate([train_on, known * kept[:, :, None]])
    # A probe of its own for each class of each fold: two logits, of no and of yes.
    probes = len(train_on) * num_classes
    rows = np.moveaxis(train_on, 1, 0).reshape(len(known), probes)
    labels = np.tile(labelled_labels.astype(np.int32), (1, len(train_on)))
    nothing = ~rows.any(axis=0)  # of which to learn: taken for negative
    rows, labels = np.where(nothing, np.float32(1), rows), np.where(nothing, np.int32(0), labels)
    mesh = blocks.own_devices(every=False)
    size = classification.probe_block(len(known), labelled_features.shape[1], 2, probes, mesh.size)
    x, mean, turn, second_moment = classification._principal_axes(labelled_features, mesh, size, large=False)
    placed = x, blocks.place(mesh, size, labels, fill=-1), blocks.place(mesh, size, rows)
    zeros = [np.zeros(shape, np.float32) for shape in ((len(second_moment), probes, 2), (probes, 2))]
    weights, bias = jax.device_put(zeros, on_every_device(mesh))
    fits = []
    for regularisation in grid:
        # Of the two logits, w/2 and -w/2, each is penalised: half as much as w.
        how = second_moment, np.ones((1, 1), np.float32), np.float32(2 * regularisation)
        fit = classification._fit(
            weights, bias, *placed, *how, np.float32(classification.TOLERANCE), mesh=mesh, size=size
        )
        weights, bias, held_out, converged = fit
        fits.append((regularisation, weights, bias, float(held_out), bool(converged)))
    best = min(fits, key=lambda fit: fit[3])
    # The first probes are those of all rows.
    kernel, offset = (
        np.asarray(each)[..., :num_classes, 1] - np.asarray(each)[..., :num_classes, 0] for each in best[1:3]
    )
    logits = (test_features - mean) @ (turn @ kernel) + offset
    return {
        **multilabel(logits, test_labels, labelled_labels, threshold=threshold, k=k),
        "regularisation": best[0],
        "chosen_by": chosen_by,
        "converged": all(fit[4] for fit in fits),
    }


def _mean(values):
    return float(np.mean(values)) if len(values) else None


def _harmonic(precision, recall):
    if precision is None or recall is None:
        return None
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _average_precision(scores, positive):
    """The sum over thresholds of the precision at it, times the recall it adds; equal scores share a threshold."""
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.diff(scores[order]) != 0, True)  # of its threshold
    hits = np.cumsum(positive[order])[last]
    precision = hits / (np.flatnonzero(last) + 1)
    return float(np.sum(np.diff(hits, prepend=0) * precision) / hits[-1])


def _at_k(scores, positive, known, k):
    """At equal scores the earlier class ranks higher; unknown entries are not ranked."""
    rows = positive.any(axis=1)
    if not rows.any():
        return {f"{name}_at_{each}": None for each in k for name in ("precision", "recall", "ndcg")}
    order = np.argsort(-np.where(known, scores, -np.inf)[rows], axis=1, kind="stable")
    found = np.take_along_axis(positive[rows], order, axis=1)
    number = positive[rows].sum(axis=1)
    gains = 1 / np.log2(np.arange(2, scores.shape[1] + 2))
    result = {}
    for each in k:
        hits = found[:, :each].sum(axis=1)
        ideal = np.cumsum(gains)[np.minimum(number, each) - 1]
        result[f"precision_at_{each}"] = float(np.mean(hits / each))
        result[f"recall_at_{each}"] = float(np.mean(hits / number))
        result[f"ndcg_at_{each}"] = float(np.mean(found[:, :each] @ gains[:each] / ideal))
    return result


def _ranking_loss(scores, positive, known):
    negative = known & ~positive
    return _mean(
        [
            np.mean(row[yes][:, None] <= row[no])
            for row, yes, no in zip(scores, positive, negative, strict=True)
            if yes.any() and no.any()
        ]
    )
