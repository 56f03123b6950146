"""What evals may ask for by name, of a run's data and of its network."""

import functools
from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx import models
from labelfx.config.annotations import Part
from labelfx.data import Dataset
from labelfx.data.batches import View
from labelfx.data.labels import target_scale
from labelfx.evals import features
from labelfx.models import Model
from labelfx.models.heads import linear

HEADS = Part("models.heads")
SCORED = 25_600  # images that label-free scores look at, as many as RankMe's authors take: their cost grows fast


class Some:
    """Some rows of images, read when they are asked for: those of ImageNet fit in no memory."""

    def __init__(self, images: Any, rows: np.ndarray):
        self.images, self.rows = images, rows
        self.shape, self.dtype = (len(rows), *images.shape[1:]), images.dtype

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: Any) -> np.ndarray:
        return self.images[self.rows[rows]]


class Inputs:
    """What evals may ask for by name, each made when first asked for."""

    def __init__(
        self,
        config: configs.Run,
        dataset: Dataset,
        view: View,
        model: Model,
        variables: dict[str, Any],
        method: dict[str, Any],
    ):
        self.model, self.seed, self.num_classes = model, config.seed, len(dataset.class_names)
        self.train_images, self.test_images = dataset.train.images, dataset.test.images
        self.test_labels, self.rows, self.judgements = dataset.test.labels, view.rows, dataset.judgements
        self.labelled_labels = view.split.labels[view.rows]
        self.variables, self.method, self.workers = variables, method, config.workers

    def _features(self, images: Any, rows: np.ndarray | None = None) -> np.ndarray:
        return features(self.model, models.backbone(self.variables), images, rows)

    @functools.cached_property
    def features(self) -> np.ndarray:
        """Of training images, evenly spaced where there are more than `SCORED`."""
        count = len(self.train_images)
        rows = np.linspace(0, count - 1, min(count, SCORED)).astype(np.int64)
        return self._features(self.train_images, rows)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        return self._features(self.test_images)

    @property
    def labelled_images(self) -> "Some":
        return Some(self.train_images, self.rows)

    @functools.cached_property
    def labelled_features(self) -> np.ndarray:
        return self._features(self.train_images, self.rows)

    @functools.cached_property
    def projector(self) -> Model | None:
        """What the method trains on top of the backbone for its loss alone, where it has one."""
        return configs.build(HEADS, self.method["projector"]) if "projector" in self.method else None

    @functools.cached_property
    def test_logits(self) -> np.ndarray:
        head = {"params": self.variables["params"]["head"]}
        return np.asarray(linear(features=self.num_classes).apply(head, self.test_features, train=False)[0])

    @functools.cached_property
    def test_predictions(self) -> np.ndarray:
        """Of a regressor, in the units of the labels."""
        regressor = {"params": self.variables["params"]["regressor"]}
        mean, scale = target_scale(self.labelled_labels)
        return mean + scale * np.asarray(linear(features=1).apply(regressor, self.test_features, train=False)[0])[:, 0]
