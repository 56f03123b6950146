"""Forgetting rows that were found to be bad, by weakening the parameters that matter for them above all."""

from typing import Any

import jax
import numpy as np

from labelfx.config import ConfigError, local
from labelfx.config.annotations import NonNegative, Positive
from labelfx.data import known
from labelfx.data.npy import read_npy
from labelfx.derived import Derived, Finished, check_classifiers, count_runs
from labelfx.derived.interpolate import fisher


def dampen(runs: tuple[Finished, ...], *, rows: str, selection: NonNegative, dampening: Positive) -> Derived:
    """Selective Synaptic Dampening (Foster et al. 2024, AAAI), which undoes what wrong or poisoned labels did where but
    a part of them is known (Goel et al. 2024, "Corrective Machine Unlearning").

    Importances are `labelfx.derived.interpolate.fisher` on the labels that the run was told: of the rows to forget, and
    of all that it learnt from, those among them. The authors square gradients of mini-batches, so that theirs depend on
    the size of a batch; here each row has its own.

    Args:
      runs: the one that is to forget.
      rows: a .npy file of the training rows to forget, integers; "" takes the column `flagged` of the run's label view.
      selection: a parameter is weakened where its importance for these rows is more than so many times that for all;
        the authors take 10.
      dampening: it is multiplied by so many times the ratio of the importances, for all over for these rows, and by 1
        at most; the authors take 1.

    Raises:
      ConfigError: there is no such file or column, or no row to forget among those that the run learnt from.
    """
    count_runs(runs, 1, 1, "the run that is to forget")
    check_classifiers(runs)
    (run,) = runs
    view = run.data[1]
    chosen = np.zeros(len(view.truth), bool)
    if rows:
        try:
            named = read_npy(local(rows), "iu", 1)
            if gone := [int(row) for row in named if not 0 <= row < len(chosen)]:
                raise ValueError(f"names the row {gone[0]}; there are {len(chosen)} training rows")
            chosen[named] = True
        except (ValueError, OSError) as error:
            raise ConfigError(f"derive.rows = {rows!r}: {error}") from error
    elif "flagged" in view.split.columns:
        chosen = view.split.columns["flagged"]
    else:
        raise ConfigError("derive.rows = '': the run's label view has no column 'flagged'; name a .npy file of rows")
    inputs, labels = run.labelled
    said = known(labels)
    bad = said & chosen[view.rows]
    if not bad.any():
        raise ConfigError(f"derive.rows = {rows!r}: none of them is among the rows that {run.place} learnt from")
    forget, whole = (fisher(run.network, run.variables, inputs[each], labels[each]) for each in (bad, said))
    params = dampened(run.variables["params"], whole, forget, selection=selection, dampening=dampening)
    before, after = (jax.tree.leaves(tree) for tree in (run.variables["params"], params))
    changed = sum(int(np.sum(a != b)) for a, b in zip(before, after, strict=True))
    weakened = {"forgotten": int(bad.sum()), "weakened": changed / sum(np.size(leaf) for leaf in before)}
    return Derived({**run.variables, "params": params}, said=weakened)


def dampened(params: Any, whole: Any, forget: Any, *, selection: float, dampening: float) -> Any:
    """Parameters times `min(dampening whole / forget, 1)` where `forget > selection whole`, leaf by leaf; as they are
    elsewhere, so where nothing is of any importance. Importances are >= 0."""

    def one(x, i, f):
        weakened = f > selection * i
        return np.where(weakened, x * np.minimum(dampening * i / np.where(weakened, f, 1), 1), x).astype(x.dtype)

    return jax.tree.map(one, params, whole, forget)
