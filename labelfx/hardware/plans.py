"""Whether a run fits a TPU slice, what its step moves and what binds, by the TPU compiler."""

import collections
import contextlib
import dataclasses
import importlib.metadata
import math
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from ml_collections import ConfigDict

from labelfx import config as configs
from labelfx.config import ConfigError
from labelfx.data import Dataset
from labelfx.hardware import feeding, tpu
from labelfx.hardware.blank import Blank, blank_dataset, blank_loop
from labelfx.hardware.costs import Collective, collectives, hbm_bytes, product_flops
from labelfx.loop import mesh

CAPTION = """\
Memory is a chip's, of its HBM; a donated state is among the arguments only, and whether all of it fits is the
compiler's verdict. FLOP are the larger of two counts, named in brackets: the compiler's, of all operations but with the
body of a loop once, and the products', of matrix products and convolutions alone but with every turn of a loop. Bytes
moved are those to and from HBM. Collectives are bytes of their arrays, those of gathers once gathered. Of both, the
body of a loop is counted once. compute, memory and interconnect are what these take at the chip's published
peaks (labelfx/hardware/tpu.py has them with their source), that of compute in bfloat16, of which a product of float32
at full precision takes six; the longest of them binds."""

COLUMNS = (
    "topology | chips | fsdp | fits | arguments | temporaries | outputs | code | of HBM | FLOP a step, all chips | "
    "bytes moved a chip | collectives a chip | compute | memory | interconnect | binds | compiled in"
).split(" | ")


@dataclasses.dataclass
class Row:
    """A topology's line of the table; `memory` in bytes, by kind. What does not fit has only what it needs."""

    topology: str
    chips: int
    fsdp: int
    phases: list[int]
    state: int  # bytes of a chip
    products: float  # FLOPs of a chip, as is what follows; see `product_flops`
    repeated: float = 0.0  # what float32 at full precision adds to them
    seconds: float = 0.0
    needed: float = 0.0  # at least: the compiler stops at the first bound that is not met
    usable: float = 0.0
    memory: Mapping[str, int] | None = None
    flops: float = 0.0  # as the compiler counts
    moved: float = 0.0
    collectives: Sequence[Collective] = ()
    machines: int = 1  # that the chips are in

    def times(self) -> dict[str, float]:
        """The roofline, in seconds."""
        chip = tpu.chip_of(self.topology)
        return {
            "compute": (max(self.flops, self.products) + self.repeated) / chip.flops,
            "memory": self.moved / chip.bandwidth,
            "interconnect": sum(each.sent for each in self.collectives) / chip.interconnect,
        }

    def cells(self) -> list[str]:
        head, last = [self.topology, str(self.chips), str(self.fsdp)], f"{self.seconds:.1f} s"
        if self.memory is None:
            needs = f"**no**: at least {_binary(self.needed)} of {_binary(self.usable)}"
            return [*head, needs, *["-"] * (len(COLUMNS) - 5), last]
        used = sum(self.memory.values()) / tpu.chip_of(self.topology).hbm
        flops, counted = max((self.flops, "compiler"), (self.products, "products"))
        sizes: dict[str, int] = collections.Counter()
        for each in self.collectives:
            sizes[each.kind] += each.size
        times = self.times()
        return [
            *head,
            "yes",
            *map(_binary, self.memory.values()),
            f"{100 * used:.2g} %",
            f"{_decimal(flops * self.chips, 'FLOP')} ({counted})",
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
        tpu.check_topology(name)
    rows, notes = [], []
    tpu.take_compiler()
    for name in topology:
        found = compile_for(checked, dataset, name)
        rows += found
        if not fits(found):
            notes.append(f"{name} does not fit. {what_would_fit(checked, dataset, found)}")
    phases = configs.phases(checked)
    names = [row.topology + f", phases {', '.join(map(str, row.phases))}" * (len(phases) > 1) for row in rows]
    lines = [list(COLUMNS), ["---"] + ["---:"] * (len(COLUMNS) - 1)]
    lines += [[name, *row.cells()[1:]] for name, row in zip(names, rows, strict=True)]
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    wanted = {
        name: (sum(phases[row.phases[0]]["batch"].values()) / max(row.times().values()), row.machines)
        for name, row in zip(names, rows, strict=True)
        if row.memory is not None
    }
    return "\n\n".join(filter(None, [table, CAPTION, *notes, feeding.note(checked, wanted)])) + "\n"


def loop_on(config: configs.Run, dataset: Dataset, topology: str) -> Blank:
    return blank_loop(config, dataset, tpu.devices_of(topology))


def compile_for(config: configs.Run, dataset: Dataset, topology: str) -> list[Row]:
    """A row for each step that differs from those of the phases before."""
    loop = loop_on(config, dataset, topology)
    chips = loop.mesh.size
    rows: dict[str, Row] = {}
    for index in range(len(configs.phases(config))):
        with mesh.products(config.matmul_precision):
            traced = loop.trace(index)
            lowered = traced.lower()
        text = lowered.as_text()
        if text in rows:
            rows[text].phases.append(index)
        else:
            products = product_flops(traced.jaxpr.jaxpr) / chips
            repeated = product_flops(traced.jaxpr.jaxpr, as_bfloat16=True) / chips - products
            row = Row(topology, chips, config.fsdp, [index], loop.state_bytes(index), products, repeated)
            row.machines = len({device.process_index for device in loop.mesh.devices.flat})
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
    row.flops, row.moved, row.collectives = cost["flops"], hbm_bytes(text), collectives(text, row.chips)
    return row


def fits(rows: Sequence[Row]) -> bool:
    return all(row.memory is not None for row in rows)


def what_would_fit(config: configs.Run, dataset: Dataset, rows: Sequence[Row]) -> str:
    """One line: the state split over all chips, rematerialisation, the largest fraction of the batch, the next larger
    slice; those of them that fit. They are picked by arithmetic, all but the state taken to be in proportion to the
    rows of a chip, and then compiled; of rematerialisation, which arithmetic knows nothing of, the compiler alone says.
    """
    worst = max(rows, key=lambda row: row.needed)
    phase, topology = worst.phases[0], worst.topology
    sizes = [size for fields in configs.phases(config) for size in fields["batch"].values()]
    divisors = [2**n for n in range(1, 11) if not any(size % (2**n * worst.chips) for size in sizes)]
    remat = dataclasses.replace(config, model=config.model | {"remat": True})
    ways = [
        [(f"--fsdp={worst.chips}", dataclasses.replace(config, fsdp=worst.chips), topology)]
        if config.fsdp < worst.chips
        else [],
        [("--config.model.remat=True", remat, topology)] if {"remat": False}.items() <= config.model.items() else [],
        [(f"1/{n} of the batch", _fraction(config, n), topology) for n in divisors],
        [(slice_, config, slice_) for slice_ in tpu.larger(topology)],
    ]

    def rows_of_a_chip(config: configs.Run, chips: int) -> float:
        return sum(configs.phases(config)[phase]["batch"].values()) / chips

    def would(changed: configs.Run, topology: str) -> bool:
        loop = loop_on(changed, dataset, topology)
        share = rows_of_a_chip(changed, loop.mesh.size) / rows_before
        needed = loop.state_bytes(phase) + (worst.needed - worst.state) * share
        return (needed <= worst.usable or changed is remat) and fits(compile_for(changed, dataset, topology))

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
