"""Methods: one idea a file, named after it. A file's function of the same name builds the method.

The builder's positional parameters are what the run provides, by name (`labelfx.config.PROVIDED`); its keyword-only
parameters are the schema of `config.method`.
"""

from collections.abc import Callable
from typing import Any, NamedTuple


class Method(NamedTuple):
    """A method is a few pure functions over a state of arrays.

    Attributes:
      init: `(rng, batch) -> state`. Arrays only, so that the state is the checkpoint. The batch gives the shapes: it is
        all zeros, and has no columns of a table yet.
      step: `(state, batch, rng) -> (state, metrics)`. Traceable, without side effects, written in the global view: a
        loss over the whole batch. `metrics` are float32 scalars.
      variables: `(state) -> variables`, the model variables that evals and export read:
        `{"params": {"backbone": ..., "head": ...}, "batch_stats": ...}`; `head` is there where the method trains a
        classifier on the features.
      refresh: `(variables, source, rng) -> table`, outside the step, at the start of a phase and every
        `config.refresh_every` steps. `variables` are those of this method's network or, at the start of a phase, of the
        phase before where its network has the same arrays, whatever its method. `source` is the training split as the
        method may see it (labels -1 where hidden), `table` a dict of NumPy arrays with leading dimension
        `num_examples`. Each reaches the step as `batch[stream][name]`, gathered at the rows of the batch; a boolean
        array named `include` says which rows the unlabelled stream draws from.
      frozen: arrays that the step reads and never changes, such as the variables of a teacher. They lie on the devices
        once and are in no checkpoint.
      follows: why the first table needs a network that a phase before has trained, for the message of a run without
        one; "" where it does not.

    A batch is a dict: `batch["labelled"]` and `batch["unlabelled"]`, where their size is not 0, hold `image` (uint8
    [B, H, W, C]), `index` (int32 [B], the row in the source), `label` (int32 [B], labelled stream only) and the columns
    of the table. `batch["audit"]` has the same streams with the true `label`, -1 where unknown: for metrics only.
    `batch["frozen"]` is the method's `frozen`, where it has any.
    """

    init: Callable[..., Any]
    step: Callable[..., Any]
    variables: Callable[..., Any]
    refresh: Callable[..., Any] | None = None
    frozen: Any = None
    follows: str = ""
