"""Encoders that others trained, read from their files: `read(place)`.

A family is a module with three functions: `recognise` tells from a file's configuration and the shapes of its tensors
how a network is built, `network` builds it, and `names` says what the file calls its tensors. The modules in a network
are called as timm calls them, or as the library does that the family comes from, so that most of a file needs no table
of names; a network of other names is one `names` away.

Nothing here trains, and no method knows of it: `models.backbones.pretrained` makes a backbone of what is read.
"""

import fnmatch
import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.models.depth import upper_third
from labelfx.models.pretrained import bert, convnext, efficientnet, resnet, static, vit
from labelfx.models.pretrained.files import Tensors, configuration, tensors_of

FAMILIES: dict[str, Any] = {
    "bert": bert,
    "convnext": convnext,
    "efficientnet": efficientnet,
    "resnet": resnet,
    "static": static,
    "vit": vit,
}
LAYOUTS: dict[int, tuple[int, ...]] = {2: (1, 0), 4: (2, 3, 1, 0)}  # of kernels: [out, in], [out, in, height, width]
SUFFIXES = {"kernel": "weight", "scale": "weight", "embedding": "weight", "mean": "running_mean", "var": "running_var"}
# Path of each variable -> the tensors that it is made of, one after another, and its shape.
_Sources = dict[tuple[str, ...], tuple[tuple[str, ...], tuple[int, ...]]]


class Pretrained(NamedTuple):
    """A file of weights, read but for the weights."""

    description: dict[str, Any]
    """What a run keeps of it, as JSON has it: `family` and `architecture`, the keywords of the family's `network`;
    `takes`, "images" or "text"; `preprocessing`, of images `mean` and `std` of each channel in [0, 1], `size` in pixels
    and `interpolation`; `sha256` of the file; `licence`, where it says one."""
    weights: Callable[[], dict[str, Any]]
    """The variables of the network, `{"params": ..., "batch_stats": ...}`, float32."""
    said: str
    """How much of the file was read, for people."""


def read(place: str | Path) -> Pretrained:
    """The encoder in a file `model.safetensors`, or in the folder that holds it, with the `config.json` of timm or of
    Hugging Face beside it.

    Raises:
      FileNotFoundError, ValueError: it is not there, is not one that is known here, or its tensors are not those of the
        network; one line that names the file.
    """
    tensors = tensors_of(place)
    config = configuration(tensors.path)
    try:
        recognised = {name: module.recognise(config, tensors.shapes) for name, module in FAMILIES.items()}
    except ValueError as error:
        raise ValueError(f"{tensors.path}: {error}") from None
    family, found = next(((name, each) for name, each in recognised.items() if each), ("", None))
    if found is None:
        kind = config.get("architecture") or config.get("model_type") or "no architecture"
        raise ValueError(
            f"{tensors.path}: {kind} is no network that labelfx knows; known families: {', '.join(FAMILIES)}"
        )
    where = _sources(family, found["architecture"], tensors)
    read = {name for names, _ in where.values() for name in names}
    unread = tensors.shapes.keys() - read
    left = [each for each in FAMILIES[family].names(tensors.shapes)[1] if fnmatch.filter(unread, each)]
    said = f"{len(read)} of {len(tensors.shapes)} tensors read"
    said += f", left out {', '.join(left)}" if left else ""
    licence = found.get("licence") or tensors.metadata.get("license") or config.get("licence", "")
    said += f"; {tensors.size / 1e6:.1f} MB" + (f", licence {licence}" if licence else "")
    description = {"family": family, **found, "sha256": tensors.sha256(), "licence": licence}
    return Pretrained(description, lambda: _weights(tensors, where), said)


def described(place: str | Path) -> dict[str, Any]:
    """The description of `read`, of a file that has not changed since it was asked for from memory."""
    path = tensors_of(place).path
    return _described(path, path.stat().st_mtime_ns)


@functools.cache
def _described(path: Path, changed: int) -> dict[str, Any]:
    return read(path).description


def network(description: Mapping[str, Any], **knobs: Any) -> Any:
    """The Linen module that a description builds. `knobs`: norm_groups, norm, outputs and dtype of the family."""
    return FAMILIES[description["family"]].network(**description["architecture"], **knobs)


def check_vocabulary(description: Mapping[str, Any], vocab_size: int) -> None:
    """Whether an encoder of texts has a row for each id below `vocab_size`.

    Raises:
      ValueError: it has fewer, or takes images.
    """
    if description["takes"] != "text":
        raise ValueError(f"{description['family']} takes {description['takes']}, and not token ids")
    rows = description["architecture"]["vocab_size"]
    if vocab_size > rows:
        raise ValueError(
            f"vocab_size = {vocab_size}: must be at most {rows}, the ids that {description['family']} knows"
        )


def shapes_of(family: str, architecture: Mapping[str, Any]) -> dict[str, Any]:
    """The shapes of the network's variables."""
    module = FAMILIES[family]
    built = module.network(**architecture, norm="stored", norm_groups=1, outputs="features", dtype=None)
    return jax.eval_shape(lambda: built.init(jax.random.key(0), module.blank(**architecture), train=False))


def upper(description: Mapping[str, Any]) -> tuple[str, ...]:
    """`lora.paths` of the last third of a network's blocks and of what lies on top: where gradients end early."""
    leaves = jax.tree_util.tree_leaves_with_path(shapes_of(description["family"], description["architecture"]))
    return upper_third("/".join(key.key for key in keys[1:]) for keys, _ in leaves)


def _sources(family: str, architecture: Mapping[str, Any], tensors: Tensors) -> _Sources:
    """Each tensor of the file once.

    Raises:
      ValueError: a tensor is missing, has another shape, or has no use.
    """
    called, optional = FAMILIES[family].names(tensors.shapes)
    found: _Sources = {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes_of(family, architecture)):
        path = tuple(key.key for key in keys)
        names = called(".".join((*path[1:-1], SUFFIXES.get(path[-1], path[-1]))))
        for each in names:
            if each not in tensors.shapes:
                raise ValueError(f"{tensors.path}: has no tensor {each!r}, which {family} needs")
        stored = [tensors.shapes[each] for each in names]
        if not _fits(stored, path[-1], leaf.shape):
            said = " and ".join(f"{each} {list(shape)}" for each, shape in zip(names, stored, strict=True))
            raise ValueError(f"{tensors.path}: {said}: of the wrong shape, {family} has {list(leaf.shape)} for it")
        found[path] = names, leaf.shape
    used = [name for names, _ in found.values() for name in names]
    for name in tensors.shapes:
        if used.count(name) > 1 or (name not in used and not any(fnmatch.fnmatch(name, each) for each in optional)):
            raise ValueError(f"{tensors.path}: tensor {name!r} has no place in {family} {json.dumps(architecture)}")
    return found


def _fits(stored: list[tuple[int, ...]], leaf: str, shape: tuple[int, ...]) -> bool:
    """Whether tensors, one after another, make a variable; axes of one entry say nothing but in kernels."""
    first = stored[0]
    whole = (sum(each[0] for each in stored), *first[1:]) if first else first
    if any(each[1:] != first[1:] for each in stored):
        return False
    if leaf == "kernel":
        return len(whole) == len(shape) and tuple(whole[axis] for axis in LAYOUTS[len(shape)]) == shape
    return [size for size in whole if size != 1] == [size for size in shape if size != 1]


def _weights(tensors: Tensors, where: _Sources) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path, (names, shape) in where.items():
        value = tensors.read(names[0]) if len(names) == 1 else np.concatenate([tensors.read(name) for name in names])
        if path[-1] == "kernel":
            value = value.transpose(LAYOUTS[value.ndim])
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = np.ascontiguousarray(value.reshape(shape))
    return tree


def resized(images: jax.Array, preprocessing: Mapping[str, Any], size: int) -> jax.Array:
    """Images [B, H, W, C] in [0, 1] as the network takes them: of `size` pixels a side where that is not 0, in three
    channels, less the mean and over the deviation. A side that shrinks is filtered first, as Pillow does it."""
    if images.shape[-1] == 1:
        images = jnp.repeat(images, 3, axis=-1)
    if size and images.shape[1:3] != (size, size):
        method = {"bicubic": "cubic", "bilinear": "linear"}[preprocessing["interpolation"]]
        shape = (images.shape[0], size, size, 3)
        images = jnp.clip(jax.image.resize(images, shape, method, antialias=True), 0, 1)
    mean, std = (jnp.asarray(preprocessing[key], images.dtype).reshape(1, 1, 1, 3) for key in ("mean", "std"))
    return (images - mean) / std
