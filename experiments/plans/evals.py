"""What each eval takes of memory at ImageNet's size: as stated before a run, and as compiled.

    JAX_PLATFORMS=cpu python -m experiments.plans.evals

The first process evaluates, on the devices of its machine: here one GPU, for which the CPU's compiler stands in, and
the four chips that a machine of v5e:4x4 has, a slice of 2x2, by the TPU's own.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from labelfx import config as configs
from labelfx.config.annotations import Part
from labelfx.evals import classification, linear, memory, representation
from labelfx.hardware import tpu
from labelfx.loop.inputs import SCORED
from labelfx.loop.mesh import make_mesh, on_every_device, split_rows
from labelfx.loop.run import build_model
from labelfx.mining import search

MACHINE = "v5e:2x2"
RECIPE = configs.check(configs.recipe("papers/simclr_imagenet"))
IMAGENET = memory.Sizes(
    labelled=1_281_167, scored=SCORED, test=50_000, inputs=224 * 224 * 3, features=2048, classes=1000, devices=1
)
EVALS: dict[str, dict[str, Any]] = {
    "linear_probe": {},
    "knn": {"k": 20, "temperature": 0.1},
    "linear_evaluation": RECIPE.evals["linear_evaluation"],
    "rankme": {},
    "uniformity": {"t": 2.0},
    "recall_at_k": {"k": (1, 2, 4, 8)},
    "head": {},
    "random_encoder": {},
    "raw_pixels": {},
}


def compiled(name: str, sizes: memory.Sizes, mesh: Mesh) -> int | None:
    """Bytes of a device: arguments, temporaries and outputs of the largest of an eval's programs. None of those that
    have none of their own, and of `rankme`, whose SVD takes the TPU's compiler longer than all others."""
    found: list[Any] = [program.compile().memory_analysis() for program in programs(name, sizes, mesh)]
    each = [
        m.argument_size_in_bytes + m.temp_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes for m in found
    ]
    return max(each, default=None)


def programs(name: str, sizes: memory.Sizes, mesh: Mesh) -> Iterator[jax.stages.Lowered]:
    everywhere, rows = on_every_device(mesh), split_rows(mesh)

    def of(*shape: int, dtype: Any = np.float32, sharding: NamedSharding = everywhere) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)

    width, classes = sizes.features, sizes.classes
    if name == "linear_probe":
        size = classification.probe_block(sizes.labelled, width, classes, 1, mesh.size)
        count = -(-sizes.labelled // (size * mesh.size)) * size * mesh.size
        x, train_on = of(count, width, sharding=rows), of(count, 1, sharding=rows)
        labels = of(count, dtype=np.int32, sharding=rows)
        where: dict[str, Any] = {"mesh": mesh, "size": size}
        classifier = of(width, 1, classes), of(1, classes)
        yield classification._moments.lower(x, of(dtype=np.int32), **where)
        yield classification._turn.lower(x, of(1, width), of(width, width), **where)
        yield classification._curvature.lower(*classifier, x, train_on, **where)
        numbers = of(width), of(1, classes), of(), of()
        yield classification._fit.lower(*classifier, x, labels, train_on, *numbers, **where)
    if name == "knn":
        best = of(sizes.test, EVALS["knn"]["k"]), of(sizes.test, EVALS["knn"]["k"], dtype=np.int32)
        block = memory.BLOCK
        index = of(block * mesh.size, width, sharding=rows)
        how: dict[str, Any] = {"mesh": mesh, "block": block, "cosine": True}
        first, end = of(dtype=np.int32), of(dtype=np.int32)
        yield search._search.lower(best, of(sizes.test, width), index, first, end, **how)
    if name == "uniformity":
        yield jax.jit(representation.uniformity, static_argnames="t").lower(of(sizes.scored, width), t=2.0)
    if name == "linear_evaluation":
        batch = EVALS[name]["batch"]
        part, model = batch // linear.parts_of(batch), build_model(RECIPE)
        backbone = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 224, 224, 3), np.float32))
        backbone = jax.tree.map(lambda x: of(*x.shape), backbone)
        images, key = of(part, 224, 224, 3, dtype=np.uint8, sharding=rows), of(dtype=jax.random.key(0).dtype)
        views = configs.build(Part("data.augment"), EVALS[name]["augment"])
        fixed = {"apply": model.apply, "augment": views}
        yield linear._encode.lower(backbone, images, key, of(2, dtype=np.int32), **fixed)


def table() -> Iterator[str]:
    tpu.take_compiler()
    machines = {"one GPU": jax.devices()[:1], "4 chips of v5e:4x4": tpu.devices_of(MACHINE)}
    head = ["eval", *(f"{name}: {what}" for name in machines for what in ("a device", "compiled", "host"))]
    yield from map(_line, (head, ["---", *["---:"] * (len(head) - 1)]))
    for name, keywords in EVALS.items():
        line = [name]
        for devices in machines.values():
            mesh = make_mesh(0, 1, devices)
            sizes = IMAGENET._replace(devices=mesh.size)
            asked = configs.parameters(configs.function(configs.EVALS, name))[0]
            stated, counted = memory.needs(name, keywords, asked, sizes), compiled(name, sizes, mesh)
            line += [_gigabytes(stated.device), _gigabytes(counted) if counted else "-", _gigabytes(stated.host)]
        yield _line(line)


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


if __name__ == "__main__":
    for line in table():
        print(line, flush=True)
