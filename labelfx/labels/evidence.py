"""What a trained network makes of all rows, for rules that say what to teach next and queries that ask for labels."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from labelfx.data import Split, known, labelled, task
from labelfx.data.augment import to_float
from labelfx.evals import features
from labelfx.evals.classification import FIXED
from labelfx.models import Model, part, pooled

BLOCK = 4096  # rows that a classifier takes at once


class Evidence(NamedTuple):
    """What a rule or a query may go by.

    probs: float32 [N, C], of the network of the round before: of the classes or, of several labels, of each by itself;
      C = 0 where nothing has been told yet.
    features: float32 [N, F], of its backbone.
    losses: float32 [N], its cross-entropy with the label that was said, NaN where none was.
    columns: name -> [N, ...]: what was said of the rows, `label` among them; inside a phase of `relabelling` the others
      are what the round before was taught in their place.
    rows: int64 [L], the rows of which a label was said.
    progress: the share of the phase's steps that are done, in [0, 1).
    classify: features [B, F] -> probabilities [B, C], what made `probs`; None where there is no such function.
    inputs: [N, ...], the rows themselves, indexed by int64 [n]; None where nobody needs them.
    """

    probs: np.ndarray
    features: np.ndarray
    losses: np.ndarray
    columns: dict[str, np.ndarray]
    rows: np.ndarray
    progress: float
    classify: Callable[[np.ndarray], np.ndarray] | None = None
    inputs: Any = None

    def of(self, rows: np.ndarray) -> "Evidence":
        """Of some rows alone, sorted and without duplicates; itself where these are all."""
        if len(rows) == len(self.features):
            return self
        columns = {name: column[rows] for name, column in self.columns.items()}
        told = np.flatnonzero(np.isin(rows, self.rows))
        probs, found, losses = (each[rows] for each in (self.probs, self.features, self.losses))
        inputs = None if self.inputs is None else self.inputs[rows]
        return Evidence(probs, found, losses, columns, told, self.progress, self.classify, inputs)


def gather(
    classifier: Model, variables: dict[str, Any], source: Split, progress: float, head: Model | None = None
) -> Evidence:
    """Evidence of a network with outputs `backbone` and `head`, in one pass over all rows in evaluation mode; with the
    `head` by itself it classifies features too."""

    def outputs(variables, rows, *, train):
        found, state = classifier.apply(variables, rows, train=train)
        own = pooled(found["backbone"], rows)
        return jnp.concatenate([own, found["head"].astype(own.dtype)], -1), state

    found = features(Model(classifier.init, outputs), variables, source.inputs)
    one = to_float(source.inputs[np.arange(1)])
    said = jax.eval_shape(lambda: classifier.apply(variables, one, train=False)[0]["head"])
    width = found.shape[1] - said.shape[-1]
    logits, label = found[:, width:], source.labels
    losses = np.full(len(label), np.nan, np.float32)
    if label.ndim == 1 and label.dtype.kind == "i":
        rows = np.flatnonzero(known(label))
        losses[rows] = -np.asarray(jax.nn.log_softmax(logits))[rows, label[rows]]
    return Evidence(
        probs=np.asarray(jax.nn.sigmoid(logits) if task(label, ()) == "several" else jax.nn.softmax(logits)),
        features=found[:, :width],
        losses=losses,
        columns={**source.columns, "label": label},
        rows=np.flatnonzero(labelled(label)),
        progress=progress,
        classify=head and functools.partial(_classify, head, part(variables, "head")),
        inputs=source.inputs,
    )


def _classify(head: Model, variables: dict[str, Any], rows: np.ndarray) -> np.ndarray:
    parts = [rows[start : start + BLOCK] for start in range(0, len(rows), BLOCK)]
    return np.concatenate([np.asarray(jax.nn.softmax(head.apply(variables, x, train=False)[0])) for x in parts])


def of_features(found: np.ndarray, rows: np.ndarray, labels: np.ndarray) -> Evidence:
    """Evidence where no network was trained on labels: that of multinomial logistic regression on the features of the
    labelled rows, penalised as the linear probe of few labels is (`labelfx.evals.classification.linear_probe`),
    whose classes count alike.

    Args:
      found: float32 [N, F], features of all rows.
      rows: int64 [L], the labelled ones.
      labels: int [L], their classes. C is how many there are among them, in their order; below two `probs` is of none.
    """
    from sklearn.linear_model import LogisticRegression  # slow to import

    classes, number = np.unique(labels, return_inverse=True)
    column = np.full(len(found), -1, np.int32)
    column[rows] = labels
    losses = np.full(len(found), np.nan, np.float32)
    evidence = Evidence(np.empty((len(found), 0), np.float32), found, losses, {"label": column}, np.sort(rows), 0.0)
    if len(classes) < 2:
        return evidence
    x = found[rows]
    mean = x.mean(0, keepdims=True)
    scale = max(np.sqrt(np.mean(np.sum((x - mean) ** 2, 1))), np.finfo(np.float32).tiny)
    how: dict[str, Any] = {"class_weight": "balanced", "max_iter": 1000}
    model = LogisticRegression(C=1 / (FIXED * len(rows)), **how).fit((x - mean) / scale, number)

    def classify(x: np.ndarray) -> np.ndarray:
        logits = (x - mean) @ (model.coef_.T / scale) + model.intercept_[None]
        logits = np.concatenate([-logits / 2, logits / 2], 1) if len(classes) == 2 else logits  # of two it gives one
        return scipy.special.softmax(logits, 1).astype(np.float32)

    probs = classify(found)
    losses[rows] = -np.log(np.maximum(probs[rows, number], 1e-30))
    return evidence._replace(probs=probs, classify=classify)
