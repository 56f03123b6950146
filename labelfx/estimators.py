"""Estimators in the convention of scikit-learn, for pipelines, cross-validation and grid searches:

    from labelfx.estimators import LabelEfficientClassifier

    classifier = LabelEfficientClassifier().fit(X, y)  # y has -1, None or NaN where nobody has said what a row is
    classifier.predict(X)

Each `fit` is a run of `labelfx.fit` in a temporary folder, which is gone afterwards.
"""

import contextlib
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import assert_all_finite, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_consistent_length, check_is_fitted, validate_data

from labelfx.data.pictures import pictures
from labelfx.fit import fit
from labelfx.loop.picks import LARGEST, labels_of
from labelfx.loop.starts import description_of


class LabelEfficientClassifier(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ClassifierMixin, BaseEstimator):
    """A classifier that learns from labelled and, by its recipe, from unlabelled rows: `predict` gives classes,
    `predict_proba` float32 [N, classes], and `transform` the network's features, float32 [N, F].

    X: vectors [N, F], N strings, images uint8 [N, H, W, C], or a list of N files (`pathlib.Path`) or Pillow images.
    y: N classes of any one type; -1, None, NaN and "" are unknown.

    backbone: a file or folder of weights that others trained; the recipe is then `frozen`.
    recipe: the name of a recipe that trains a classifier, such as "fixmatch"; by default `labelfx.fit` picks one.
    steps: of training; by default those of the recipe.
    random_state: an int for a run that repeats itself.
    verbose: whether the run says how far it is.

    Attributes after `fit`: `classes_`; `encoder_`, a `labelfx.finished.encoder.Encoder`; of vectors `n_features_in_`
    and, where X names its columns, `feature_names_in_`.
    """

    def __init__(
        self,
        *,
        backbone: str | None = None,
        recipe: str | None = None,
        steps: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ):
        self.backbone = backbone
        self.recipe = recipe
        self.steps = steps
        self.random_state = random_state
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> "LabelEfficientClassifier":
        """Trains on all rows, of which at least one of each of two classes or more is labelled.

        Raises:
          ValueError: X or y is none of what they may be, or the recipe trains no classifier.
        """
        if y is None:
            raise ValueError("this estimator requires y to be passed, but the target y is None")
        rows = self._rows(X, reset=True)
        y = column_or_1d(y, warn=True)
        check_consistent_length(rows, y)
        if y.dtype.kind == "f":
            assert_all_finite(y[~np.isnan(y)], input_name="y")
            check_classification_targets(y[~np.isnan(y)])
        labels, classes = labels_of(y)
        seed = int(check_random_state(self.random_state).randint(2**31))
        changes: dict[str, Any] = {"devices": 1}
        if self.steps is not None:
            changes |= {"steps": self.steps, "optimizer.schedule.warmup_steps": min(20, self.steps // 10)}
        how: dict[str, Any] = {"backbone": self.backbone or "", "recipe": self.recipe or "", "seed": seed}
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as quiet:
            if not self.verbose:
                quiet.enter_context(contextlib.redirect_stderr(io.StringIO()))
            self.encoder_ = fit((rows, labels), folder, changes=changes, **how)
        if self.encoder_.head is None:
            raise ValueError(f"recipe = {self.recipe!r}: trains no classifier")
        self.classes_ = np.asarray(classes)
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.encoder_.predict(self._rows(X, reset=False))

    def predict(self, X: Any) -> np.ndarray:
        probabilities = self.predict_proba(X)
        return self.classes_[probabilities.argmax(1)]

    def transform(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        return self.encoder_(self._rows(X, reset=False))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # features are float32
        return tags

    @property
    def _n_features_out(self) -> int:
        return self.transform(np.zeros((1, self.n_features_in_))).shape[1]

    def _rows(self, X: Any, reset: bool) -> Any:
        """X as `labelfx.fit` takes it."""
        if isinstance(X, Sequence) and len(X) and all(isinstance(each, Path | Image.Image) for each in X):
            shape = (self._side(),) * 2 + (3,)
            return np.concatenate([*pictures(X, shape)])
        found = np.asarray(X)
        if found.ndim == 4 and found.dtype == np.uint8 or found.ndim == 1 and all(isinstance(x, str) for x in found):
            return found
        return validate_data(self, X, reset=reset, dtype=np.float32)

    def _side(self) -> int:
        if hasattr(self, "encoder_"):
            return self.encoder_.shape[0]
        return description_of(self.backbone)["preprocessing"]["size"] if self.backbone else LARGEST["cpu"]
