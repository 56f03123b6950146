"""Images as they are: what a condensed set has to beat."""

import numpy as np

from labelfx.condensed import Condensed
from labelfx.condensed._shared import check_teachers, drawn, softmax, teachers_logits
from labelfx.config.annotations import PositiveInt
from labelfx.derived import Finished


def sample(runs: tuple[Finished, ...], rng: np.random.Generator, *, per_class: PositiveInt) -> Condensed:
    """`per_class` labelled images of each class, drawn without preference, with the softmax of the mean of the runs'
    logits: the floor of every condensed set of as many bytes.

    Raises:
      ConfigError: a run trained no classifier of these images, or a class has fewer labelled ones.
    """
    check_teachers(runs)
    images, labels = drawn(runs[0], rng, per_class)
    images = images.reshape(-1, *images.shape[2:])
    return Condensed(images, labels.ravel(), softmax(teachers_logits(runs, images)))
