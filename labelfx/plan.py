"""What a run needs of a TPU slice, found without a TPU: the TPU compiler on the very step that `labelfx.train` runs.

    python -m labelfx.plan --config=simclr --topology=v5e:4x4,v5p:4x4x4 [--fsdp=4] [--config.batch.unlabelled=4096]

prints a Markdown table: whether the step fits, memory by kind, FLOPs, bytes, collectives, and the roofline. No data is
read: the shapes of the built-in data sets are known, those of others are given by `--image_shape=H,W,C`,
`--num_classes` and `--num_examples`. The compiler is the package libtpu: `pip install 'labelfx[plan]'`.
"""

import collections
import contextlib
import dataclasses
import fcntl
import importlib.metadata
import importlib.util
import math
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags as absl_flags
from jax.experimental import topologies
from jax.sharding import NamedSharding
from ml_collections import ConfigDict

from labelfx import command, run
from labelfx import config as configs
from labelfx.config import ConfigError, nearest
from labelfx.data import Dataset, Split
from labelfx.data.batches import label_view
from labelfx.data.miners import uniform
from labelfx.mesh import make_mesh, on_every_device, split_rows, split_state
from labelfx.metrics import NEVER
from labelfx.models import stack
from labelfx.models.heads import linear
from labelfx.train import Loop, Phase, check_divisible, jit_step

GIB = 2**30


class Chip(NamedTuple):
    """Published figures of a chip."""

    flops: float  # peak FLOP/s in bfloat16
    hbm: int  # bytes
    bandwidth: float  # of HBM, bytes/s
    interconnect: float  # bytes/s out of a chip over all its ICI links: half of the bidirectional figure


# cloud.google.com/tpu/docs/v4, /v5e, /v5p and /v6e, "System architecture", read in 2026; the interconnect of v4 is 6
# links of 50 GB/s (Jouppi et al. 2023, "TPU v4: An Optically Reconfigurable Supercomputer for Machine Learning").
CHIPS = {
    "v4": Chip(275e12, 32 * GIB, 1200e9, 300e9),
    "v5e": Chip(197e12, 16 * GIB, 819e9, 200e9),
    "v5p": Chip(459e12, 95 * GIB, 2765e9, 600e9),
    "v6e": Chip(918e12, 32 * GIB, 1638e9, 400e9),
}
# The slices that the same pages list, smallest first.
_FLAT = "1x1 2x2 2x4 4x4 4x8 8x8 8x16 16x16".split()
_CUBIC = "2x2x1 2x2x2 2x2x4 2x4x4 4x4x4 4x4x8 4x8x8 8x8x8 8x8x16 8x16x16 16x16x16".split()
SLICES = {"v4": _CUBIC, "v5e": _FLAT, "v5p": [*_CUBIC, "16x16x24"], "v6e": _FLAT}

# (image shape, classes, training images) of the data sources that are one data set.
SHAPES = {
    "digits": ((8, 8, 1), 10, 1415),
    "mnist": ((28, 28, 1), 10, 60_000),
    "fashion_mnist": ((28, 28, 1), 10, 60_000),
    "cifar10": ((32, 32, 3), 10, 50_000),
}

CAPTION = """\
Memory is a chip's, of its HBM; a donated state is among the arguments only, and whether all of it fits is the
compiler's verdict. FLOP and bytes are the compiler's cost analysis, which counts the body of a loop once and bytes to
on-chip memory too; collectives are bytes of their arrays, those of gathers once gathered. compute, memory and
interconnect are what these take at the chip's published peaks (bfloat16); the longest of them binds."""

COLUMNS = (
    "topology | chips | fsdp | fits | arguments | temporaries | outputs | code | of HBM | FLOP a step, all chips | "
    "bytes moved a chip | collectives a chip | compute | memory | interconnect | binds | compiled in"
).split(" | ")


class Collective(NamedTuple):
    """An operation between chips."""

    kind: str
    size: int  # bytes of the array that a chip puts in, or gets out where arrays are gathered
    group: int  # chips that take part together

    @property
    def sent(self) -> float:
        """The bytes that a chip must send at least, as a ring does (Patarasuk & Yuan 2009 for the all-reduce)."""
        share = (self.group - 1) / self.group
        return self.size * {"all-reduce": 2 * share, "collective-permute": 1.0}.get(self.kind, share)


_OPERATION = re.compile(
    r"= (?P<result>(?:[^=]|/\*index=\d+\*/)+?) "
    r"(?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?P<start>-start)?\("
)


def collectives(hlo: str, devices: int) -> list[Collective]:
    """The collectives of a compiled program, from the text of its HLO. Those of a loop's body are there once."""
    found, scatters = [], False
    for line in hlo.splitlines():
        if line.endswith("{"):  # a computation begins; the TPU fuses an all-reduce and a slice of what it gives
            scatters = "all-reduce-scatter" in line.partition("(")[0]
        match = _OPERATION.search(line)
        if not match:
            continue
        kind, size, group = match["kind"], _size(match["result"]), _group(line, devices)
        if match["start"] and kind == "all-gather":  # the result is (what goes in, what comes out)
            size = size * group // (group + 1)
        if match["start"] and kind == "collective-permute":
            size //= 2
        if kind == "reduce-scatter":
            size *= group
        found.append(Collective("reduce-scatter" if scatters else kind, size, group))
    return found


def _size(shapes: str) -> int:
    """Bytes of `f32[8,128]{1,0}` or of a tuple of such."""
    bits = 0
    for kind, width, shape in re.findall(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\]", shapes):
        if (kind, width, shape) != ("u", "32", ""):  # the handles of a started operation
            bits += int(width or 8) * math.prod(int(side) for side in shape.split(",") if side)  # pred has no width
    return bits // 8


def _group(line: str, devices: int) -> int:
    """Chips of a group. `replica_groups` is one of `{{0,1},{2,3}}`; `[2,2]<=[4]`, groups by chips; `mesh['a'=2,'b'=2]
    {'b'}`, the axes that are summed over; `{}`, all."""
    if match := re.search(r"replica_groups=mesh\[(.*?)\][^{]* \{(.*?)\}", line):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match[2])  # a part of an axis is 'b':(1)2
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", line):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", line):
        return len(match[1].split(","))
    return devices


@dataclasses.dataclass
class Row:
    """A topology's line of the table; `memory` in bytes, by kind. What does not fit has only what it needs."""

    topology: str
    chips: int
    fsdp: int
    phases: list[int]
    state: int  # bytes of a chip
    seconds: float = 0.0
    needed: float = 0.0
    usable: float = 0.0
    memory: Mapping[str, int] | None = None
    flops: float = 0.0  # of a chip, as is what follows
    moved: float = 0.0
    collectives: Sequence[Collective] = ()

    def times(self) -> dict[str, float]:
        """The roofline, in seconds."""
        chip = CHIPS[self.topology.partition(":")[0]]
        return {
            "compute": self.flops / chip.flops,
            "memory": self.moved / chip.bandwidth,
            "interconnect": sum(each.sent for each in self.collectives) / chip.interconnect,
        }

    def cells(self) -> list[str]:
        head, last = [self.topology, str(self.chips), str(self.fsdp)], f"{self.seconds:.1f} s"
        if self.memory is None:
            needs = f"**no**: needs {_binary(self.needed)} of {_binary(self.usable)}"
            return [*head, needs, *["-"] * (len(COLUMNS) - 5), last]
        used = sum(self.memory.values()) / CHIPS[self.topology.partition(":")[0]].hbm
        sizes: dict[str, int] = collections.Counter()
        for each in self.collectives:
            sizes[each.kind] += each.size
        times = self.times()
        return [
            *head,
            "yes",
            *map(_binary, self.memory.values()),
            f"{100 * used:.2g} %",
            _decimal(self.flops * self.chips, "FLOP"),
            _decimal(self.moved, "B"),
            ", ".join(f"{kind} {_decimal(size, 'B')}" for kind, size in sorted(sizes.items())) or "none",
            *(f"{1e3 * each:.3g} ms" for each in times.values()),
            max(times, key=lambda name: times[name]),
            last,
        ]


def _decimal(value: float, unit: str) -> str:
    power = min(max(int(math.log10(value)) // 3, 0), 6) if value else 0
    return f"{value / 1000**power:.3g} {' kMGTPE'[power].strip()}{unit}"


def _binary(size: float) -> str:
    power = min(max(int(math.log2(size)) // 10, 1), 3) if size else 1
    return f"{size / 1024**power:.3g} {'KMG'[power - 1]}iB"


@dataclasses.dataclass
class Blanks:
    """Images of a data set that nobody has read."""

    shape: tuple[int, ...]
    dtype = np.dtype(np.uint8)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.broadcast_to(np.uint8(0), (len(rows), *self.shape[1:]))


class Blank(Loop):
    """The loop of a run on blank images, from a blank backbone: what its arrays look like, never what is in them."""

    def trained(self, field: str, index: int, where: str) -> Any:
        model = self.model
        if field == "teacher":
            own = self.model if where == "previous" else run.build_model(run.load_config(Path(where)))
            model = stack(backbone=own, head=linear(features=len(self.dataset.class_names)))
        image = jax.ShapeDtypeStruct((1, *self.view.split.images.shape[1:]), np.float32)
        shapes = jax.eval_shape(model.init, self.root, image)
        variables = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), x.shape), shapes)
        return run.Teacher(model, variables) if field == "teacher" else variables

    def check_memory(self, shapes: Any) -> None:
        """The compiler's to say."""

    def columns(self, phase: Phase) -> dict[str, np.ndarray]:
        """A table as the method makes it of a few blank images. What a miner adds, the step does not read."""
        if phase.method.refresh is None:
            return {}
        shapes = jax.eval_shape(phase.method.init, self.root, self.example(phase, {}))
        state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes)
        images, labels = self.view.split
        few = Split(Blanks((8, *images.shape[1:])), labels[:8])
        try:
            table = phase.method.refresh(state, few, self.root)
        except ValueError as error:
            raise ConfigError(f"config.method: its table cannot be made without data ({error})") from error
        return {k: np.broadcast_to(np.ones((), x.dtype), (len(images), *x.shape[1:])) for k, x in table.items()}

    def state_bytes(self, index: int) -> int:
        """What a phase's state takes of a device."""
        leaves = jax.tree.leaves(self.shapes(self.build(index)))
        return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in leaves)

    def lower(self, index: int) -> jax.stages.Lowered:
        """A phase's step, ready to compile for the devices of the mesh."""
        phase = dataclasses.replace(self.build(index), miner=uniform())
        self.table, self.state = self.columns(phase), self.shapes(phase)
        batch, frozen = self.example(phase, self.table), phase.method.frozen

        def placed(tree: Any, sharding: NamedSharding) -> Any:
            return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

        everywhere = on_every_device(self.mesh)
        bad, key = placed(({name: np.int32(NEVER) for name in self.metrics(phase)}, self.root), everywhere)
        fixed = {}
        if frozen is not None:
            del batch["frozen"]
            fixed["frozen"] = jax.tree.map(placed, frozen, split_state(self.mesh, frozen))
        if self.on_device:
            count, *shape = self.view.split.images.shape
            count = -(-count // self.mesh.size) * self.mesh.size
            fixed["images"] = placed(jax.ShapeDtypeStruct((count, *shape), np.uint8), split_rows(self.mesh))
            for stream in batch["audit"]:
                del batch[stream]["image"]
        batches = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
        step = jit_step(phase.method, self.mesh, self.state)
        return step.lower(self.state, bad, fixed, placed(batches, split_rows(self.mesh, axis=1)), key, np.int32(0))


def plan(
    config: ConfigDict | Mapping[str, Any],
    topology: Sequence[str],
    *,
    fsdp: int | None = None,
    image_shape: Sequence[int] | None = None,
    num_classes: int | None = None,
    num_examples: int | None = None,
) -> str:
    """The table as Markdown, with a line below for each topology that the run does not fit on.

    Args:
      config: as for `labelfx.train`; its `devices` do not matter.
      topology: slices such as "v5e:4x4".
      fsdp: replaces the config's.
      image_shape, num_classes, num_examples: of the training images, where the data source does not tell or to plan for
        others.

    Raises:
      ConfigError: the configuration cannot run on such a slice, there is no such slice, or no compiler.
    """
    checked = configs.check(config)
    if fsdp is not None:
        checked = configs.check(dataclasses.replace(checked, fsdp=fsdp))
    dataset = blank_dataset(checked, image_shape, num_classes, num_examples)
    for name in topology:
        check_topology(name)
    rows, notes = [], []
    with _compiler():
        for name in topology:
            found = compile_for(checked, dataset, name)
            rows += found
            if not fits(found):
                notes.append(f"{name} does not fit. {what_would_fit(checked, dataset, found)}")
    several = len(configs.phases(checked)) > 1
    lines = [list(COLUMNS), ["---"] + ["---:"] * (len(COLUMNS) - 1), *(row.cells() for row in rows)]
    for line, row in zip(lines[2:], rows, strict=True):
        line[0] += f", phases {', '.join(map(str, row.phases))}" if several else ""
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, CAPTION, *notes]) + "\n"


def blank_dataset(
    config: configs.Run, image_shape: Sequence[int] | None, num_classes: int | None, num_examples: int | None
) -> Dataset:
    """The shapes of the data set, as far as they matter, without its content."""
    name = config.data["name"].partition(":")[0]
    shape, classes, count = SHAPES.get(name, (None, None, None))
    if name == "folder":
        shape = (config.data["image_size"], config.data["image_size"], config.data["channels"])
    found: dict[str, Any] = {
        "image_shape": image_shape or shape,
        "num_classes": num_classes or classes,
        "num_examples": num_examples or count,
    }
    for flag, value in found.items():
        if value is None:
            raise ConfigError(f"--{flag}: missing; {config.data['name']!r} is not read, so it must be given")
    train = Split(Blanks((found["num_examples"], *found["image_shape"])), np.zeros(found["num_examples"], np.int32))
    return Dataset(train, train, tuple(map(str, range(found["num_classes"]))))


def check_topology(name: str) -> None:
    """ConfigError with the nearest names unless there is such a slice."""
    generation, _, shape = name.partition(":")
    if shape not in SLICES.get(generation, ()):
        known = [generation] if generation in SLICES else SLICES
        allowed = [f"{chip}:{shape}" for chip in known for shape in SLICES[chip]]
        raise ConfigError(f"--topology={name}: no such slice; {nearest(name, allowed)}")


@contextlib.contextmanager
def _compiler() -> Iterator[None]:
    """The TPU compiler, which lets one process of a machine use it at a time."""
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError("the TPU compiler is not installed: pip install 'labelfx[plan]' (Linux only)")
    # Without these it looks for a TPU machine's metadata server, and says at length that there is none.
    quiet = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_ACCELERATOR_TYPE": "v5litepod-4"}
    for name, value in {**quiet, "TPU_STDERR_LOG_LEVEL": "3", "TPU_MIN_LOG_LEVEL": "3"}.items():
        os.environ.setdefault(name, value)
    path = Path(tempfile.gettempdir(), "labelfx_plan.lock")
    if not path.exists():  # another user's cannot be touched, and need not be
        path.touch()
    with path.open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"another plan is being made on this machine ({path}); waiting for it", file=sys.stderr)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def devices_of(topology: str) -> Sequence[Any]:
    """The slice's chips, each as one device, as JAX shows them on a TPU machine."""
    # Unless told so, the two cores of a v4 chip are devices of their own.
    chip = {"chip_config_name": "megacore"} if topology.startswith("v4:") else {}
    return topologies.get_topology_desc(platform="tpu", topology_name=topology, **chip).devices


def blank_loop(config: configs.Run, dataset: Dataset, topology: str) -> Blank:
    devices = devices_of(topology)
    check_divisible(config, len(devices))
    return Blank(
        config=config,
        workdir=Path(),
        dataset=dataset,
        view=label_view(dataset.train, np.arange(len(dataset.train.images))),
        model=run.build_model(config),
        mesh=make_mesh(0, config.fsdp, among=devices),
        root=jax.random.key(config.seed),
    )


def compile_for(config: configs.Run, dataset: Dataset, topology: str) -> list[Row]:
    """A row for each step that differs from those of the phases before."""
    loop = blank_loop(config, dataset, topology)
    rows: dict[str, Row] = {}
    for index in range(len(configs.phases(config))):
        lowered = loop.lower(index)
        text = lowered.as_text()
        if text in rows:
            rows[text].phases.append(index)
        else:
            row = Row(topology, loop.mesh.size, config.fsdp, [index], loop.state_bytes(index))
            rows[text] = _compiled(lowered, row)
    return list(rows.values())


def _compiled(lowered: jax.stages.Lowered, row: Row) -> Row:
    begin = time.perf_counter()
    try:
        with warnings.catch_warnings():
            # A persistent cache of compiled programs cannot give one back that no machine here can run.
            warnings.filterwarnings("ignore", "Error reading persistent compilation cache")
            program: Any = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        sizes = re.findall(r"([\d.]+)([KMGT])\b", str(error))  # needed, usable
        if "RESOURCE_EXHAUSTED" not in str(error) or len(sizes) < 2:
            raise
        row.needed, row.usable = (float(size) * 1024 ** (1 + "KMGT".index(unit)) for size, unit in sizes[:2])
        row.seconds = time.perf_counter() - begin
        return row
    row.seconds = time.perf_counter() - begin
    try:
        text = program.as_text()
    except jax.errors.JaxRuntimeError as error:
        versions = f"libtpu {importlib.metadata.version('libtpu')} does not go with JAX {jax.__version__}"
        raise ConfigError(f"{versions}: pip install 'jax[tpu]=={jax.__version__}' has the one that does") from error
    memory, cost = program.memory_analysis(), program.cost_analysis()
    row.memory = {
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "outputs": memory.output_size_in_bytes - memory.alias_size_in_bytes,
        "code": memory.generated_code_size_in_bytes,
    }
    row.flops, row.moved = cost["flops"], cost["bytes accessed"]
    row.collectives = collectives(text, row.chips)
    return row


def fits(rows: Sequence[Row]) -> bool:
    return all(row.memory is not None for row in rows)


def what_would_fit(config: configs.Run, dataset: Dataset, rows: Sequence[Row]) -> str:
    """One line: the state split over all chips, the largest fraction of the batch, the next larger slice; those of them
    that fit. They are picked by arithmetic, all but the state taken to be in proportion to the rows of a chip, and then
    compiled."""
    worst = max(rows, key=lambda row: row.needed)
    phase = worst.phases[0]
    generation, _, shape = worst.topology.partition(":")
    larger = [f"{generation}:{other}" for other in SLICES[generation][SLICES[generation].index(shape) + 1 :]]
    split = dataclasses.replace(config, fsdp=worst.chips)
    sizes = [size for fields in configs.phases(config) for size in fields["batch"].values()]
    divisors = [2**n for n in range(1, 11) if not any(size % (2**n * worst.chips) for size in sizes)]
    ways = [
        [(f"--fsdp={worst.chips}", split, worst.topology)] if config.fsdp < worst.chips else [],
        [(f"1/{n} of the batch", _fraction(config, n), worst.topology) for n in divisors],
        [(slice_, config, slice_) for slice_ in larger],
    ]

    def rows_of_a_chip(config: configs.Run, chips: int) -> float:
        return sum(configs.phases(config)[phase]["batch"].values()) / chips

    def would(config: configs.Run, topology: str) -> bool:
        loop = blank_loop(config, dataset, topology)
        share = rows_of_a_chip(config, loop.mesh.size) / rows_before
        needed = loop.state_bytes(phase) + (worst.needed - worst.state) * share
        return needed <= worst.usable and fits(compile_for(config, dataset, topology))

    rows_before, found = rows_of_a_chip(config, worst.chips), []
    for way in ways:
        with contextlib.suppress(ConfigError):  # such as a larger slice that does not divide the batch
            found += next(([words] for words, changed, topology in way if would(changed, topology)), [])
    return f"Any of these would fit, as compiled: {', '.join(found)}." if found else "Nothing that was tried would."


def _fraction(config: configs.Run, divisor: int) -> configs.Run:
    """The same run with every batch divided."""

    def divide(sizes: Mapping[str, int]) -> dict[str, int]:
        return {stream: size // divisor for stream, size in sizes.items()}

    phases = tuple(phase | ({"batch": divide(phase["batch"])} if "batch" in phase else {}) for phase in config.phases)
    return dataclasses.replace(config, batch=divide(config.batch), phases=phases)


def main() -> None:
    absl_flags.DEFINE_integer("fsdp", None, "chips that share one copy of the state; the config's by default")
    absl_flags.DEFINE_list("image_shape", None, "H,W,C of the images, where the data source does not tell")
    absl_flags.DEFINE_integer("num_classes", None, "classes of the data set, where the data source does not tell")
    absl_flags.DEFINE_integer("num_examples", None, "training images, where the data source does not tell")
    strings = {"topology": "slices such as v5e:4x4, with commas between them"}
    jax.config.update("jax_platforms", "cpu")  # the TPU is one to compile for; there is none to run on

    def show(flags: Any) -> None:
        shape = tuple(int(side) if side.isdecimal() else 0 for side in flags.image_shape or ())
        if flags.image_shape is not None and (len(shape) != 3 or 0 in shape):
            raise ConfigError(f"--image_shape={','.join(flags.image_shape)}: must be H,W,C, three integers >= 1")
        sizes = {"num_classes": flags.num_classes, "num_examples": flags.num_examples}
        for name, value in sizes.items():
            if value is not None and value < 1:
                raise ConfigError(f"--{name}={value}: must be an integer >= 1")
        print(plan(flags.config, flags.topology.split(","), fsdp=flags.fsdp, image_shape=shape, **sizes), end="")

    command.run(show, config=True, strings=strings)


if __name__ == "__main__":
    main()
