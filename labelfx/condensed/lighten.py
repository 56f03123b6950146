"""HeLlO: a low-rank projector on a frozen encoder in the place of stored soft labels (Yu et al. 2024, arXiv 2408.08201,
"Heavy Labels Out! Dataset Distillation with Label Space Lightening")."""

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.condensed import Condensed
from labelfx.condensed._shared import as_bytes, check_teachers, drawn, floats, minimise, softmax, teachers_logits
from labelfx.config import ConfigError
from labelfx.config.annotations import NonNegativeInt, Positive, PositiveInt
from labelfx.derived import Finished
from labelfx.models import pooled
from labelfx.objectives.distillation import kd


def lighten(
    runs: tuple[Finished, ...],
    rng: np.random.Generator,
    *,
    per_class: PositiveInt,
    rank: PositiveInt,
    steps: NonNegativeInt,
    learning_rate: Positive,
) -> Condensed:
    """`per_class` labelled images of each class, whose soft labels an encoder and a projector of `rank` give: the
    second run's features, and `low_rank` fitted to the first run's logits of the training images. The projector alone,
    rank (F + C) + F + C numbers, has to be kept for soft labels of any view of any image: `projector_left`,
    `projector_right`, `projector_mean` and `projector_bias` of the file.

    Then `steps` steps of Adam move the images to where teacher and projector agree, by KL(teacher || projector). Of the
    paper only the abstract was at hand: its projector starts from CLIP's text embeddings and is fitted by gradient
    descent; here it starts from nothing, and the least-squares fit of that rank is exact.

    Raises:
      ConfigError: not two runs, a teacher that is no classifier of the encoder's images, or `rank` is above that of
        any matrix [F, C]; a class has fewer labelled images.
    """
    if len(runs) != 2:
        raise ConfigError(f"--runs: {len(runs)} given; must be two, a classifier and an encoder")
    teacher, encoder = runs
    check_teachers((teacher,))
    if (encoder.encoder.shape, encoder.encoder.dtype) != (teacher.encoder.shape, teacher.encoder.dtype):
        raise ConfigError(f"{encoder.place}: an encoder of other rows than {teacher.place}")
    features, logits = encoder.encoder(teacher.images), teachers_logits((teacher,), teacher.images)
    most = min(features.shape[1], logits.shape[1])
    if rank > most:
        raise ConfigError(
            f"rank = {rank}: must be at most {most}, of {features.shape[1]} features and {logits.shape[1]} classes"
        )
    stored = low_rank(features, logits, rank)
    images, labels = drawn(teacher, rng, per_class)
    images = images.reshape(-1, *images.shape[2:])

    def project(features):
        left, right, mean, bias = (jnp.asarray(each) for each in stored)
        return (features - mean[None]) @ left @ right + bias[None]

    def disagreement(x, _):
        said = teacher.network.apply(teacher.variables, x, train=False)[0]["head"]
        own = pooled(encoder.encoder.model.apply(encoder.encoder.variables, x, train=False)[0], x)
        return len(x) * kd(project(own), said, temperature=1.0)  # each image by itself

    if steps:
        move = jax.jit(lambda x, key: minimise(disagreement, x, key, steps, learning_rate))
        images = as_bytes(move(floats(images), jax.random.key(0)))
    names = (f"projector_{each}" for each in ("left", "right", "mean", "bias"))
    target = softmax(np.asarray(project(encoder.encoder(images))))
    return Condensed(images, labels.ravel(), target, dict(zip(names, stored, strict=True)))


def low_rank(
    features: np.ndarray, logits: np.ndarray, rank: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The least-squares map of a rank from features [N, F] to logits [N, C], (x - mean) left right + bias: the least-
    squares map of full rank, projected on the first right singular vectors of what it gives (reduced-rank regression,
    Izenman 1975, Journal of Multivariate Analysis).

    Returns:
      left [F, rank], right [rank, C], mean [F], bias [C], float32.
    """
    mean, bias = features.mean(0, np.float64), logits.mean(0, np.float64)
    x, z = features - mean, logits - bias
    full = np.linalg.lstsq(x, z, rcond=1e-10)[0]
    right = np.linalg.svd(x @ full, full_matrices=False)[2][:rank]
    return tuple(each.astype(np.float32) for each in (full @ right.T, right, mean, bias))  # type: ignore[return-value]
