"""Hard negatives of queries, from two files of embeddings to a file."""

import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.config import ConfigError, functions, local, nearest, parameters, replacing
from labelfx.data.npy import read_header
from labelfx.loop.mesh import make_mesh
from labelfx.mining.rules import Found
from labelfx.mining.search import top_k
from labelfx.objectives.contrastive import normalise

CHECKED = 2**16  # rows of a file at once
RULES = functions("mining.rules")


def mine(
    queries: str | Path,
    index: str | Path,
    positives: str | Path,
    out: str | Path,
    *,
    similarity: Literal["cosine", "inner"],
    candidates: int,
    count: int,
    rule: str,
    seed: int,
    **settings: float,
) -> dict[str, np.ndarray]:
    """The command as a function; `settings` are the rule's parameters.

    Returns:
      What it writes to `out`.

    Raises:
      ConfigError: a file that does not hold what it should, or a value that is not allowed.
    """
    if similarity not in ("cosine", "inner"):
        raise ConfigError(f"--similarity={similarity}: no such similarity; {nearest(similarity, ('cosine', 'inner'))}")
    out = local(out)
    _check_rule(rule, settings)
    x, rows = _embeddings("queries", queries), _embeddings("index", index)
    if x.shape[1] != rows.shape[1]:
        raise ConfigError(f"--queries={queries}: of {x.shape[1]} dimensions, but the index is of {rows.shape[1]}")
    own = _positives(positives, len(x), len(rows))
    if not 1 <= candidates <= len(rows):
        raise ConfigError(f"--candidates={candidates}: must be from 1 to the {len(rows)} rows of the index")
    if not 1 <= count <= candidates:
        raise ConfigError(f"--count={count}: must be from 1 to the {candidates} candidates")
    if not 0 <= seed < 2**31:
        raise ConfigError(f"--seed={seed}: must be an integer from 0 to 2^31 - 1")

    scores, found = top_k(x, rows, candidates, similarity=similarity, mesh=make_mesh(0, 1))
    scores = jnp.where(jnp.any(found[:, :, None] == own[:, None], axis=-1), -jnp.inf, scores)
    pair = [jnp.asarray(part, jnp.float32) for part in (x, rows[own[:, 0]])]
    anchor, positive = map(normalise, pair) if similarity == "cosine" else pair
    positive_scores = jnp.sum(anchor * positive, axis=-1)
    try:
        chosen = RULES[rule](jax.random.key(seed), Found(x, rows, found, scores, positive_scores), count, **settings)
    except ValueError as error:
        raise ConfigError(f"--rule={rule}: {error}") from None
    indices, scores = (jnp.take_along_axis(array, chosen, axis=1) for array in (found, scores))
    content = {
        "indices": jnp.where(chosen < 0, -1, indices),
        "scores": jnp.where(chosen < 0, -jnp.inf, scores),
        "positive_scores": positive_scores,
    }
    content = jax.tree.map(np.asarray, content)
    with replacing(out) as file:
        np.savez(file, **content)
    return content


def _check_rule(rule: str, settings: Mapping[str, Any]) -> None:
    if rule not in RULES:
        raise ConfigError(f"--rule={rule}: no such rule; {nearest(rule, RULES)}")
    takes = parameters(RULES[rule])[1]
    for name in settings:
        if name not in takes:
            raise ConfigError(f"--{name}: not a parameter of the rule {rule}; {nearest(name, takes)}")
    for name, parameter in takes.items():
        limit = typing.get_args(parameter.annotation)[-1:]
        allowed = limit[0].text if limit else "a number"
        if name not in settings:
            raise ConfigError(f"--{name}: missing, of the rule {rule}; must be {allowed}")
        if not np.isfinite(settings[name]) or limit and not limit[0].holds(settings[name]):
            raise ConfigError(f"--{name}={settings[name]}: must be {allowed}")


def _load(flag: str, path: str | Path) -> np.ndarray:
    try:
        with (path := local(path)).open("rb") as stream:
            dtype, shape, order = read_header(stream, path.stat().st_size)
            return np.memmap(stream, dtype, "r", stream.tell(), shape, order)
    except ValueError as error:
        raise ConfigError(f"--{flag}={path}: not a .npy file of numbers: {error}") from None


def _embeddings(flag: str, path: str | Path) -> np.ndarray:
    array = _load(flag, path)
    if array.ndim != 2 or 0 in array.shape or not np.issubdtype(array.dtype, np.floating):
        raise ConfigError(f"--{flag}={path}: must be float [rows, D], not {array.dtype} {list(array.shape)}")
    for first in range(0, len(array), CHECKED):
        with np.errstate(over="ignore"):
            finite = np.isfinite(array[first : first + CHECKED].astype(np.float32)).all(axis=1)
        if not finite.all():
            raise ConfigError(f"--{flag}={path}: row {first + np.argmin(finite)} is not finite in float32")
    return array


def _positives(path: str | Path, queries: int, rows: int) -> np.ndarray:
    """int32 [Q, P]."""
    array = _load("positives", path)
    if array.ndim not in (1, 2) or 0 in array.shape or not np.issubdtype(array.dtype, np.integer):
        raise ConfigError(f"--positives={path}: must be int [Q] or [Q, P], not {array.dtype} {list(array.shape)}")
    if len(array) != queries:
        raise ConfigError(f"--positives={path}: of {len(array)} rows, but there are {queries} queries")
    array = array.reshape(queries, -1)
    lowest = np.where(np.arange(array.shape[1]) == 0, 0, -1)
    wrong = ((array < lowest) | (array >= rows)).any(axis=1)
    if wrong.any():
        row = np.argmax(wrong)
        allowed = f"rows of the index, 0 to {rows - 1}; after the first, also -1"
        raise ConfigError(f"--positives={path}: row {row} is {array[row].tolist()}: must be {allowed}")
    return array.astype(np.int32)
