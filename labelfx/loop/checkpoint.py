"""Checkpoints: asynchronous, verified when read, never replaced by something that is not finite or not whole."""

import contextlib
import functools
import json
import logging
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from labelfx.config.errors import first_line

FORMAT = 2  # raised where an older run could not go on as it began: of 1, the streams of randomness differ

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint that could not be written or read; the message is one line for the user."""


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any
    table: dict[str, np.ndarray]
    meta: dict[str, Any]


@jax.jit
def fingerprint(tree: Any) -> jax.Array:
    """uint32 [leaves]: a sum over each array's bits, each place weighted by its position, on the device."""

    def one(leaf):
        bits = leaf.view(jnp.uint8) if leaf.dtype == bool else leaf
        width = {1: jnp.uint8, 2: jnp.uint16}.get(bits.dtype.itemsize, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(bits, width).astype(jnp.uint32)
        place = jnp.zeros(bits.shape, jnp.uint32)
        for axis in range(bits.ndim):
            place = place * jnp.uint32(1000003) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        return jnp.sum(bits * (2 * place + 1), dtype=jnp.uint32)

    return jnp.stack([one(leaf) for leaf in jax.tree.leaves(tree)])


class Checkpoints:
    """The checkpoints of a workdir. Use as a context manager: leaving waits for the last save."""

    def __init__(self, workdir: Path, *, keep: int):
        self.folder = (workdir.absolute() if isinstance(workdir, Path) else workdir) / "checkpoints"
        # A killed process leaves a save half written, as large as a whole one.
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        manage = functools.partial(ocp.CheckpointManager, options=options, item_names=("state", "table", "meta"))
        try:
            self.manager = manage(self.folder)
        except ValueError as error:  # damaged notes of Orbax's own, which nothing here reads
            logger.warning("%s: damaged _CHECKPOINT_METADATA (%s): removed", self.folder, first_line(error))
            for path in self.folder.glob("*/_CHECKPOINT_METADATA"):
                path.unlink(missing_ok=True)
            self.manager = manage(self.folder)
        self.newest = 0  # the step of the save begun last

    def __enter__(self):
        return self

    def __exit__(self, kind, *error):
        # What ended the run is what its user must read, not a save that fails after it.
        with contextlib.suppress(Exception) if kind else self._writing():
            self.manager.close()

    def last_good(self) -> str:
        """For messages: the newest whole checkpoint."""
        with contextlib.suppress(Exception):
            self.manager.wait_until_finished()
        step = self.manager.latest_step()
        return "no checkpoint yet" if step is None else f"last good checkpoint: step {step} in {self.folder}"

    def wait(self) -> None:
        """Until the last save is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        with self._writing():
            self.manager.wait_until_finished()

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Makes one line of whatever Orbax's storage raised, here or in the background."""
        try:
            yield
        except Exception as error:
            reason = first_line(error)
            raise CheckpointError(f"checkpoint {self.newest} was not written: {reason}; {self.last_good()}") from error

    def save(self, step: int, state: Any, table: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Starts a save; returns when the arrays are copied.

        Raises:
          CheckpointError: this save, or the one before it, could not be written.
        """
        self.wait()
        columns = {name: [list(column.shape), column.dtype.name] for name, column in table.items()}
        meta = {**meta, "format": FORMAT, "fingerprint": fingerprint((state, table)).tolist(), "table": columns}
        meta["checksum"] = _checksum(meta)
        items: dict[str, Any] = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave(meta)}
        if table:
            items["table"] = ocp.args.StandardSave(table)
        self.newest = step
        disk = isinstance(self.folder, Path)  # and no bucket
        if disk and not self.folder.is_dir():
            raise CheckpointError(f"checkpoint {step} was not written: {self.folder} is gone, and what was in it")
        need = sum(leaf.nbytes for leaf in jax.tree.leaves((state, table)))
        free = shutil.disk_usage(self.folder).free if disk else need
        if need > free:  # before Orbax fills the disk with a part of it
            raise CheckpointError(
                f"checkpoint {step} was not written: it needs {need / 1e6:.0f} MB and its disk has {free / 1e6:.0f} MB "
                f"left; {self.last_good()}"
            )
        with self._writing():
            self.manager.save(step, args=ocp.args.Composite(**items))

    def restore(self, abstract: Callable[[dict[str, Any]], Any]) -> Restored | None:
        """The newest checkpoint that is whole, or None if there is none at all.

        A damaged one is reported, set aside under `damaged-STEP`, and the one before it is taken.

        Args:
          abstract: meta -> the state as `jax.ShapeDtypeStruct`s with shardings.

        Raises:
          CheckpointError: there are checkpoints, but none is whole, or they are of another format.
        """
        steps = sorted(self.manager.all_steps(), reverse=True)
        for step in steps:
            try:
                meta = self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
                written = meta["format"]
                if meta.get("checksum", _checksum(meta)) != _checksum(meta):  # older ones have none
                    raise ValueError("its meta is not what was saved")
            except Exception as error:
                self._set_aside(step, error)
                continue
            if written != FORMAT:
                raise CheckpointError(
                    f"{self.folder}/{step}: checkpoint format {written}, this version reads {FORMAT}; "
                    "use the version of labelfx that wrote it"
                )
            target = abstract(meta)  # out of reach of `except`: its errors are not damage
            try:
                return self._read(step, meta, target)
            except Exception as error:
                self._set_aside(step, error)
        if steps:
            raise CheckpointError(
                f"no checkpoint in {self.folder} is whole; the damaged ones lie beside that folder, "
                "and the same command now begins at step 0"
            )
        return None

    def _set_aside(self, step: int, error: Exception) -> None:
        aside = self.folder.parent / f"damaged-{step}"
        logger.warning(
            "checkpoint %s/%d is damaged (%s): set aside as %s", self.folder, step, first_line(error), aside.name
        )
        if jax.process_index() == 0:
            epath.Path(aside).rmtree(missing_ok=True)  # of an earlier damage at the same step
            (self.folder / str(step)).rename(aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"checkpoint {step} is set aside")
        self.manager.reload()

    def _read(self, step: int, meta: dict[str, Any], target: Any) -> Restored:
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(target)}
        columns = {name: np.zeros(shape, dtype) for name, (shape, dtype) in meta["table"].items()}
        if columns:
            items["table"] = ocp.args.StandardRestore(columns)
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        table = restored["table"] if columns else {}
        if fingerprint((restored["state"], table)).tolist() != meta["fingerprint"]:
            raise ValueError("its arrays are not those that were saved")
        return Restored(step, restored["state"], table, meta)


def _checksum(meta: dict[str, Any]) -> int:
    """Of all but itself."""
    return zlib.crc32(json.dumps({k: v for k, v in meta.items() if k != "checksum"}, sort_keys=True).encode())
