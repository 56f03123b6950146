"""What a trained network makes of all rows, for rules that say what to teach next and queries that ask for labels."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from labelfx.data import Split, known, labelled
from labelfx.evals import features
from labelfx.models import Model


class Evidence(NamedTuple):
    """What a rule or a query may go by.

    probs: float32 [N, C], of the network of the round before.
    features: float32 [N, F], of its backbone.
    losses: float32 [N], its cross-entropy with the label that was said, NaN where none was.
    columns: name -> [N, ...]: what was said of the rows, `label` among them.
    rows: int64 [L], the rows of which a label was said.
    progress: the share of the phase's steps that are done, in [0, 1).
    """

    probs: np.ndarray
    features: np.ndarray
    losses: np.ndarray
    columns: dict[str, np.ndarray]
    rows: np.ndarray
    progress: float


def gather(classifier: Model, variables: dict[str, Any], source: Split, progress: float) -> Evidence:
    """Evidence of a network with outputs `backbone` and `head`, in one pass over all rows in evaluation mode."""

    def outputs(variables, rows, *, train):
        found, state = classifier.apply(variables, rows, train=train)
        return jnp.concatenate([found["backbone"], found["head"].astype(found["backbone"].dtype)], -1), state

    found = features(Model(classifier.init, outputs), variables, source.inputs)
    width = found.shape[1] - jax.tree.leaves(variables["params"]["head"])[-1].shape[-1]
    logits, label = found[:, width:], source.labels
    losses = np.full(len(label), np.nan, np.float32)
    if label.ndim == 1 and label.dtype.kind == "i":
        rows = np.flatnonzero(known(label))
        losses[rows] = -np.asarray(jax.nn.log_softmax(logits))[rows, label[rows]]
    return Evidence(
        probs=np.asarray(jax.nn.softmax(logits)),
        features=found[:, :width],
        losses=losses,
        columns={**source.columns, "label": label},
        rows=np.flatnonzero(labelled(label)),
        progress=progress,
    )
