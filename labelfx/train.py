"""The one training loop. Command: `python -m labelfx.train --config=hard_negative --workdir=DIR [--config.a.b=v]`."""

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from labelfx import config as configs
from labelfx.config import ConfigError as ConfigError
from labelfx.config import command
from labelfx.data import Dataset
from labelfx.evals.kept import kept_in
from labelfx.loop import distributed, inputs, metrics, results, run
from labelfx.loop.checkpoint import Checkpoints
from labelfx.loop.claims import claim
from labelfx.loop.dispatch import IN_FLIGHT as IN_FLIGHT
from labelfx.loop.dispatch import check_divisible
from labelfx.loop.dispatch import jit_step as jit_step
from labelfx.loop.frozen import Trunk, check_augmentations, pretrained_weights
from labelfx.loop.mesh import announce, make_mesh, products
from labelfx.loop.stopping import listening
from labelfx.loop.training import Loop


def train(
    config: ConfigDict | Mapping[str, Any],
    workdir: str | Path,
    *,
    dataset: Dataset | None = None,
    writer: metrics.MetricWriter | None = None,
) -> dict[str, Any]:
    """Trains, evaluates, and returns what it writes to `workdir/results.json`. Started again, it resumes.

    Args:
      dataset: arrays in memory, for a configuration with `data=dict(name="arrays")`.
      writer: is given every log beside the workdir, and at the end the evals as `EVAL/METRIC`: any writer of
        `clu.metric_writers`, or your own (`labelfx.loop.metrics.MetricWriter`).

    Raises:
      ConfigError: the configuration cannot run, or is not the one that the workdir was started with, or another
        process is at work in there.
      NonFinite, CheckpointError: training stopped; the message names the last good checkpoint.
      Preempted, Interrupted: SIGTERM or Ctrl-C came, and the state is saved; the same call resumes.
    """
    folder = configs.place(workdir)
    checked = configs.check(config, folder)
    run.keep_compiled_programs()
    mesh = make_mesh(checked.devices, checked.fsdp)
    check_divisible(checked, mesh.size)
    configs.make_folder(folder)
    if configs.derivation(folder):
        raise ConfigError(f"{folder}: holds weights that labelfx.derive made; train in another workdir")
    with claim(folder), products(checked.matmul_precision), kept_in(folder):
        configs.compare(checked, folder)
        announce(mesh, checked.model.get("dtype", "float32"))
        with metrics.telling(f"reading {checked.data['name']}"):
            data, view = run.load_data(checked, folder, dataset)
            distributed.meet("the data set is read")
        weights = pretrained_weights(checked, folder)
        model = run.build_model(checked, data, weights=weights)
        trunk = Trunk(model, weights) if weights and checked.model["frozen"] else None
        if trunk:
            check_augmentations(checked)
            view = trunk.features(checked, view)
        loop = Loop(checked, folder, data, view, model, mesh, root=jax.random.key(checked.seed), trunk=trunk)
        with contextlib.ExitStack() as stack:
            loop.checkpoints = stack.enter_context(Checkpoints(folder, keep=checked.keep))
            loop.record.last_good = loop.checkpoints.last_good
            loop.asked = stack.enter_context(listening())
            loop.resume()
            first = loop.phase.index
            for index in range(first, len(configs.phases(checked))):
                loop.enter(index)
                if index == first:
                    loop.metrics(loop.phase, loop.state, loop.table)  # ConfigError where the step fits not these images
                    inputs.check_sizes(checked, data, view, model)
                    # not before all of it is known to be right
                    run.begin(checked, folder, view, data.side.get("tokenizer"), weights)
                    if jax.process_index() == 0:
                        logs = metrics.Writer(folder, start=loop.done, also=writer)
                        loop.record.writer = stack.enter_context(contextlib.closing(logs))
                loop.run()
        found = results.finish(checked, folder, data, loop.view, model, run.load_variables(folder), loop.summary())
        if writer is not None and jax.process_index() == 0:
            writer.write_scalars(loop.done, metrics.scalars_of(found["metrics"]))
            writer.flush()
        return found


def main() -> None:
    def start(flags: Any) -> None:
        distributed.connect(folder := configs.place(flags.workdir))
        with distributed.together(folder):
            train(flags.config, flags.workdir)
        if jax.process_index() == 0:
            print(f"saved in {flags.workdir}; python -m labelfx.report {flags.workdir} makes a page of it")

    command.run(start, config=True)


if __name__ == "__main__":
    main()
