"""Checkpoints: asynchronous, verified when read, never replaced by something that is not finite or not whole."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

FORMAT = 1

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
        self.folder = workdir.absolute() / "checkpoints"
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_names=("state", "table", "meta"))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.manager.close()

    def last_good(self) -> str:
        """For messages: the newest whole checkpoint."""
        self.manager.wait_until_finished()
        step = self.manager.latest_step()
        return "no checkpoint yet" if step is None else f"last good checkpoint: step {step} in {self.folder}"

    def wait(self) -> None:
        """Until the last save is on disk."""
        self.manager.wait_until_finished()

    def save(self, step: int, state: Any, table: dict[str, np.ndarray], meta: dict[str, Any]) -> None:
        """Starts a save; returns when the arrays are copied.

        Raises:
          CheckpointError: this save, or the one before it, could not be written.
        """
        columns = {name: [list(column.shape), column.dtype.name] for name, column in table.items()}
        meta = {**meta, "format": FORMAT, "fingerprint": fingerprint(state).tolist(), "table": columns}
        items: dict[str, Any] = {"state": ocp.args.StandardSave(state), "meta": ocp.args.JsonSave(meta)}
        if table:
            items["table"] = ocp.args.StandardSave(table)
        try:
            self.manager.save(step, args=ocp.args.Composite(**items))
        except Exception as error:  # Orbax passes on whatever its storage raised
            reason = str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
            raise CheckpointError(f"the checkpoint of step {step} was not written: {reason}") from error

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
                return self._read(step, abstract)
            except CheckpointError:
                raise
            except Exception as error:
                reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
                logger.warning("checkpoint %s/%d is damaged (%s): taking the one before it", self.folder, step, reason)
                (self.folder / str(step)).rename(self.folder.parent / f"damaged-{step}")
                self.manager.reload()
        if steps:
            raise CheckpointError(f"no checkpoint in {self.folder} is whole; the damaged ones lie beside that folder")
        return None

    def _read(self, step: int, abstract: Callable[[dict[str, Any]], Any]) -> Restored:
        meta = self.manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]
        if meta["format"] != FORMAT:
            raise CheckpointError(
                f"{self.folder}/{step}: checkpoint format {meta['format']}, this version reads {FORMAT}; "
                "use the version of labelfx that wrote it"
            )
        items: dict[str, Any] = {"state": ocp.args.StandardRestore(abstract(meta))}
        columns = {name: np.zeros(shape, dtype) for name, (shape, dtype) in meta["table"].items()}
        if columns:
            items["table"] = ocp.args.StandardRestore(columns)
        restored = self.manager.restore(step, args=ocp.args.Composite(**items))
        if fingerprint(restored["state"]).tolist() != meta["fingerprint"]:
            raise ValueError("its arrays are not those that were saved")
        return Restored(step, restored["state"], restored["table"] if columns else {}, meta)
