"""What evals may ask for by name, of a run's data and of its network."""

import functools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import labelfx
from labelfx import config as configs
from labelfx import models
from labelfx.config.annotations import Augment, Part
from labelfx.config.errors import located
from labelfx.data import Dataset, Some
from labelfx.data.augment import to_float
from labelfx.data.batches import View
from labelfx.data.labels import target_scale
from labelfx.evals import head_outputs, memory
from labelfx.evals.blocks import own_devices
from labelfx.evals.kept import kept_features
from labelfx.loop.mesh import device_memory, machine_memory
from labelfx.loop.networks import head_of
from labelfx.models import Model
from labelfx.models.heads import linear

AUGMENT, HEADS = Part("data.augment"), Part("models.heads")
TRANSFORMATIONS = Part("data.transformations", ("images",))
SCORED = 25_600  # images that label-free scores look at, as many as RankMe's authors take: their cost grows fast


def check_sizes(config: configs.Run, dataset: Dataset, view: View, model: Model) -> None:
    """ConfigError where an eval cannot run, before weeks of training: its augmentation or what that makes of the images
    does not suit them, its batch is larger than the label view, or even its blocks take more memory than there is."""
    images, mesh = dataset.train.inputs, own_devices(every=True)
    row = jax.ShapeDtypeStruct((1, *images.shape[1:]), images.dtype)

    def encoded(x: jax.Array, augment: Callable[..., Any] = lambda _, x: to_float(x)) -> Any:
        rng = jax.random.key(0)
        return model.apply(model.init(rng, to_float(x)), augment(rng, x), train=False)

    shape = jax.eval_shape(encoded, row)
    sizes = memory.Sizes(
        labelled=len(view.rows),
        scored=min(len(view.truth), SCORED),
        test=len(dataset.test.inputs) if dataset.test else 0,
        inputs=math.prod(images.shape[1:]),
        features=shape[0].shape[-1],
        classes=len(dataset.class_names),
        devices=mesh.size,
        positions=math.prod(view.truth.shape[1:]) if dataset.task in ("dense", "tags") else 1,
    )
    takes = {name: configs.parameters(configs.function(configs.EVALS, name)) for name in config.evals}
    asked = {each for names, _ in takes.values() for each in names}
    for name, keywords in config.evals.items():
        for key, parameter in takes[name][1].items():
            if parameter.annotation == Augment:
                augment = configs.build(AUGMENT, keywords[key])
                try:
                    jax.eval_shape(functools.partial(encoded, augment=augment), row)
                except Exception as error:
                    raise configs.ConfigError(f"config.evals.{name}.{key}: {located(error)}") from error
        if keywords.get("batch", 0) > sizes.labelled:
            raise configs.ConfigError(
                f"config.evals.{name}.batch = {keywords['batch']}: must be at most the {sizes.labelled} labelled images"
            )
        need = memory.needs(name, keywords, asked, sizes)
        host = need.host + (mesh.size * need.device if mesh.devices.flat[0].platform == "cpu" else 0)
        limits = {"a device": (need.device, device_memory(mesh)), "this machine": (host, machine_memory())}
        for where, (bytes_, have) in limits.items():
            if bytes_ > have:
                raise configs.ConfigError(
                    f"config.evals.{name}: takes {bytes_ / 1e9:.3g} GB of the {have / 1e9:.3g} GB of {where} for "
                    f"{sizes.labelled} labelled images; leave it out, label fewer images or take a larger machine"
                )


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
        teacher: Path | None = None,
    ):
        self.model, self.seed, self.num_classes = model, config.seed, len(dataset.class_names)
        self.head = head_of(config, dataset, view)
        self.train_inputs, self.rows = dataset.train.inputs, view.rows
        if dataset.test is not None:
            self.test_inputs, self.test_labels, self.test_columns = dataset.test
        self.labelled_labels = view.split.labels[view.rows]
        self.variables, self.method, self.workers = variables, method, config.workers
        self.side, self.class_names, self.teacher = dataset.side, dataset.class_names, teacher

    def __getattr__(self, name: str) -> Any:
        """What belongs to no single row, and columns of the test rows, `test_NAME`."""
        columns = {f"test_{column}": values for column, values in self.__dict__.get("test_columns", {}).items()}
        found = self.__dict__.get("side", {}) | columns
        if name in found:
            return found[name]
        raise AttributeError(name)

    def _features(self, images: Any, rows: np.ndarray | None = None) -> np.ndarray:
        return kept_features(self.model, models.backbone(self.variables), images, rows)

    @property
    def scored_rows(self) -> np.ndarray:
        """Of training images, evenly spaced where there are more than `SCORED`."""
        count = len(self.train_inputs)
        return np.linspace(0, count - 1, min(count, SCORED)).astype(np.int64)

    @functools.cached_property
    def features(self) -> np.ndarray:
        return self._features(self.train_inputs, self.scored_rows)

    @functools.cached_property
    def test_features(self) -> np.ndarray:
        return self._features(self.test_inputs)

    @property
    def labelled_inputs(self) -> Some:
        return Some(self.train_inputs, self.rows)

    @functools.cached_property
    def labelled_features(self) -> np.ndarray:
        return self._features(self.train_inputs, self.rows)

    @functools.cached_property
    def projector(self) -> Model | None:
        """What the method trains on top of the backbone for its loss alone, where it has one."""
        return configs.build(HEADS, self.method["projector"]) if "projector" in self.method else None

    @property
    def transformation(self) -> Callable[..., Any]:
        """That of a method whose labels are of class and transformation."""
        return configs.build(TRANSFORMATIONS, self.method["transformation"])

    @functools.cached_property
    def test_logits(self) -> np.ndarray:
        backbone, head = models.backbone(self.variables), models.part(self.variables, "head")
        row = jax.ShapeDtypeStruct((1, *self.test_inputs.shape[1:]), self.test_inputs.dtype)
        given = jax.eval_shape(lambda x: self.model.apply(backbone, to_float(x), train=False)[0], row)
        if given.ndim > 2:  # a map, which the head reads before it is pooled
            return head_outputs(self.model, backbone, self.head, head, self.test_inputs)
        return np.asarray(self.head.apply(head, self.test_features, train=False)[0])

    @functools.cached_property
    def _compared(self) -> Any:
        found: Any = labelfx.load(str(self.teacher))
        own = self.side.get("tokenizer")
        if found.head is None:
            raise ValueError(f"{self.teacher}: trained no classifier to compare with")
        if (found.tokenizer and found.tokenizer.text) != (own and own.text):
            raise ValueError(f"{self.teacher}: reads texts in other tokens")
        return found

    @functools.cached_property
    def teacher_logits(self) -> np.ndarray:
        """Of the run that this one is compared with."""
        found = self._compared
        return head_outputs(found.model, found.variables, found.head[0], found.head[1], self.test_inputs)

    @property
    def class_map(self) -> np.ndarray:
        """The place of each class of that run among those of this one, by their names: int32 [classes]."""
        if gone := [name for name in self._compared.class_names if name not in self.class_names]:
            raise ValueError(f"{self.teacher}: has the class {gone[0]!r}, which is none of {self.class_names}")
        return np.array([self.class_names.index(name) for name in self._compared.class_names], np.int32)

    @property
    def head_kernel(self) -> np.ndarray:
        """Of a linear head."""
        return np.asarray(self.variables["params"]["head"]["Dense_0"]["kernel"])

    @functools.cached_property
    def test_predictions(self) -> np.ndarray:
        """Of a regressor, in the units of the labels."""
        if "regressor" not in self.variables["params"]:
            return self.test_logits[:, 0]
        regressor = {"params": self.variables["params"]["regressor"]}
        mean, scale = target_scale(self.labelled_labels)
        return mean + scale * np.asarray(linear(features=1).apply(regressor, self.test_features, train=False)[0])[:, 0]
