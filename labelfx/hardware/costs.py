"""What a program costs: the FLOPs of its products, read from its jaxpr, and what chips exchange, from its HLO."""

import itertools
import math
import re
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params
from jax.lax import Precision

PASSES = {Precision.HIGH: 3, Precision.HIGHEST: 6}  # products of bfloat16 that a TPU makes one of float32 from


def product_flops(jaxpr: Jaxpr, *, as_bfloat16: bool = False) -> int:
    """FLOPs of all matrix products and convolutions, those of a scan as often as it runs them.

    Padding is not counted, as XLA's cost analysis does not. Of a `cond` the dearest branch is; of a `while_loop`, whose
    length the jaxpr does not tell, one turn. `as_bfloat16` counts a product of float32 at more than the default
    precision as often as a TPU, which multiplies in bfloat16, makes it.
    """
    total = 0
    equation: Any  # its arrays' shapes are not in the type
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            found = 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)
            total += found * (_passes(equation) if as_bfloat16 else 1)
        elif name == "conv_general_dilated":
            total += _convolution(equation) * (_passes(equation) if as_bfloat16 else 1)
        elif inner := [product_flops(each, as_bfloat16=as_bfloat16) for each in jaxprs_in_params(equation.params)]:
            total += max(inner) if name == "cond" else sum(inner) * equation.params.get("length", 1)
    return total


def _passes(equation: Any) -> int:
    if any(each.aval.dtype != np.float32 for each in equation.invars):
        return 1
    return max(PASSES.get(each, 1) for each in equation.params["precision"] or [Precision.DEFAULT])


def _convolution(equation: Any) -> int:
    image, kernel, result = (each.aval.shape for each in (*equation.invars, *equation.outvars))
    how = equation.params
    image_axes, kernel_axes, result_axes = how["dimension_numbers"]  # rows or outputs, channels or inputs, then sides
    sides = zip(
        [image[axis] for axis in image_axes[2:]],
        [kernel[axis] for axis in kernel_axes[2:]],
        [result[axis] for axis in result_axes[2:]],
        *(how[key] for key in ("window_strides", "padding", "lhs_dilation", "rhs_dilation")),
        strict=True,
    )
    taps = 1  # pairs of a place in the result and one in the kernel that meet a pixel
    for pixels, width, places, stride, (before, _), spread, gap in sides:
        at = np.arange(places)[:, None] * stride + np.arange(width)[None, :] * gap - before
        taps *= int(np.count_nonzero((at >= 0) & (at <= (pixels - 1) * spread) & (at % spread == 0)))
    return 2 * result[result_axes[0]] * result[result_axes[1]] * kernel[kernel_axes[1]] * taps


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
    """The collectives of a compiled program, from the text of its HLO. Those of a loop's body are there once.

    So are those that the TPU compiler does bit by bit in the course of several fusions, each of which repeats it.
    """
    found, seen, scatters = [], set(), False
    for line in hlo.splitlines():
        if line.endswith("{"):  # a computation begins; the TPU fuses an all-reduce and a slice of what it gives
            scatters = "all-reduce-scatter" in line.partition("(")[0]
        match = _OPERATION.search(line)
        channel = re.search(r"channel_id=\d+", line)
        identity = channel[0] if channel else line
        if not match or identity in seen:
            continue
        seen.add(identity)
        kind, size, group = match["kind"], _size(match["result"]), _group(line, devices)
        if match["start"] and kind == "all-gather":  # the result is (what goes in, what comes out)
            size = size * group // (group + 1)
        if match["start"] and kind == "collective-permute":
            size //= 2
        if kind == "reduce-scatter":
            size *= group
        found.append(Collective("reduce-scatter" if scatters else kind, size, group))
    return found


def hbm_bytes(hlo: str) -> int:
    """Bytes that a compiled TPU program reads from and writes to HBM, from the text of its HLO.

    They are the operands and results of its instructions, but for what the compiler keeps on the chip (`S(1)` in an
    array's layout; XLA's cost analysis counts that too). Instructions in a loop's body are counted once.
    """
    inner = set(re.findall(r"(?:calls|to_apply)=(%[\w.-]+)", hlo))  # what a fusion or a reduction does, on the chip
    total, counted = 0, False
    arrays: dict[str, list[tuple[int, bool]]] = {}
    for line in hlo.splitlines():
        if line.endswith("{"):
            counted = not inner & set(line.split()[:1])
        match = _INSTRUCTION.match(line)
        if not match or not counted:
            continue
        name, result, kind, rest = match.groups()
        arrays[name] = _arrays(result)
        if kind in ("copy-start", "slice-start"):  # the result is (from, to) or (to, from), of which a slice is less
            total += min(size for size, _ in arrays[name][:2]) * sum(in_hbm for _, in_hbm in arrays[name][:2])
        elif kind not in _FREE and not kind.endswith("-done"):
            operands = re.findall(r"%[\w.-]+", rest.partition("), ")[0])
            used = itertools.chain(arrays[name], *(arrays.get(operand, ()) for operand in operands))
            total += sum(size for size, in_hbm in used if in_hbm)
    return total


_INSTRUCTION = re.compile(r"\s+(?:ROOT )?(%[\w.-]+) = (.*?) ([a-z][\w-]*)\((.*)")
_FREE = "parameter constant tuple get-tuple-element bitcast while conditional call".split()


def _size(shapes: str) -> int:
    """Bytes of `f32[8,128]{1,0}` or of a tuple of such."""
    return sum(size for size, _ in _arrays(shapes))


def _arrays(shapes: str) -> list[tuple[int, bool]]:
    """The bytes of each and whether it lies in HBM: `f32[8,128]{1,0:T(8,128)}` does, `{1,0:T(8,128)S(1)}` does not."""
    return [
        (int(width or 8) * math.prod(int(side) for side in shape.split(",") if side) // 8, "S(" not in layout)
        for kind, width, shape, layout in re.findall(r"\b([a-z]+)(\d*)\w*\[([\d,]*)\](\{[^}]*\})?", shapes)
        if (kind, width, shape) != ("u", "32", "")  # the handle of a started operation; pred has no width
    ]


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
