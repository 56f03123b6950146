"""Where distillation has its targets from: what `config.method.soft_labels` may name.

What a part here gives are logits, of which log-probabilities are a kind: the objective makes them soft.
"""

from collections.abc import Callable
from typing import Annotated, Any, NamedTuple

import jax
import jax.numpy as jnp

from labelfx.config.annotations import Part
from labelfx.data.placement import Placement
from labelfx.data.stored import Stored


class Seen(NamedTuple):
    """What soft labels may look at: R rows of a step, those of the labelled stream first.

    columns: of each stream what the batch has of it, its rows repeated where a step sees several views of each.
    rng: the step's. frozen: the part's own arrays. label: int32 [R] or [R, H, W], -1 where unknown, or int8 [R, C].
    logits: of the student, float [R, ..., C], without gradient. placement: of the R views, or None.
    """

    columns: dict[str, dict[str, jax.Array]]
    rng: jax.Array
    frozen: Any
    label: jax.Array
    logits: jax.Array
    placement: Placement | None

    def column(self, name: str) -> jax.Array:
        """That of all rows."""
        return jnp.concatenate([columns[name] for columns in self.columns.values()])


class SoftLabels(NamedTuple):
    """Pure functions over a state of arrays, which holds what adapts.

    Attributes:
      assign: `(seen, state) -> (logits, weight, state)`. Of S sources the logits [S, R, ..., C], -inf of classes that
        one does not know, and the weights [S, R, ...] of their losses, which are added up.
      init: `() -> state`.
      frozen: arrays that `assign` reads and nothing changes, such as teachers' variables.
      stored: of targets that are read from a file, what is there of views that the step makes again.
      check: `(augment, inputs) -> None`, ConfigError where the views of the step's augmentation are not those.
      keys: `(index, view) -> keys`, of these views.
      refresh: as that of a method, of the student's variables: which rows are asked about, in the table's `include`.
      places: whether it needs to know where views come from.
    """

    assign: Callable[..., Any]
    init: Callable[[], Any] = tuple
    frozen: Any = None
    stored: Stored | None = None
    check: Callable[..., None] | None = None
    keys: Callable[..., jax.Array] | None = None
    refresh: Callable[..., Any] | None = None
    places: bool = False


SoftLabel = Annotated[SoftLabels, Part("methods.targets.soft_labels")]
