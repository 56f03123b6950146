"""What class each position of a test image is given."""

from typing import Any

import numpy as np


def mean_iou(test_logits: np.ndarray, test_labels: np.ndarray, num_classes: int) -> dict[str, Any]:
    """Intersection over union of each class, over all test images together, and its mean (Everingham et al. 2010).

    Positions whose label is void, -1, are left out.

    Args:
      test_logits: float [Q, H, W, C].
      test_labels: int32 [Q, H, W], from 0 to C - 1, or -1.

    Returns:
      mean_iou (over classes that are there or predicted somewhere), iou (of each class; None where it is neither),
      pixel_accuracy, split, n (= Q), n_pixels (not void).

    Raises:
      ValueError: shapes differ, or every position is void.
    """
    if test_logits.shape != (*test_labels.shape, num_classes):
        raise ValueError(
            f"test_logits must be {(*test_labels.shape, num_classes)}, as test_labels says, got {test_logits.shape}"
        )
    known = test_labels >= 0
    if not known.any():
        raise ValueError("test_labels is void everywhere")
    pairs = num_classes * test_labels[known].astype(np.int64) + np.argmax(test_logits, axis=-1)[known]
    counts = np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)
    both = np.diagonal(counts)
    either = counts.sum(axis=0) + counts.sum(axis=1) - both
    iou = [float(hits / of) if of else None for hits, of in zip(both, either, strict=True)]
    return {
        "mean_iou": float(np.mean([each for each in iou if each is not None])),
        "iou": iou,
        "pixel_accuracy": float(both.sum() / counts.sum()),
        "split": "test",
        "n": len(test_labels),
        "n_pixels": int(counts.sum()),
    }
