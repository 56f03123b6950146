"""Labels that are asked for between phases: the only place that turns rows into labels which no configuration names."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import labelled
from labelfx.data.batches import View
from labelfx.data.npy import read_npy
from labelfx.labels import queries
from labelfx.labels.evidence import gather
from labelfx.loop import distributed
from labelfx.loop.mesh import whole
from labelfx.loop.metrics import telling
from labelfx.loop.networks import head_of
from labelfx.loop.said import view_of

ASKED = "asked.npy"


def read(workdir: Path, count: int) -> np.ndarray:
    """The rows that a run has asked for, in order, int64 [A].

    Raises:
      ConfigError: the file is not as it was written.
    """
    path = workdir / ASKED
    if not path.exists():
        return np.empty(0, np.int64)
    try:
        with configs.on_this_machine(path) as here:
            rows = read_npy(Path(here), "iu", 1).astype(np.int64)
        if ((rows < 0) | (rows >= count)).any():
            raise ValueError("it names rows that are not there")
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: not as it was written ({error}); use another workdir") from error
    return rows


def view_of_phase(loop: Any, index: int) -> View:
    """What a run is told in a phase: what it was told before, and what the phase asks for at its beginning. The rows
    are written before any of their labels is shown, and a phase that asked before a stop does not ask again.

    Raises:
      ConfigError: there are not as many rows left, or no network to ask by.
    """
    config, view = loop.config, loop.view
    fields = configs.phases(config)
    wanted = sum(each["ask"]["count"] for each in fields[: index + 1] if each["ask"])
    asked = read(loop.workdir, len(view.truth))
    told = np.concatenate([view.rows, view.validation])
    rows = np.setdiff1d(told, asked)  # as the label view chose them
    if len(asked) >= wanted:  # more where a run goes on from before a phase that had asked
        return view_of(config, loop.dataset, rows, asked[:wanted]) if len(asked) else view
    path, count = f"config.phases[{index}].ask", wanted - len(asked)
    variables = None if loop.state is None else loop.phase.method.variables(whole(loop.mesh, loop.state))
    if variables is None or "head" not in variables["params"]:
        raise ConfigError(f"{path}: goes by the classifier of the phase before; train one first")
    left = np.setdiff1d(np.flatnonzero(labelled(view.truth)), told)
    if len(left) < count:
        raise ConfigError(f"{path}.count = {count}: {len(left)} rows are left to ask for")

    def choose() -> dict[str, Any]:
        query = configs.build(configs.QUERIES, fields[index]["ask"])
        head = head_of(config, loop.dataset, view)
        evidence = gather(loop.classifier, variables, view.split, 0.0, head)
        chosen = queries.pick(query, evidence, told, left, count, np.random.default_rng([config.seed, index, 3]))
        stream = io.BytesIO()
        np.save(stream, np.concatenate([asked, chosen]))
        with configs.replacing(loop.workdir / ASKED) as file:
            file.write(stream.getvalue())
        return {"rows": chosen.tolist()}

    with telling("choosing rows to ask for"):
        chosen = np.array(distributed.by_the_first(choose)["rows"], np.int64)
    return view_of(config, loop.dataset, rows, np.concatenate([asked, chosen]))
