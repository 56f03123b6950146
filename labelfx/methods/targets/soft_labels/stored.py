"""Soft labels that `labelfx.reinforce` has written: training runs no teacher."""

import hashlib
import json
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import ConfigError, local, one_line, read_json
from labelfx.config.annotations import PositiveInt
from labelfx.data import Task
from labelfx.data.augment import resized_crop
from labelfx.data.placement import Placement
from labelfx.data.stored import Shards, Stored, probe, view_keys
from labelfx.methods.targets.soft_labels import Seen, SoftLabels
from labelfx.methods.targets.soft_labels.networks import log_of

ABOUT = "about.json"
TOLERANCE = 1e-4  # of a probe: other batch sizes round otherwise


def stored(
    num_classes: int,
    num_examples: int,
    task: Task,
    *,
    file: str,
    fill: Literal["spread", "zero"],
    crops: PositiveInt,
) -> SoftLabels:
    """What teachers said of K views of every row, once: dataset reinforcement (Faghri et al. 2023, ICCV, section 3) and
    fast knowledge distillation (Shen & Xing 2022, ECCV). A step makes one of these views again, or `crops` different
    ones, under the augmentation that the file was made with.

    Args:
      file: that `labelfx.reinforce` has written.
      fill: what is left of the probability beside the stored classes: `spread` evenly over the others, or `zero`, and
        the stored ones are scaled to sum to 1. Of several labels each is stored by itself, and nothing is left.
      crops: from 1 to K.

    Raises:
      ValueError: there is no such file, it is of other rows or classes, or has fewer views.
    """
    about, columns = opened(file, "views", num_classes, num_examples)
    if crops > about["views"]:
        raise ValueError(f"crops = {crops}: must be at most {about['views']}, the views of {file}")

    def assign(seen: Seen, before):
        index, value = (seen.column(name) for name in ("soft_index", "soft_value"))
        logits = dense(index, value, num_classes, task, fill)[None]
        return logits, jnp.ones(logits.shape[:-1], logits.dtype), before

    def check(augment, inputs):
        same_views(about, augment, inputs, file)

    def keys(index, view):
        return view_keys(about["seed"], index, view)

    return SoftLabels(assign, stored=Stored(columns, about["views"], crops, made=made(about)), check=check, keys=keys)


def label_map(num_classes: int, num_examples: int, *, file: str) -> SoftLabels:
    """What a teacher says of each place of a whole picture, pooled over the box that a view shows of it: ReLabel (Yun
    et al. 2021, CVPR: RoIAlign to one cell, then softmax). Views may be of any augmentation that says where its pixels
    come from; a flip or a turn moves nothing that the mean over the box would see.

    What is left beside the stored classes of a place is spread over the others: with every class stored, a view of the
    whole picture has the teacher's own prediction. (The released code reads missing classes as logits of 0, as likely
    as the stored ones may be.)

    Args:
      file: that `labelfx.reinforce` has written with `--maps`.

    Raises:
      ValueError: there is no such file, or it is of other rows or classes.
    """
    about, columns = opened(file, "maps", num_classes, num_examples)
    _, height, width = about["picture"]

    def assign(seen: Seen, before):
        index, value = (seen.column(name) for name in ("soft_index", "soft_value"))
        cells = dense(index, value, num_classes, "class", "spread")
        cells = cells.reshape(len(cells), about["grid"][0], about["grid"][1], num_classes)
        logits = jax.vmap(lambda place, cell: pooled_at(place, cell, (height, width)))(seen.placement, cells)[None]
        return logits, jnp.ones(logits.shape[:-1], logits.dtype), before

    return SoftLabels(assign, stored=Stored(columns, 1, 1, made=made(about)), places=True)


def pooled_at(placement: Placement, label_map: jax.Array, picture: tuple[int, int]) -> jax.Array:
    """The mean [C] of a map [G, H, C] over the box of a picture [height, width] that a view shows, read between its
    cells by bilinear interpolation."""
    (rows, columns), (height, width) = label_map.shape[:2], picture
    top, tall = (each * rows / height for each in (placement.top, placement.height))
    left, wide = (each * columns / width for each in (placement.left, placement.width))
    return resized_crop(label_map, top, left, tall, wide).mean((0, 1))


def dense(index: jax.Array, value: jax.Array, num_classes: int, task: Task, fill: str) -> jax.Array:
    """Logits float32 [..., C] of the stored classes [..., top] and their probabilities."""
    value = value.astype(jnp.float32)
    others, top = num_classes - index.shape[-1], jnp.sum(value, -1, keepdims=True)
    rest = jnp.maximum(1 - top, 0) / max(others, 1) if fill == "spread" and task != "several" else jnp.zeros_like(top)
    target = jnp.broadcast_to(rest, (*index.shape[:-1], num_classes))
    target = jnp.put_along_axis(target, index.astype(jnp.int32), value, axis=-1, inplace=False)
    if task != "several":
        return log_of(target / jnp.sum(target, -1, keepdims=True))
    step = 2.0**-12  # half floats just below 1 are twice as far apart
    target = jnp.clip(target, step, 1 - step)
    return jnp.log(target) - jnp.log1p(-target)


def opened(file: str, kind: str, num_classes: int, num_examples: int) -> tuple[dict[str, Any], dict[str, Shards]]:
    """What the file says of itself, and its columns [N, K, top].

    Raises:
      ValueError: there is no such file, it is not whole, or it is of something else.
    """
    folder = local(file)
    about: Any = read_json(folder / ABOUT) if (folder / ABOUT).exists() else {}
    if not about.get("whole"):
        why = "is not whole: the command that began it ends it" if about else "no stored labels there"
        raise ValueError(f"file = {file!r}: {why}; python -m labelfx.reinforce writes them")
    found = {"rows": num_examples, "classes": num_classes, "kind": kind}
    for key, wanted in found.items():
        if about.get(key) != wanted:
            hint = (
                {"maps": "label_map reads", "views": "stored reads"}.get(kind) if key == "kind" else "these data have"
            )
            raise ValueError(f"file = {file!r}: its {key} are {about.get(key)!r}, {hint} {wanted!r}")
    return about, columns_of(folder, about)


def made(about: dict[str, Any]) -> str:
    """A hash of what a file says of itself: the networks' weights are in it, the seed and the augmentation."""
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


def columns_of(folder: Path, about: dict[str, Any]) -> dict[str, Shards]:
    """The stored classes and their probabilities, [N, K, top] or, of maps, [N, 1, cells, top]."""
    files = [folder / name for name in about["shards"]]
    return {f"soft_{field}": Shards(files, about["shard_rows"], field) for field in ("index", "value")}


def same_views(about: dict[str, Any], augment: Any, inputs: Any, file: str) -> None:
    """ConfigError where these are not the views that labels were stored of."""
    found, wanted = probe(augment, about["seed"], inputs), np.asarray(about["probe"], np.float32)
    if found.shape != wanted.shape or np.max(np.abs(found - wanted)) > TOLERANCE:
        raise ConfigError(
            f"config.method.augment: gives other views than those that {file} has labels of, by "
            f"{one_line(about['augment'])} under JAX {about['jax']}; rows, augmentation and JAX must be the same"
        )
