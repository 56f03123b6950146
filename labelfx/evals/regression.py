"""How far predictions of a target are from it, on the test split."""

from typing import Any

import numpy as np

from labelfx.config.annotations import PositiveInt


def regression_error(
    test_predictions: np.ndarray,
    test_labels: np.ndarray,
    labelled_labels: np.ndarray,
    *,
    bin_width: PositiveInt,
    few: PositiveInt,
) -> dict[str, Any]:
    """Mean absolute error of the method's regressor, on all targets and on few-shot ones (Yang et al. 2021, ICML).

    A target y belongs to bin y // bin_width. It is few-shot if fewer than `few` labelled targets do, which is 20 with
    bins of a year of age in the paper.

    Args:
      test_predictions: float [Q], in the units of the labels.
      test_labels, labelled_labels: float [Q], [L], from 0 up.

    Returns:
      error and few_shot_error (None where no target is few-shot); constant_error and few_shot_constant_error, those of
      the median of the labelled targets: the floor; split, n (= Q), n_few_shot, n_labels (= L).
    """
    bins = [(labels // bin_width).astype(int) for labels in (labelled_labels, test_labels)]
    count = np.bincount(bins[0], minlength=max(each.max() for each in bins) + 1)
    is_few = count[bins[1]] < few
    found: dict[str, Any] = {}
    for name, prediction in (("", test_predictions), ("constant_", np.median(labelled_labels))):
        errors = np.abs(prediction - test_labels)
        found[f"{name}error"] = float(errors.mean())
        found[f"few_shot_{name}error"] = float(errors[is_few].mean()) if is_few.any() else None
    return {
        **found,
        "split": "test",
        "n": len(test_labels),
        "n_few_shot": int(is_few.sum()),
        "n_labels": len(labelled_labels),
    }
