"""What finished runs make of the training rows, as votes: for self-training on the agreement of several encoders."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labelfx.config import ConfigError, local, replacing
from labelfx.data import Dataset, known
from labelfx.data.batches import View
from labelfx.evals.kept import kept_features
from labelfx.finished.encoder import Encoder, load
from labelfx.labels.recorded import Votes
from labelfx.loop.run import keep_compiled_programs, load_config, load_data


def vote(workdirs: Sequence[str | Path], out: str | Path) -> Votes:
    """Writes what each run's classifier names for each training row to `out`, a `.npz` for
    `config.labels.weak=dict(name="recorded", path=...)`.

    With the objective `vote_cross_entropy` a run is then taught the mean of the one-hot predictions (Zhang, Mai et al.
    2025, arXiv 2503.09707, "Revisiting Semi-Supervised Learning in the Era of Foundation Models"; the released code
    takes a softmax of the counts). What a run was told of a row is its vote there. No test row is looked at.

    Args:
      workdirs: of finished runs on the same training rows, which each may prepare in its own way; a judge each.

    Returns:
      What it writes: a vote of every run for every row, without confidence.

    Raises:
      FileNotFoundError, ConfigError: as for `labelfx.load`; there are no runs; one names no class of a row, or
        has other training rows or classes than the first; `out` is no .npz. One line.
    """
    out = local(out)
    if out.suffix != ".npz":
        raise ConfigError(f"--out={out}: must end in .npz")
    if not workdirs:
        raise ConfigError("no workdirs: name the runs that vote")
    keep_compiled_programs()
    named: list[np.ndarray] = []
    first: Dataset | None = None
    with replacing(out) as file:  # opened now: a place that cannot be written to costs no time
        for workdir in workdirs:
            encoder = load(workdir)
            if encoder.head is None or encoder.task != "class":
                raise ConfigError(f"{workdir}: trained no classifier that names one class a row")
            data, view = load_data(load_config(encoder.workdir), encoder.workdir)
            first = first or data
            if data.class_names != first.class_names or not np.array_equal(data.train.labels, first.train.labels):
                raise ConfigError(f"{workdir}: other training rows or classes than {workdirs[0]}")
            named.append(_named(encoder, data, view))
        count = len(named[0])
        votes = Votes(
            row=np.tile(np.arange(count), len(named)),
            judge=np.repeat(np.arange(len(named)), count),
            vote=np.concatenate(named),
            confidence=np.full(count * len(named), np.nan, np.float32),
        )
        np.savez(file, **votes._asdict())
    alike = np.mean((np.stack(named) == named[0]).all(0))
    print(f"{out}: {len(named)} runs, {count:,} rows; on {alike:.1%} of them all agree")
    return votes


def _named(encoder: Encoder, data: Dataset, view: View) -> np.ndarray:
    """Of each training row the class that was said of it or, without one, that the run names: int32 [N]."""
    inputs = data.train.inputs
    if encoder.model.key and encoder.head:
        head, variables = encoder.head
        scores = head.apply(variables, kept_features(encoder.model, encoder.variables, inputs), train=False)[0]
    else:
        scores = encoder.predict(inputs)
    said = view.split.labels
    return np.where(known(said), said, np.argmax(scores, axis=1)).astype(np.int32)
