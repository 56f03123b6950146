"""What a new network gets wrong that an old one got right."""

from typing import Any

import numpy as np

from labelfx.data import known


def negative_flips(
    test_logits: np.ndarray, teacher_logits: np.ndarray, test_labels: np.ndarray, class_map: np.ndarray
) -> dict[str, Any]:
    """Rows that an old network names right and the new one wrong (Yan et al. 2021, CVPR, "Positive-Congruent Training",
    section 3; relative as Schumann et al. 2024, EACL, "Backward Compatibility During Data Updates by Weight
    Interpolation").

    The old one is the first run that the network was derived from, or `config.teacher`. Rows whose label is unknown,
    -1, are left out.

    Args:
      test_logits: float [Q, C], the new network's.
      teacher_logits: float [Q, C_old], the old one's.
      test_labels: int32 [Q].
      class_map: int32 [C_old], the new place of each old class.

    Returns:
      nfr (negative flip rate: the share of all rows that the old one had right and the new one has wrong),
      positive_flips (the share of the reverse), relative_nfr (nfr over (1 - error of the old) * error of the new, what
      it were if mistakes were independent; 0 where that is 0), accuracy, old_accuracy, agreement (the share of rows
      that both name alike), split, n.

    Raises:
      ValueError: no label is known.
    """
    said = known(test_labels)
    if not said.any():
        raise ValueError("test_labels has no known label")
    labels = test_labels[said]
    new, old = test_logits[said].argmax(1), class_map[teacher_logits[said].argmax(1)]
    right, was_right = new == labels, old == labels
    nfr = float(np.mean(was_right & ~right))
    independent = float(np.mean(was_right) * np.mean(~right))
    return {
        "nfr": nfr,
        "positive_flips": float(np.mean(right & ~was_right)),
        "relative_nfr": nfr / independent if independent else 0.0,
        "accuracy": float(np.mean(right)),
        "old_accuracy": float(np.mean(was_right)),
        "agreement": float(np.mean(new == old)),
        "split": "test",
        "n": len(labels),
    }
