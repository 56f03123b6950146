"""Accuracy on groups of classes: those with many labels, those with few, and the worst of all."""

from typing import Any

import numpy as np

from labelfx.data import known


def groups(
    test_logits: np.ndarray, test_labels: np.ndarray, labelled_labels: np.ndarray, num_classes: int
) -> dict[str, Any]:
    """Accuracy by how many labels a class has, of the method's head (Liu et al. 2019, CVPR, "Large-Scale Long-Tailed
    Recognition in an Open World", whose groups are of more than 100, of 20 to 100, and of fewer images).

    Head, medium and tail are here the third of the classes with most labels, the next, and that with fewest. Numbers
    are means over their classes, so that it does not matter how many test rows each has. Test rows whose label is
    unknown, -1, are left out, and so are classes without a test row.

    Args:
      test_logits: float [Q, C].
      test_labels, labelled_labels: int32 [Q], [L].
      num_classes: C.

    Returns:
      balanced_accuracy (the mean over classes), head_accuracy, medium_accuracy and tail_accuracy (None without a
      class), worst_class and worst_accuracy, imbalance (labels of the most common class over those of the rarest one
      that has any), split, n, n_labels.

    Raises:
      ValueError: no test row has a label.
    """
    said = known(test_labels)
    if not said.any():
        raise ValueError("test_labels has no known label")
    labels, right = test_labels[said], (test_logits.argmax(1) == test_labels)[said]
    there = np.unique(labels)
    accuracy = np.array([right[labels == c].mean() for c in there])
    counts = np.bincount(labelled_labels[known(labelled_labels)], minlength=num_classes)
    common = np.argsort(-counts[there], kind="stable")
    thirds = {
        f"{name}_accuracy": float(accuracy[part].mean()) if len(part) else None
        for name, part in zip(("head", "medium", "tail"), np.array_split(common, 3), strict=True)
    }
    return {
        "balanced_accuracy": float(accuracy.mean()),
        **thirds,
        "worst_class": int(there[accuracy.argmin()]),
        "worst_accuracy": float(accuracy.min()),
        "imbalance": float(counts.max() / counts[counts > 0].min()) if counts.any() else None,
        "split": "test",
        "n": len(labels),
        "n_labels": int(counts.sum()),
    }
