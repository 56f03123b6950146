"""Methods: one idea a file, named after it. A file's function of the same name builds the method.

The builder's positional parameters are what the run provides, by name (`labelfx.config.PROVIDED`); its keyword-only
parameters are the schema of `config.method`.
"""

import importlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from labelfx.config.errors import place
from labelfx.config.rooms import method_modules
from labelfx.data.stored import Stored


class Method(NamedTuple):
    """A method is a few pure functions over a state of arrays.

    Attributes:
      init: `(rng, batch) -> state`. Arrays only, so that the state is the checkpoint. The batch gives the shapes: it is
        all zeros, and has no columns of a table yet.
      step: `(state, batch, rng) -> (state, metrics)`. Traceable, without side effects, written in the global view: a
        loss over the whole batch. `metrics` are float32 scalars. What `init` and `step` draw has keys by name
        (`labelfx.loop.state.named`); several batches go through one forward pass by `labelfx.models.apply_together`.
      variables: `(state) -> variables`, the model variables that evals and export read:
        `{"params": {"backbone": ..., "head": ...}, "batch_stats": ...}`; `head` is there where the method trains a
        classifier on the features.
      refresh: `(variables, source, rng, progress) -> table`, outside the step, at the start of a phase and every
        `config.refresh_every` steps. `variables` are those of this method's network or, at the start of a phase, of the
        phase before where its network has the same arrays, whatever its method. `source` is the training split as the
        method may see it (labels and columns blank where nothing is said; its columns, but not its labels, are replaced
        by the phase's table of before), `progress` the share of the phase's steps that are done, in [0, 1), `table` a
        dict of NumPy arrays with leading dimension `num_examples`. Each reaches the step as `batch[stream][name]`,
        gathered at the rows of the batch; a boolean array named `include` says which rows the unlabelled stream draws
        from.
      frozen: arrays that the step reads and never changes, such as the variables of a teacher. They lie on the devices
        once and are in no checkpoint.
      stored: what files hold of several views of each row. A batch has `view`, int32 [B, crops], drawn anew in each
        step, and what is stored of them, [B, crops, ...].
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
    stored: Stored | None = None
    follows: str = ""


def shapes_of_step(
    method: Method, state: Any, batch: Any, rng: jax.Array
) -> tuple[tuple[Any, Mapping[str, Any]], frozenset[str]]:
    """The shapes of the state and the metrics that a step returns, and the names of what it reads of the streams,
    columns and labels among them. Arguments are arrays or shapes.

    Raises:
      ValueError: it returns something else than a state like the one that it was given, and scalars.
    """
    traceable = method.step if isinstance(method.step, jax.stages.Wrapped) else jax.jit(method.step)
    traced = traceable.trace(state, batch, rng)
    found = traced.out_info
    step = f"{place(method.step)}: the step"
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], Mapping)):
        raise ValueError(f"{step} returns a {type(found).__name__}; must be (state, metrics), metrics a dict")
    before, after = (
        {
            jax.tree_util.keystr(path): f"{x.dtype}{list(x.shape)}"
            for path, x in jax.tree_util.tree_leaves_with_path(tree)
        }
        for tree in (state, found[0])
    )
    for path in [*before, *after]:
        if before.get(path) != after.get(path):
            change = f"{before.get(path, 'nothing')} before and {after.get(path, 'nothing')} after"
            raise ValueError(f"{step} returns another state than it takes: state{path} is {change}")
    for name, x in found[1].items():
        if x.shape:
            raise ValueError(f"{step} returns the metric {name!r} {x.dtype}{list(x.shape)}; must be a scalar")
    program, leaves = traced.jaxpr.jaxpr, jax.tree_util.tree_leaves_with_path(batch)
    used = {id(each) for equation in program.eqns for each in equation.invars} | {id(each) for each in program.outvars}
    ours = zip(leaves, program.invars[len(jax.tree.leaves(state)) :], strict=False)  # the key comes last
    read = {path[-1].key for (path, _), each in ours if id(each) in used and path[0].key not in ("audit", "frozen")}
    return found, frozenset(read)


def __getattr__(name: str) -> Any:
    """`from labelfx.methods import NAME` is the module of that method, whatever its family."""
    if not name.startswith("_") and name in (found := method_modules()):
        return importlib.import_module(found[name])
    raise AttributeError(f"module 'labelfx.methods' has no attribute {name!r}")
