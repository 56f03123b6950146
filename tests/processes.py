"""What `test_processes.py` runs in each of several processes: `python processes.py FOLDER METHOD...`.

Takes each method to its first step by `labelfx.train`, as all these processes together, does that step in float64 with
plain SGD, and writes the state after it to FOLDER, as process 0 alone.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import Mesh

import labelfx
from labelfx.data.batches import batch_at
from labelfx.loop import distributed
from labelfx.loop.dispatch import complete
from labelfx.loop.mesh import on_every_device, own_rows, place_batches, split_state, whole
from labelfx.loop.training import Loop


def first_step(config: dict, workdir: Path) -> dict[str, np.ndarray]:
    """Leaf number -> array, before (`b`) and after (`a`) the step."""
    from test_parity import Stopped, double

    found: dict[str, np.ndarray] = {}

    def stop(self):
        step, state, mesh = self.phase.method.step, double(whole(self.mesh, self.state)), self.mesh
        batch = double(batch_at(self.done, **self.how(self.phase, self.table)))
        own = jax.tree.map(lambda x: x[own_rows(mesh, len(x))][None], batch)
        with jax.enable_x64(True):
            frozen = {name: self.fixed[name] for name in ("frozen",) if name in self.fixed}
            placed = complete(jax.tree.map(lambda x: x[0], place_batches(mesh, own)), frozen)
            key = jax.jit(lambda: jax.random.key(0), out_shardings=on_every_device(mesh))()
            where = split_state(mesh, state)
            begin = jax.device_put(state, where)
            after, _ = jax.jit(step, out_shardings=(where, on_every_device(mesh)))(begin, placed, key)
            for name, tree in {"b": state, "a": whole(mesh, after)}.items():
                found.update({f"{name}{i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(tree))})
        raise Stopped

    real, Loop.run = Loop.run, stop
    try:
        labelfx.train(config, workdir)
    except Stopped:
        return found
    finally:
        Loop.run = real
    raise AssertionError("the loop did not run")


def check_scattered_rows() -> None:
    """On a mesh that deals its devices out to the processes in turn, as those of a TPU's torus may lie."""
    if jax.device_count() < 8:
        return
    devices = sorted(jax.devices(), key=lambda device: (device.id % (8 // jax.process_count()), device.id))
    mesh = Mesh(np.array(devices).reshape(8, 1), ("data", "fsdp"))
    rows = np.arange(48).reshape(3, 16)
    own = rows[:, own_rows(mesh, 16)]
    if jax.process_count() > 1:
        assert list(own[0]) != list(range(own[0][0], own[0][0] + len(own[0])))
    np.testing.assert_array_equal(whole(mesh, place_batches(mesh, own)), rows)


def main() -> None:
    from test_parity import config_of

    folder, *methods = sys.argv[1:]
    distributed.connect(Path(folder))
    jax.config.update("jax_numpy_rank_promotion", "raise")
    check_scattered_rows()
    for method in methods:
        workdir = Path(folder, method)
        found = first_step(config_of(method, Path(folder).parent / "pretrained") | {"devices": 0}, workdir)
        if jax.process_index() == 0:
            np.savez(Path(folder, f"{method}.npz"), **found)


if __name__ == "__main__":
    main()
