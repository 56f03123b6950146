"""Soft labels of trained networks for views that training makes again, so that it runs no teacher."""

import dataclasses
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from labelfx import config as configs
from labelfx import models
from labelfx.config import ConfigError, local
from labelfx.config.annotations import Part
from labelfx.config.checks import check_part
from labelfx.data import Dataset
from labelfx.data.augment import to_float
from labelfx.data.stored import probe, view_keys
from labelfx.evals.kept import at_once
from labelfx.finished import weights
from labelfx.loop.claims import locked
from labelfx.loop.metrics import telling
from labelfx.loop.networks import build_head, build_model
from labelfx.loop.run import keep_compiled_programs, load_config, load_data, load_teacher, load_variables
from labelfx.methods.targets.soft_labels.networks import averaged, said_by
from labelfx.methods.targets.soft_labels.stored import ABOUT

SHARD = 1024  # rows
AUGMENT = Part("data.augment")


def reinforce(
    runs: Sequence[str | Path],
    out: str | Path,
    *,
    top: int,
    views: int = 1,
    augment: Mapping[str, Any] | None = None,
    seed: int = 0,
    maps: bool = False,
) -> dict[str, Any]:
    """Writes what finished runs say of `views` views of every training row: the mean of their probabilities, of which
    the `top` largest are kept (dataset reinforcement, Faghri et al. 2023, ICCV, section 3).

    Or, with `maps`, what one says of each place of the whole picture (ReLabel, Yun et al. 2021, CVPR), of which a step
    takes the mean over what its view shows.

    View k of row i is a function of (seed, i, k) and the augmentation, which makes it again in training
    (`soft_labels=dict(name="stored", file=...)`, or "label_map"): no view and no random number is stored. The folder
    `out` holds `about.json`, with a probe by which a run knows whether its views are these, and shards of 1,024 rows.
    A killed command goes on where it was, and as many processes as are started at once share the work.

    Args:
      runs: workdirs of classifiers; the first one's data are those whose training rows are looked at.
      top: classes that are kept of each, from 1 to all of them: of several labels all.
      augment: a part of `labelfx.data.augment`; by default that of the first run's `method.augment`.
      seed: of the views.

    Returns:
      What `about.json` says.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; a run has no classifier, or classes of its own; `augment`
        or a number is none that can be; `out` holds other labels; a network's outputs are not finite. One line.
    """
    out = local(out)
    if not runs:
        raise ConfigError("--runs: name the runs whose labels are stored")
    if maps and (len(runs) > 1 or views > 1 or augment is not None):
        raise ConfigError(
            "--maps: label maps are of one run and the whole picture; give one run, no --views or --augment"
        )
    keep_compiled_programs()
    folders = [configs.place(each) for each in runs]
    config = load_config(folders[0])
    dataset = load_data(config, folders[0])[0]
    count, classes = len(dataset.train.inputs), len(dataset.class_names)
    for name, value, most in (("views", views, 2**31 - 1), ("top", top, classes)):
        if not 1 <= value <= most:
            raise ConfigError(f"--{name}={value}: must be from 1 to {most}")
    if dataset.task == "several" and top < classes:
        raise ConfigError(f"--top={top}: rows have several labels, all {classes} of which are kept")
    if maps:
        augment, label = {"name": "identity"}, _of_places(folders[0], config, dataset, top)
    elif augment is None and "augment" not in config.method:
        raise ConfigError(f"--augment: missing; {config.method['name']} of {runs[0]} has none of its own")
    part = check_part(AUGMENT, config.method["augment"] if augment is None else augment, "--augment")
    made = configs.build(AUGMENT, part)
    if not maps:
        label = _of_views(folders, dataset, made, top, seed)
    teachers = [{"place": str(each), "sha256": weights.sha256(load_variables(each))} for each in folders]
    about: dict[str, Any] = {"kind": "maps" if maps else "views", "rows": count, "classes": classes, "views": views}
    about |= {"top": top, "seed": seed, "augment": part, "jax": jax.__version__, "runs": teachers}
    about |= {"picture": list(dataset.train.inputs.shape[1:]), "shard_rows": SHARD, "whole": False}
    about["shards"] = [f"{index:05d}.npy" for index in range(-(-count // SHARD))]
    about["probe"] = [float(x) for x in probe(made, seed, dataset.train.inputs)]
    with telling("compiling"):
        batch, shape, seconds = _tried(label, dataset.train.inputs)
    about["grid"] = shape[:-1]
    dtype = np.dtype([("index", "<i2" if classes < 2**15 else "<i4", (top,)), ("value", "<f2", (top,))])
    cells = views * int(np.prod(shape[:-1]))
    _begin(out, about)
    left = [name for name in about["shards"] if not (out / name).exists()]
    about_size = f"{count:,} rows x {cells:,} x {top} classes, {count * cells * dtype.itemsize / 1e6:,.1f} MB"
    share = len(left) / len(about["shards"])
    print(f"{out}: {about_size}; about {share * seconds * count * views / batch:,.0f} s to go", file=sys.stderr)
    for name in left:
        lock = out / f"{name}.lock"
        with lock.open("a") as held:
            if not locked(held):
                continue
            if not (out / name).exists():
                first = SHARD * int(name.partition(".")[0])
                rows = np.arange(first, min(first + SHARD, count))
                with telling(f"shard {name} of {len(about['shards'])}"):
                    shard = _shard(label, dataset.train.inputs, rows, views, batch, dtype)
                with configs.replacing(out / name) as file:
                    np.save(file, shard)
            lock.unlink(missing_ok=True)
    lacking = sum(not (out / name).exists() for name in about["shards"])
    if lacking:
        print(f"{out}: {lacking} of {len(about['shards'])} shards are other processes' to write", file=sys.stderr)
    else:
        configs.write_text(out / ABOUT, json.dumps(about | {"whole": True}, indent=1) + "\n")
        print(f"{out}: {about_size}, {cells * dtype.itemsize:,} bytes a row")
    return about | {"whole": not lacking}


Label = Callable[[Any, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""`(inputs [B, ...], rows [B], views [B]) -> (index, value) [B, ..., top]`."""


def _of_views(folders: Sequence[Path], dataset: Dataset, augment: Any, top: int, seed: int) -> Label:
    teachers = [load_teacher(each, dataset.class_names) for each in folders]
    variables = jax.device_put([each.variables for each in teachers])
    squash = jax.nn.sigmoid if dataset.task == "several" else jax.nn.softmax

    @jax.jit
    def label(variables, inputs, rows, views):
        seen = augment(view_keys(seed, rows, views), inputs)
        logits = said_by(teachers, variables, seen, len(dataset.class_names))
        return _largest(squash(averaged(logits, dataset.task, "probabilities")), top)

    return lambda *batch: jax.device_get(label(variables, *batch))


def _of_places(folder: Path, config: configs.Run, dataset: Dataset, top: int) -> Label:
    """ConfigError where a network's prediction is not the mean of what its head says of each place."""
    teacher, variables = load_teacher(folder, dataset.class_names), load_variables(folder)
    if teacher.classes != (*range(len(dataset.class_names)),):
        raise ConfigError(f"--maps: {folder} knows other classes than its data have now")
    head = build_head(config, len(dataset.class_names))
    try:
        backbone = build_model(dataclasses.replace(config, model=config.model | {"outputs": "map"}))
    except (ConfigError, KeyError, TypeError) as error:
        raise ConfigError(f"--maps: config.model.name = {config.model['name']!r}: has no map ({error})") from None
    own = {name: models.part(variables, name) for name in ("backbone", "head")}

    @jax.jit
    def logits_of(own, inputs):
        found = backbone.apply(own["backbone"], to_float(inputs), train=False)[0]
        return head.apply(own["head"], found, train=False)[0].astype(jnp.float32)

    few = jnp.asarray(dataset.train.inputs[np.arange(min(8, len(dataset.train.inputs)))])
    whole = teacher.model.apply(teacher.variables, to_float(few), train=False)[0]["head"]
    found = logits_of(own, few)
    if found.ndim != 4 or not np.allclose(found.mean((1, 2)), whole, rtol=1e-3, atol=1e-3):
        raise ConfigError(
            f"--maps: what {folder} predicts is not the mean over the places of its {config.model['name']}; take a "
            "network that pools by the mean, such as a ResNet, with a linear head"
        )

    def label(inputs, rows, views):
        return jax.device_get(_largest(jax.nn.softmax(logits_of(own, inputs)), top))

    return label


def _largest(probabilities: jax.Array, top: int) -> tuple[jax.Array, jax.Array]:
    value, index = jax.lax.top_k(probabilities, top)
    return index, value


def _begin(out: Path, about: Mapping[str, Any]) -> None:
    """ConfigError where the folder holds labels that were made in another way."""
    configs.make_folder(out)
    if (out / ABOUT).exists():
        there: Any = configs.read_json(out / ABOUT)
        here = json.loads(json.dumps(configs.plain(about)))
        if other := [key for key in here if key not in ("whole", "probe") and there.get(key) != here[key]]:
            shown = ", ".join(f"{key} ({there.get(key)!r} there, {here[key]!r} now)" for key in other)
            raise ConfigError(f"--out={out}: holds labels that were made otherwise: {shown}; use another folder")
    else:
        configs.write_text(out / ABOUT, json.dumps(about, indent=1) + "\n")


def _tried(label: Label, inputs: Any) -> tuple[int, list[int], float]:
    """How many rows a batch has, the shape of what is kept of a row, and the seconds of a batch.

    Raises:
      ConfigError: the outputs are not finite.
    """
    batch = min(at_once(inputs.shape[1:]), len(inputs))
    what = inputs[np.arange(batch)], np.arange(batch, dtype=np.int32), np.zeros(batch, np.int32)
    value = label(*what)[1]
    begin = time.perf_counter()
    label(*what)
    if not np.isfinite(value).all():
        raise ConfigError("--runs: the outputs of these networks are not finite; take runs that learned")
    return batch, [*value.shape[1:]], time.perf_counter() - begin


def _shard(label: Label, inputs: Any, rows: np.ndarray, views: int, batch: int, dtype: np.dtype[Any]) -> np.ndarray:
    """What is kept of rows int [n], [n, views] of `dtype` or, of places, [n, 1, cells]. Batches are all of one size, so
    that the same rows give the same bytes whenever they are asked for."""
    images = inputs[rows]
    pairs = np.stack(np.divmod(np.arange(len(rows) * views), views)).astype(np.int32)  # (row of these, view)
    pairs = np.pad(pairs, ((0, 0), (0, -pairs.shape[1] % batch)), mode="edge")
    found = [
        label(images[row], rows[row].astype(np.int32), view)
        for row, view in np.split(pairs, pairs.shape[1] // batch, 1)
    ]
    index, value = (np.concatenate(each)[: len(rows) * views] for each in zip(*found, strict=True))
    kept = np.empty((len(rows), views, *index.shape[1:-1]), dtype)
    kept["index"], kept["value"] = (each.reshape(*kept.shape, -1) for each in (index, value))
    return kept.reshape(len(rows), views, -1)[..., 0] if index.ndim == 2 else kept.reshape(len(rows), views, -1)
