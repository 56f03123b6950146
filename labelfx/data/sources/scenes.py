"""Real pictures pasted on a canvas: all that can be said of what is where is known."""

from typing import Literal, NamedTuple

import numpy as np

from labelfx.config.annotations import NonNegativeInt, PositiveInt, Probability
from labelfx.data import Dataset, Split
from labelfx.data.sources import images

__all__ = ["pasted"]  # what a config may name


class Scenes(NamedTuple):
    """inputs: uint8 [N, H, W, C]. found: int32 [N, H, W], which of its scene's pictures a pixel shows, -1 for none.
    classes: int32 [N, K], of the pictures, in the order in which they were pasted."""

    inputs: np.ndarray
    found: np.ndarray
    classes: np.ndarray


def pasted(
    *,
    of: Literal["digits", "fashion_mnist", "cifar10"],
    data_dir: str | None,
    canvas: PositiveInt,
    low: NonNegativeInt,
    high: PositiveInt,
    background: Probability,
    label: Literal["one", "several", "dense", "boxes"],
    train: PositiveInt,
    test: PositiveInt,
    seed: NonNegativeInt,
) -> Dataset:
    """Scenes of `canvas` x `canvas` pixels, each of `low` to `high` pictures of another set at random places; `train`
    rows are of its training pictures alone, `test` rows of its test pictures.

    A picture lies within the canvas and covers what was pasted before it, a grey one where it is not black. Under them
    is noise, uniform from 0 to the share `background` of white. Rows are a function of `seed`, the split and what
    else is said here but `label`, which says what is told of the same rows; of what is hidden nothing is:
      "one": int32 [N], the class of the picture that was pasted last, which nothing covers: one label of a scene that
        shows several, as a photograph has, -1 of an empty one;
      "several": int8 [N, C], whether a class is to be seen;
      "dense": int32 [N, H, W], the class of every pixel. The background is a class of its own, the last one, so that
        the others keep their numbers: were it void, what a network finds there would cost it nothing;
      "boxes": float32 [N, high, 5], the boxes around what is to be seen of each picture.

    Raises:
      ValueError: `low` is above `high`, the pictures are larger than the canvas, or the pictures cannot be had.
    """
    if low > high:
        raise ValueError(f"low = {low}: must be at most high = {high}")
    if (data_dir is None) != (of == "digits"):
        raise ValueError(
            f"data_dir = {data_dir!r}: must be {'None' if of == 'digits' else 'a folder'} with of = {of!r}"
        )
    keywords = {} if data_dir is None else {"data_dir": data_dir}
    pictures = getattr(images, of)(**keywords)
    side = max(pictures.train.inputs.shape[1:3])
    if side > canvas:
        raise ValueError(f"canvas = {canvas}: must be at least {side}, the side of the pictures of {of}")
    names = (*pictures.class_names, *(["background"] if label == "dense" else []))
    said = {"one": one, "several": several, "dense": dense, "boxes": boxes}[label]
    splits = []
    for stream, (split, rows) in enumerate(((pictures.train, train), (pictures.test, test))):
        scenes = paste(split, np.random.default_rng([seed, stream]), rows, canvas, low, high, background)
        splits.append(Split(scenes.inputs, said(scenes, len(pictures.class_names))))
    return Dataset(splits[0], splits[1], names)


def paste(
    pictures: Split, rng: np.random.Generator, rows: int, canvas: int, low: int, high: int, background: float
) -> Scenes:
    """`rows` scenes of these pictures, uint8 [M, h, w, C] with a class each, see `pasted`."""
    count, height, width, channels = pictures.inputs.shape
    shown = np.arange(high) < rng.integers(low, high + 1, (rows, 1))
    chosen = rng.integers(count, size=(rows, high))
    tops, lefts = (rng.integers(canvas - side + 1, size=(rows, high)) for side in (height, width))
    inputs = rng.integers(round(255 * background) + 1, size=(rows, canvas, canvas, channels), dtype=np.uint8)
    found = np.full((rows, canvas, canvas), -1, np.int32)
    for k in range(high):
        scenes = np.flatnonzero(shown[:, k])
        picture = pictures.inputs[chosen[scenes, k]]
        n, y, x = np.nonzero(picture[..., 0] > 0 if channels == 1 else np.ones(picture.shape[:3], bool))
        where = scenes[n], tops[scenes[n], k] + y, lefts[scenes[n], k] + x
        inputs[where], found[where] = picture[n, y, x], k
    return Scenes(inputs, found, pictures.labels[chosen])


def one(scenes: Scenes, num_classes: int) -> np.ndarray:
    """int32 [N]."""
    last = scenes.found.max((1, 2))
    return np.where(last < 0, -1, scenes.classes[np.arange(len(last)), last]).astype(np.int32)


def several(scenes: Scenes, num_classes: int) -> np.ndarray:
    """int8 [N, C]."""
    rows, k = _seen(scenes)
    labels = np.zeros((len(scenes.inputs), num_classes), np.int8)
    labels[rows, scenes.classes[rows, k]] = 1
    return labels


def dense(scenes: Scenes, num_classes: int) -> np.ndarray:
    """int32 [N, H, W]."""
    classes = np.take_along_axis(scenes.classes, scenes.found.reshape(len(scenes.found), -1).clip(0), 1)
    return np.where(scenes.found < 0, num_classes, classes.reshape(scenes.found.shape)).astype(np.int32)


def boxes(scenes: Scenes, num_classes: int) -> np.ndarray:
    """float32 [N, K, 5] of class, top, left, height, width, in pixels; those of pictures that are hidden are the class
    -1 and zeros, and come last."""
    labels = np.zeros((*scenes.classes.shape, 5), np.float32)
    labels[..., 0] = -1
    rows, ks = _seen(scenes)
    places = np.arange(len(rows)) - np.searchsorted(rows, rows)
    for row, k, place in zip(rows, ks, places, strict=True):
        y, x = np.nonzero(scenes.found[row] == k)
        box = y.min(), x.min(), np.ptp(y) + 1, np.ptp(x) + 1
        labels[row, place] = scenes.classes[row, k], *box
    return labels


def _seen(scenes):
    """Rows and pictures of which a pixel is to be seen, in order."""
    shape = scenes.classes.shape
    seen = np.zeros(shape, bool)
    rows, *where = np.nonzero(scenes.found >= 0)
    seen[rows, scenes.found[(rows, *where)]] = True
    return np.nonzero(seen)
