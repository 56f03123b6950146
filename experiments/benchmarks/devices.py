"""What splitting a step costs: one global batch over 1, 2, 4 and 8 devices that share this processor's cores.

    python -m experiments.benchmarks.devices --workdir=/tmp/labelfx/benchmarks --config=simclr

Beyond the number of cores no speed-up can come of it; what is lost is the cost of the partition and its collectives.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from labelfx.config import command, plain

from . import common


def devices(config: Mapping[str, Any], workdir: str | Path, *, counts: Sequence[int], steps: int, repeats: int) -> dict:
    """Images a second for each number of devices, each in a process of its own.

    Args:
      config: a configuration whose batch every count divides.
      workdir: where `devices.json` goes.
      counts: numbers of devices.
      steps: of a run, a multiple of four.
      repeats: rounds.
    """
    settings = {"counts": counts, "steps": steps, "repeats": repeats, "config": plain(config)}
    changed = settings["config"] | {"log_every": steps // 4, "save_every": 10**6, "steps": steps}
    Path(workdir).mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as cache:

        def side(count: int) -> Callable[[], float]:
            environment = {
                "JAX_PLATFORMS": "cpu",
                "JAX_COMPILATION_CACHE_DIR": cache,
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={count}",
                "NPROC": "16",  # threads for collectives: with as few as cores, they can wait for one another for ever
            }
            return lambda: common.in_new_process(_speed, changed | {"devices": count}, **environment)

        rounds = common.interleave({f"{count} devices": side(count) for count in counts}, repeats, warm_up=0)
    return common.report("devices", workdir, settings, common.rows(rounds))


def _speed(config: Mapping[str, Any]) -> float:
    with tempfile.TemporaryDirectory() as folder:
        return common.run_loop(config, Path(folder)).images_per_second()


if __name__ == "__main__":
    command.run(
        lambda flags: devices(flags.config, flags.workdir, counts=(1, 2, 4, 8), steps=40, repeats=3),
        config=True,
    )
